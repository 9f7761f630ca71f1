"""Pods that never start or are killed by the kernel: the evaluation fails with Kubernetes' own reason."""

from pathlib import Path

import pytest

from tests.e2e.system import PATIENCE_SECONDS, System, overlay_file

pytestmark = pytest.mark.timeout(PATIENCE_SECONDS + 60)


def test_a_pod_that_never_starts_fails_its_run_with_the_reason_and_leaves_no_job(
    system: System, tmp_path: Path
) -> None:
    variables = {
        "BUDEVAL_ENGINE_IMAGE": "localhost/no-such-image:0",
        "BUDEVAL_IMAGE_PULL_POLICY": "Never",
        "BUDEVAL_PENDING_GRACE": "5",
    }
    with system.second_service(tmp_path, **variables) as service:
        evaluation = service.evaluation().start()
        story = evaluation.story("FAILED", 60)
        assert story.failure is not None
        assert story.failure["error_category"] == "ErrImageNeverPull"
        assert "no-such-image" in story.failure["error_details"][0]["message"]
        assert evaluation.objects("Job") == []


def test_an_engine_without_enough_memory_fails_its_run_with_the_reason(system: System, tmp_path: Path) -> None:
    resources = {"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}}
    variables = {
        "BUDEVAL_POD_TEMPLATE_OVERLAY": str(overlay_file(tmp_path / "overlay.yaml", resources=resources)),
        "BUDEVAL_JOB_BACKOFF_LIMIT": "0",
    }
    with system.second_service(tmp_path, **variables) as service:
        story = service.evaluation().start().story("FAILED")
        assert story.failure is not None
        assert story.failure["error_category"] in ("OOMKilled", "OutOfMemory")
        assert "memory limit" in story.failure["error_details"][0]["message"]

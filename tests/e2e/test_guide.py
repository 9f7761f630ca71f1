"""The guide's own testing steps, as they stand there."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from tests.cluster import make_volume, until
from tests.contract import Asked, Story, read_story
from tests.dapr_harness import TOPIC, answers, listening
from tests.e2e.system import DATASET, Evaluation, System, in_order

EVAL_ID = "444e4567-e89b-12d3-a456-426614174020"
RUN_ID = "test-monitor-pattern-001"
API_KEY = "sk-BudLiteLLMMasterKey_123"
START_EVALUATION = """\
curl -X POST http://localhost:8099/evals/start \\
  -H "Content-Type: application/json" \\
  -d '{
    "eval_id": "444e4567-e89b-12d3-a456-426614174020",
    "experiment_id": "123e4567-e89b-12d3-a456-426614174000",
    "eval_model_info": {
      "model_name": "gpt-oss-20b",
      "endpoint": "ENDPOINT",
      "api_key": "sk-BudLiteLLMMasterKey_123",
      "extra_args": {
        "query_per_second": "50",
        "max_out_len": "2048",
        "max_seq_len": "4096"
      }
    },
    "eval_datasets": [
      {
        "dataset_id": "demo_gsm8k_chat_gen",
        "run_id": "test-monitor-pattern-001"
      }
    ],
    "eval_configs": [],
    "engine": "opencompass",
    "source": "budapp",
    "source_topic": "budapp-notifications"
  }'
"""
LOG_LINES = (
    "All jobs deployed, starting monitoring step",
    "Monitor check #0: tracking 1 jobs",
    "Monitoring in progress: 1 jobs remaining",
    "Job test-monitor-pattern-001 completed successfully",
    "All jobs completed",
    "Extracting results from 1 completed jobs",
)
CLEAN_END_SECONDS = 30
QUESTIONS = Path(__file__).parent / "questions"
"""Eight questions of our own in the format of GSM8K, which is not at hand; under the project's licence."""
GUIDE_VOLUME = "budeval-guide-data"
"""Of this test alone: what the user has on the stack's own volume is not touched."""
GRANT: list[dict[str, Any]] = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": GUIDE_VOLUME},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["persistentvolumeclaims"],
                "resourceNames": [GUIDE_VOLUME],
                "verbs": ["get"],
            }
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": GUIDE_VOLUME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": GUIDE_VOLUME},
        "subjects": [{"kind": "ServiceAccount", "name": "budeval", "namespace": "development"}],
    },
]
"""The service's own Role names the stack's claim alone."""


@dataclass(frozen=True)
class DaprRun:
    """``dapr run`` with the service and its sidecar below it."""

    process: subprocess.Popen[bytes]
    output: Path

    def stop(self) -> int:
        """Ends it as a terminal does, and answers its exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(CLEAN_END_SECONDS)


@contextmanager
def dapr_run(system: System, directory: Path, variables: Mapping[str, str]) -> Iterator[DaprRun]:
    """What a user types: source the environment, then ``dapr run --run-file ./app.yaml``."""
    exports = "".join(f" && export {name}={value}" for name, value in variables.items())
    output = directory / "dapr-run.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", f". {system.settings.state}/env{exports} && exec dapr run --run-file ./app.yaml"],
            cwd=system.settings.root,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield DaprRun(process, output)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture
def fresh_evaluation(system: System) -> Evaluation:
    """The guide's evaluation, of which nothing is left from an earlier run of this test."""
    evaluation = system.evaluation({RUN_ID: DATASET})
    evaluation.body["eval_id"] = EVAL_ID
    evaluation.remove()
    return evaluation


@pytest.fixture
def volume_with_questions(system: System, fresh_evaluation: Evaluation) -> Iterator[Path]:
    """A volume on which the guide's data set was laid out as the documentation says; claimed as ``GUIDE_VOLUME``."""
    volume = system.settings.state / "test-volumes" / f"guide-{token_hex(4)}"
    volume.mkdir(parents=True)
    # Kubernetes makes the directories of the runs with the mode of their volume.
    volume.chmod(0o777)
    install = [sys.executable, "-m", "dev.datasets", "install", "--root", volume / "datasets"]
    try:
        subprocess.run([*install, "--from", QUESTIONS, "gsm8k"], cwd=system.settings.root, check=True, timeout=30)
        make_volume(system.admin, volume, GUIDE_VOLUME, name=GUIDE_VOLUME)
        for grant in GRANT:
            system.admin.made(grant)
        until(lambda: system.admin.get("PersistentVolumeClaim", GUIDE_VOLUME)["status"]["phase"] == "Bound")
        yield volume
    finally:
        fresh_evaluation.remove()
        for kind in ("RoleBinding", "Role", "PersistentVolumeClaim", "PersistentVolume"):
            system.admin.delete(kind, GUIDE_VOLUME)
        until(lambda: GUIDE_VOLUME not in system.admin.names("PersistentVolumeClaim"))
        shutil.rmtree(volume, ignore_errors=True)


def send(system: System) -> str:
    """Runs the guide's command; answers what the service said."""
    command = ["bash", "-c", START_EVALUATION.replace("ENDPOINT", system.endpoint)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def read_story_since(system: System, already_told: int) -> Story:
    """What this run of the guide told; its eval_id, and so its event ids, are those of earlier runs."""

    def told() -> list[dict[str, Any]]:
        return system.published(EVAL_ID)[already_told:]

    until(lambda: [item["payload"]["event"] for item in told()].count("evaluate_model_status") == 2, 20)
    return read_story(told(), Asked(EVAL_ID, [RUN_ID], TOPIC))


@pytest.mark.timeout(420)
def test_the_steps_of_the_guide_work_as_written(
    system: System, fresh_evaluation: Evaluation, volume_with_questions: Path, tmp_path: Path
) -> None:
    evaluation, ports = fresh_evaluation, system.settings.ports
    already_told = len(system.published(EVAL_ID))
    # A record and a state of their own: the guide's eval_id can be used but once in each.
    variables = {
        "BUDEVAL_DATABASE_URL": f"sqlite:///{tmp_path / 'record.sqlite'}",
        "BUDEVAL_STATE_FILE": f"file:{tmp_path / 'state.sqlite'}",
        "BUDEVAL_PVC_NAME": GUIDE_VOLUME,
    }
    with system.service_stopped(), dapr_run(system, tmp_path, variables) as running:
        until(lambda: answers(f"{system.url}/readyz"), 60, 0.5)
        answer = json.loads(send(system))
        assert (answer["object"], answer["workflow_id"]) == ("workflow_metadata", EVAL_ID)
        until(lambda: evaluation.view()["status"] not in ("PENDING", "RUNNING"), 300, 1)
        assert evaluation.view()["status"] == "COMPLETED", evaluation.view()["error"]
        (entry,) = read_story_since(system, already_told).results.values()
        assert [line.model_dump() for line in entry.scores] == evaluation.run(RUN_ID)["scores"]
        assert (entry.scores[-1].dataset, entry.scores[-1].metric) == ("demo_gsm8k", "accuracy")
        assert 0 <= entry.scores[-1].score <= 100
        assert evaluation.run(RUN_ID)["progress"] == {"phase": "scoring", "done": 8, "total": 8}
        assert in_order(LOG_LINES, running.output.read_text())
        assert RUN_ID in system.kubectl("get", "jobs")
        assert API_KEY not in running.output.read_text()
        running.stop()
        # The CLI ends when it has told both to end.
        until(lambda: not any(listening(port) for port in (ports.service, ports.daprd_http, ports.daprd_grpc)), 20)


@pytest.mark.timeout(300)
def test_the_job_is_confined_and_knows_the_key_by_reference_only(system: System) -> None:
    evaluation = system.evaluation(api_key=API_KEY, questions=4).start()
    until(lambda: evaluation.objects("Job"), 60)
    job = evaluation.job()
    evaluation.story("COMPLETED")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (key,) = [variable for variable in container["env"] if variable["name"] == "OPENAI_API_KEY"]
    assert "value" not in key
    assert key["valueFrom"]["secretKeyRef"]["key"] == "OPENAI_API_KEY"
    assert API_KEY not in str(job)
    assert job["metadata"]["labels"]["budeval.io/eval-id"] == evaluation.eval_id
    assert job["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "budeval"
    for kind in ("Secret", "ConfigMap"):
        (owned,) = evaluation.objects(kind)
        assert [owner["uid"] for owner in owned["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]

"""The OpenAPI document against the service: schemathesis asks what the document allows, and what it does not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import ErrorInfo, RunResult, Score
from tests.api.test_listing import id_of
from tests.samples import a_request
from tests.scripted_cluster import ScriptedCluster

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
SECONDS = 200
"""It takes about 10; a busy machine takes longer."""
KNOWN_IDS = """
[dictionaries.evaluations]
values = {ids}

[parameters]
"path.eval_id" = {{ dictionary = "evaluations", probability = 0.8 }}
"""
NOBODY = 1
"""A port on which nobody answers."""


@pytest.fixture
def empty(serve):
    return serve(orchestrator=ScriptedCluster(), DAPR_HTTP_PORT=NOBODY), ()


@pytest.fixture
def filled(serve):
    """A service with evaluations that wait, have scores, and have failed."""
    service = serve(orchestrator=ScriptedCluster(), DAPR_HTTP_PORT=NOBODY)
    ids = [id_of(number) for number in range(3)]
    for eval_id in ids:
        assert service.start(a_request(eval_id=eval_id)).status_code == 200
    score = Score(dataset="siqa", version="18632c", metric="accuracy", mode="gen", score=35.42)
    service.record.save_results(ids[1], [RunResult(run_id="test-monitor-pattern-001", scores=[score])])
    service.record.finish(ids[1], WorkflowStatus.COMPLETED)
    service.record.finish(
        ids[2], WorkflowStatus.FAILED, ErrorInfo(reason="ClusterUnreachable", message="nobody answers")
    )
    return service, ids


@pytest.mark.parametrize("state", ["empty", "filled"])
def test_every_answer_is_as_documented_whatever_is_asked(request, tmp_path, state):
    service, ids = request.getfixturevalue(state)
    file = tmp_path / "schemathesis.toml"
    file.write_text(CONFIGURATION.read_text() + (KNOWN_IDS.format(ids=ids) if ids else ""))
    program, document = Path(sys.executable).with_name("schemathesis"), service.client.base_url.join("/openapi.json")
    done = subprocess.run(
        [program, "--config-file", file, "run", str(document), "--checks", "all"],
        cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    if ids:
        assert found(service) >= {f"/evals/{{eval_id}}{part}" for part in ("", "/results", "/timeline", "/events")}


def found(service):
    """Routes that answered a GET with 200."""
    metrics = service.client.get("/metrics").text
    return set(re.findall(r'seconds_count\{method="GET",route="([^"]+)",status="200"\}', metrics))


def test_the_document_is_valid_openapi_3_1(shared):
    Draft202012Validator(OPENAPI_31).validate(shared.client.get("/openapi.json").json())

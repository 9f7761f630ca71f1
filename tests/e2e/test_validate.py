"""A preflight of the running service: real cluster, real image, real model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import until
from tests.e2e.identity import second_identity
from tests.e2e.system import ABSENT_DATASET, DATASET, MODEL, PATIENCE_SECONDS, System
from tests.e2e.test_secrets import KEY, WRONG_KEY_ENDPOINT_KEY, nothing_leaks

pytestmark = pytest.mark.timeout(2 * PATIENCE_SECONDS)


def post(system: System, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{system.url}{path}", json=body, timeout=150)


def statuses(answer: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["status"] for check in answer["checks"]}


def nothing_of_a_probe(system: System) -> bool:
    found = [system.admin.get(kind, labelSelector="app.kubernetes.io/name=budeval-probe")["items"]
             for kind in ("Job", "Pod", "Secret")]  # fmt: skip
    return not any(found)


def test_an_evaluation_that_could_not_run_is_refused_before_anything_exists_and_the_key_stays_secret(
    system: System, tmp_path: Path
) -> None:
    with (
        second_identity(system.admin) as kubeconfig,
        system.keyed_model(tmp_path, WRONG_KEY_ENDPOINT_KEY) as refusing,
        nothing_leaks(system, kubeconfig),
    ):
        runs = {"e2e-there": DATASET, "e2e-absent": ABSENT_DATASET}
        evaluation = system.evaluation(runs, api_key=KEY, kubeconfig=kubeconfig, endpoint=refusing)
        answer = post(system, "/evals/validate", evaluation.body)
        assert answer.status_code == 200, answer.text
        found = statuses(answer.json())
        failed = {name for name, status in found.items() if status == "failed"}
        assert failed == {"endpoint", f"dataset:{ABSENT_DATASET}"}
        assert (found["scheduling"], found["image"], found[f"dataset:{DATASET}"]) == ("ok", "ok", "ok")
        refused = post(system, "/evals/start?validate=true", evaluation.body)
        assert refused.status_code == 422, refused.text
        names = [error["field"] for error in refused.json()["errors"]]
        assert names == [f"dataset:{ABSENT_DATASET}", "endpoint"]
        assert KEY not in answer.text + refused.text
    assert httpx.get(f"{system.url}/evals/{evaluation.eval_id}").status_code == 404
    assert evaluation.objects("Job") == evaluation.objects("Secret") == evaluation.objects("ConfigMap") == []
    until(lambda: nothing_of_a_probe(system), 20)


def test_an_evaluation_that_can_run_runs_after_the_look(system: System) -> None:
    evaluation = system.evaluation()
    response = post(system, "/evals/start?validate=true", evaluation.body)
    assert response.status_code == 200, response.text
    assert evaluation.story("COMPLETED").results


def test_the_command_line_looks_and_lists_what_is_there(system: System) -> None:
    environment = {**os.environ, "BUDEVAL_SERVER": system.url, "BUDEVAL_TOKEN": ""}

    def budeval(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "budeval.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)

    looked = budeval("validate", "-m", MODEL, "-e", system.endpoint, "-d", DATASET, "--json")
    assert (looked.returncode, json.loads(looked.stdout)["ok"]) == (0, True), looked.stdout + looked.stderr
    lost = budeval("validate", "-m", MODEL, "-e", f"http://127.0.0.1:{system.port_of_nobody}/v1", "-d", DATASET)
    assert lost.returncode == 1
    assert "EndpointUnreachable" in lost.stdout
    listed = budeval("datasets", "--present", "--refresh", "--json")
    counts = {item["dataset_id"]: item["questions"] for item in json.loads(listed.stdout)}
    assert counts[DATASET] == 1954
    assert ABSENT_DATASET not in counts

"""A key and a token go to where they are needed, and nowhere else: on success, on failure and after a kill."""

import base64
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.cluster import until
from tests.e2e.identity import second_identity
from tests.e2e.leaks import ProcessWatch, broker_text, database_text, files_with, texts_with
from tests.e2e.system import PATIENCE_SECONDS, Evaluation, System

KEY = "canary-of-e2e-6c1f0b8d2e947a35"
WRONG_KEY_ENDPOINT_KEY = "sk-e2e-another-key"

pytestmark = pytest.mark.timeout(2 * PATIENCE_SECONDS)


def token_of(kubeconfig: str) -> str:
    """The signature of the token: as secret as the whole, and never shortened or split."""
    token: str = json.loads(kubeconfig)["users"][0]["user"]["token"]
    return token.rsplit(".", 1)[1][-64:]


@contextmanager
def nothing_leaks(system: System, kubeconfig: str) -> Iterator[list[Evaluation]]:
    """Takes the evaluations of a test, and looks everywhere for their secrets, during the test and after it."""
    secrets, began = [KEY, token_of(kubeconfig)], time.time()
    evaluations: list[Evaluation] = []
    with ProcessWatch(secrets, system.settings.cgroup) as watch:
        yield evaluations
    assert watch.found == set()
    assert watch.playbooks, "no playbook was ever looked at"
    assert watch.private_files <= {"request.json", "kubeconfig"}
    assert texts_with(secrets, _texts(system, evaluations)) == []
    assert _files_with(system, secrets, began) == []
    # The search finds what is there, in every place.
    places = _texts(system, [])
    for evaluation in evaluations:
        assert texts_with(evaluation.run_ids, places) == list(places)
        assert _files_with(system, [evaluation.run_ids[0]], began) != []


def _texts(system: System, evaluations: list[Evaluation]) -> dict[str, str]:
    state = system.settings.state
    texts = {
        "the record": database_text(state / "record.sqlite"),
        "workflow histories": database_text(state / "state.sqlite"),
        "the broker": broker_text(system.settings.ports.redis),
        "events": json.dumps(list(system.admin.cluster.items("/api/v1/events"))),
    }
    for evaluation in evaluations:
        texts[f"view of {evaluation.eval_id}"] = json.dumps(evaluation.view())
        texts[f"notifications of {evaluation.eval_id}"] = json.dumps(system.delivered(evaluation.eval_id))
        for kind in ("Job", "Pod", "ConfigMap"):
            texts[f"{kind} of {evaluation.eval_id}"] = json.dumps(evaluation.objects(kind))
        for pod in evaluation.objects("Pod"):
            texts[f"log of {pod['metadata']['name']}"] = system.kubectl("logs", pod["metadata"]["name"])
    return texts


def _files_with(system: System, secrets: list[str], began: float) -> list[str]:
    """All files of the stack but the database of Kubernetes and the container runtime's own, which hold the Secret."""
    state = system.settings.state
    kept_by_kubernetes = [state / "etcd", state / "containerd"]
    # The checkout may itself lie under one of these.
    folders = (state, Path("/tmp"), Path("/dev/shm"))
    return [
        found for folder in folders for found in files_with(secrets, folder, since=began, leave_out=kept_by_kubernetes)
    ]


def test_base64_of_a_secret_inside_something_else_is_found() -> None:
    texts = {str(shift): base64.b64encode(b"a" * shift + KEY.encode() + b"behind it").decode() for shift in range(3)}
    assert texts_with([KEY], texts) == list(texts)


def test_neither_success_nor_failure_shows_a_secret(system: System, tmp_path: Path) -> None:
    with (
        second_identity(system.admin) as kubeconfig,
        system.keyed_model(tmp_path, WRONG_KEY_ENDPOINT_KEY) as refusing,
        nothing_leaks(system, kubeconfig) as evaluations,
    ):
        good = system.evaluation(api_key=KEY, kubeconfig=kubeconfig).start()
        bad = system.evaluation(api_key=KEY, kubeconfig=kubeconfig, endpoint=refusing).start()
        evaluations += [good, bad]
        bad.story("FAILED")
        good.story("COMPLETED")


def test_a_kill_in_the_middle_of_the_deployment_shows_no_secret(system: System) -> None:
    with second_identity(system.admin) as kubeconfig, nothing_leaks(system, kubeconfig) as evaluations:
        evaluation = system.evaluation(api_key=KEY, kubeconfig=kubeconfig).start()
        evaluations.append(evaluation)
        until(lambda: _playbook_runs("deploy_eval_job_k8s.yml"), 60, 0.01)
        pid = system.pid("budeval")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: system.pid("budeval") not in (None, pid), 60)
        system.wait_ready()
        evaluation.story("COMPLETED")


def _playbook_runs(name: str) -> bool:
    return any(name in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))

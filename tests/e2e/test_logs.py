"""The engine's log of real runs: while they run, when they have ended, and when their pods are gone."""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.cluster import until
from tests.e2e.identity import second_identity
from tests.e2e.leaks import files_with, texts_with
from tests.e2e.system import MANY_QUESTIONS, PATIENCE_SECONDS, Evaluation, System
from tests.engine.endpoint_double import Asked, EndpointDouble, Reply, answer, error

KEY = "canary/of+e2e=logs-93d1c7b2"
DELETION_SECONDS = 60

pytestmark = pytest.mark.timeout(2 * PATIENCE_SECONDS)


def log(evaluation: Evaluation, **query: str | int) -> httpx.Response:
    """The log of the only run."""
    path = f"{evaluation.url}/evals/{evaluation.eval_id}/runs/{evaluation.run_ids[0]}/logs"
    return httpx.get(path, params=query, timeout=60)


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.text


@contextmanager
def followed(evaluation: Evaluation, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``budeval logs -f`` meanwhile."""
    command = [sys.executable, "-m", "budeval.cli", "--server", evaluation.url, "logs", "-f", evaluation.eval_id]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUTF8": "1"}
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def delete_pods(evaluation: Evaluation) -> None:
    for job in evaluation.objects("Job"):
        evaluation.system.admin.delete("Job", job["metadata"]["name"])
    until(lambda: not evaluation.objects("Pod"), DELETION_SECONDS)


def test_a_log_is_the_same_followed_afterwards_and_from_the_volume(system: System, tmp_path: Path) -> None:
    evaluation = system.evaluation(questions=24).start()
    with followed(evaluation, tmp_path / "followed") as process:
        evaluation.story("COMPLETED")
        assert process.wait(60) == 0
    from_pod = text_of(log(evaluation))
    assert (tmp_path / "followed").read_text() == from_pod
    assert from_pod.splitlines()[-1] == "Completed: All 24 questions are answered and scored."
    assert '{"budeval"' not in from_pod
    delete_pods(evaluation)
    assert text_of(log(evaluation)) == from_pod
    assert text_of(log(evaluation, tail=1)) == from_pod.splitlines(keepends=True)[-1]
    assert text_of(log(evaluation, since="1h")) == from_pod
    assert text_of(log(evaluation, since="0s")) == ""
    assert [job for job in system.admin.names("Job") if "reader" in job] == []


def test_the_last_words_of_a_cancelled_run_come_from_the_mounted_volume(system: System, tmp_path: Path) -> None:
    with system.second_service(tmp_path, BUDEVAL_RESULTS_MOUNT=str(system.settings.data)) as service:
        evaluation = service.evaluation(questions=MANY_QUESTIONS).start()
        with followed(evaluation, tmp_path / "followed") as process:
            evaluation.wait_answers()
            assert "OpenCompass" in text_of(log(evaluation)) or text_of(log(evaluation))
            evaluation.cancel()
            evaluation.story("TERMINATED")
            assert process.wait(120) == 0
        until(lambda: not evaluation.objects("Pod"), DELETION_SECONDS)
        told, whole = (tmp_path / "followed").read_text(), text_of(log(evaluation))
        assert told == whole
        assert "stopped by SIGTERM" in told.splitlines()[-1]


def echo(asked: Asked) -> Reply:
    """Answers some questions, and then refuses with all that an angry endpoint could quote."""
    if asked.number < 3:
        time.sleep(1)
        return answer("A")
    said = [KEY, quote(KEY, safe=""), base64.b64encode(f"user:{KEY}".encode()).decode(), KEY.encode().hex()]
    # The excerpt of an answer is cut at 300 characters: in the middle of a key.
    return error(401, f"{' '.join(said)} " + "x" * (285 - len(" ".join(said))) + f" {KEY} {KEY}")


def test_a_key_that_the_endpoint_quotes_is_in_no_log(system: System, tmp_path: Path) -> None:
    with EndpointDouble(echo).serving() as endpoint:
        evaluation = system.evaluation(endpoint=endpoint.url, api_key=KEY).start()
        with followed(evaluation, tmp_path / "followed") as process:
            evaluation.story("FAILED")
            assert process.wait(60) == 0
    texts = {"followed": (tmp_path / "followed").read_text(), "pod": text_of(log(evaluation))}
    delete_pods(evaluation)
    texts["volume"] = text_of(log(evaluation))
    assert all("EndpointUnauthorized: The endpoint answered 401" in text for text in texts.values())
    assert texts_with([KEY], texts) == []
    assert [name for name, text in texts.items() if "canary" in text] == []
    assert files_with([KEY], system.results / evaluation.eval_id) == []


def test_the_kubeconfig_of_a_request_leads_to_its_log_until_it_is_erased(system: System) -> None:
    with second_identity(system.admin) as kubeconfig:
        evaluation = system.evaluation(kubeconfig=kubeconfig, questions=MANY_QUESTIONS).start()
        assert log(evaluation).status_code in (200, 404)
        evaluation.wait_answers()
        assert text_of(log(evaluation))
        evaluation.cancel()
        evaluation.story("TERMINATED")
        gone = log(evaluation)
        assert gone.status_code == 410
        assert "erased" in gone.json()["detail"]

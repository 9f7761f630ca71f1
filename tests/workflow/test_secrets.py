"""One canary for each secret, looked for in everything that is left on disk, during and after a run."""

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.workflow.conftest import KUBECONFIG_TOKEN
from tests.workflow.stack import Evaluation, Stack

API_KEY = "canary-key-0f2c9b7e51"

SCRIPTS = "world"
"""What the tests themselves wrote."""


def spellings(secret: str) -> Iterator[bytes]:
    """As it is, and in base64 at any alignment."""
    yield secret.encode()
    for padding in range(3):
        encoded = base64.b64encode(b"x" * padding + secret.encode())
        yield encoded[4:-4]


CANARIES = [spelling for secret in (API_KEY, KUBECONFIG_TOKEN) for spelling in spellings(secret)]


def leaks(data: bytes) -> list[bytes]:
    return [canary for canary in CANARIES if canary in data]


def leaking_files(stack: Stack) -> list[str]:
    """Names of the files with a canary in them."""
    return [path.name for path in files(stack) if leaks(path.read_bytes())]


def files(stack: Stack) -> list[Path]:
    folder = stack.directory
    found = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != SCRIPTS]
    assert {"service.log", "daprd.log", "state.sqlite", "record.sqlite", "deliveries.jsonl"} <= {p.name for p in found}
    return found


def assert_nothing_leaked(stack: Stack, evaluation: Evaluation) -> None:
    assert leaking_files(stack) == []
    for instance_id in (evaluation.eval_id, f"{evaluation.eval_id}-monitor"):
        history = workflow_history(stack, instance_id)
        assert b"monitor_jobs" in history
        assert leaks(history) == []
    assert leaks(str(evaluation.view()).encode()) == []


def workflow_history(stack: Stack, instance_id: str) -> bytes:
    """Every event with its inputs and results, as the runtime gives it away to whoever may ask."""
    with stack.workflows() as client:
        return "\n".join(str(event) for event in client.get_workflow_history(instance_id)).encode()


def sealed_secrets(stack: Stack, eval_id: str) -> bytes | None:
    with closing(sqlite3.connect(stack.directory / "record.sqlite", timeout=30)) as record:
        row = record.execute("SELECT sealed_secrets FROM evaluations WHERE eval_id=?", (eval_id,)).fetchone()
    sealed: bytes | None = row[0]
    return sealed


def record_files(stack: Stack) -> bytes:
    return b"".join(path.read_bytes() for path in stack.directory.glob("record.sqlite*"))


def test_secrets_are_sealed_while_an_evaluation_runs_and_erased_when_it_has_ended(
    stack: Stack, kubeconfig: str
) -> None:
    evaluation = stack.evaluation(api_key=API_KEY, kubeconfig=kubeconfig)
    evaluation.script(sweeps=3)
    evaluation.post()
    evaluation.wait_call("sweep")
    sealed = sealed_secrets(stack, evaluation.eval_id)
    assert sealed is not None
    assert sealed in record_files(stack)
    assert_nothing_leaked(stack, evaluation)
    evaluation.story("COMPLETED")
    assert sealed_secrets(stack, evaluation.eval_id) is None
    assert sealed not in record_files(stack)
    assert_nothing_leaked(stack, evaluation)


def test_errors_that_quote_a_secret_are_cleared_of_it(stack: Stack, kubeconfig: str) -> None:
    stack.world.cluster("sweep", error="ClusterUnreachable", times=3, message=f"refused {API_KEY}")
    evaluation = stack.evaluation(api_key=API_KEY, kubeconfig=kubeconfig)
    evaluation.script(sweeps=1, end="Failed", message=f"Incorrect API key provided: {API_KEY}")
    evaluation.post()
    story = evaluation.story("FAILED")
    assert any("could not be asked" in message for message in story.progress)
    assert_nothing_leaked(stack, evaluation)


@pytest.mark.parametrize("method", ["verify", "deploy"])
def test_a_step_that_fails_quoting_a_secret_does_not_tell_it(stack: Stack, method: str) -> None:
    error = {"verify": "ClusterNotReady", "deploy": "DeploymentFailed"}[method]
    stack.world.cluster(method, error=error, message=f"refused {API_KEY}")
    evaluation = stack.start_evaluation(api_key=API_KEY)
    evaluation.story("FAILED")
    assert leaking_files(stack) == []


def test_a_kill_in_the_middle_leaves_no_secret_behind(stack: Stack, kubeconfig: str) -> None:
    stack.world.cluster("deploy", seconds=60)
    evaluation = stack.start_evaluation(api_key=API_KEY, kubeconfig=kubeconfig)
    evaluation.wait_call("deploy")
    stack.service.kill()
    assert leaking_files(stack) == []
    stack.world.calm()
    stack.service.start()
    evaluation.story("COMPLETED")
    assert_nothing_leaked(stack, evaluation)

"""Access with a real sidecar: tokens from its secret store, and requests that come through it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dapr_harness import component, wait_for, write_components
from tests.tokens import ENTRIES, OPERATOR, STRANGER, VIEWER, bearer, entry
from tests.workflow.stack import Evaluation, Stack
from tests.workflow.test_border import TOKENS, publish_request, restart_with_tokens

STORE, SECRET, KEY = "secrets-of-tests", "budeval-tokens", "tokens"
ACCESS: dict[str, str | None] = {
    "BUDEVAL_ACCESS": "required",
    "BUDEVAL_TOKENS_SECRET_STORE": STORE,
    "BUDEVAL_TOKENS_SECRET_NAME": SECRET,
    "BUDEVAL_TOKENS_SECRET_KEY": KEY,
    "BUDEVAL_TOKENS_REFRESH": "0.5",
    "BUDEVAL_FAILURE_LIMIT": "none",
}


def write_secret(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    path.write_text(json.dumps({SECRET: {KEY: json.dumps(list(entries))}}))


@pytest.fixture(scope="module")
def secret(running_stack: Stack) -> Iterator[Path]:
    """The file behind daprd's secret store, which daprd reads when it starts."""
    path = running_stack.directory / "secret-store.json"
    write_secret(path, ENTRIES)
    store = component(STORE, "secretstores.local.file", secretsFile=str(path), multiValued="true")
    write_components(running_stack.directory / "components", store)
    yield path
    (running_stack.directory / "components" / f"{STORE}.yaml").unlink()


@pytest.fixture
def guarded(stack: Stack, secret: Path) -> Iterator[Stack]:
    """The service wants tokens, and it and its sidecar know each other's."""
    write_secret(secret, ENTRIES)
    restart_with_tokens(stack, {**TOKENS, **ACCESS}, dict(TOKENS))
    stack.wait_ready()
    yield stack
    nothing = dict.fromkeys(TOKENS)
    restart_with_tokens(stack, {**dict.fromkeys(ACCESS), **nothing, "BUDEVAL_ACCESS": "off"}, nothing)


def status(stack: Stack, token: str | None) -> int:
    headers = {} if token is None else bearer(token)
    return httpx.get(f"{stack.url}/whoami", headers=headers, timeout=10).status_code


def view(evaluation: Evaluation) -> dict[str, Any]:
    url = f"{evaluation.stack.url}/evals/{evaluation.eval_id}"
    answer = httpx.get(url, headers=bearer(VIEWER), timeout=10)
    found: dict[str, Any] = answer.json() if answer.is_success else {}
    return found


def wait_completed(evaluation: Evaluation) -> dict[str, Any]:
    wait_for(lambda: view(evaluation).get("status") == "COMPLETED", 60, "the evaluation is completed")
    return view(evaluation)


def test_tokens_of_the_secret_store_are_good_and_evaluations_run(guarded: Stack) -> None:
    assert [status(guarded, token) for token in (VIEWER, STRANGER, None)] == [200, 401, 401]
    evaluation = guarded.evaluation()
    start = f"{guarded.url}/evals/start"
    assert evaluation.post().status_code == 401
    assert httpx.post(start, json=evaluation.body, headers=bearer(VIEWER)).status_code == 403
    assert httpx.post(start, json=evaluation.body, headers=bearer(OPERATOR), timeout=20).status_code == 200
    assert wait_completed(evaluation)["requested_by"] == "oscar"


def test_a_request_by_pubsub_is_the_sidecars(guarded: Stack) -> None:
    evaluation = guarded.evaluation()
    publish_request(guarded, evaluation.body)
    assert wait_completed(evaluation)["requested_by"] == "pubsub"


def test_tokens_stay_good_while_the_sidecar_is_away_and_change_when_it_is_back(guarded: Stack, secret: Path) -> None:
    guarded.daprd.stop()
    write_secret(secret, [entry("new", "viewer", STRANGER)])
    assert [status(guarded, token) for token in (VIEWER, STRANGER)] == [200, 401]
    guarded.daprd.start()
    wait_for(lambda: status(guarded, STRANGER) == 200, 20, "the new token is good")
    assert status(guarded, VIEWER) == 401


def test_a_service_that_starts_before_its_sidecar_waits_for_the_tokens(guarded: Stack) -> None:
    guarded.daprd.stop()
    guarded.restart_service()
    assert status(guarded, VIEWER) == 503
    checks = httpx.get(f"{guarded.url}/readyz", timeout=10).json()["checks"]
    assert [check["ok"] for check in checks if check["name"] == "access"] == [False]
    guarded.daprd.start()
    wait_for(lambda: status(guarded, VIEWER) == 200, 20, "the token is good")


def test_no_token_is_in_any_log(guarded: Stack) -> None:
    for token in (VIEWER, STRANGER):
        status(guarded, token)
    told = "".join(part.log.read_text(errors="replace") for part in guarded.parts)
    assert "refused GET /whoami from 127.0.0.1: The token is not known." in told
    assert [token for token in (VIEWER, STRANGER, *TOKENS.values()) if token in told] == []

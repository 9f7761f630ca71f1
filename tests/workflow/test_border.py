"""What comes in and goes out by the sidecar: requests by pub/sub, the two formats, the two tokens."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.dapr_harness import DEAD_LETTERS, HOST, REQUEST_TOPIC, wait_for
from tests.workflow.stack import Evaluation, Stack, change_environment

TOKENS = {"APP_API_TOKEN": "token-of-the-application", "DAPR_API_TOKEN": "token-of-the-sidecar"}


def publish_request(stack: Stack, body: dict[str, Any]) -> None:
    url = f"http://{HOST}:{stack.ports.subscriber_http}/v1.0/publish/pubsub-redis/{REQUEST_TOPIC}"
    httpx.post(url, json=body, timeout=10).raise_for_status()


def wait_for_start(evaluation: Evaluation) -> None:
    url = f"{evaluation.stack.url}/evals/{evaluation.eval_id}"
    wait_for(lambda: httpx.get(url, timeout=10).is_success, 20, "the evaluation is known")


def test_a_request_by_pubsub_runs_as_one_by_http_does(stack: Stack) -> None:
    evaluation = stack.evaluation()
    publish_request(stack, evaluation.body)
    wait_for_start(evaluation)
    evaluation.story("COMPLETED")


def test_a_request_by_pubsub_that_comes_twice_runs_once(stack: Stack) -> None:
    evaluation = stack.evaluation()
    publish_request(stack, evaluation.body)
    publish_request(stack, evaluation.body)
    wait_for_start(evaluation)
    evaluation.story("COMPLETED")
    assert len(evaluation.calls("deploy")) == 1


@pytest.mark.parametrize("change", [{"eval_datasets": []}, {"engine": "unknown"}, {"surprise": 1}])
def test_a_bad_request_by_pubsub_goes_to_the_dead_letters(stack: Stack, change: dict[str, Any]) -> None:
    evaluation = stack.evaluation()
    publish_request(stack, {**evaluation.body, **change})
    letters = wait_for(lambda: evaluation.delivered(DEAD_LETTERS), 20, "the request is among the dead letters")
    assert letters[0]["data"]["eval_id"] == evaluation.eval_id
    assert httpx.get(f"{stack.url}/evals/{evaluation.eval_id}").status_code == 404


@pytest.fixture
def cloud_events(stack: Stack) -> Iterator[Stack]:
    """The service publishes plain CloudEvents."""
    stack.restart_service(BUDEVAL_NOTIFICATION_FORMAT="cloudevents")
    stack.wait_ready()
    yield stack
    stack.restart_service(BUDEVAL_NOTIFICATION_FORMAT=None)


def test_plain_cloud_events_carry_the_same_under_data(cloud_events: Stack) -> None:
    evaluation = cloud_events.evaluation(runs=2)
    evaluation.script(1, sweeps=1, end="Failed")
    evaluation.post()
    story = evaluation.story("COMPLETED")
    assert [message["id"] for message in evaluation.published()] == story.event_ids


def restart_with_tokens(stack: Stack, service: dict[str, str | None], sidecar: dict[str, str | None]) -> None:
    stack.service.stop()
    stack.daprd.stop()
    change_environment(stack.service, service)
    change_environment(stack.daprd, sidecar)
    stack.service.start()
    stack.daprd.start()


@pytest.fixture
def guarded(stack: Stack) -> Iterator[Stack]:
    """The service and its sidecar know each other's tokens."""
    restart_with_tokens(stack, dict(TOKENS), dict(TOKENS))
    stack.wait_ready()
    yield stack
    nothing = dict.fromkeys(TOKENS)
    restart_with_tokens(stack, nothing, nothing)


def test_with_both_tokens_evaluations_run_and_callers_without_are_refused(guarded: Stack) -> None:
    evaluation = guarded.evaluation()
    publish_request(guarded, evaluation.body)
    wait_for_start(evaluation)
    evaluation.story("COMPLETED")
    for headers in ({}, {"dapr-api-token": "wrong"}):
        for method, path in (("GET", "/dapr/subscribe"), ("POST", "/events/evaluations")):
            assert httpx.request(method, guarded.url + path, headers=headers).status_code == 401


def test_with_a_wrong_sidecar_token_nothing_runs_and_readiness_says_why(guarded: Stack) -> None:
    guarded.restart_service(DAPR_API_TOKEN="wrong")
    evaluation = guarded.start_evaluation()
    report = httpx.get(f"{guarded.url}/readyz", timeout=10)
    assert report.status_code == 503
    assert "pubsub" in [check["name"] for check in report.json()["checks"] if not check["ok"]]
    assert evaluation.view()["status"] == "PENDING"
    guarded.restart_service(**TOKENS)
    evaluation.story("COMPLETED", 60)

"""A retry on real parts, proven by counting the questions that reach the endpoint; and what a deletion leaves."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from budeval.jobs.names import workspace_name
from tests.cluster import until
from tests.contract import Asked, Story, read_story
from tests.dapr_harness import TOPIC
from tests.e2e.system import DATASET, PATIENCE_SECONDS, Evaluation, SecondService, System
from tests.engine.endpoint_double import Asked as Question
from tests.engine.endpoint_double import EndpointDouble, Reply, answer, error

KEY = "sk-e2e-of-a-retry-71c2"
QUESTIONS = 12
ANSWERED_FIRST = 5
OTHER_DATASET = "piqa_gen"
MARK = "Question:"
"""In every question of ``siqa_gen``, and in none of ``piqa_gen``."""

pytestmark = pytest.mark.timeout(2 * PATIENCE_SECONDS + 120)


@pytest.fixture(scope="module")
def service(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondService]:
    with system.second_service(tmp_path_factory.mktemp("retry")) as running:
        yield running


@pytest.fixture
def double() -> Iterator[EndpointDouble]:
    with EndpointDouble(lambda _: answer("A")).serving() as endpoint:
        yield endpoint


def started(service: SecondService, double: EndpointDouble, runs: dict[str, str]) -> Evaluation:
    """An evaluation that asks one question at a time."""
    evaluation = service.evaluation(runs, questions=QUESTIONS, endpoint=double.url, api_key=KEY)
    evaluation.body["eval_model_info"]["extra_args"]["batch_size"] = "1"
    return evaluation.start()


def ask(evaluation: Evaluation, method: str, path: str = "", **options: Any) -> httpx.Response:
    return httpx.request(method, f"{evaluation.url}/evals/{evaluation.eval_id}{path}", timeout=120, **options)


def story_of_retry(evaluation: Evaluation, run_ids: list[str]) -> Story:
    """Retries, waits for the end, and checks what was told of this attempt alone."""
    before = len(evaluation.system.published(evaluation.eval_id))
    response = ask(evaluation, "POST", "/retry?only=failed", json={"api_key": KEY})
    assert (response.status_code, response.json().get("run_ids")) == (202, run_ids), response.text
    until(lambda: told(evaluation)[before:][-1:] == [("evaluate_model_status", "COMPLETED")], PATIENCE_SECONDS, 0.5)
    messages = evaluation.system.published(evaluation.eval_id)[before:]
    return read_story(messages, Asked(evaluation.eval_id, run_ids, TOPIC, attempt=2))


def told(evaluation: Evaluation) -> list[tuple[str, str]]:
    payloads = [message["payload"] for message in evaluation.system.published(evaluation.eval_id)]
    return [(payload["event"], payload["content"]["status"]) for payload in payloads]


def directory_of(evaluation: Evaluation) -> Path:
    """Everything that an evaluation has on the volume."""
    return evaluation.system.results / evaluation.eval_id


def refusing(double: EndpointDouble) -> Any:
    """Answers all questions of ``siqa_gen``; of others only the first ones."""

    def behave(asked: Question) -> Reply:
        others = [text for text in double.answered if MARK not in text and text != "Hello"]
        refused = asked.number and MARK not in asked.text and len(others) >= ANSWERED_FIRST
        return error(401, "the key was revoked") if refused else answer("A")

    return behave


def test_a_run_that_failed_half_way_goes_on_and_nothing_that_was_answered_is_asked_again(
    service: SecondService, double: EndpointDouble
) -> None:
    double.behave = refusing(double)
    evaluation = started(service, double, {"retry-good": DATASET, "retry-bad": OTHER_DATASET})
    story = evaluation.story("COMPLETED", 2 * PATIENCE_SECONDS)
    assert [entry.status for entry in story.results.values()] == ["success", "error"]
    scores = evaluation.run("retry-good")["scores"]
    first = len(double.questions)
    double.behave = lambda _: answer("A")
    story = story_of_retry(evaluation, ["retry-bad"])
    assert story.results["retry-bad"].status == "success"
    again = double.questions[first:]
    assert len(again) == QUESTIONS - ANSWERED_FIRST
    assert not any(MARK in asked.text for asked in again), "a completed run was run again"
    assert {count for text, count in double.answered.items() if text != "Hello"} == {1}
    assert {asked.headers["authorization"] for asked in again} == {f"Bearer {KEY}"}
    assert evaluation.run("retry-good")["scores"] == scores
    assert evaluation.run("retry-bad")["progress"] == {"phase": "scoring", "done": QUESTIONS, "total": QUESTIONS}
    deleted(evaluation)


def test_a_run_that_was_cancelled_goes_on_from_its_journal(service: SecondService, double: EndpointDouble) -> None:
    def slowly(_: Question) -> Reply:
        time.sleep(0.7)
        return answer("A")

    double.behave = slowly
    evaluation = started(service, double, {"retry-cancelled": DATASET})
    until(lambda: sum(count for text, count in double.answered.items() if text != "Hello") >= 3, PATIENCE_SECONDS)
    evaluation.cancel()
    evaluation.story("TERMINATED")
    double.behave = lambda _: answer("A")
    # At once, while the pod of the first attempt may still be ending: the second one waits for that.
    story = story_of_retry(evaluation, ["retry-cancelled"])
    assert story.results["retry-cancelled"].status == "success"
    journal = directory_of(evaluation) / workspace_name(evaluation.eval_id, "retry-cancelled") / "answers.jsonl"
    assert len(journal.read_text().splitlines()) == QUESTIONS
    # Only a question whose answer was on its way when the engine ended is asked twice, one at a time.
    assert QUESTIONS <= len(double.questions) <= QUESTIONS + 1
    deleted(evaluation)


def deleted(evaluation: Evaluation) -> None:
    """Deletes it; nothing of it is left anywhere."""
    assert directory_of(evaluation).exists()
    response = ask(evaluation, "DELETE")
    assert response.status_code == 204, response.text
    assert not directory_of(evaluation).exists()
    assert [evaluation.objects(kind) for kind in ("Job", "Pod", "Secret")] == [[], [], []]
    assert ask(evaluation, "GET").status_code == 404

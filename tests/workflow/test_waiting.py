"""Evaluations that wait for a place: in order, never too many at once, and not lost by whoever dies."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import httpx
import pytest
import yaml

from tests.dapr_harness import APP_ID, DEAD_LETTERS, ROOT, wait_for
from tests.workflow.stack import Evaluation, Stack
from tests.workflow.test_border import publish_request

LIMIT = 2
AT_ONCE_SECONDS = 2.5
"""From a place that comes free to the one who gets it: less than a beat of the pulse, which is five seconds."""
REDELIVERY_SECONDS = 45.0
"""daprd delivers a request again after thirty seconds (components/resiliency.yaml)."""


@pytest.fixture
def narrow(stack: Stack) -> Iterator[Stack]:
    """A service with two places."""
    stack.restart_service(BUDEVAL_MAXIMUM_EVALUATIONS=str(LIMIT))
    stack.wait_ready()
    yield stack
    stack.restart_service(BUDEVAL_MAXIMUM_EVALUATIONS=None)


def ask(stack: Stack, count: int, sweeps: int) -> list[Evaluation]:
    evaluations = [stack.evaluation() for _ in range(count)]
    for evaluation in evaluations:
        evaluation.script(sweeps=sweeps)
        assert evaluation.post().status_code == 200
    return evaluations


def end(evaluations: list[Evaluation], *, repeated: bool = False) -> None:
    for evaluation in evaluations:
        evaluation.cancel()
    for evaluation in evaluations:
        evaluation.story("TERMINATED", 20, repeated=repeated)


def recorded(evaluation: Evaluation, *columns: str) -> tuple[str | None, ...]:
    with closing(sqlite3.connect(evaluation.stack.directory / "record.sqlite", timeout=30)) as record:
        query = f"SELECT {', '.join(columns)} FROM evaluations WHERE eval_id=?"  # noqa: S608 - the test's own columns
        row: tuple[str | None, ...] = record.execute(query, (evaluation.eval_id,)).fetchone()
    return row


def stays(evaluations: list[Evaluation]) -> list[tuple[datetime, datetime]]:
    """From when to when each had its place."""
    found = []
    for evaluation in evaluations:
        admitted, ended = recorded(evaluation, "admitted_at", "ended_at")
        assert admitted and ended
        found.append((datetime.fromisoformat(admitted), datetime.fromisoformat(ended)))
    return found


def check_places(evaluations: list[Evaluation]) -> None:
    """Never more than there are places, and first come first served."""
    intervals = stays(evaluations)
    for begin, _ in intervals:
        assert sum(other <= begin < end for other, end in intervals) <= LIMIT
    assert [begin for begin, _ in intervals] == sorted(begin for begin, _ in intervals)


def test_of_six_evaluations_two_run_at_once_and_all_complete_in_order(narrow: Stack) -> None:
    evaluations = ask(narrow, 6, sweeps=3)
    queue = [evaluation.view()["queue"] for evaluation in evaluations]
    assert [place["position"] for place in queue[LIMIT:]] == [1, 2, 3, 4]
    assert queue[-1] == {"position": 4, "waiting_for": "evaluations", "limit": LIMIT, "scope": "all"}
    assert evaluations[-1].post().json()["status"] == "PENDING"
    assert evaluations[-1].published() == []
    for evaluation in evaluations:
        evaluation.story("COMPLETED", 60)
        assert len(evaluation.calls("deploy")) == 1
    check_places(evaluations)
    intervals = stays(evaluations)
    for (_, freed), (taken, _) in zip(sorted(intervals, key=lambda stay: stay[1]), intervals[LIMIT:], strict=False):
        assert (taken - freed).total_seconds() < AT_ONCE_SECONDS


def test_a_waiting_evaluation_that_is_cancelled_is_told_as_ended_and_leaves_nothing(narrow: Stack) -> None:
    running = ask(narrow, LIMIT, sweeps=1_000_000)
    (waiting,) = ask(narrow, 1, sweeps=1)
    assert waiting.cancel().json()["status"] == "TERMINATED"
    story = waiting.story("TERMINATED", 5)
    assert story.events == ["monitor_eval_job_progress.FAILED", "evaluate_model_status.TERMINATED"]
    assert story.failure is not None
    assert (story.failure["error_category"], story.failure["failed_jobs"]) == ("Cancelled", waiting.run_ids)
    assert recorded(waiting, "sealed_secrets", "request_digest", "admitted_at") == (None, None, None)
    end(running)
    time.sleep(1)
    with narrow.workflows() as client:
        assert client.get_workflow_state(waiting.eval_id) is None
    assert waiting.calls("deploy") == []
    assert waiting.story("TERMINATED") == story


def test_a_service_that_is_killed_while_evaluations_wait_loses_none_and_no_turn(narrow: Stack) -> None:
    evaluations = ask(narrow, 5, sweeps=4)
    for evaluation in evaluations[:LIMIT]:
        evaluation.wait_call("sweep")
    narrow.service.kill()
    time.sleep(1)
    narrow.service.start()
    for evaluation in evaluations:
        evaluation.story("COMPLETED", 90, repeated=True)
        assert len(evaluation.calls("deploy")) == 1
    check_places(evaluations)


def test_a_place_that_is_given_while_daprd_is_away_is_used_when_it_is_back(narrow: Stack) -> None:
    running = ask(narrow, LIMIT, sweeps=1_000_000)
    (waiting,) = ask(narrow, 1, sweeps=1)
    for evaluation in running:
        evaluation.wait_call("sweep")
    running[0].cancel()
    wait_for(lambda: running[0].calls("delete"), 20, "the first evaluation ends")
    narrow.daprd.kill()
    time.sleep(3)
    narrow.daprd.start()
    # What daprd was publishing when it was killed may have arrived, and is sent again.
    waiting.story("COMPLETED", 60, repeated=True)
    running[0].story("TERMINATED", 60, repeated=True)
    end(running[1:], repeated=True)


@pytest.fixture
def refusing(stack: Stack) -> Iterator[Stack]:
    """A service with one place and no queue, and a daprd with the retries of the local stack."""
    stack.restart_service(BUDEVAL_MAXIMUM_EVALUATIONS="1", BUDEVAL_WHEN_FULL="refuse")
    policy = yaml.safe_load((ROOT / "components" / "resiliency.yaml").read_text())
    written = Path(stack.directory / "components" / "resiliency.yaml")
    written.write_text(yaml.safe_dump({**policy, "scopes": [APP_ID]}))
    stack.daprd.kill()
    stack.start()
    yield stack
    written.unlink()
    stack.restart_service(BUDEVAL_MAXIMUM_EVALUATIONS=None, BUDEVAL_WHEN_FULL=None)
    stack.daprd.kill()


def test_a_request_by_pubsub_that_finds_no_place_stays_with_the_broker_until_there_is_one(refusing: Stack) -> None:
    (running,) = ask(refusing, 1, sweeps=1_000_000)
    response = refusing.evaluation().post()
    assert (response.status_code, response.headers["retry-after"]) == (429, "30")
    later, bad = refusing.evaluation(), refusing.evaluation()
    publish_request(refusing, later.body)
    publish_request(refusing, {**bad.body, "engine": "unknown"})
    wait_for(lambda: bad.delivered(DEAD_LETTERS), 20, "the bad request is among the dead letters")
    time.sleep(3)
    assert later.delivered(DEAD_LETTERS) == []
    assert httpx.get(f"{refusing.url}/evals/{later.eval_id}", timeout=10).status_code == 404
    end([running])
    wait_for(lambda: _known(later), REDELIVERY_SECONDS, "the request is delivered again")
    later.story("COMPLETED", 30)
    assert later.delivered(DEAD_LETTERS) == []


def _known(evaluation: Evaluation) -> bool:
    return httpx.get(f"{evaluation.stack.url}/evals/{evaluation.eval_id}", timeout=10).is_success

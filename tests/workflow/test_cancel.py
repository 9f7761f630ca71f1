"""Cancelling, at every stage: Jobs gone, subscribers told, workflow ended, in seconds."""

import time

import pytest

from tests.dapr_harness import wait_for
from tests.workflow.stack import Evaluation, Stack

SECONDS = 8.0
"""From the request to cancel to the last word."""
LOST_SECONDS = 40.0
"""The same where the request did not reach the workflow: the pulse repeats it after ten."""


def cancel_and_end(evaluation: Evaluation) -> None:
    began = time.monotonic()
    response = evaluation.cancel()
    assert response.status_code == 200
    story = evaluation.story("TERMINATED", SECONDS)
    assert time.monotonic() - began < SECONDS
    assert story.failure is not None
    assert story.failure["error_category"] == "Cancelled"
    assert all(job["deleted"] for job in evaluation.jobs().values())
    with evaluation.stack.workflows() as client:
        state = wait_for(lambda: _ended_state(client, evaluation.eval_id), 5, "the workflow has ended")
    assert state == "COMPLETED"


def slow_evaluation(stack: Stack) -> Evaluation:
    """One in mid-monitor that nobody looks after for half an hour."""
    evaluation = stack.evaluation(configs={"poll_interval": 600})
    evaluation.script(sweeps=1_000_000)
    evaluation.post()
    evaluation.wait_call("sweep")
    return evaluation


def _ended_state(client: object, eval_id: str) -> str | None:
    state = client.get_workflow_state(eval_id)  # type: ignore[attr-defined]
    return state.runtime_status.name if state.runtime_status.name not in ("RUNNING", "PENDING") else None


@pytest.mark.parametrize("method", ["verify", "deploy"])
def test_a_step_that_takes_long_is_ended_by_a_cancel(stack: Stack, method: str) -> None:
    stack.world.cluster(method, seconds=60)
    before = len(stack.world.calls(method))
    evaluation = stack.start_evaluation()
    wait_for(lambda: len(stack.world.calls(method)) > before, 10, f"{method} is called")
    cancel_and_end(evaluation)


def test_a_step_that_waits_for_its_next_attempt_is_ended_by_a_cancel(stack: Stack) -> None:
    stack.world.cluster("verify", error="ClusterUnreachable")
    before = len(stack.world.calls("verify"))
    evaluation = stack.start_evaluation()
    wait_for(lambda: len(stack.world.calls("verify")) > before, 10, "verify is called")
    cancel_and_end(evaluation)


def test_running_jobs_are_removed_by_a_cancel(stack: Stack) -> None:
    evaluation = stack.evaluation(runs=3)
    for number in range(3):
        evaluation.script(number, sweeps=1_000_000)
    evaluation.post()
    evaluation.wait_call("sweep", 2)
    cancel_and_end(evaluation)
    assert len(evaluation.jobs()) == 3


def test_a_cancel_does_not_wait_for_the_next_check(stack: Stack) -> None:
    cancel_and_end(slow_evaluation(stack))


def test_a_cancel_while_results_are_read_ends_the_evaluation(stack: Stack) -> None:
    stack.world.cluster("read", seconds=3)
    evaluation = stack.start_evaluation()
    evaluation.wait_call("read")
    cancel_and_end(evaluation)


def test_a_cancel_while_nobody_can_be_told_is_told_later(stack: Stack) -> None:
    evaluation = stack.evaluation()
    evaluation.script(sweeps=1_000_000)
    evaluation.post()
    evaluation.wait_call("sweep")
    stack.redis.kill()
    assert evaluation.cancel().status_code == 200
    evaluation.wait_status("TERMINATED", SECONDS)
    stack.redis.start()
    evaluation.story("TERMINATED", 30)


def test_cancelling_twice_and_after_the_end_is_harmless(stack: Stack) -> None:
    evaluation = stack.evaluation()
    evaluation.script(sweeps=1_000_000)
    evaluation.post()
    evaluation.wait_call("sweep")
    assert evaluation.cancel().status_code == evaluation.cancel().status_code == 200
    story = evaluation.story("TERMINATED", SECONDS)
    assert evaluation.cancel().json()["status"] == "TERMINATED"
    assert evaluation.story("TERMINATED") == story


def test_cancelling_what_has_completed_changes_nothing(stack: Stack) -> None:
    evaluation = stack.start_evaluation()
    story = evaluation.story("COMPLETED")
    assert evaluation.cancel().json()["status"] == "COMPLETED"
    assert evaluation.view()["cancelled_by"] is None
    assert evaluation.story("COMPLETED") == story


def test_cancelling_right_after_the_start_ends_it(stack: Stack) -> None:
    evaluation = stack.start_evaluation()
    cancel_and_end(evaluation)


def test_what_somebody_suspended_is_cancelled_in_seconds_too(stack: Stack) -> None:
    evaluation = slow_evaluation(stack)
    with stack.workflows() as client:
        client.pause_workflow(evaluation.eval_id)
    cancel_and_end(evaluation)


def test_what_a_terminated_workflow_left_is_gone_in_seconds_after_a_cancel(stack: Stack) -> None:
    evaluation = slow_evaluation(stack)
    with stack.workflows() as client:
        client.terminate_workflow(evaluation.eval_id)
        wait_for(lambda: _ended_state(client, evaluation.eval_id) == "TERMINATED", 10, "it is terminated")
    for _ in range(2):
        assert evaluation.cancel().status_code == 200
    story = evaluation.story("TERMINATED", SECONDS)
    assert story.failure is not None
    assert story.failure["error_category"] == "Cancelled"
    assert [job["deleted"] for job in evaluation.jobs().values()] == [True]


def test_a_cancel_while_daprd_is_away_is_done_seconds_after_it_is_back(stack: Stack) -> None:
    evaluation = slow_evaluation(stack)
    stack.daprd.kill()
    assert evaluation.cancel().status_code == 200
    stack.daprd.start()
    stack.wait_ready()
    evaluation.story("TERMINATED", LOST_SECONDS, repeated=True)
    assert [job["deleted"] for job in evaluation.jobs().values()] == [True]


def test_cancelling_what_was_never_started_is_not_found(stack: Stack) -> None:
    assert stack.evaluation().cancel().status_code == 404

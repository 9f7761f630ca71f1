"""Parts that die in the middle, one after the other and together: nothing is lost, and nothing is told twice."""

import re
import time

import pytest

from tests.dapr_harness import wait_for
from tests.workflow.stack import Evaluation, Stack

STOP_SECONDS = 10.0


def in_mid_monitor(stack: Stack, count: int = 1, sweeps: int = 4) -> list[Evaluation]:
    """Evaluations of which each has been swept, and which need some more sweeps."""
    evaluations = [stack.evaluation() for _ in range(count)]
    for evaluation in evaluations:
        evaluation.script(sweeps=sweeps)
        assert evaluation.post().status_code == 200
    for evaluation in evaluations:
        evaluation.wait_call("sweep")
    return evaluations


def test_a_broker_that_is_away_loses_nothing_and_keeps_the_order(stack: Stack) -> None:
    evaluations = in_mid_monitor(stack, 2)
    stack.redis.kill()
    for evaluation in evaluations:
        evaluation.wait_status("COMPLETED", 30)
    stack.redis.start()
    for evaluation in evaluations:
        evaluation.story("COMPLETED", 40)


def test_service_and_daprd_that_die_in_mid_monitor_go_on_where_they_were(stack: Stack) -> None:
    evaluations = in_mid_monitor(stack, 3)
    stack.service.kill()
    stack.daprd.kill()
    time.sleep(2)
    stack.start()
    for evaluation in evaluations:
        evaluation.story("COMPLETED", 60)
        assert len(evaluation.calls("deploy")) == 1


@pytest.mark.parametrize("part", ["service", "daprd", "placement"])
def test_one_part_that_dies_in_mid_monitor_is_survived(stack: Stack, part: str) -> None:
    (evaluation,) = in_mid_monitor(stack)
    victim = getattr(stack, part)
    victim.kill()
    time.sleep(1)
    victim.start()
    evaluation.story("COMPLETED", 60)


def test_scheduler_and_placement_that_die_together_leave_no_evaluation_hanging(stack: Stack) -> None:
    evaluations = in_mid_monitor(stack, 10)
    stack.scheduler.kill()
    stack.placement.kill()
    time.sleep(5)
    stack.placement.start()
    stack.scheduler.start()
    for evaluation in evaluations:
        evaluation.story("COMPLETED", 90)


def test_all_parts_that_die_together_are_survived(stack: Stack) -> None:
    evaluations = in_mid_monitor(stack, 3)
    for part in (stack.redis, stack.placement, stack.scheduler, stack.daprd, stack.service):
        part.kill()
    stack.start()
    for evaluation in evaluations:
        evaluation.story("COMPLETED", 90)


def test_a_service_that_dies_while_a_step_runs_runs_it_again(stack: Stack) -> None:
    stack.world.cluster("deploy", seconds=60)
    evaluation = stack.start_evaluation()
    evaluation.wait_call("deploy")
    stack.service.kill()
    stack.world.calm()
    stack.service.start()
    evaluation.story("COMPLETED", 60)
    assert len({call["pid"] for call in evaluation.calls("deploy")}) == 2


def test_sigterm_stops_the_service_in_time_and_what_was_in_flight_runs_again(stack: Stack) -> None:
    stack.world.cluster("deploy", seconds=120)
    evaluation = stack.start_evaluation()
    evaluation.wait_call("deploy")
    assert stack.service.stop() < STOP_SECONDS
    stack.world.calm()
    stack.service.start()
    story = evaluation.story("COMPLETED", 60)
    assert "deploy_eval_job.FAILED" not in story.events


def test_sigterm_stops_a_service_that_has_never_seen_its_daprd_nor_its_broker(stack: Stack) -> None:
    (evaluation,) = in_mid_monitor(stack)
    stack.redis.kill()
    evaluation.wait_status("COMPLETED", 30)
    stack.daprd.kill()
    stack.service.stop()
    stack.service.start()
    time.sleep(6)
    assert stack.service.stop() < STOP_SECONDS
    stack.start()
    evaluation.story("COMPLETED", 60)


def test_requests_are_taken_while_daprd_is_away_and_start_when_it_is_there(stack: Stack) -> None:
    stack.daprd.kill()
    stack.service.stop()
    stack.service.start()
    began = time.monotonic()
    evaluation = stack.start_evaluation()
    assert time.monotonic() - began < 15
    assert evaluation.view()["status"] == "PENDING"
    stack.daprd.start()
    evaluation.story("COMPLETED", 60)


def test_an_evaluation_recorded_by_a_service_that_died_at_once_is_started_later(stack: Stack) -> None:
    stack.daprd.kill()
    evaluation = stack.start_evaluation()
    stack.service.kill()
    stack.start()
    evaluation.story("COMPLETED", 60)


def test_a_workflow_that_was_terminated_from_outside_is_told_as_ended(stack: Stack) -> None:
    evaluation = stack.evaluation()
    evaluation.script(sweeps=1_000_000)
    evaluation.post()
    evaluation.wait_call("sweep")
    with stack.workflows() as client:
        client.terminate_workflow(evaluation.eval_id)
    story = evaluation.story("TERMINATED", 40)
    assert story.failure is not None
    assert story.failure["error_category"] == "WorkflowTerminated"


def test_what_was_being_published_when_the_service_died_is_told_again_under_the_same_id(stack: Stack) -> None:
    # With the broker stopped but connected, a publish is under way for as long as it takes to kill the service: nobody
    # can know whether the broker has it.
    (evaluation,) = in_mid_monitor(stack, sweeps=1_000_000)
    stack.broker_pause()
    evaluation.script(sweeps=0)
    wait_for(lambda: stack.claims(evaluation.eval_id), 20, "a message is being published")
    stack.service.kill()
    stack.daprd.kill()
    stack.broker_continue()
    stack.start()
    story = evaluation.story("COMPLETED", 90, repeated=True)
    assert story.results


def test_the_history_does_not_grow_with_the_checks(stack: Stack) -> None:
    evaluation = stack.evaluation()
    evaluation.script(sweeps=1_000_000)
    evaluation.post()
    evaluation.wait_call("sweep", 3)
    early = stack.history_size(f"{evaluation.eval_id}-monitor")
    evaluation.wait_call("sweep", 12)
    assert stack.history_size(f"{evaluation.eval_id}-monitor") <= early + 4
    assert stack.history_size(evaluation.eval_id) < 60
    evaluation.cancel()
    evaluation.story("TERMINATED")


def test_the_monitor_says_the_guides_words(stack: Stack) -> None:
    evaluation = stack.evaluation()
    evaluation.script(sweeps=1)
    evaluation.post()
    evaluation.story("COMPLETED")
    log = stack.service.log.read_text()
    for line in (
        "All jobs deployed, starting monitoring step",
        r"Monitor check #0: tracking 1 jobs",
        "Monitoring in progress: 1 jobs remaining",
        f"Job {evaluation.run_ids[0]} completed successfully",
        "All jobs completed",
        "Extracting results from 1 completed jobs",
    ):
        assert re.search(line, log), line

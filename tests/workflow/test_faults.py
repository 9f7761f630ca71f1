"""Parts that die in the middle, one after the other and together: nothing is lost, and nothing is told twice."""

import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from grpc import RpcError

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


def test_sigterm_ends_a_real_playbook_and_its_step_runs_again(stack: Stack, silent_cluster: Path) -> None:
    scripted, environment = stack.service.command, dict(stack.service.environment)
    stack.service.stop()
    stack.service.command = [sys.executable, "-m", "budeval"]
    stack.service.environment["BUDEVAL_KUBECONFIG"] = str(silent_cluster)
    try:
        stack.service.start()
        evaluation = stack.start_evaluation()
        runs = stack.service.environment["BUDEVAL_PLAYBOOK_RUN_DIR"]
        wait_for(lambda: playbook_processes(runs), 30, "a playbook runs")
        assert stack.service.stop() < STOP_SECONDS
        assert playbook_processes(runs) == []
        assert list(Path(runs).iterdir()) == []
    finally:
        stack.service.command, stack.service.environment = scripted, environment
    stack.service.start()
    story = evaluation.story("COMPLETED", 60)
    assert "verify_cluster_connection.FAILED" not in story.events


def playbook_processes(runs: str) -> list[psutil.Process]:
    """Living processes of playbooks: their environment names the directory of their run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and any(runs in v for v in process.environ().values()):
                found.append(process)
    return [process for process in found if "ansible" in " ".join(process.cmdline())]


@pytest.fixture
def silent_cluster(stack: Stack, tmp_path: Path, kubeconfig: str) -> Iterator[Path]:
    """A kubeconfig of a cluster that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", stack.ports.nobody)):
        path = tmp_path / "kubeconfig"
        path.write_text(kubeconfig)
        yield path


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


def terminated_from_outside(stack: Stack, kubeconfig: str | None = None) -> Evaluation:
    """An evaluation in mid-monitor whose workflow somebody ended with Dapr's own means."""
    evaluation = stack.evaluation(runs=2, kubeconfig=kubeconfig)
    for number in range(2):
        evaluation.script(number, sweeps=1_000_000)
    evaluation.post()
    evaluation.wait_call("sweep")
    with stack.workflows() as client:
        client.terminate_workflow(evaluation.eval_id)
    return evaluation


def was_cleared(evaluation: Evaluation, seconds: float = 40) -> None:
    """It was told as ended by somebody, and nothing of it is left in the cluster."""
    story = evaluation.story("TERMINATED", seconds)
    assert story.failure is not None
    assert story.failure["error_category"] == "WorkflowTerminated"
    assert [job["deleted"] for job in evaluation.jobs().values()] == [True, True]


def test_a_workflow_that_was_terminated_from_outside_is_told_as_ended_and_its_jobs_are_removed(stack: Stack) -> None:
    was_cleared(terminated_from_outside(stack))


def test_jobs_in_the_cluster_of_a_request_are_removed_with_its_kubeconfig(stack: Stack, kubeconfig: str) -> None:
    evaluation = terminated_from_outside(stack, kubeconfig)
    was_cleared(evaluation)
    assert {call["kubeconfig"] for call in evaluation.calls("delete")} == {evaluation.calls("deploy")[0]["kubeconfig"]}


def test_jobs_that_could_not_be_removed_are_tried_again_also_by_a_service_that_was_killed(stack: Stack) -> None:
    stack.world.cluster("delete", error="ClusterUnreachable")
    evaluation = terminated_from_outside(stack)
    evaluation.wait_call("delete")
    assert evaluation.view()["status"] == "RUNNING"
    stack.service.kill()
    stack.world.calm()
    stack.service.start()
    was_cleared(evaluation, 60)
    assert len(evaluation.calls("delete")) >= 2


def was_purged(stack: Stack, evaluation: Evaluation) -> bool:
    """Purges a workflow; not before its monitor has ended too."""
    with stack.workflows() as client:
        try:
            client.purge_workflow(evaluation.eval_id)
        except RpcError:
            return False
        return client.get_workflow_state(evaluation.eval_id) is None


def test_a_workflow_that_was_purged_too_starts_again_and_uses_the_jobs_it_finds(stack: Stack) -> None:
    evaluation = terminated_from_outside(stack)
    wait_for(lambda: was_purged(stack, evaluation), 10, "the workflow is purged")
    for number in range(2):
        evaluation.script(number, sweeps=0)
    story = evaluation.story("COMPLETED", 60)
    assert story.results.keys() == set(evaluation.run_ids)


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
    stack.age_claims(evaluation.eval_id)
    stack.start()
    story = evaluation.story("COMPLETED", 90, repeated=True)
    assert story.results


def test_the_history_does_not_grow_with_the_checks(stack: Stack) -> None:
    evaluation = stack.evaluation()
    evaluation.script(sweeps=1_000_000)
    evaluation.post()
    evaluation.wait_call("sweep", 3)
    early = stack.history_size(f"{evaluation.eval_id}-monitor")
    evaluation.wait_call("sweep", 9)
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

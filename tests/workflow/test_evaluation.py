"""Evaluations from the request to the last word, on a real daprd."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.dapr_harness import SECOND_TOPIC, TOPIC, wait_for
from tests.workflow.stack import Stack


def test_a_successful_evaluation_tells_its_story_and_its_scores(stack: Stack) -> None:
    evaluation = stack.evaluation()
    evaluation.script(sweeps=3)
    response = evaluation.post()
    assert response.status_code == 200
    assert response.headers["Location"] == f"/evals/{evaluation.eval_id}"
    assert response.json()["workflow_id"] == evaluation.eval_id
    story = evaluation.story("COMPLETED")
    assert story.results[evaluation.run_ids[0]].scores[-1].score == 35.42
    assert story.etas[0] == 30
    assert story.etas[-1] == 0
    run = evaluation.view()["runs"][0]
    assert run["status"] == "Succeeded"
    assert run["progress"] == {"phase": "scoring", "done": 10, "total": 10}
    assert {step["status"] for step in evaluation.view()["steps"]} == {"COMPLETED"}
    assert evaluation.view()["steps"][-1]["message"] == "1 of 1 runs completed successfully"


def test_every_topic_gets_the_same_story_with_what_the_requester_wants_to_find_again(stack: Stack) -> None:
    metadata = {
        "name": "my-evaluation",
        "workflow_id": "workflow-of-the-requester",
        "subscriber_ids": "user-1",
        "category": "inapp",
        "notification_type": "topic",
        "actor": "somebody",
        "topic_keys": ["a", "b"],
    }
    evaluation = stack.start_evaluation(source_topic=[TOPIC, SECOND_TOPIC], notification_metadata=metadata)
    evaluation.story("COMPLETED")


def test_when_one_of_two_runs_fails_the_results_say_so_and_nothing_is_painted_failed(stack: Stack) -> None:
    evaluation = stack.evaluation(runs=2)
    evaluation.script(1, sweeps=1, end="Failed")
    evaluation.post()
    story = evaluation.story("COMPLETED")
    good, bad = (story.results[run_id] for run_id in evaluation.run_ids)
    assert good.status == "success"
    assert bad.error is not None
    assert bad.error.reason == "EndpointUnauthorized"
    assert "Jobs: 0 completed, 1 running, 1 failed" in story.progress


def test_a_run_with_unanswered_questions_or_without_a_number_is_no_success(stack: Stack) -> None:
    evaluation = stack.evaluation(runs=3)
    score = {"dataset": "siqa", "version": "1", "metric": "accuracy", "mode": "gen", "score": "-"}
    evaluation.script(1, answered=9)
    evaluation.script(2, scores=[score])
    evaluation.post()
    story = evaluation.story("COMPLETED")
    errors = [story.results[run_id].error for run_id in evaluation.run_ids]
    assert [error and error.reason for error in errors] == [None, "ResultsIncomplete", "ResultsIncomplete"]
    assert errors[1] is not None
    assert "9 of 10" in errors[1].message


def test_when_all_runs_fail_the_evaluation_fails_with_each_reason(stack: Stack) -> None:
    evaluation = stack.evaluation(runs=2)
    evaluation.script(0, sweeps=1, end="Failed", reason="OutOfMemory", message="killed")
    evaluation.script(1, sweeps=2, end="Failed")
    evaluation.post()
    story = evaluation.story("FAILED")
    assert story.failure is not None
    assert [detail["category"] for detail in story.failure["error_details"]] == ["OutOfMemory", "EndpointUnauthorized"]
    assert story.failure["error_category"] == "OutOfMemory"


def test_a_cluster_that_is_not_ready_fails_the_evaluation_at_once_and_in_words(stack: Stack) -> None:
    stack.world.cluster("verify", error="ClusterNotReady")
    before = len(stack.world.calls("verify"))
    evaluation = stack.start_evaluation()
    story = evaluation.story("FAILED", 20)
    assert len(stack.world.calls("verify")) == before + 1
    assert "verify_cluster_connection.FAILED" in story.events
    assert story.failure is not None
    assert story.failure["error_category"] == "ClusterNotReady"
    assert evaluation.jobs() == {}


def test_a_cluster_that_is_away_for_a_moment_fails_nothing(stack: Stack) -> None:
    stack.world.cluster("verify", error="ClusterUnreachable", times=1)
    before = len(stack.world.calls("verify"))
    evaluation = stack.start_evaluation()
    story = evaluation.story("COMPLETED")
    assert len(stack.world.calls("verify")) == before + 2
    assert story.events.count("verify_cluster_connection.RUNNING") == 1


def test_a_failed_deployment_removes_what_it_made(stack: Stack) -> None:
    stack.world.cluster("deploy", error="DeploymentFailed")
    evaluation = stack.start_evaluation()
    story = evaluation.story("FAILED", 20)
    assert "deploy_eval_job.FAILED" in story.events
    assert evaluation.calls("delete")


def test_at_the_timeout_unfinished_jobs_are_deleted_and_what_completed_counts(stack: Stack) -> None:
    evaluation = stack.evaluation(runs=2, configs={"max_checks": 4})
    evaluation.script(0, sweeps=1)
    evaluation.script(1, sweeps=1_000_000)
    evaluation.post()
    story = evaluation.story("COMPLETED")
    done, late = (story.results[run_id] for run_id in evaluation.run_ids)
    assert done.status == "success"
    assert late.error is not None
    assert late.error.reason == "MonitoringTimeout"
    assert [evaluation.jobs()[run_id]["deleted"] for run_id in evaluation.run_ids] == [False, True]


def test_when_nothing_completed_at_the_timeout_the_evaluation_fails(stack: Stack) -> None:
    evaluation = stack.evaluation(configs={"max_checks": 2})
    evaluation.script(sweeps=1_000_000)
    evaluation.post()
    story = evaluation.story("FAILED")
    assert story.failure is not None
    assert story.failure["error_category"] == "MonitoringTimeout"
    assert evaluation.jobs()[evaluation.run_ids[0]]["deleted"]


def test_three_failed_sweeps_in_a_row_are_told_and_end_nothing(stack: Stack) -> None:
    evaluation = stack.evaluation()
    evaluation.script(sweeps=1)
    stack.world.cluster("sweep", error="ClusterUnreachable", times=4)
    evaluation.post()
    story = evaluation.story("COMPLETED")
    told = [message for message in story.progress if "could not be asked" in message]
    assert len(told) == 1
    assert "3 times in a row" in told[0]


def test_two_failed_sweeps_are_not_worth_a_word(stack: Stack) -> None:
    evaluation = stack.evaluation()
    stack.world.cluster("sweep", error="ClusterUnreachable", times=2)
    evaluation.post()
    story = evaluation.story("COMPLETED")
    assert not any("could not be asked" in message for message in story.progress)


def test_a_job_that_vanished_fails_its_run(stack: Stack) -> None:
    evaluation = stack.evaluation(runs=2)
    evaluation.script(1, sweeps=1, end="Missing")
    evaluation.post()
    error = evaluation.story("COMPLETED").results[evaluation.run_ids[1]].error
    assert error is not None
    assert error.reason == "JobMissing"


def test_a_pod_that_never_starts_fails_its_run_and_its_job_is_removed(stack: Stack) -> None:
    evaluation = stack.evaluation(runs=2)
    evaluation.script(1, sweeps=1, end="Stuck")
    evaluation.post()
    error = evaluation.story("COMPLETED").results[evaluation.run_ids[1]].error
    assert error is not None
    assert error.reason == "ImagePullBackOff"
    assert [evaluation.jobs()[run_id]["deleted"] for run_id in evaluation.run_ids] == [False, True]


def test_progress_is_told_at_every_change_and_every_so_many_checks(stack: Stack) -> None:
    evaluation = stack.evaluation(configs={"progress_every": 2})
    evaluation.script(sweeps=5)
    evaluation.post()
    story = evaluation.story("COMPLETED")
    assert story.progress == ["Jobs: 0 completed, 1 running"] * 3


def test_the_same_request_again_gives_the_same_answer_and_runs_nothing_twice(stack: Stack) -> None:
    evaluation = stack.evaluation()
    answers = [evaluation.post() for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].json() == answers[2].json()
    evaluation.story("COMPLETED")
    assert len(evaluation.calls("deploy")) == 1


def test_equal_requests_at_once_run_once(stack: Stack) -> None:
    evaluation = stack.evaluation()
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: evaluation.post(), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    evaluation.story("COMPLETED")
    assert len(evaluation.calls("deploy")) == 1


def test_another_request_under_a_used_id_is_refused(stack: Stack) -> None:
    evaluation = stack.start_evaluation()
    evaluation.body["source"] = "somebody-else"
    assert evaluation.post().status_code == 409
    evaluation.story("COMPLETED")


def test_an_id_whose_evaluation_has_ended_is_refused(stack: Stack) -> None:
    evaluation = stack.start_evaluation()
    story = evaluation.story("COMPLETED")
    assert evaluation.post().status_code == 409
    assert evaluation.story("COMPLETED") == story


def test_many_evaluations_at_once_do_not_mix(stack: Stack) -> None:
    evaluations = [stack.start_evaluation(runs=2) for _ in range(8)]
    for evaluation in evaluations:
        evaluation.story("COMPLETED")


@pytest.mark.parametrize("kubeconfig", ["", None])
def test_without_a_kubeconfig_the_services_own_cluster_is_used(stack: Stack, kubeconfig: str | None) -> None:
    evaluation = stack.start_evaluation(kubeconfig=kubeconfig)
    evaluation.story("COMPLETED")
    assert {call["kubeconfig"] for call in evaluation.calls("deploy")} == {None}


def test_a_kubeconfig_in_the_request_is_used_for_every_step(stack: Stack, kubeconfig: str) -> None:
    evaluation = stack.evaluation(runs=2, kubeconfig=kubeconfig)
    evaluation.script(1, sweeps=1, end="Stuck")
    before = len(stack.world.calls("verify"))
    evaluation.post()
    evaluation.story("COMPLETED")
    verified = stack.world.calls("verify")[before:]
    calls = [call for name in ("deploy", "sweep", "read", "delete") for call in evaluation.calls(name)] + verified
    assert {call["method"] for call in calls} == {"verify", "deploy", "sweep", "read", "delete"}
    assert len({call["kubeconfig"] for call in calls}) == 1
    assert None not in {call["kubeconfig"] for call in calls}


def progress_of_workflow(stack: Stack, eval_id: str) -> Any:
    """What the workflow of an evaluation itself says; none: nothing about questions yet."""
    status = stack.custom_status(eval_id)
    return status if status and "questions" in status else None


def test_the_workflow_shows_its_progress_as_custom_status(stack: Stack) -> None:
    evaluation = stack.evaluation(configs={"progress_every": 2})
    evaluation.script(sweeps=1_000_000, questions=4_000_000)
    evaluation.post()
    evaluation.wait_call("sweep", 3)
    view = evaluation.view()
    assert view["status"] == "RUNNING"
    assert view["runs"][0]["progress"]["total"] == 4_000_000
    monitor = wait_for(lambda: stack.custom_status(f"{evaluation.eval_id}-monitor"), 10, "a custom status")
    assert (monitor["questions_total"], monitor["running"]) == (4_000_000, 1)
    shown = wait_for(lambda: progress_of_workflow(stack, evaluation.eval_id), 20, "the workflow shows its progress")
    assert (shown["step"], shown["running"], shown["questions_total"]) == ("monitor_eval_job_progress", 1, 4_000_000)
    first, total = shown["questions"][0]
    wait_for(lambda: progress_of_workflow(stack, evaluation.eval_id)["questions"][0] > [first, total], 20, "it goes on")
    evaluation.cancel()
    evaluation.story("TERMINATED")

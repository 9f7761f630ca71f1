"""Another attempt at an evaluation, and its deletion: own workflow, own Jobs, told rightly, disturbed by nothing."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.contract import Asked, Story, read_story
from tests.dapr_harness import wait_for
from tests.workflow.stack import API_KEY, TOPIC, Evaluation, Stack

AUTHORIZED = {"api_key": API_KEY}
STARTED = ("evaluate_model_status", "STARTED")
FOREVER = 1_000_000


def retry(evaluation: Evaluation, **body: Any) -> httpx.Response:
    url = f"{evaluation.stack.url}/evals/{evaluation.eval_id}/retry?only=failed"
    return httpx.post(url, json={**AUTHORIZED, **body}, timeout=30)


def retried(evaluation: Evaluation, **body: Any) -> dict[str, Any]:
    response = retry(evaluation, **body)
    assert response.status_code == 202, response.text
    return dict(response.json())


def delete(evaluation: Evaluation) -> httpx.Response:
    return httpx.delete(f"{evaluation.stack.url}/evals/{evaluation.eval_id}", timeout=60)


def what(message: dict[str, Any]) -> tuple[str, str]:
    payload = message["payload"]
    return payload["event"], payload["content"]["status"]


def told_of(evaluation: Evaluation, attempt: int) -> list[dict[str, Any]]:
    """Messages of one attempt, from the broker itself: each begins with STARTED."""
    parts: list[list[dict[str, Any]]] = []
    for message in evaluation.published():
        if what(message) == STARTED:
            parts.append([])
        parts[-1].append(message)
    return parts[attempt - 1] if len(parts) >= attempt else []


def story_of(evaluation: Evaluation, attempt: int, status: str, run_ids: list[str], seconds: float = 60) -> Story:
    """Waits for the end of an attempt; ``run_ids`` are those that its results must have."""
    last = ("evaluate_model_status", status)
    wait_for(lambda: last in map(what, told_of(evaluation, attempt)), seconds, f"attempt {attempt} is {status}")
    view = evaluation.view()
    assert (view["status"], view["attempt"]) == (status, attempt)
    story = read_story(told_of(evaluation, attempt), Asked(evaluation.eval_id, run_ids, TOPIC, attempt=attempt))
    ids = [message["payload"]["content"]["result"]["event_id"] for message in evaluation.published()]
    assert len(ids) == len(set(ids)), "an event was told in two attempts"
    return story


def runs_of(evaluation: Evaluation) -> dict[str, tuple[int, str, bool]]:
    """Attempt, status and whether there are scores, by run id."""
    runs = evaluation.view()["runs"]
    return {run["run_id"]: (run["attempt"], run["status"], bool(run["scores"])) for run in runs}


def half_failed(stack: Stack) -> Evaluation:
    """An evaluation that ended COMPLETED, whose second run failed."""
    evaluation = stack.evaluation(runs=2)
    evaluation.script(0)
    evaluation.script(1, end="Failed")
    evaluation.post()
    evaluation.story("COMPLETED")
    return evaluation


def failed(stack: Stack, runs: int = 1) -> Evaluation:
    evaluation = stack.evaluation(runs=runs)
    for number in range(runs):
        evaluation.script(number, end="Failed")
    evaluation.post()
    evaluation.story("FAILED")
    return evaluation


def instance_status(stack: Stack, instance_id: str) -> str | None:
    with stack.workflows() as client:
        state = client.get_workflow_state(instance_id)
    return None if state is None else str(state.runtime_status.name)


# ---------------------------------------------------------------- retry


def test_only_the_failed_run_runs_again_and_only_its_results_are_told_again(stack: Stack) -> None:
    evaluation = half_failed(stack)
    good, bad = evaluation.run_ids
    scores = evaluation.view()["runs"][0]["scores"]
    evaluation.script(1)
    begun = retried(evaluation)
    assert (begun["attempt"], begun["run_ids"], begun["status"]) == (2, [bad], "PENDING")
    story = story_of(evaluation, 2, "COMPLETED", [bad])
    assert story.results[bad].status == "success"
    assert runs_of(evaluation) == {good: (1, "Succeeded", True), bad: (2, "Succeeded", True)}
    assert evaluation.view()["runs"][0]["scores"] == scores
    assert instance_status(stack, f"{evaluation.eval_id}-attempt-2") == "COMPLETED"
    assert [call["attempt"] for call in evaluation.calls("deploy")] == [1, 2]
    entries = httpx.get(f"{stack.url}/evals/{evaluation.eval_id}/timeline?limit=200").json()["items"]
    assert [(entry["title"], entry["actor"]) for entry in entries if entry["kind"] == "attempt"] == [
        ("Attempt 2 requested", "api")
    ]
    assert [entry["title"] for entry in entries if entry["kind"] == "end"] == ["Evaluation completed"] * 2


def test_results_that_were_never_told_are_told_whole(stack: Stack) -> None:
    evaluation = failed(stack, runs=2)
    evaluation.script(0)
    evaluation.script(1)
    retried(evaluation)
    story = story_of(evaluation, 2, "COMPLETED", evaluation.run_ids)
    assert [entry.status for entry in story.results.values()] == ["success", "success"]


def test_a_run_that_fails_again_leaves_the_evaluation_completed_and_can_be_tried_a_third_time(stack: Stack) -> None:
    evaluation = half_failed(stack)
    good, bad = evaluation.run_ids
    retried(evaluation)
    story = story_of(evaluation, 2, "COMPLETED", [bad])
    assert story.results[bad].status == "error"
    evaluation.script(1)
    assert retried(evaluation)["attempt"] == 3
    assert story_of(evaluation, 3, "COMPLETED", [bad]).results[bad].status == "success"
    assert runs_of(evaluation) == {good: (1, "Succeeded", True), bad: (3, "Succeeded", True)}
    assert retry(evaluation).status_code == 409


def test_a_step_that_fails_in_a_later_attempt_paints_no_score_failed(stack: Stack) -> None:
    evaluation = half_failed(stack)
    stack.world.cluster("verify", error="ClusterNotReady", message="the claim is gone")
    retried(evaluation)
    story = story_of(evaluation, 2, "COMPLETED", evaluation.run_ids[1:])
    assert story.events.count("verify_cluster_connection.RUNNING") == 2
    error = story.results[evaluation.run_ids[1]].error
    assert error is not None
    assert error.reason == "ClusterNotReady"
    assert evaluation.view()["steps"][0]["status"] == "FAILED"


def test_an_attempt_without_any_score_fails_as_a_whole(stack: Stack) -> None:
    evaluation = failed(stack)
    retried(evaluation)
    assert story_of(evaluation, 2, "FAILED", evaluation.run_ids).failure is not None


def test_what_was_cancelled_can_be_tried_again_and_cancelled_again(stack: Stack) -> None:
    evaluation = stack.evaluation()
    evaluation.script(sweeps=FOREVER)
    evaluation.post()
    evaluation.wait_call("sweep")
    evaluation.cancel()
    evaluation.story("TERMINATED")
    retried(evaluation)
    wait_for(lambda: len(evaluation.calls("deploy")) == 2, 30, "the second attempt is deployed")
    assert evaluation.cancel().status_code == 200
    story_of(evaluation, 2, "TERMINATED", evaluation.run_ids, 10)
    assert all(job["deleted"] for job in stack.world.all_jobs(evaluation.eval_id))
    evaluation.script()
    retried(evaluation)
    story_of(evaluation, 3, "COMPLETED", evaluation.run_ids)


def test_a_cancelled_attempt_of_an_evaluation_with_scores_keeps_them(stack: Stack) -> None:
    evaluation = half_failed(stack)
    evaluation.script(1, sweeps=FOREVER)
    retried(evaluation)
    evaluation.wait_status("RUNNING")
    evaluation.cancel()
    story = story_of(evaluation, 2, "COMPLETED", evaluation.run_ids[1:], 10)
    error = story.results[evaluation.run_ids[1]].error
    assert error is not None
    assert error.reason == "Cancelled"
    assert evaluation.view()["cancelled_by"] == "api"


def test_of_many_retries_at_once_one_begins(stack: Stack) -> None:
    evaluation = failed(stack)
    evaluation.script()
    with ThreadPoolExecutor(8) as pool:
        codes = sorted(response.status_code for response in pool.map(lambda _: retry(evaluation), range(8)))
    assert codes == [202] + [409] * 7
    story_of(evaluation, 2, "COMPLETED", evaluation.run_ids)
    assert len(evaluation.calls("deploy")) == 2


def test_late_duplicates_of_an_older_attempt_change_nothing(stack: Stack) -> None:
    evaluation = failed(stack)
    evaluation.script(sweeps=6)
    retried(evaluation)
    settings = {"poll_interval": 1, "max_checks": 1, "progress_every": 1}
    late = {"eval_id": evaluation.eval_id, "run_ids": evaluation.run_ids, **settings}
    with stack.workflows() as client:
        for number in range(3):
            client.schedule_new_workflow("evaluate_model", input=late, instance_id=f"{evaluation.eval_id}-{number}")
        client.schedule_new_workflow("monitor_jobs", input=late, instance_id=f"{evaluation.eval_id}-late-monitor")
        client.raise_workflow_event(evaluation.eval_id, "cancel", data={})
        client.raise_workflow_event(f"{evaluation.eval_id}-monitor", "cancel", data={})
    story_of(evaluation, 2, "COMPLETED", evaluation.run_ids)
    wait_for(lambda: instance_status(stack, f"{evaluation.eval_id}-0") == "FAILED", 30, "the duplicate is refused")
    assert [call["attempt"] for call in evaluation.calls("deploy")] == [1, 2]


@pytest.mark.parametrize("both", [False, True])
def test_a_kill_in_mid_retry_is_survived(stack: Stack, both: bool) -> None:
    evaluation = half_failed(stack)
    before = len(evaluation.calls("sweep"))
    evaluation.script(1, sweeps=4)
    retried(evaluation)
    wait_for(lambda: len(evaluation.calls("sweep")) > before, 30, "the second attempt is swept")
    stack.service.kill()
    if both:
        stack.daprd.kill()
    stack.start()
    story = story_of(evaluation, 2, "COMPLETED", evaluation.run_ids[1:])
    assert story.results[evaluation.run_ids[1]].status == "success"


def test_a_retry_while_daprd_is_away_begins_when_it_is_there(stack: Stack) -> None:
    evaluation = failed(stack)
    evaluation.script()
    stack.daprd.kill()
    retried(evaluation)
    stack.start()
    story_of(evaluation, 2, "COMPLETED", evaluation.run_ids)


def test_an_attempt_that_was_terminated_from_outside_keeps_the_scores_of_the_first(stack: Stack) -> None:
    evaluation = half_failed(stack)
    evaluation.script(1, sweeps=FOREVER)
    before = len(evaluation.calls("sweep"))
    retried(evaluation)
    wait_for(lambda: len(evaluation.calls("sweep")) > before, 30, "the second attempt is swept")
    with stack.workflows() as client:
        client.terminate_workflow(f"{evaluation.eval_id}-attempt-2")
    story = story_of(evaluation, 2, "COMPLETED", evaluation.run_ids[1:])
    error = story.results[evaluation.run_ids[1]].error
    assert error is not None
    assert error.reason == "WorkflowTerminated"


# ---------------------------------------------------------------- delete


def test_a_deleted_evaluation_leaves_nothing_in_the_record_and_in_dapr(stack: Stack) -> None:
    evaluation = failed(stack)
    evaluation.script()
    retried(evaluation)
    assert delete(evaluation).status_code == 409
    story_of(evaluation, 2, "COMPLETED", evaluation.run_ids)
    eval_id = evaluation.eval_id
    instances = [f"{eval_id}{attempt}{part}" for attempt in ("", "-attempt-2") for part in ("", "-monitor")]
    assert all(instance_status(stack, instance) for instance in instances)
    response = delete(evaluation)
    assert (response.status_code, response.content) == (204, b"")
    assert [instance for instance in instances if instance_status(stack, instance)] == []
    assert all(job["deleted"] for job in stack.world.all_jobs(eval_id))
    assert len(stack.world.calls("remove_results", eval_id)) == 1
    assert httpx.get(f"{stack.url}/evals/{eval_id}").status_code == 404
    assert delete(evaluation).status_code == 404
    assert eval_id not in httpx.get(f"{stack.url}/evals?limit=200").text


def test_a_deletion_that_fails_can_be_repeated_and_is_not_overtaken_by_a_retry(stack: Stack) -> None:
    evaluation = failed(stack)
    stack.world.cluster("remove_results", error="ClusterUnreachable", times=1)
    response = delete(evaluation)
    assert (response.status_code, response.json()["title"]) == (503, "Cluster unreachable")
    assert "being deleted" in retry(evaluation).json()["detail"]
    assert delete(evaluation).status_code == 204


def test_a_deletion_and_a_retry_at_once_lose_neither(stack: Stack) -> None:
    evaluation = failed(stack)
    evaluation.script()
    stack.world.cluster("remove_evaluation", seconds=1)
    with ThreadPoolExecutor(2) as pool:
        deleting, retrying = pool.submit(delete, evaluation), pool.submit(retry, evaluation)
        codes = (deleting.result().status_code, retrying.result().status_code)
    assert codes in ((204, 409), (204, 404), (409, 202))
    if codes[1] == 202:
        story_of(evaluation, 2, "COMPLETED", evaluation.run_ids)


def test_listeners_of_a_deleted_evaluation_hear_its_end(stack: Stack) -> None:
    evaluation = failed(stack)
    with httpx.stream("GET", f"{stack.url}/evals/{evaluation.eval_id}/events", timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        assert delete(evaluation).status_code == 204
        for _ in lines:
            pass
    assert stream.is_stream_consumed

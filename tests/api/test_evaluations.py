from datetime import UTC, datetime

import pytest

from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.models import ErrorInfo, RunResult, Score
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.models import JobState, Progress
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, a_request

RUN_ID = "test-monitor-pattern-001"
OTHER_ID = "555e4567-e89b-12d3-a456-426614174021"
STARTED = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)
TIMES = ("created_at", "last_heard_at", "started_at", "ended_at")


def show(service):
    response = service.client.get(f"/evals/{EVAL_ID}")
    assert response.status_code == 200
    return response.json()


def test_a_new_evaluation_is_shown_with_its_steps_and_runs(service):
    service.start(a_request())
    shown = show(service)
    assert {key: value for key, value in shown.items() if key not in (*TIMES, "steps", "runs")} == {
        "eval_id": EVAL_ID,
        "experiment_id": "123e4567-e89b-12d3-a456-426614174000",
        "attempt": 1,
        "status": "PENDING",
        "model_name": "gpt-oss-20b",
        "engine": "opencompass",
        "source": "budapp",
        "requested_by": "api",
        "eta_minutes": None,
        "error": None,
        "cancelled_by": None,
        "queue": None,
        "notifications": {"waiting": 0, "unknown": []},
    }
    assert [(step["id"], step["status"]) for step in shown["steps"]] == [
        ("verify_cluster_connection", "PENDING"),
        ("preparing_eval_engine", "PENDING"),
        ("deploy_eval_job", "PENDING"),
        ("monitor_eval_job_progress", "PENDING"),
    ]
    assert [(run["run_id"], run["dataset_id"], run["status"]) for run in shown["runs"]] == [
        (RUN_ID, "siqa_gen", "Pending")
    ]


def test_a_running_evaluation_shows_how_far_it_is(service):
    service.start(a_request())
    service.record.begin(EVAL_ID)
    service.record.step(EVAL_ID, Event.MONITOR, WorkflowStatus.RUNNING, "following")
    progress = Progress(phase="inference", done=12, total=48)
    update = RunUpdate(run_id=RUN_ID, status=JobState.RUNNING, progress=progress, started_at=STARTED)
    service.record.update_runs(EVAL_ID, [update], eta_minutes=7)
    shown = show(service)
    assert (shown["status"], shown["eta_minutes"]) == ("RUNNING", 7)
    assert shown["steps"][-1]["message"] == "following"
    run = shown["runs"][0]
    assert run["progress"] == {"phase": "inference", "done": 12, "total": 48}
    assert (run["status"], run["started_at"]) == ("Running", "2026-01-01T10:00:00Z")


def test_a_completed_evaluation_shows_its_scores(service):
    service.start(a_request())
    score = Score(dataset="siqa", version="18632c", metric="accuracy", mode="gen", score=35.42)
    result = RunResult(run_id=RUN_ID, scores=[score], start_time=STARTED, completion_time=STARTED, duration_seconds=0)
    service.record.save_results(EVAL_ID, [result])
    service.record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    shown = show(service)
    assert (shown["status"], shown["error"], shown["eta_minutes"]) == ("COMPLETED", None, 0)
    assert shown["runs"][0]["scores"] == [score.model_dump()]


def test_a_failed_evaluation_shows_why(service):
    service.start(a_request())
    error = ErrorInfo(reason="ClusterUnreachable", message="nobody answers", resolution="Start it.")
    service.record.finish(EVAL_ID, WorkflowStatus.FAILED, error)
    shown = show(service)
    assert (shown["status"], shown["error"]) == ("FAILED", error.model_dump())
    assert shown["runs"][0]["error"] == error.model_dump()


@pytest.mark.parametrize("path", [f"/evals/{OTHER_ID}", f"/evals/{OTHER_ID}/cancel"])
def test_an_evaluation_that_nobody_asked_for_is_not_found(shared, path):
    response = shared.client.request("POST" if path.endswith("cancel") else "GET", path)
    assert OTHER_ID in is_problem(response, 404)["detail"]


@pytest.mark.parametrize("eval_id", ["1", "..%2f..%2fetc", "%00", "{{7*7}}", f"{OTHER_ID}x"])
def test_an_id_that_is_no_uuid_is_refused(shared, eval_id):
    response = shared.client.get(f"/evals/{eval_id}")
    assert response.status_code in (404, 422)
    assert response.headers["content-type"] == "application/problem+json"


# ------------------------------------------------------------------ cancel


def cancel(service):
    return service.client.post(f"/evals/{EVAL_ID}/cancel")


def test_a_cancellation_tells_the_workflow_and_then_its_monitor(service):
    service.start(a_request())
    response = cancel(service)
    assert (response.status_code, response.json()["cancelled_by"]) == (200, "api")
    assert service.workflows.events == [(EVAL_ID, "cancel"), (f"{EVAL_ID}-monitor", "cancel")]


def test_cancelling_twice_is_the_same_as_once(service):
    service.start(a_request())
    first, second = cancel(service), cancel(service)
    assert (second.status_code, second.json()) == (first.status_code, first.json())


@pytest.mark.parametrize("status", [WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.TERMINATED])
def test_cancelling_what_has_ended_changes_nothing(service, status):
    service.start(a_request())
    service.record.finish(EVAL_ID, status)
    before = show(service)
    response = cancel(service)
    assert (response.status_code, response.json()) == (200, before)
    assert service.workflows.events == []


def test_a_cancellation_is_kept_while_the_sidecar_is_away(service):
    service.start(a_request())
    service.workflows.away = True
    assert cancel(service).status_code == 200
    assert service.record.cancel_requested(EVAL_ID)

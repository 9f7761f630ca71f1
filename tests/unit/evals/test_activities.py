"""Activities with swapped clients: each may run twice and changes nothing then."""

import json
import logging
from datetime import timedelta

import pytest

from budeval.commons.errors import ClusterUnreachable, DeploymentFailed, EvaluationCancelled
from budeval.commons.settings import MonitorSettings
from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.activities import (
    CheckRequest,
    CleanUpRequest,
    ExtractRequest,
    FinishRequest,
    StepNews,
    StepRequest,
)
from budeval.evals.models import ErrorInfo
from budeval.evals.monitoring import MonitorState
from budeval.evals.services import evaluation_input
from budeval.jobs.models import JobState, JobStatus, Progress
from budeval.jobs.names import job_name
from tests.samples import API_KEY, EVAL_ID, KUBECONFIG, NOW, TOKEN

REQUEST = StepRequest(eval_id=EVAL_ID)
NAME_A, NAME_B = job_name(EVAL_ID, "run-a"), job_name(EVAL_ID, "run-b")
STOPPED = ErrorInfo(reason="MonitoringTimeout", message="late")


@pytest.fixture(autouse=True)
def _the_clock_stands_still(monkeypatch):
    monkeypatch.setattr("budeval.evals.activities.utc_now", lambda: NOW)


def a_job(name, status, done=None, **changes):
    progress = None if done is None else Progress(phase="inference", done=done, total=48)
    return JobStatus(name=name, status=status, phase="Running", progress=progress, **changes)


def a_result(run_id, **changes):
    score = {"dataset": "siqa", "version": "1", "metric": "accuracy", "mode": "gen", "score": 35.42}
    document = {
        "eval_id": EVAL_ID,
        "run_id": run_id,
        "dataset_id": "siqa_gen",
        "scores": [score],
        "questions": {"asked": 48, "answered": 48},
        "started_at": "2026-01-01T10:00:00Z",
        "completed_at": "2026-01-01T10:15:30Z",
        "duration_seconds": 930.0,
    }
    return json.dumps({**document, **changes}).encode()


def twice(activity, request):
    """Runs an activity as Dapr may; the second answer must be the first."""
    first = activity(None, request)
    assert activity(None, request) == first
    return first


# ------------------------------------------------------------------ telling


def test_a_beginning_is_recorded_and_told_once(activities, record, record_evaluation, broker):
    record_evaluation()
    twice(activities.begin_evaluation, REQUEST)
    assert record.view(EVAL_ID).status == "RUNNING"
    assert broker.told == ["evaluate_model_status.STARTED", "eta.RUNNING"]


def test_a_step_is_recorded_and_told_once(activities, record, record_evaluation, broker):
    record_evaluation()
    news = StepNews(eval_id=EVAL_ID, event=Event.DEPLOY, status=WorkflowStatus.RUNNING, title="t", message="m")
    twice(activities.announce_step, news)
    assert (record.view(EVAL_ID).steps[2].status, record.view(EVAL_ID).steps[2].message) == ("RUNNING", "m")
    assert broker.told == ["deploy_eval_job.RUNNING"]


# ------------------------------------------------------------------ steps


def test_a_good_cluster_is_described_with_its_warnings(activities, record_evaluation):
    record_evaluation()
    answer = twice(activities.verify_cluster_connection, REQUEST)
    assert (answer["code"], answer["message"]) == (
        200,
        "Kubernetes v1.34.2, namespace development; it is nearly full",
    )


def test_every_run_gets_its_configuration(activities, record, record_evaluation):
    record_evaluation(parameters={"max_out_len": 2048}, max_questions=24)
    answer = twice(activities.create_engine_config, REQUEST)
    assert answer["param"] == {"run_ids": ["run-a", "run-b"]}
    assert record.engine_configs(EVAL_ID)["run-b"] == {
        "schema": 1,
        "eval_id": EVAL_ID,
        "run_id": "run-b",
        "dataset_id": "siqa_gen",
        "model": {"name": "small-model", "endpoint": "http://127.0.0.1:13200/v1"},
        "parameters": {"max_out_len": 2048},
        "max_questions": 24,
    }


def test_one_job_is_deployed_for_each_run_and_the_key_goes_by_a_secret_alone(activities, cluster, record_evaluation):
    record_evaluation(monitor=MonitorSettings(poll_interval=5, max_checks=6))
    activities.create_engine_config(None, REQUEST)
    answer = twice(activities.deploy_eval_job_v2, REQUEST)
    assert [job["name"] for job in answer["param"]["jobs"]] == [NAME_A, NAME_B]
    objects = cluster.objects
    assert API_KEY not in json.dumps([objects.config_map, *objects.jobs])
    assert objects.secret is not None
    assert {job["spec"]["activeDeadlineSeconds"] for job in objects.jobs} == {30}
    assert "claim" in json.dumps(objects.jobs[0])


def test_without_a_key_there_is_no_secret(activities, cluster, record_evaluation):
    record_evaluation(has_api_key=False)
    activities.create_engine_config(None, REQUEST)
    activities.deploy_eval_job_v2(None, REQUEST)
    assert cluster.objects.secret is None


def test_a_cancelled_evaluation_gets_no_jobs(activities, cluster, record, record_evaluation):
    record_evaluation()
    record.request_cancel(EVAL_ID, "api")
    with pytest.raises(EvaluationCancelled):
        activities.deploy_eval_job_v2(None, REQUEST)
    assert cluster.calls == []


def test_jobs_that_were_made_while_somebody_cancelled_are_removed(activities, cluster, record, record_evaluation):
    record_evaluation()
    activities.create_engine_config(None, REQUEST)
    cluster.while_deploying = lambda: record.request_cancel(EVAL_ID, "api")
    with pytest.raises(EvaluationCancelled, match="removed again"):
        activities.deploy_eval_job_v2(None, REQUEST)
    assert cluster.calls == ["deploy", ("delete", None)]


def test_status_of_jobs_is_answered_in_the_guides_shape(activities, cluster, record_evaluation):
    record_evaluation()
    times = {"start_time": "2026-01-01T10:00:00Z", "completion_time": "2026-01-01T10:15:30Z"}
    cluster.statuses = {NAME_A: a_job(NAME_A, JobState.SUCCEEDED, **times)}
    answer = activities.check_job_status(None, CheckRequest(job_ids=[NAME_A]))
    job = answer["param"]["jobs"][NAME_A]
    assert {key: job[key] for key in ("status", "phase", "message", "startTime", "completionTime")} == {
        "status": "Succeeded",
        "phase": "Running",
        "message": "",
        "startTime": "2026-01-01T10:00:00Z",
        "completionTime": "2026-01-01T10:15:30Z",
    }
    assert cluster.kubeconfigs == {None}


def test_a_status_that_quotes_the_key_is_cleared_of_it(activities, cluster, record_evaluation):
    record_evaluation()
    cluster.statuses = {NAME_A: a_job(NAME_A, JobState.FAILED, message=f"refused the key {API_KEY}")}
    answer = activities.check_job_status(None, CheckRequest(job_ids=[NAME_A], eval_id=EVAL_ID))
    assert API_KEY not in json.dumps(answer)


# ------------------------------------------------------------------ monitoring


@pytest.fixture
def state(record_evaluation, record):
    evaluation = record_evaluation()
    record.begin(EVAL_ID)
    return MonitorState.first(evaluation_input(evaluation))


def test_a_check_that_finds_jobs_running_says_go_on(activities, cluster, record, state, broker):
    cluster.statuses = {name: a_job(name, JobState.RUNNING, done=12) for name in (NAME_A, NAME_B)}
    answer = twice(activities.monitor_jobs_loop, state)
    assert (answer["code"], answer["message"]) == (202, "Monitoring in progress: 2 jobs remaining")
    assert answer["param"]["remaining_jobs"] == ["run-a", "run-b"]
    assert json.loads(answer["param"]["custom_status"]) == {
        "check": 1, "completed": 0, "failed": 0, "running": 2, "questions_done": 24, "questions_total": 96,
        "questions": [[12, 48], [12, 48]], "eta_minutes": 30,
    }  # fmt: skip
    assert [run.progress.done for run in record.view(EVAL_ID).runs] == [12, 12]
    assert MonitorState.model_validate(answer["param"]["updated_state"]).check_count == 1


def test_questions_of_a_run_that_ended_still_count(activities, cluster, state):
    cluster.statuses = {NAME_A: a_job(NAME_A, JobState.SUCCEEDED, done=48), NAME_B: a_job(NAME_B, JobState.RUNNING)}
    first = activities.monitor_jobs_loop(None, state)
    after = MonitorState.model_validate(first["param"]["updated_state"])
    cluster.statuses = {NAME_B: a_job(NAME_B, JobState.RUNNING, done=12)}
    second = activities.monitor_jobs_loop(None, after)
    assert [json.loads(answer["param"]["custom_status"])["questions_done"] for answer in (first, second)] == [48, 60]


def test_progress_that_is_news_is_sent_to_the_evaluations_own_workflow(activities, cluster, state, listening_workflows):
    cluster.statuses = {NAME_A: a_job(NAME_A, JobState.SUCCEEDED, done=48), NAME_B: a_job(NAME_B, JobState.RUNNING)}
    answer = activities.monitor_jobs_loop(None, state)
    assert listening_workflows.events == [(EVAL_ID, "progress", json.loads(answer["param"]["custom_status"]))]
    after = MonitorState.model_validate(answer["param"]["updated_state"])
    activities.monitor_jobs_loop(None, after)
    assert len(listening_workflows.events) == 1


def test_a_workflow_that_cannot_be_shown_its_progress_goes_on(activities, cluster, state, listening_workflows):
    listening_workflows.away = True
    cluster.statuses = {NAME_A: a_job(NAME_A, JobState.SUCCEEDED), NAME_B: a_job(NAME_B, JobState.RUNNING)}
    assert activities.monitor_jobs_loop(None, state)["code"] == 202


def test_a_check_that_finds_all_ended_says_so(activities, cluster, state, record):
    cluster.statuses = {
        NAME_A: a_job(NAME_A, JobState.SUCCEEDED, result_sha256="d" * 64),
        NAME_B: a_job(NAME_B, JobState.FAILED, reason="OutOfMemory", message="killed"),
    }
    answer = twice(activities.monitor_jobs_loop, state)
    assert (answer["code"], answer["message"]) == (200, "All jobs finished")
    assert (answer["param"]["completed_jobs"], answer["param"]["failed_jobs"]) == (["run-a"], ["run-b"])
    assert record.view(EVAL_ID).runs[1].error.reason == "OutOfMemory"
    assert record.result_digests(EVAL_ID)["run-a"] == "d" * 64


def test_the_last_check_says_that_the_time_is_up(activities, cluster, state):
    cluster.statuses = {name: a_job(name, JobState.RUNNING) for name in (NAME_A, NAME_B)}
    answer = activities.monitor_jobs_loop(None, state.model_copy(update={"check_count": 239}))
    assert (answer["object"], answer["code"], answer["message"]) == (
        "error",
        408,
        "Monitoring timeout: exceeded 240 checks",
    )


def test_a_check_after_a_cancellation_asks_nobody(activities, cluster, record, state):
    record.request_cancel(EVAL_ID, "api")
    assert twice(activities.monitor_jobs_loop, state)["code"] == 499
    assert cluster.calls == []


def test_a_cluster_that_is_away_ends_nothing_and_is_told_after_three_checks(activities, cluster, state, broker):
    cluster.error = ClusterUnreachable("connection refused")
    for _ in range(4):
        answer = activities.monitor_jobs_loop(None, state)
        assert answer["code"] == 202
        state = MonitorState.model_validate(answer["param"]["updated_state"])
    assert broker.told == ["monitor_eval_job_progress.RUNNING"]
    message = broker.messages[0].body["payload"]["content"]["message"]
    assert "connection refused" in message


def test_progress_and_the_time_left_are_told_together(activities, cluster, state, broker):
    state = state.model_copy(update={"check_count": 9, "eta_minutes": 7})
    cluster.statuses = {name: a_job(name, JobState.RUNNING) for name in (NAME_A, NAME_B)}
    twice(activities.monitor_jobs_loop, state)
    assert broker.told == ["monitor_eval_job_progress.RUNNING", "eta.RUNNING"]
    progress, eta = [message.body["payload"]["content"]["message"] for message in broker.messages]
    assert (progress, eta) == ("Jobs: 0 completed, 2 running", "7")


def test_the_time_left_does_not_go_up_when_a_check_runs_again_later(
    activities, cluster, state, broker, record, monkeypatch
):
    # Its first answer was lost with the service, and meanwhile no question was answered.
    state = state.model_copy(update={"check_count": 9, "measured_from": NOW - timedelta(seconds=60)})
    cluster.statuses = {name: a_job(name, JobState.RUNNING, done=24) for name in (NAME_A, NAME_B)}
    activities.monitor_jobs_loop(None, state)
    monkeypatch.setattr("budeval.evals.activities.utc_now", lambda: NOW + timedelta(minutes=10))
    answer = activities.monitor_jobs_loop(None, state)
    told = [message.body["payload"]["content"]["message"] for message in broker.messages]
    assert told == ["Jobs: 0 completed, 2 running", "1"]
    assert record.view(EVAL_ID).eta_minutes == 1
    assert json.loads(answer["param"]["custom_status"])["eta_minutes"] == 1


def test_a_check_that_comes_back_after_the_end_says_nothing_any_more(activities, cluster, record, state, broker):
    def ends_meanwhile(*_arguments, **_options):
        activities.finish_evaluation(None, FinishRequest(eval_id=EVAL_ID, status=WorkflowStatus.TERMINATED))
        return {NAME_A: a_job(NAME_A, JobState.SUCCEEDED), NAME_B: a_job(NAME_B, JobState.RUNNING)}

    cluster.check_jobs_status = ends_meanwhile
    activities.monitor_jobs_loop(None, state)
    assert broker.told[-1] == "evaluate_model_status.TERMINATED"


GUIDES_LINES = [
    "Monitor check #0: tracking 2 jobs",
    "Job run-a completed successfully",
    "Monitoring in progress: 1 jobs remaining",
    "All jobs completed",
    "Extracting results from 2 completed jobs",
]


def test_the_guides_lines_are_in_the_log(activities, cluster, state, caplog):
    caplog.set_level(logging.INFO)
    cluster.statuses = {NAME_A: a_job(NAME_A, JobState.SUCCEEDED), NAME_B: a_job(NAME_B, JobState.RUNNING)}
    answer = activities.monitor_jobs_loop(None, state)
    cluster.statuses[NAME_B] = a_job(NAME_B, JobState.SUCCEEDED)
    activities.monitor_jobs_loop(None, MonitorState.model_validate(answer["param"]["updated_state"]))
    activities.extract_job_results(None, ExtractRequest(eval_id=EVAL_ID, job_ids=["run-a", "run-b"]))
    assert [line for line in GUIDES_LINES if line not in caplog.messages] == []


# ------------------------------------------------------------------ results and the end


EXTRACT = ExtractRequest(eval_id=EVAL_ID, job_ids=["run-a", "run-b"])


def test_results_are_scores_or_what_is_missing(activities, cluster, record, record_evaluation):
    record_evaluation()
    cluster.files = {NAME_A: a_result("run-a"), NAME_B: a_result("run-b", scores=[])}
    answer = twice(activities.extract_job_results, EXTRACT)["param"]["results"]
    assert (answer["run-a"]["dataset"], answer["run-a"]["metric"], answer["run-a"]["score"]) == (
        "siqa",
        "accuracy",
        35.42,
    )
    assert answer["run-b"]["error"]["message"] == "there is no score"
    assert [run.status for run in record.view(EVAL_ID).runs] == ["Succeeded", "Failed"]


FINISHES = [
    (["run-a", "run-b"], None, "COMPLETED", "eta.RUNNING"),
    (["run-a"], STOPPED, "COMPLETED", "eta.RUNNING"),
    ([], None, "FAILED", "monitor_eval_job_progress.FAILED"),
    ([], STOPPED, "FAILED", "monitor_eval_job_progress.FAILED"),
]


@pytest.mark.parametrize(("good", "error", "status", "first_word"), FINISHES)
def test_an_evaluation_ends_as_its_results_say(
    activities, cluster, record, record_evaluation, broker, good, error, status, first_word
):
    record_evaluation()
    cluster.files = {job_name(EVAL_ID, run_id): a_result(run_id) for run_id in good}
    if good:
        activities.extract_job_results(None, ExtractRequest(eval_id=EVAL_ID, job_ids=good))
    answer = twice(activities.finish_evaluation, FinishRequest(eval_id=EVAL_ID, error=error))
    assert answer["param"] == {"status": status}
    assert [bool(run.scores) for run in record.view(EVAL_ID).runs] == [run in good for run in ("run-a", "run-b")]
    assert (broker.told[0], broker.told[-1]) == (first_word, f"evaluate_model_status.{status}")
    assert len(broker.told) == len(set(broker.told))


def test_a_total_failure_is_told_for_the_reason_of_the_first_run(activities, cluster, record, record_evaluation):
    record_evaluation()
    activities.extract_job_results(None, EXTRACT)
    activities.finish_evaluation(None, FinishRequest(eval_id=EVAL_ID))
    assert record.view(EVAL_ID).error.reason == "ResultsIncomplete"


def test_a_failed_step_ends_every_run_for_its_reason(activities, record, record_evaluation):
    record_evaluation()
    request = FinishRequest(eval_id=EVAL_ID, status=WorkflowStatus.FAILED, error=STOPPED)
    twice(activities.finish_evaluation, request)
    view = record.view(EVAL_ID)
    assert (view.status, view.error, {run.error for run in view.runs} == {STOPPED}) == ("FAILED", STOPPED, True)


@pytest.mark.parametrize(("run_ids", "names"), [(None, None), (["run-b"], [NAME_B])])
def test_jobs_are_removed_all_or_some(activities, cluster, record_evaluation, run_ids, names):
    record_evaluation()
    activities.delete_eval_jobs(None, CleanUpRequest(eval_id=EVAL_ID, run_ids=run_ids))
    assert cluster.calls == [("delete", names)]


# ------------------------------------------------------------------ of all of them


def test_the_kubeconfig_of_the_request_is_used_for_every_step(activities, cluster, state):
    cluster.statuses = {name: a_job(name, JobState.RUNNING) for name in (NAME_A, NAME_B)}
    activities.verify_cluster_connection(None, REQUEST)
    activities.create_engine_config(None, REQUEST)
    activities.deploy_eval_job_v2(None, REQUEST)
    activities.monitor_jobs_loop(None, state)
    activities.check_job_status(None, CheckRequest(job_ids=[NAME_A], eval_id=EVAL_ID))
    activities.extract_job_results(None, EXTRACT)
    activities.delete_eval_jobs(None, CleanUpRequest(eval_id=EVAL_ID))
    assert len(cluster.calls) == 6
    assert cluster.kubeconfigs == {KUBECONFIG}


def test_no_answer_and_no_notification_has_a_secret_in_it(activities, cluster, state, broker, caplog):
    caplog.set_level(logging.DEBUG)
    leaky = a_job(NAME_A, JobState.FAILED, reason="EndpointUnauthorized", message=f"refused the key {API_KEY}")
    cluster.statuses = {NAME_A: leaky, NAME_B: a_job(NAME_B, JobState.SUCCEEDED)}
    scores = [{"dataset": API_KEY, "version": "1", "metric": "accuracy", "mode": "gen", "score": float("nan")}]
    cluster.files = {NAME_B: a_result("run-b", scores=scores)}
    answers = [
        activities.begin_evaluation(None, REQUEST),
        activities.verify_cluster_connection(None, REQUEST),
        activities.create_engine_config(None, REQUEST),
        activities.deploy_eval_job_v2(None, REQUEST),
        activities.monitor_jobs_loop(None, state),
        activities.check_job_status(None, CheckRequest(job_ids=[NAME_A], eval_id=EVAL_ID)),
        activities.extract_job_results(None, ExtractRequest(eval_id=EVAL_ID, job_ids=["run-b"])),
        activities.delete_eval_jobs(None, CleanUpRequest(eval_id=EVAL_ID)),
        activities.finish_evaluation(None, FinishRequest(eval_id=EVAL_ID)),
    ]
    told = json.dumps([answers, [message.body for message in broker.messages], caplog.messages])
    assert [secret for secret in (API_KEY, TOKEN) if secret in told] == []


def test_an_error_that_quotes_the_key_is_redacted(activities, cluster, record_evaluation):
    record_evaluation()
    activities.create_engine_config(None, REQUEST)

    def fail():
        raise DeploymentFailed(f"admission refused {API_KEY}")

    cluster.while_deploying = fail
    with pytest.raises(DeploymentFailed) as caught:
        activities.deploy_eval_job_v2(None, REQUEST)
    assert API_KEY not in f"{caught.value} {caught.value.args}"


def test_every_activity_is_registered_under_its_own_name(activities):
    assert [activity.__name__ for activity in activities.all()] == [
        "begin_evaluation", "announce_step", "verify_cluster_connection", "create_engine_config", "deploy_eval_job_v2",
        "check_job_status", "monitor_jobs_loop", "extract_job_results", "delete_eval_jobs", "finish_evaluation",
    ]  # fmt: skip

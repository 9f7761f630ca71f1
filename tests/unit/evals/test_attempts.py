"""What a retry runs again, how an attempt ends, and what comes late."""

import pytest

from budeval.commons.errors import AttemptSuperseded, EvaluationCancelled, EvaluationConflict
from budeval.commons.settings import MonitorSettings
from budeval.commons.wire import Event, WorkflowStatus, monitor_instance_id, workflow_instance_id
from budeval.evals.activities import (
    CleanUpRequest,
    ExtractRequest,
    FinishRequest,
    StepNews,
    StepRequest,
)
from budeval.evals.attempts import RetryChanges, ending, keeps_scores, next_attempt, runs_to_retry
from budeval.evals.models import AskedResources, ErrorInfo, RunResult, Score
from budeval.evals.monitoring import MonitorState
from budeval.evals.notifications import eta_announcement, event_id
from budeval.evals.services import evaluation_input
from budeval.jobs.models import JobState, JobStatus
from budeval.jobs.names import job_name, workspace_name
from tests.samples import EVAL_ID, SECRETS, an_evaluation
from tests.unit.evals.test_activities import a_result

BROKEN = ErrorInfo(reason="EndpointUnauthorized", message="401")
SCORE = Score(dataset="siqa", version="1", metric="accuracy", mode="gen", score=35.42)
CHANGES = RetryChanges(has_api_key=True, monitor=MonitorSettings())
SECOND = StepRequest(eval_id=EVAL_ID, attempt=2)


@pytest.fixture
def end(record, record_evaluation):
    """Ends an evaluation whose runs ``scored`` have scores, and whose others failed."""

    def make(*scored, status=WorkflowStatus.COMPLETED):
        record_evaluation()
        results = [RunResult(run_id=run_id, scores=[SCORE]) for run_id in scored]
        record.save_results(EVAL_ID, results)
        record.finish(EVAL_ID, status, BROKEN)

    return make


@pytest.fixture
def second(record, end):
    """Begins the second attempt of an evaluation whose runs ``scored`` have scores."""

    def make(*scored, **changes):
        end(*scored)
        runs = runs_to_retry(record.view(EVAL_ID))
        evaluation = next_attempt(record.definition(EVAL_ID), runs, CHANGES.model_copy(update=changes))
        record.retry(evaluation, SECRETS, {run_id: job_name(EVAL_ID, run_id, 2) for run_id in runs}, "operator")
        return record.definition(EVAL_ID)

    return make


# ------------------------------------------------------------------ decisions


@pytest.mark.parametrize(
    ("scored", "status", "expected"),
    [
        (("run-a",), WorkflowStatus.COMPLETED, ["run-b"]),
        ((), WorkflowStatus.FAILED, ["run-a", "run-b"]),
        (("run-b",), WorkflowStatus.TERMINATED, ["run-a"]),
    ],
)
def test_runs_without_scores_are_tried_again(record, end, scored, status, expected):
    end(*scored, status=status)
    assert runs_to_retry(record.view(EVAL_ID)) == expected


def test_where_every_run_has_scores_there_is_nothing_to_retry(record, end):
    end("run-a", "run-b")
    with pytest.raises(EvaluationConflict, match="every run"):
        runs_to_retry(record.view(EVAL_ID))


def test_what_runs_is_not_tried_again(record, record_evaluation):
    record_evaluation()
    with pytest.raises(EvaluationConflict, match="PENDING"):
        runs_to_retry(record.view(EVAL_ID))


def test_resources_of_an_earlier_retry_stay_unless_others_are_asked_for():
    asked = AskedResources(limits={"memory": "4Gi"})
    second = next_attempt(an_evaluation(), ["run-a"], CHANGES.model_copy(update={"resources": asked}))
    assert next_attempt(second, ["run-a"], CHANGES).resources == asked
    assert [run.attempt for run in next_attempt(second, ["run-b"], CHANGES).runs] == [2, 3]


@pytest.mark.parametrize("status", [WorkflowStatus.FAILED, WorkflowStatus.TERMINATED])
@pytest.mark.parametrize(("scored", "kept"), [(("run-a",), True), ((), False)])
def test_scores_of_an_earlier_attempt_outlive_the_failure_of_a_later_one(record, second, status, scored, kept):
    second(*scored)
    view = record.view(EVAL_ID)
    assert keeps_scores(view) is kept
    assert ending(view, status, BROKEN) == ((WorkflowStatus.COMPLETED, None) if kept else (status, BROKEN))


def test_a_first_attempt_ends_as_its_workflow_says(record, record_evaluation):
    record_evaluation()
    record.save_results(EVAL_ID, [RunResult(run_id="run-a", scores=[SCORE])])
    view = record.view(EVAL_ID)
    assert ending(view, WorkflowStatus.TERMINATED, BROKEN) == (WorkflowStatus.TERMINATED, BROKEN)


# ------------------------------------------------------------------ names


def test_each_attempt_has_a_workflow_a_job_and_events_of_its_own():
    attempts = (1, 2, 3, 11)
    assert workflow_instance_id(EVAL_ID) == EVAL_ID
    assert monitor_instance_id(EVAL_ID) == f"{EVAL_ID}-monitor"
    assert workflow_instance_id(EVAL_ID, 2) == f"{EVAL_ID}-attempt-2"
    assert monitor_instance_id(EVAL_ID, 2) == f"{EVAL_ID}-attempt-2-monitor"
    assert len({job_name(EVAL_ID, "run-a", attempt) for attempt in attempts}) == len(attempts)
    assert len({event_id(EVAL_ID, eta_announcement(30), attempt) for attempt in attempts}) == len(attempts)
    assert workspace_name(EVAL_ID, "run-a") == job_name(EVAL_ID, "run-a")


@pytest.mark.parametrize("run_id", ["a" * 60, "x"])
def test_no_run_id_imitates_a_later_attempt_of_another(run_id):
    others = [f"{run_id}/2", f"attempt-2/{run_id}", f"2/{run_id}", f"{run_id}-2"]
    digest = job_name(EVAL_ID, run_id, 2)[-10:]
    assert digest not in {job_name(EVAL_ID, other, attempt)[-10:] for other in others for attempt in (1, 2)}


def test_the_workflow_of_an_attempt_has_its_runs_alone(second):
    found = evaluation_input(second("run-a"))
    assert (found.attempt, found.run_ids) == (2, ["run-b"])


# ------------------------------------------------------------------ activities


def test_a_later_attempt_deploys_and_reads_what_it_runs(activities, record, cluster, second):
    second("run-a", resources=AskedResources(limits={"memory": "4Gi"}))
    activities.create_engine_config(None, SECOND)
    activities.deploy_eval_job_v2(None, SECOND)
    assert (cluster.objects.attempt, cluster.objects.job_names) == (2, [job_name(EVAL_ID, "run-b", 2)])
    container = cluster.objects.jobs[0]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"memory": "4Gi"}
    cluster.files = {workspace_name(EVAL_ID, "run-b"): a_result("run-b")}
    activities.extract_job_results(None, ExtractRequest(eval_id=EVAL_ID, attempt=2, job_ids=["run-b"]))
    assert [bool(run.scores) for run in record.view(EVAL_ID).runs] == [True, True]
    activities.delete_eval_jobs(None, CleanUpRequest(eval_id=EVAL_ID, attempt=2, run_ids=["run-b"]))
    assert cluster.calls[-1] == ("delete", [job_name(EVAL_ID, "run-b", 2)], 2)


OLD = StepRequest(eval_id=EVAL_ID)
LATE = [
    ("begin_evaluation", OLD),
    (
        "announce_step",
        StepNews(eval_id=EVAL_ID, event=Event.DEPLOY, status=WorkflowStatus.FAILED, title="t", message="m"),
    ),
    ("verify_cluster_connection", OLD),
    ("create_engine_config", OLD),
    ("deploy_eval_job_v2", OLD),
    ("extract_job_results", ExtractRequest(eval_id=EVAL_ID, job_ids=["run-a"])),
    ("delete_eval_jobs", CleanUpRequest(eval_id=EVAL_ID)),
    ("finish_evaluation", FinishRequest(eval_id=EVAL_ID, status=WorkflowStatus.FAILED, error=BROKEN)),
]


@pytest.mark.parametrize(("name", "request_"), LATE)
def test_what_an_older_attempt_still_does_is_refused(activities, record, cluster, broker, second, name, request_):
    second("run-a")
    before = record.view(EVAL_ID)
    with pytest.raises(AttemptSuperseded):
        getattr(activities, name)(None, request_)
    assert (record.view(EVAL_ID), cluster.calls, broker.messages) == (before, [], [])


def test_a_check_of_an_older_attempt_is_refused(activities, second, cluster):
    evaluation = second("run-a")
    state = MonitorState.first(evaluation_input(evaluation)).model_copy(update={"attempt": 1})
    with pytest.raises(AttemptSuperseded):
        activities.monitor_jobs_loop(None, state)
    assert cluster.calls == []


def test_jobs_made_for_an_attempt_that_is_superseded_meanwhile_are_removed(
    activities, record, cluster, record_evaluation
):
    evaluation = record_evaluation()
    activities.create_engine_config(None, OLD)

    def another_attempt_begins():
        record.finish(EVAL_ID, WorkflowStatus.FAILED, BROKEN)
        names = {run_id: job_name(EVAL_ID, run_id, 2) for run_id in evaluation.run_ids}
        record.retry(next_attempt(evaluation, evaluation.run_ids, CHANGES), SECRETS, names, "operator")

    cluster.while_deploying = another_attempt_begins
    with pytest.raises(EvaluationCancelled):
        activities.deploy_eval_job_v2(None, OLD)
    assert cluster.calls[-1] == ("delete", None)
    assert not record.cancel_requested(EVAL_ID, attempt=2)


def test_a_step_that_fails_paints_the_scores_of_an_earlier_attempt_not_failed(activities, record, broker, second):
    second("run-a")
    news = {"eval_id": EVAL_ID, "attempt": 2, "event": Event.DEPLOY, "title": "t", "message": "m"}
    for status in (WorkflowStatus.RUNNING, WorkflowStatus.FAILED):
        activities.announce_step(None, StepNews(status=status, **news))
    assert broker.told == ["deploy_eval_job.RUNNING"] * 2
    assert record.view(EVAL_ID).steps[2].status == "FAILED"


def test_progress_of_a_later_attempt_is_shown_by_its_own_workflow(activities, cluster, second, listening_workflows):
    state = MonitorState.first(evaluation_input(second("run-a")))
    name = job_name(EVAL_ID, "run-b", 2)
    cluster.statuses = {name: JobStatus(name=name, status=JobState.SUCCEEDED, phase="Succeeded")}
    activities.monitor_jobs_loop(None, state)
    assert [instance_id for instance_id, *_ in listening_workflows.events] == [f"{EVAL_ID}-attempt-2"]

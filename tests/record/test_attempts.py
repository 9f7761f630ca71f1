"""Another attempt in the record, what comes late from an older one, and deletion; on both databases."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import inspect, text

from budeval.commons.errors import AttemptSuperseded, EvaluationConflict, EvaluationNotFound
from budeval.commons.sealing import EvaluationSecrets
from budeval.commons.settings import MonitorSettings
from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.attempts import RetryChanges, next_attempt
from budeval.evals.models import AskedResources, ErrorInfo, RunResult, Score
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.models import JobState, Progress
from budeval.jobs.names import job_name
from budeval.record import happenings
from budeval.record.outbox import OutgoingMessage
from tests.record.test_concurrency import at_once
from tests.samples import EVAL_ID, SECRETS, write_down

BROKEN = ErrorInfo(reason="EndpointUnauthorized", message="401")
SCORE = Score(dataset="siqa", version="1", metric="accuracy", mode="gen", score=35.42)
NEW_SECRETS = EvaluationSecrets(api_key=SecretStr("another-key"))
CHANGES = RetryChanges(
    has_api_key=True,
    monitor=MonitorSettings(poll_interval=7, max_checks=8, progress_every=9),
    resources=AskedResources(limits={"memory": "4Gi"}),
)
RESULTS = OutgoingMessage(event_id="r", event=Event.RESULTS, status="COMPLETED", topic="t", message="", body={})


@pytest.fixture
def half_failed(record, evaluation):
    """run-a has a score, run-b failed after 12 of 48 questions; the evaluation was cancelled by somebody."""
    progress = Progress(phase="inference", done=12, total=48)
    record.begin(EVAL_ID)
    record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.COMPLETED, "2 Jobs")
    update = RunUpdate(run_id="run-b", status=JobState.FAILED, progress=progress, error=BROKEN, result_sha256="0")
    record.update_runs(EVAL_ID, [update], eta_minutes=5)
    record.save_results(EVAL_ID, [RunResult(run_id="run-a", scores=[SCORE])])
    record.request_cancel(EVAL_ID, "somebody")
    record.finish(EVAL_ID, WorkflowStatus.TERMINATED, BROKEN)
    return evaluation


def retry(record, run_ids=("run-b",)):
    evaluation = next_attempt(record.definition(EVAL_ID), run_ids, CHANGES)
    names = {run_id: job_name(EVAL_ID, run_id, evaluation.attempt) for run_id in run_ids}
    record.retry(evaluation, NEW_SECRETS, names, "operator")
    return names


def test_another_attempt_begins_as_if_nothing_had_ended(record, half_failed):
    names = retry(record)
    view = record.view(EVAL_ID)
    assert (view.status, view.attempt) == ("PENDING", 2)
    assert (view.started_at, view.ended_at, view.error, view.cancelled_by, view.eta_minutes) == (None,) * 5
    assert {step.status for step in view.steps} == {"PENDING"}
    assert not record.cancel_requested(EVAL_ID)
    assert record.open_secrets(EVAL_ID) == NEW_SECRETS
    kept, waiting = view.runs
    assert (kept.attempt, kept.status, kept.scores) == (1, "Succeeded", [SCORE])
    assert (waiting.attempt, waiting.status, waiting.error, waiting.job_name) == (2, "Pending", None, names["run-b"])
    assert (waiting.progress.done, waiting.progress.total) == (12, 48)
    assert record.result_digests(EVAL_ID)["run-b"] is None
    (active,) = record.active()
    assert (active.attempt, active.poll_interval) == (2, 7)


def test_another_attempt_changes_what_was_asked_for(record, half_failed):
    retry(record)
    evaluation = record.definition(EVAL_ID)
    assert (evaluation.attempt, [run.attempt for run in evaluation.runs]) == (2, [1, 2])
    assert [run.run_id for run in evaluation.runs_of_attempt] == ["run-b"]
    assert (evaluation.monitor, evaluation.resources) == (CHANGES.monitor, CHANGES.resources)


@pytest.mark.parametrize("told", [False, True])
def test_whether_results_were_told_is_known_by_what_there_is_to_publish(record, outbox, half_failed, told):
    if told:
        write_down(outbox, [RESULTS])
    retry(record)
    assert record.definition(EVAL_ID).results_told is told


def test_of_many_who_retry_at_once_exactly_one_begins(record, half_failed):
    asked = next_attempt(record.definition(EVAL_ID), ["run-b"], CHANGES)

    def begin(_):
        try:
            record.retry(asked, NEW_SECRETS, {"run-b": "job"}, "operator")
        except EvaluationConflict:
            return False
        return True

    assert sorted(at_once(begin)) == [False] * 7 + [True]
    entries = record.timeline.entries(EVAL_ID, 0, 100)
    assert [(entry.title, entry.actor, entry.count) for entry in entries if entry.kind == "attempt"] == [
        ("Attempt 2 requested", "operator", 1)
    ]


def test_what_has_not_ended_is_not_tried_again(record, evaluation):
    with pytest.raises(EvaluationConflict, match="PENDING"):
        retry(record)


LATE = [
    lambda record: record.definition(EVAL_ID, attempt=1),
    lambda record: record.heard(EVAL_ID, attempt=1),
    lambda record: record.begin(EVAL_ID, attempt=1),
    lambda record: record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.FAILED, "late", attempt=1),
    lambda record: record.save_engine_configs(EVAL_ID, {"run-b": {"late": 1}}, attempt=1),
    lambda record: record.update_runs(EVAL_ID, [RunUpdate(run_id="run-b", status=JobState.FAILED)], attempt=1),
    lambda record: record.trying_again(EVAL_ID, happenings.woken("late"), attempt=1),
    lambda record: record.pods_failed(EVAL_ID, {"run-b": 3}, attempt=1),
    lambda record: record.save_results(EVAL_ID, [RunResult(run_id="run-a", error=BROKEN)], attempt=1),
    lambda record: record.cancel_requested(EVAL_ID, attempt=1),
    lambda record: record.finish(EVAL_ID, WorkflowStatus.FAILED, BROKEN, attempt=1),
]


@pytest.mark.parametrize("write", LATE)
def test_what_an_older_attempt_does_late_is_refused_and_changes_nothing(record, database, half_failed, write):
    retry(record)
    before = stored(database)
    with pytest.raises(AttemptSuperseded, match="attempt 2"):
        write(record)
    assert stored(database) == before


def test_what_an_older_attempt_says_late_is_not_told(record, outbox, half_failed):
    retry(record)
    with pytest.raises(AttemptSuperseded):
        record.begin(EVAL_ID, lambda _: [RESULTS], attempt=1)
    with pytest.raises(AttemptSuperseded):
        record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.FAILED, "late", lambda _: [RESULTS], attempt=1)
    assert outbox.claim_next(EVAL_ID) is None


def test_what_happens_again_in_another_attempt_is_told_again(record, half_failed):
    retry(record)
    record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.COMPLETED, "2 Jobs", attempt=2)
    entries = record.timeline.entries(EVAL_ID, 0, 100)
    assert [entry.count for entry in entries if entry.kind == "step"] == [1, 1]


def test_results_of_an_attempt_leave_the_scores_of_another(record, half_failed):
    retry(record)
    record.save_results(EVAL_ID, [RunResult(run_id="run-b", scores=[SCORE])], attempt=2)
    assert [run.scores for run in record.view(EVAL_ID).runs] == [[SCORE], [SCORE]]


# ------------------------------------------------------------------ deletion


def stored(database):
    """All rows of all tables, as one text."""
    with database.connect() as connection:
        tables = inspect(connection).get_table_names()
        return "\n".join(str(row) for table in tables for row in connection.execute(text(f"SELECT * FROM {table}")))  # noqa: S608


def test_a_deleted_evaluation_leaves_no_row(record, outbox, database, half_failed):
    write_down(outbox, [RESULTS])
    record.begin_deletion(EVAL_ID, "admin")
    record.delete(EVAL_ID)
    assert EVAL_ID not in stored(database)
    for ask in (record.view, record.delete, record.timeline.head, lambda eval_id: record.begin_deletion(eval_id, "x")):
        with pytest.raises(EvaluationNotFound):
            ask(EVAL_ID)
    assert record.timeline.heads([EVAL_ID]) == {}


def test_a_deleted_evaluation_leaves_no_trace_in_the_files_of_sqlite(record, database, half_failed):
    if database.dialect.name == "sqlite":
        record.begin_deletion(EVAL_ID, "admin")
        record.delete(EVAL_ID)
        directory = database.url.database.rpartition("/")[0]
        assert not [path for path in Path(directory).iterdir() if EVAL_ID.encode() in path.read_bytes()]


def test_what_is_published_while_it_is_deleted_is_forgotten_too(record, outbox, half_failed):
    write_down(outbox, [RESULTS])
    claimed = outbox.claim_next(EVAL_ID)
    record.begin_deletion(EVAL_ID, "admin")
    record.delete(EVAL_ID)
    outbox.published(claimed.id)
    with pytest.raises(EvaluationNotFound):
        record.begin(EVAL_ID, lambda _: [RESULTS], attempt=1)


def test_what_has_not_ended_is_not_deleted(record, evaluation):
    with pytest.raises(EvaluationConflict, match="cancel it"):
        record.begin_deletion(EVAL_ID, "admin")
    with pytest.raises(EvaluationConflict, match="not being deleted"):
        record.delete(EVAL_ID)
    assert record.open_secrets(EVAL_ID) == SECRETS


def test_what_is_being_deleted_is_not_tried_again(record, half_failed):
    record.begin_deletion(EVAL_ID, "admin")
    record.begin_deletion(EVAL_ID, "admin")
    with pytest.raises(EvaluationConflict, match="being deleted"):
        retry(record)
    entries = record.timeline.entries(EVAL_ID, 0, 100)
    assert [(entry.actor, entry.count) for entry in entries if entry.kind == "delete"] == [("admin", 1)]


def test_a_retry_and_a_deletion_at_once_lose_neither(record, half_failed):
    asked = next_attempt(record.definition(EVAL_ID), ["run-b"], CHANGES)

    def act(number):
        try:
            if number % 2:
                record.retry(asked, NEW_SECRETS, {"run-b": "job"}, "operator")
                return "retried"
            record.begin_deletion(EVAL_ID, "admin")
        except EvaluationConflict:
            return "refused"
        return "deleting"

    done = set(at_once(act))
    assert done in ({"retried", "refused"}, {"deleting", "refused"})
    assert record.definition(EVAL_ID).deleting is ("deleting" in done)

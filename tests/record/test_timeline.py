from datetime import timedelta

import pytest
from sqlalchemy import event

from budeval.commons.errors import ClusterUnreachable, EvaluationNotFound
from budeval.commons.redaction import redactor
from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.models import ErrorInfo, RunResult, Score
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.models import JobState, Progress
from budeval.record import happenings
from budeval.record import timeline as timeline_module
from budeval.record.outbox import OutgoingMessage
from budeval.record.timeline import HEADS_PER_QUERY, LAST_WORDS_SECONDS, Head
from tests.record.test_concurrency import at_once
from tests.samples import EVAL_ID, SECRETS, an_evaluation, job_names, write_down

OTHER_ID = "555e4567-e89b-12d3-a456-426614174021"
PULLING = ErrorInfo(reason="ImagePullBackOff", message="The image cannot be pulled")
SCORE = Score(dataset="siqa", version="1", metric="accuracy", mode="gen", score=35.42)
UNREACHABLE = happenings.step_postponed(ClusterUnreachable("nobody answers"))


@pytest.fixture
def told(record, evaluation):
    """The timeline behind the creation: kind, run, reason, message and count of each entry."""

    def entries():
        found = record.timeline.entries(EVAL_ID, 1, 1000)
        return [(entry.kind, entry.run_id, entry.reason, entry.message, entry.count) for entry in found]

    return entries


def sweep(record, status, error=None, **changes):
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=status, error=error, **changes)])


def publish(outbox, event_id, message="Jobs: 1 completed, 1 running", topic="topic"):
    outgoing = OutgoingMessage(
        event_id=event_id, event=Event.MONITOR, status="RUNNING", topic=topic, message=message, body={}
    )
    write_down(outbox, [outgoing])
    claimed = outbox.claim_next(EVAL_ID)
    outbox.published(claimed.id)
    return claimed.id


def test_it_begins_with_who_asked_for_what(record, evaluation):
    entry = record.timeline.entries(EVAL_ID, 0, 10)[0]
    assert (entry.sequence, entry.kind, entry.message, entry.actor, entry.count) == (
        1, "created", "2 runs of small-model, for budapp", "tester", 1,
    )  # fmt: skip
    assert entry.at == entry.first_at >= record.view(EVAL_ID).created_at


def test_steps_are_told_once_however_often_they_are_written(record, told):
    for status, message in ((WorkflowStatus.RUNNING, "checks"), (WorkflowStatus.COMPLETED, "fine")):
        record.step(EVAL_ID, Event.VERIFY_CLUSTER, status, message)
        record.step(EVAL_ID, Event.VERIFY_CLUSTER, status, message)
    record.step(EVAL_ID, Event.VERIFY_CLUSTER, WorkflowStatus.RUNNING, "checks")
    assert told() == [("step", None, "RUNNING", "checks", 1), ("step", None, "COMPLETED", "fine", 1)]


def test_a_run_is_told_of_when_its_state_changes_and_not_at_every_sweep(record, told):
    sweep(record, JobState.PENDING)
    sweep(record, JobState.MISSING)
    for _ in range(3):
        sweep(record, JobState.PENDING, PULLING)
    for done in range(3):
        sweep(record, JobState.RUNNING, progress=Progress(phase="inference", done=done, total=9))
    sweep(record, JobState.SUCCEEDED)
    assert told() == [
        ("run", "run-a", "ImagePullBackOff", "The image cannot be pulled", 1),
        ("run", "run-a", "Running", "", 1),
        ("run", "run-a", "Succeeded", "", 1),
    ]


def test_what_happens_again_is_counted_and_moves_to_the_end(record, told):
    sweep(record, JobState.PENDING, PULLING)
    sweep(record, JobState.RUNNING)
    first = record.timeline.entries(EVAL_ID, 1, 1)[0]
    sweep(record, JobState.PENDING, PULLING)
    assert [(reason, count) for _, _, reason, _, count in told()] == [("Running", 1), ("ImagePullBackOff", 2)]
    again = record.timeline.entries(EVAL_ID, first.sequence, 10)[-1]
    assert (again.first_at, again.sequence) == (first.at, 4)
    assert again.at > first.at


def test_failures_that_are_worth_a_retry_are_counted(record, told):
    for _ in range(3):
        record.trying_again(EVAL_ID, UNREACHABLE)
    assert told() == [("retry", None, "ClusterUnreachable", "nobody answers", 3)]


def test_failed_pods_are_told_once_for_each_number(record, told):
    for pods in ({}, {"run-a": 1}, {"run-a": 1}, {"run-a": 2, "run-b": 1}):
        record.pods_failed(EVAL_ID, pods)
    assert [(kind, run_id, message.split(" failed")[0]) for kind, run_id, _, message, _ in told()] == [
        ("retry", "run-a", "1 pod"),
        ("retry", "run-a", "2 pods"),
        ("retry", "run-b", "1 pod"),
    ]


def test_results_are_told_once_with_scores_or_the_reason_why_there_are_none(record, told):
    missing = ErrorInfo(reason="ResultsIncomplete", message="there is no score")
    results = [RunResult(run_id="run-a", scores=[SCORE]), RunResult(run_id="run-b", error=missing)]
    record.save_results(EVAL_ID, results)
    record.save_results(EVAL_ID, results)
    assert told() == [
        ("run", "run-a", "ScoresRead", "siqa accuracy 35.42", 1),
        ("run", "run-b", "ResultsIncomplete", "there is no score", 1),
    ]


def test_a_notification_is_told_when_the_broker_has_it(outbox, told):
    message_id = publish(outbox, "one")
    outbox.published(message_id)
    publish(outbox, "one", topic="another")
    publish(outbox, "two")
    assert [(kind, reason, count) for kind, _, reason, _, count in told()] == [
        ("notification", "monitor_eval_job_progress RUNNING", 1),
        ("notification", "monitor_eval_job_progress RUNNING", 2),
    ]


def test_a_notification_that_the_broker_refused_is_not_told(outbox, told):
    write_down(outbox, [OutgoingMessage(event_id="1", event="eta", status="RUNNING", topic="t", message="", body={})])
    outbox.release(outbox.claim_next(EVAL_ID).id)
    assert told() == []


def test_who_cancelled_is_told_and_only_the_first_one(record, evaluation):
    record.request_cancel(EVAL_ID, by="alice")
    record.request_cancel(EVAL_ID, by="bob")
    assert [(entry.kind, entry.actor) for entry in record.timeline.entries(EVAL_ID, 1, 10)] == [("cancel", "alice")]


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [(WorkflowStatus.COMPLETED, None, "COMPLETED"), (WorkflowStatus.FAILED, PULLING, "ImagePullBackOff")],
)
def test_the_end_is_told_once_and_nothing_is_added_but_the_last_words(record, outbox, told, status, error, reason):
    record.finish(EVAL_ID, status, error)
    record.finish(EVAL_ID, WorkflowStatus.TERMINATED)
    record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.RUNNING, "late")
    sweep(record, JobState.RUNNING)
    record.trying_again(EVAL_ID, UNREACHABLE)
    record.pods_failed(EVAL_ID, {"run-a": 1})
    publish(outbox, "last")
    assert [(kind, why) for kind, _, why, _, _ in told()] == [
        ("end", reason),
        ("notification", "monitor_eval_job_progress RUNNING"),
    ]


def test_texts_are_made_fit_to_show(record, told):
    error = ErrorInfo(reason="Odd", message="NUL\x00 and the key canary-key " + "x" * 5000)
    with redactor.hiding("canary-key"):
        sweep(record, JobState.PENDING, error)
    _, _, _, message, _ = told()[0]
    assert message.startswith("NUL  and the key [redacted] xxx")
    assert len(message) == 2000


def test_entries_come_in_pages_that_miss_nothing(record, told):
    for number in range(25):
        record.trying_again(EVAL_ID, UNREACHABLE._replace(message=f"{number}"))
    pages, after = [], 0
    while page := record.timeline.entries(EVAL_ID, after, 10):
        pages.append(page)
        after = page[-1].sequence
    assert [len(page) for page in pages] == [10, 10, 6]
    assert [entry.sequence for page in pages for entry in page] == list(range(1, 27))


def test_an_entry_that_moves_while_pages_are_read_is_not_missed(record, told):
    for number in range(4):
        record.trying_again(EVAL_ID, UNREACHABLE._replace(message=f"{number}"))
    first = record.timeline.entries(EVAL_ID, 0, 3)
    record.trying_again(EVAL_ID, UNREACHABLE._replace(message="3"))
    rest = record.timeline.entries(EVAL_ID, first[-1].sequence, 10)
    assert [entry.message for entry in rest] == ["2", "3"]


def test_of_many_who_write_each_gets_a_place_of_its_own(record, outbox, told):
    def write(number):
        for turn in range(10):
            text = f"{number} {turn}"
            record.trying_again(EVAL_ID, UNREACHABLE._replace(message=text))
            record.trying_again(EVAL_ID, UNREACHABLE)
            message = OutgoingMessage(event_id=text, event="eta", status="RUNNING", topic="t", message=text, body={})
            write_down(outbox, [message])
            if (claimed := outbox.claim_next(EVAL_ID)) is not None:
                outbox.published(claimed.id)

    at_once(write)
    entries = record.timeline.entries(EVAL_ID, 0, 1000)
    assert [entry.count for entry in entries if entry.message == "nobody answers"] == [80]
    assert len([entry for entry in entries if entry.kind == "retry"]) == 81
    assert record.timeline.head(EVAL_ID).newest == entries[-1].sequence == sum(entry.count for entry in entries)


# ------------------------------------------------------------------ heads


def test_a_head_says_how_far_a_timeline_is_and_when_it_is_complete(record, evaluation, monkeypatch):
    record.trying_again(EVAL_ID, UNREACHABLE)
    assert record.timeline.head(EVAL_ID) == Head(newest=2, complete=False)
    record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    assert record.timeline.head(EVAL_ID) == Head(newest=3, complete=False)
    now = timeline_module.utc_now
    monkeypatch.setattr(timeline_module, "utc_now", lambda: now() + timedelta(seconds=LAST_WORDS_SECONDS + 1))
    assert record.timeline.head(EVAL_ID) == Head(newest=3, complete=True)


def test_what_nobody_asked_for_has_no_timeline(record, evaluation):
    with pytest.raises(EvaluationNotFound, match=OTHER_ID):
        record.timeline.head(OTHER_ID)
    assert record.timeline.heads([OTHER_ID, EVAL_ID]).keys() == {EVAL_ID}


def test_a_thousand_heads_cost_one_query(database, record, evaluation):
    other = an_evaluation(OTHER_ID)
    record.create(other, SECRETS, b"", job_names(other), "tester")
    statements = []

    @event.listens_for(database, "before_cursor_execute")
    def _count(_connection, _cursor, statement, *_rest):
        statements.append(statement)

    nobody = [f"{number:08}-0000-0000-0000-000000000000" for number in range(HEADS_PER_QUERY - 2)]
    assert record.timeline.heads([EVAL_ID, *nobody, OTHER_ID]).keys() == {EVAL_ID, OTHER_ID}
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 1
    assert record.timeline.heads([EVAL_ID, *nobody, *nobody, OTHER_ID]).keys() == {EVAL_ID, OTHER_ID}

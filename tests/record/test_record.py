import base64
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import inspect, text

from budeval.commons.errors import EvaluationNotFound, SecretsUnreadable
from budeval.commons.settings import MonitorSettings
from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.models import ErrorInfo, NotificationMetadata, RunResult, Score
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.models import JobState, Progress
from budeval.record import Record
from budeval.record.outbox import OutgoingMessage
from tests.samples import API_KEY, EVAL_ID, SECRETS, TOKEN, a_sealer, an_evaluation, job_names

OTHER_ID = "555e4567-e89b-12d3-a456-426614174021"
STARTED = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)
ENDED = datetime(2026, 1, 1, 10, 15, 30, tzinfo=UTC)
BROKEN = ErrorInfo(reason="EndpointUnauthorized", message="401", resolution="Give the right key.")
SCORES = [
    Score(dataset="siqa", version="18632c", metric="loss", mode="gen", score=1.25),
    Score(dataset="siqa", version="18632c", metric="accuracy", mode="gen", score=35.42),
]
RESULT = RunResult(
    run_id="run-a",
    scores=SCORES,
    start_time=STARTED,
    completion_time=ENDED,
    duration_seconds=930.0,
    questions={"asked": 48, "answered": 48, "failed": 0},
)


def twice(write):
    """Activities run at least once: a write is made a second time, and must change nothing."""
    first = write()
    write()
    return first


def run_of(record, run_id, eval_id=EVAL_ID):
    return next(run for run in record.view(eval_id).runs if run.run_id == run_id)


def stored(database):
    """Everything in the database, as one text."""
    with database.connect() as connection:
        tables = inspect(connection).get_table_names()
        return "\n".join(str(row) for table in tables for row in connection.execute(text(f"SELECT * FROM {table}")))  # noqa: S608


# ------------------------------------------------------------------ the request


def test_a_new_evaluation_is_pending_with_its_runs_in_the_order_of_the_request(record, evaluation):
    view = record.view(EVAL_ID)
    assert (view.status, view.model_name, view.engine, view.source) == (
        "PENDING",
        "small-model",
        "opencompass",
        "budapp",
    )
    assert [(run.run_id, run.dataset_id, run.status) for run in view.runs] == [
        ("run-a", "siqa_gen", "Pending"),
        ("run-b", "siqa_gen", "Pending"),
    ]
    assert [run.job_name for run in view.runs] == list(job_names(evaluation).values())
    assert [(step.id, step.status) for step in view.steps] == [
        ("verify_cluster_connection", "PENDING"),
        ("preparing_eval_engine", "PENDING"),
        ("deploy_eval_job", "PENDING"),
        ("monitor_eval_job_progress", "PENDING"),
    ]
    assert (view.started_at, view.ended_at, view.error, view.cancelled_by, view.eta_minutes) == (None,) * 5


def test_an_eval_id_is_taken_once_and_stays_as_it_was(record, evaluation):
    other = an_evaluation(run_ids=("run-z",), source="somebody-else")
    assert not record.create(other, SECRETS, b"another request", job_names(other), "tester")
    assert record.definition(EVAL_ID) == evaluation
    assert [run.run_id for run in record.view(EVAL_ID).runs] == ["run-a", "run-b"]


def test_a_definition_comes_back_as_it_went_in(record):
    evaluation = an_evaluation(
        experiment_id=OTHER_ID,
        parameters={"query_per_second": 50.0, "max_out_len": 2048},
        max_questions=24,
        monitor=MonitorSettings(poll_interval=5, max_checks=3, progress_every=1),
        source="{{ lookup('pipe', 'id') }} — 实验 \u202e",
        source_topics=["one", "two"],
        notification=NotificationMetadata(name="n", topic_keys=["a", {"b": 1}]),
    )
    record.create(evaluation, SECRETS, b"", job_names(evaluation), "tester")
    assert record.definition(EVAL_ID) == evaluation


@pytest.mark.parametrize(
    ("eval_id", "body", "same"),
    [(EVAL_ID, b"the request", True), (EVAL_ID, b"the request ", False)],
)
def test_a_repetition_is_known_by_the_whole_body(record, evaluation, eval_id, body, same):
    assert record.is_same_request(eval_id, body) is same


def test_an_ended_evaluation_is_the_same_as_no_request(record, evaluation):
    record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    assert not record.is_same_request(EVAL_ID, b"the request")


@pytest.mark.parametrize(
    "ask",
    [
        lambda record: record.definition(OTHER_ID),
        lambda record: record.view(OTHER_ID),
        lambda record: record.open_secrets(OTHER_ID),
        lambda record: record.is_same_request(OTHER_ID, b""),
        lambda record: record.request_cancel(OTHER_ID, "api"),
        lambda record: record.cancel_requested(OTHER_ID),
        lambda record: record.begin(OTHER_ID),
        lambda record: record.step(OTHER_ID, Event.DEPLOY, WorkflowStatus.RUNNING, ""),
        lambda record: record.update_runs(OTHER_ID, []),
        lambda record: record.finish(OTHER_ID, WorkflowStatus.FAILED),
    ],
)
def test_an_evaluation_that_nobody_asked_for_is_not_found(record, evaluation, ask):
    with pytest.raises(EvaluationNotFound, match=OTHER_ID):
        ask(record)


# ------------------------------------------------------------------ secrets


def test_secrets_lie_sealed_in_the_record_and_come_back_in_clear(record, database, evaluation):
    secrets = record.open_secrets(EVAL_ID)
    assert (secrets.api_key, secrets.kubeconfig) == (SECRETS.api_key, SECRETS.kubeconfig)
    for secret in (API_KEY, TOKEN):
        assert secret not in stored(database)


def test_the_end_erases_secrets_and_the_digest_of_the_request(record, database, evaluation):
    twice(lambda: record.finish(EVAL_ID, WorkflowStatus.FAILED, BROKEN))
    with pytest.raises(SecretsUnreadable, match="erased when it ended"):
        record.open_secrets(EVAL_ID)
    with database.connect() as connection:
        columns = "sealed_secrets, request_salt, request_digest"
        assert connection.execute(text(f"SELECT {columns} FROM evaluations")).one() == (None, None, None)  # noqa: S608


def test_secrets_sealed_with_a_lost_key_say_what_to_do(record, database, evaluation):
    with pytest.raises(SecretsUnreadable, match="put the old key back"):
        Record(database, a_sealer()).open_secrets(EVAL_ID)


def test_no_file_of_a_sqlite_record_keeps_a_trace_of_erased_secrets(tmp_path):
    from budeval.record.database import open_database

    database = open_database(f"sqlite:///{tmp_path}/record.sqlite")
    record = Record(database, a_sealer())
    evaluation = an_evaluation()
    record.create(evaluation, SECRETS, b"", job_names(evaluation), "tester")
    with database.connect() as connection:
        sealed = connection.execute(text("SELECT sealed_secrets FROM evaluations")).scalar_one()
    parts = [sealed[start : start + 40] for start in range(0, len(sealed) - 40, 40)]

    def found():
        files = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
        assert API_KEY.encode() not in files
        assert base64.b64encode(API_KEY.encode()) not in files
        return [part for part in parts if part in files]

    assert found() == parts
    record.heard(EVAL_ID)
    record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    assert found() == []
    database.dispose()


# ------------------------------------------------------------------ what happens


def test_an_evaluation_begins_once(record, evaluation):
    record.begin(EVAL_ID)
    first = record.view(EVAL_ID)
    record.begin(EVAL_ID)
    assert first.status == "RUNNING"
    assert record.view(EVAL_ID).started_at == first.started_at


def test_a_late_begin_does_not_revive_an_evaluation_that_ended(record, evaluation):
    record.finish(EVAL_ID, WorkflowStatus.TERMINATED)
    record.begin(EVAL_ID)
    assert record.view(EVAL_ID).status == "TERMINATED"


def test_every_sign_of_life_is_remembered(record, evaluation):
    def heard_at():
        return record.active()[0].last_heard_at

    signs = [
        lambda: record.heard(EVAL_ID),
        lambda: record.begin(EVAL_ID),
        lambda: record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.RUNNING, ""),
        lambda: record.update_runs(EVAL_ID, []),
    ]
    times = [heard_at()]
    for sign in signs:
        sign()
        times.append(heard_at())
    assert times == sorted(set(times))


def message(event_id):
    return OutgoingMessage(event_id=event_id, event="eta", status="RUNNING", topic="t", message="", body={})


def test_what_is_told_about_a_step_is_written_down_with_it_and_once(record, outbox, evaluation):
    def words(asked):
        assert asked == evaluation
        return [message("one")]

    twice(lambda: record.begin(EVAL_ID, words))
    twice(lambda: record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.RUNNING, "", lambda _: [message("two")]))
    told = []
    while (claimed := outbox.claim_next(EVAL_ID)) is not None:
        told.append(claimed.event_id)
        outbox.published(claimed.id)
    assert told == ["one", "two"]


def test_what_cannot_be_told_is_not_recorded(record, evaluation):
    def words(_):
        raise RuntimeError("no words")

    with pytest.raises(RuntimeError):
        record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.RUNNING, "", words)
    assert {step.status for step in record.view(EVAL_ID).steps} == {"PENDING"}


def test_not_a_word_is_told_late_about_an_evaluation_that_has_ended(record, outbox, evaluation):
    record.finish(EVAL_ID, WorkflowStatus.TERMINATED)
    record.begin(EVAL_ID, lambda _: [message("one")])
    record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.RUNNING, "", lambda _: [message("two")])
    assert outbox.claim_next(EVAL_ID) is None


def test_a_step_shows_its_newest_status(record, evaluation):
    twice(lambda: record.step(EVAL_ID, Event.VERIFY_CLUSTER, WorkflowStatus.RUNNING, "asking"))
    twice(lambda: record.step(EVAL_ID, Event.VERIFY_CLUSTER, WorkflowStatus.COMPLETED, "Kubernetes v1.34"))
    step = record.view(EVAL_ID).steps[0]
    assert (step.status, step.message) == ("COMPLETED", "Kubernetes v1.34")
    assert step.at is not None and step.at.tzinfo is not None


def test_engine_configurations_come_back_by_run(record, evaluation):
    configs = {"run-a": {"schema": 1, "text": "ü"}, "run-b": {"schema": 1}}
    twice(lambda: record.save_engine_configs(EVAL_ID, configs))
    assert record.engine_configs(EVAL_ID) == configs


def test_a_sweep_updates_only_the_runs_it_saw(record, evaluation):
    progress = Progress(phase="inference", done=12, total=48)
    update = RunUpdate(run_id="run-a", status=JobState.RUNNING, progress=progress, started_at=STARTED)
    twice(lambda: record.update_runs(EVAL_ID, [update], eta_minutes=7))
    run = run_of(record, "run-a")
    assert (run.status, run.progress, run.started_at, run.ended_at) == ("Running", progress, STARTED, None)
    assert run_of(record, "run-b").status == "Pending"
    assert record.view(EVAL_ID).eta_minutes == 7


def test_a_count_that_a_pod_made_up_is_no_reason_to_fail(record, evaluation):
    progress = Progress(phase="inference", done=10**12, total=10**12)
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=JobState.RUNNING, progress=progress)])
    assert run_of(record, "run-a").progress == progress


def test_a_reason_is_shown_while_it_lasts(record, evaluation):
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=JobState.PENDING, error=BROKEN)])
    assert run_of(record, "run-a").error == BROKEN
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=JobState.RUNNING)])
    assert run_of(record, "run-a").error is None


def test_a_run_that_ended_keeps_its_end(record, evaluation):
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=JobState.FAILED, error=BROKEN, ended_at=ENDED)])
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=JobState.RUNNING)])
    run = run_of(record, "run-a")
    assert (run.status, run.error, run.ended_at) == ("Failed", BROKEN, ENDED)


def test_digests_of_results_are_kept_by_run(record, evaluation):
    digest = "a" * 64
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=JobState.SUCCEEDED, result_sha256=digest)])
    assert record.result_digests(EVAL_ID) == {"run-a": digest, "run-b": None}


def test_scores_come_back_in_order_with_the_headline_last(record, evaluation):
    twice(lambda: record.save_results(EVAL_ID, [RESULT]))
    run = run_of(record, "run-a")
    assert run.scores == SCORES
    assert (run.status, run.started_at, run.ended_at, run.duration_seconds) == ("Succeeded", STARTED, ENDED, 930.0)
    assert (run.progress.done, run.progress.total) == (48, 48)


def test_results_read_again_replace_the_earlier_ones(record, evaluation):
    record.save_results(EVAL_ID, [RESULT])
    record.save_results(EVAL_ID, [RunResult(run_id="run-a", error=BROKEN)])
    run = run_of(record, "run-a")
    assert (run.status, run.error, run.scores) == ("Failed", BROKEN, [])


def test_a_score_keeps_every_digit(record, evaluation):
    score = SCORES[0].model_copy(update={"score": 100 / 3})
    record.save_results(EVAL_ID, [RESULT.model_copy(update={"scores": [score]})])
    assert run_of(record, "run-a").scores[0].score == 100 / 3


# ------------------------------------------------------------------ the end


def test_the_first_end_stays(record, evaluation):
    record.begin(EVAL_ID)
    assert record.finish(EVAL_ID, WorkflowStatus.FAILED, BROKEN)
    before = record.view(EVAL_ID)
    assert not record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    assert record.view(EVAL_ID) == before
    assert (before.status, before.error, before.eta_minutes) == ("FAILED", BROKEN, 0)


@pytest.mark.parametrize("status", [WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.TERMINATED])
def test_a_step_that_runs_ends_with_its_evaluation(record, evaluation, status):
    record.step(EVAL_ID, Event.VERIFY_CLUSTER, WorkflowStatus.COMPLETED, "fine")
    record.step(EVAL_ID, Event.PREPARE_ENGINE, WorkflowStatus.RUNNING, "writing")
    record.finish(EVAL_ID, status)
    assert [step.status for step in record.view(EVAL_ID).steps] == ["COMPLETED", status, "PENDING", "PENDING"]


LAST_WORDS = [
    (WorkflowStatus.COMPLETED, None, "1 of 2 runs completed successfully"),
    (WorkflowStatus.FAILED, BROKEN, BROKEN.sentence()),
    (WorkflowStatus.TERMINATED, BROKEN, BROKEN.sentence()),
]


@pytest.mark.parametrize(("status", "error", "message"), LAST_WORDS)
def test_a_step_that_ends_with_its_evaluation_says_how_and_when_that_ended(record, evaluation, status, error, message):
    record.step(EVAL_ID, Event.VERIFY_CLUSTER, WorkflowStatus.COMPLETED, "fine")
    record.step(EVAL_ID, Event.MONITOR, WorkflowStatus.RUNNING, "Jobs: 0 completed, 2 running")
    record.save_results(EVAL_ID, [RESULT])
    record.finish(EVAL_ID, status, error)
    view = record.view(EVAL_ID)
    assert [step.message for step in view.steps] == ["fine", "", "", message]
    assert view.steps[-1].at == view.ended_at


def test_runs_that_had_not_ended_get_the_reason_of_the_end(record, evaluation):
    known = RunUpdate(run_id="run-a", status=JobState.FAILED, error=BROKEN, ended_at=ENDED)
    record.update_runs(EVAL_ID, [known])
    timeout = ErrorInfo(reason="MonitoringTimeout", message="late")
    record.finish(EVAL_ID, WorkflowStatus.FAILED, timeout)
    assert [(run.status, run.error) for run in record.view(EVAL_ID).runs] == [("Failed", BROKEN), ("Failed", timeout)]


def test_a_run_that_waited_to_the_end_says_what_for(record, evaluation):
    quota = ErrorInfo(reason="FailedCreate", message="Kubernetes has not made a pod", resolution="Look at the quota.")
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=JobState.PENDING, error=quota)])
    record.finish(
        EVAL_ID, WorkflowStatus.FAILED, ErrorInfo(reason="MonitoringTimeout", message="late.", resolution="x")
    )
    assert record.view(EVAL_ID).runs[0].error == ErrorInfo(
        reason="MonitoringTimeout",
        message="late. Before: FailedCreate: Kubernetes has not made a pod",
        resolution="Look at the quota.",
    )


def test_a_run_whose_results_were_never_read_is_no_success(record, evaluation):
    record.save_results(EVAL_ID, [RESULT])
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-b", status=JobState.SUCCEEDED, ended_at=ENDED)])
    record.finish(EVAL_ID, WorkflowStatus.TERMINATED, BROKEN)
    assert [(run.status, run.error) for run in record.view(EVAL_ID).runs] == [("Succeeded", None), ("Failed", BROKEN)]


def test_a_late_sweep_does_not_touch_an_evaluation_that_ended(record, evaluation):
    record.finish(EVAL_ID, WorkflowStatus.TERMINATED, BROKEN)
    before = record.view(EVAL_ID)
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=JobState.RUNNING)], eta_minutes=9)
    record.step(EVAL_ID, Event.MONITOR, WorkflowStatus.RUNNING, "late")
    assert record.view(EVAL_ID) == before


def test_a_cancellation_is_asked_for_once(record, evaluation):
    assert not record.cancel_requested(EVAL_ID)
    assert record.request_cancel(EVAL_ID, "first") == "PENDING"
    assert record.request_cancel(EVAL_ID, "second") == "PENDING"
    assert record.cancel_requested(EVAL_ID)
    assert record.view(EVAL_ID).cancelled_by == "first"


def test_cancelling_after_the_end_changes_nothing(record, evaluation):
    record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    assert record.request_cancel(EVAL_ID, "late") == "COMPLETED"
    assert (record.cancel_requested(EVAL_ID), record.view(EVAL_ID).cancelled_by) == (False, None)


# ------------------------------------------------------------------ all evaluations


def test_active_evaluations_are_those_that_have_not_ended_oldest_first(record, evaluation):
    for number in range(3):
        more = an_evaluation(f"{number}55e4567-e89b-12d3-a456-426614174021", monitor=MonitorSettings(poll_interval=5))
        record.create(more, SECRETS, b"", job_names(more), "tester")
    record.begin(EVAL_ID)
    record.finish("155e4567-e89b-12d3-a456-426614174021", WorkflowStatus.FAILED)
    active = record.active()
    assert [item.eval_id[:3] for item in active] == ["444", "055", "255"]
    assert [(item.status, item.poll_interval) for item in active[:2]] == [("RUNNING", 30), ("PENDING", 5)]
    assert record.count_by_status() == {"RUNNING": 1, "PENDING": 2, "FAILED": 1}


def test_evaluations_do_not_mix(record, evaluation):
    other = an_evaluation(OTHER_ID)
    record.create(other, SECRETS, b"", job_names(other), "tester")
    record.save_results(EVAL_ID, [RESULT])
    record.update_runs(OTHER_ID, [RunUpdate(run_id="run-a", status=JobState.FAILED, error=BROKEN)])
    record.save_results(OTHER_ID, [RunResult(run_id="run-b", error=BROKEN)])
    assert run_of(record, "run-a").scores == SCORES
    assert run_of(record, "run-a", OTHER_ID).scores == []


def test_times_keep_their_zone_and_one_without_is_refused(record, evaluation):
    elsewhere = STARTED.astimezone(datetime.now().astimezone().tzinfo) + timedelta(0)
    record.update_runs(EVAL_ID, [RunUpdate(run_id="run-a", status=JobState.RUNNING, started_at=elsewhere)])
    started_at = run_of(record, "run-a").started_at
    assert (started_at, started_at.utcoffset()) == (STARTED, timedelta(0))
    naive = RunUpdate(run_id="run-a", status=JobState.RUNNING, started_at=STARTED.replace(tzinfo=None))
    with pytest.raises(Exception, match="a time without a zone"):
        record.update_runs(EVAL_ID, [naive])

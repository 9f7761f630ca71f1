from datetime import timedelta

import pytest

from budeval.commons.clock import utc_now
from budeval.commons.errors import SidecarUnavailable
from budeval.commons.settings import AdmissionLimits, MonitorSettings
from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.attempts import RetryChanges, next_attempt
from budeval.evals.models import ErrorInfo
from budeval.evals.notifications import eta_announcement
from budeval.evals.pulse import Pulse, is_silent
from budeval.evals.services import evaluation_input
from budeval.jobs.names import job_name
from budeval.record import Record
from budeval.record.record import ActiveEvaluation
from tests.samples import EVAL_ID, NOW, SECRETS, a_sealer, an_evaluation, announce, job_names

OTHER_ID = "555e4567-e89b-12d3-a456-426614174021"
MONITOR_ID = f"{EVAL_ID}-monitor"
CLOSING_ID = f"{EVAL_ID}-closing"
LATER = timedelta(hours=1)
BROKEN = ErrorInfo(reason="EndpointUnauthorized", message="401")


class Workflows:
    """What daprd knows of the instances."""

    def __init__(self, **statuses):
        self.statuses = statuses
        self.scheduled, self.closings, self.events, self.broken, self.away = [], [], [], set(), False

    def status(self, instance_id):
        if instance_id in self.broken:
            raise SidecarUnavailable("nobody answers")
        return self.statuses.get(instance_id)

    def schedule(self, evaluation):
        if self.away:
            raise SidecarUnavailable("nobody answers")
        self.scheduled.append(evaluation)

    def schedule_closing(self, closing):
        self.closings.append(closing)
        self.statuses[CLOSING_ID] = "RUNNING"

    def raise_event(self, instance_id, event):
        self.events.append((instance_id, event))

    def resume(self, instance_id):
        self.events.append((instance_id, "resume"))


@pytest.fixture
def workflows():
    return Workflows()


@pytest.fixture
def pulse(record, workflows, notifier):
    return Pulse(record, workflows, notifier)


SILENCES = [(30, 90, False), (30, 91, True), (1, 3, False), (1, 10, False), (1, 11, True), (3600, 10_800, False)]


@pytest.mark.parametrize(("poll_interval", "seconds", "silent"), SILENCES)
def test_an_evaluation_is_silent_after_three_intervals_and_ten_seconds(poll_interval, seconds, silent):
    evaluation = ActiveEvaluation(
        eval_id=EVAL_ID, attempt=1, status=WorkflowStatus.RUNNING, last_heard_at=NOW, poll_interval=poll_interval
    )
    assert is_silent(evaluation, NOW + timedelta(seconds=seconds)) is silent


def test_one_that_is_to_be_cancelled_is_silent_after_ten_seconds_however_long_its_interval(record, record_evaluation):
    record_evaluation(monitor=MonitorSettings(poll_interval=3600))
    record.request_cancel(EVAL_ID, "api")
    (evaluation,) = record.active()
    assert not is_silent(evaluation, evaluation.last_heard_at + timedelta(seconds=10))
    assert is_silent(evaluation, evaluation.last_heard_at + timedelta(seconds=11))


def test_an_evaluation_that_was_heard_of_is_left_alone(pulse, workflows, record_evaluation):
    record_evaluation(monitor=MonitorSettings(poll_interval=30))
    pulse.beat(utc_now() + timedelta(seconds=60))
    assert (workflows.scheduled, workflows.events) == ([], [])


def test_a_request_that_was_never_scheduled_is_scheduled(pulse, workflows, record_evaluation):
    evaluation = record_evaluation()
    pulse.beat(utc_now() + LATER)
    assert workflows.scheduled == [evaluation_input(evaluation)]


@pytest.mark.parametrize("status", ["RUNNING", "PENDING"])
def test_a_silent_evaluation_is_woken_and_its_monitor_too_again_and_again(pulse, workflows, record_evaluation, status):
    record_evaluation()
    workflows.statuses[EVAL_ID] = status
    pulse.beat(utc_now() + LATER)
    pulse.beat(utc_now() + 2 * LATER)
    assert workflows.events == [(EVAL_ID, "wake"), (MONITOR_ID, "wake")] * 2


def test_an_evaluation_that_was_just_woken_is_given_time(pulse, workflows, record_evaluation):
    record_evaluation()
    workflows.statuses[EVAL_ID] = "RUNNING"
    for seconds in (0, 5, 10):
        pulse.beat(utc_now() + LATER + timedelta(seconds=seconds))
    assert workflows.events == [(EVAL_ID, "wake"), (MONITOR_ID, "wake")]


def test_one_that_could_not_be_woken_is_tried_again_at_the_next_beat(pulse, workflows, record_evaluation):
    record_evaluation()
    workflows.statuses[EVAL_ID] = "RUNNING"
    workflows.broken.add(EVAL_ID)
    pulse.beat(utc_now() + LATER)
    workflows.broken.clear()
    pulse.beat(utc_now() + LATER + timedelta(seconds=5))
    assert workflows.events == [(EVAL_ID, "wake"), (MONITOR_ID, "wake")]


def test_an_evaluation_that_somebody_suspended_is_left_alone(pulse, workflows, record, record_evaluation):
    record_evaluation()
    workflows.statuses[EVAL_ID] = "SUSPENDED"
    pulse.beat(utc_now() + LATER)
    assert workflows.events == []
    assert record.view(EVAL_ID).status == "PENDING"


@pytest.mark.parametrize(("status", "more"), [("RUNNING", []), ("SUSPENDED", [(EVAL_ID, "resume")])])
def test_a_cancellation_that_got_lost_is_sent_again(pulse, workflows, record, record_evaluation, status, more):
    record_evaluation()
    record.request_cancel(EVAL_ID, "api")
    workflows.statuses[EVAL_ID] = status
    pulse.beat(utc_now() + LATER)
    assert workflows.events == [(EVAL_ID, "cancel"), (MONITOR_ID, "cancel"), *more]


ENDS = [
    ("TERMINATED", "TERMINATED", "WorkflowTerminated"),
    ("FAILED", "FAILED", "WorkflowFailed"),
    ("COMPLETED", "FAILED", "WorkflowFailed"),
]


@pytest.mark.parametrize(("runtime_status", "status", "reason"), ENDS)
def test_what_a_workflow_that_ended_without_a_word_left_is_cleared_by_another(
    pulse, workflows, record, record_evaluation, broker, runtime_status, status, reason
):
    evaluation = record_evaluation()
    record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.RUNNING, "")
    workflows.statuses[EVAL_ID] = runtime_status
    pulse.beat(utc_now() + LATER)
    (closing,) = workflows.closings
    assert closing.evaluation == evaluation_input(evaluation)
    assert (closing.status, closing.error.reason, closing.may_have_jobs) == (status, reason, True)
    assert (record.view(EVAL_ID).status, broker.told) == ("PENDING", [])


def test_before_a_deployment_there_is_nothing_to_clear(pulse, workflows, record, record_evaluation):
    record_evaluation()
    record.step(EVAL_ID, Event.VERIFY_CLUSTER, WorkflowStatus.RUNNING, "")
    workflows.statuses[EVAL_ID] = "TERMINATED"
    pulse.beat(utc_now() + LATER)
    assert [closing.may_have_jobs for closing in workflows.closings] == [False]


def test_a_closing_that_takes_long_is_woken_and_not_made_twice(pulse, workflows, record_evaluation):
    record_evaluation()
    workflows.statuses[EVAL_ID] = "TERMINATED"
    for beats in (1, 2, 3):
        pulse.beat(utc_now() + beats * LATER)
    assert (len(workflows.closings), workflows.events) == (1, [(CLOSING_ID, "wake")] * 2)


def test_a_later_attempt_is_closed_by_a_workflow_of_its_own(pulse, workflows, record, record_evaluation):
    record_evaluation()
    record.finish(EVAL_ID, WorkflowStatus.FAILED, BROKEN)
    changes = RetryChanges(has_api_key=True, monitor=MonitorSettings())
    evaluation = next_attempt(record.definition(EVAL_ID), ["run-a"], changes)
    record.retry(evaluation, SECRETS, {"run-a": job_name(EVAL_ID, "run-a", 2)}, "operator")
    workflows.statuses.update({CLOSING_ID: "COMPLETED", f"{EVAL_ID}-attempt-2": "TERMINATED"})
    pulse.beat(utc_now() + LATER)
    assert [closing.evaluation.attempt for closing in workflows.closings] == [2]


@pytest.mark.parametrize(("runtime_status", "status", "reason"), ENDS)
def test_where_the_closing_too_ended_without_a_word_the_end_is_told_once(
    pulse, workflows, record, record_evaluation, broker, runtime_status, status, reason
):
    record_evaluation()
    workflows.statuses.update({EVAL_ID: runtime_status, CLOSING_ID: "TERMINATED"})
    for _ in range(2):
        pulse.beat(utc_now() + LATER)
    view = record.view(EVAL_ID)
    assert (view.status, view.error.reason) == (status, reason)
    assert broker.told == ["monitor_eval_job_progress.FAILED", f"evaluate_model_status.{status}"]


def test_what_fails_for_one_evaluation_keeps_it_from_no_other(pulse, workflows, record_evaluation):
    record_evaluation()
    record_evaluation(eval_id=OTHER_ID)
    workflows.broken = {EVAL_ID}
    pulse.beat(utc_now() + LATER)
    assert [evaluation.eval_id for evaluation in workflows.scheduled] == [OTHER_ID]


def test_a_beat_publishes_what_waits(pulse, notifier, broker, record_evaluation):
    broker.refuses = lambda _topic, _body: True
    announce(notifier, record_evaluation(), [eta_announcement(1)])
    broker.refuses = lambda _topic, _body: False
    pulse.beat(utc_now())
    assert broker.told == ["eta.RUNNING"]


def test_the_pulse_goes_on_after_a_beat_that_failed(record, workflows, notifier, record_evaluation, monkeypatch):
    monkeypatch.setattr("budeval.evals.pulse.BEAT_SECONDS", 0.01)
    beats = []

    def fail():
        beats.append(1)
        raise RuntimeError("unexpected")

    monkeypatch.setattr(notifier, "flush_all", fail)
    pulse = Pulse(record, workflows, notifier)
    pulse.start()
    deadline = utc_now() + timedelta(seconds=10)
    while len(beats) < 3 and utc_now() < deadline:
        pulse._stop.wait(0.01)
    pulse.stop()
    assert len(beats) >= 3


# ------------------------------------------------------------------ places


@pytest.fixture
def narrow(database):
    """A record with one place, which OTHER_ID has, and EVAL_ID waits."""
    record = Record(database, a_sealer(), AdmissionLimits(evaluations=1))
    for eval_id in (OTHER_ID, EVAL_ID):
        evaluation = an_evaluation(eval_id)
        record.create(evaluation, SECRETS, b"", job_names(evaluation), "tester")
    return record


def test_one_that_waits_is_not_silent_however_long_it_takes(narrow, workflows, notifier):
    workflows.statuses[OTHER_ID] = "RUNNING"
    Pulse(narrow, workflows, notifier).beat(utc_now() + LATER)
    assert workflows.scheduled == []
    assert workflows.events == [(OTHER_ID, "wake"), (f"{OTHER_ID}-monitor", "wake")]


def test_a_beat_lets_in_who_waits_when_there_is_room(narrow, workflows, notifier):
    narrow.finish(OTHER_ID, WorkflowStatus.COMPLETED)
    Pulse(narrow, workflows, notifier).beat(utc_now())
    assert workflows.scheduled == [evaluation_input(an_evaluation())]
    assert narrow.view(EVAL_ID).queue is None


def test_what_daprd_did_not_take_is_scheduled_when_it_was_silent(narrow, workflows, notifier):
    pulse = Pulse(narrow, workflows, notifier)
    narrow.finish(OTHER_ID, WorkflowStatus.COMPLETED)
    workflows.away = True
    pulse.beat(utc_now())
    assert (workflows.scheduled, narrow.view(EVAL_ID).queue) == ([], None)
    workflows.away = False
    pulse.beat(utc_now() + LATER)
    assert workflows.scheduled == [evaluation_input(an_evaluation())]


@pytest.mark.parametrize("end", ["finish", "cancel"])
def test_who_waits_is_let_in_at_once_when_a_place_comes_free_in_this_process(narrow, workflows, notifier, end):
    third = an_evaluation("666e4567-e89b-12d3-a456-426614174022")
    pulse = Pulse(narrow, workflows, notifier)
    pulse.start()
    try:
        if end == "cancel":
            narrow.create(third, SECRETS, b"", job_names(third), "tester")
            narrow.request_cancel(EVAL_ID, "api")
        narrow.finish(OTHER_ID, WorkflowStatus.COMPLETED)
        deadline = utc_now() + timedelta(seconds=2)
        while not workflows.scheduled and utc_now() < deadline:
            pulse._stop.wait(0.01)
    finally:
        pulse.stop()
    expected = third.eval_id if end == "cancel" else EVAL_ID
    assert [evaluation.eval_id for evaluation in workflows.scheduled] == [expected]


def test_beats_go_on_while_places_come_free_all_the_time(record, workflows, notifier, monkeypatch):
    monkeypatch.setattr("budeval.evals.pulse.BEAT_SECONDS", 0.05)
    beats = []
    monkeypatch.setattr(notifier, "flush_all", lambda: beats.append(1))
    pulse = Pulse(record, workflows, notifier)
    pulse.start()
    deadline = utc_now() + timedelta(seconds=10)
    while len(beats) < 3 and utc_now() < deadline:
        record.admission.freed.set()
        pulse._stop.wait(0.001)
    pulse.stop()
    assert len(beats) >= 3

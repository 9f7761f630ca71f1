import pytest

from budeval.commons.errors import EvaluationConflict, EvaluationNotFound, SidecarUnavailable
from budeval.commons.settings import AdmissionLimits, MonitorSettings
from budeval.commons.wire import WorkflowStatus
from budeval.evals.services import EvaluationService, evaluation_input
from budeval.record import Record
from tests.samples import EVAL_ID, SECRETS, a_sealer, an_evaluation, job_names

OTHER_ID = "555e4567-e89b-12d3-a456-426614174021"
CLOSING_ID = f"{EVAL_ID}-closing"
CANCELS = [("cancel", EVAL_ID), ("cancel", f"{EVAL_ID}-monitor")]


class Workflows:
    """Remembers what it was asked for; ``away``: nobody answers."""

    def __init__(self):
        self.calls, self.statuses, self.closings, self.away = [], {}, [], False

    def status(self, instance_id):
        self._answer()
        return self.statuses.get(instance_id)

    def schedule(self, evaluation):
        self._note(("schedule", evaluation.eval_id))
        self.statuses[evaluation.eval_id] = "RUNNING"

    def schedule_closing(self, closing):
        self.closings.append(closing)
        self.statuses[CLOSING_ID] = "RUNNING"

    def resume(self, instance_id):
        self._note(("resume", instance_id))

    def raise_event(self, instance_id, event):
        self._note((event, instance_id))

    def _note(self, call):
        self._answer()
        self.calls.append(call)

    def _answer(self):
        if self.away:
            raise SidecarUnavailable("nobody answers")


@pytest.fixture
def workflows():
    return Workflows()


@pytest.fixture
def service(record, workflows, notifier):
    return EvaluationService(record, workflows, notifier)


def start(service, body=b"body", **changes):
    return service.start(an_evaluation(**changes), SECRETS, body, by="tester")


def test_an_evaluation_is_recorded_before_it_is_scheduled(service, record, workflows):
    workflows.away = True
    assert start(service)["status"] == "PENDING"
    assert record.view(EVAL_ID).status == "PENDING"
    assert [run.job_name for run in record.view(EVAL_ID).runs] == list(job_names(an_evaluation()).values())


def test_a_repetition_asks_for_the_workflow_again_in_case_it_got_lost(service, workflows):
    assert start(service) == start(service)
    assert workflows.calls == [("schedule", EVAL_ID)] * 2


@pytest.mark.parametrize(("ended", "body", "why"), [(False, b"other", "another request"), (True, b"body", "has ended")])
def test_a_taken_id_is_a_conflict_and_schedules_nothing(service, record, workflows, ended, body, why):
    start(service)
    if ended:
        record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    workflows.calls.clear()
    with pytest.raises(EvaluationConflict, match=why):
        start(service, body)
    assert workflows.calls == []


def test_a_cancellation_is_recorded_before_it_is_sent(service, record, workflows):
    start(service)
    workflows.away = True
    assert service.cancel(EVAL_ID, by="api").cancelled_by == "api"
    assert record.cancel_requested(EVAL_ID)


def test_a_cancellation_reaches_the_workflow_however_often(service, workflows):
    start(service)
    for _ in range(2):
        service.cancel(EVAL_ID, by="api")
    assert workflows.calls == [("schedule", EVAL_ID), *CANCELS, *CANCELS]


def test_what_has_no_workflow_yet_gets_one_that_is_cancelled_at_once(service, workflows):
    workflows.away = True
    start(service)
    workflows.away = False
    service.cancel(EVAL_ID, by="api")
    assert workflows.calls == [("schedule", EVAL_ID), *CANCELS]


def test_a_workflow_that_somebody_suspended_is_resumed_to_be_cancelled(service, workflows):
    start(service)
    workflows.statuses[EVAL_ID] = "SUSPENDED"
    service.cancel(EVAL_ID, by="api")
    assert workflows.calls == [("schedule", EVAL_ID), *CANCELS, ("resume", EVAL_ID)]


@pytest.mark.parametrize("status", ["TERMINATED", "FAILED", "COMPLETED"])
def test_what_a_workflow_that_ended_without_a_word_left_is_cleared_at_a_cancel(service, workflows, status):
    start(service)
    workflows.statuses[EVAL_ID] = status
    for _ in range(2):
        service.cancel(EVAL_ID, by="api")
    (closing,) = workflows.closings
    assert closing.evaluation == evaluation_input(an_evaluation())
    assert (closing.status, closing.error.reason) == ("TERMINATED", "Cancelled")
    assert workflows.calls == [("schedule", EVAL_ID), ("wake", CLOSING_ID)]


def test_an_end_that_comes_while_it_is_cancelled_needs_no_other(service, record, workflows, monkeypatch):
    start(service)

    def ended(_instance_id):
        record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
        return "COMPLETED"

    monkeypatch.setattr(workflows, "status", ended)
    assert service.cancel(EVAL_ID, by="api").status == "COMPLETED"
    assert workflows.closings == []


def test_what_nobody_asked_for_can_neither_be_shown_nor_cancelled(service):
    for ask in (service.view, lambda eval_id: service.cancel(eval_id, by="api")):
        with pytest.raises(EvaluationNotFound):
            ask(EVAL_ID)


def test_the_input_of_the_workflow_has_ids_and_settings_and_no_secret():
    evaluation = an_evaluation(monitor=MonitorSettings(poll_interval=5, max_checks=6, progress_every=7))
    assert evaluation_input(evaluation).model_dump() == {
        "eval_id": EVAL_ID,
        "attempt": 1,
        "run_ids": ["run-a", "run-b"],
        "poll_interval": 5,
        "max_checks": 6,
        "progress_every": 7,
    }


# ------------------------------------------------------------------ without a place


@pytest.fixture
def narrow(database, workflows, notifier):
    """A service with one place, which is taken."""
    service = EvaluationService(Record(database, a_sealer(), AdmissionLimits(evaluations=1)), workflows, notifier)
    start(service, eval_id=OTHER_ID)
    workflows.calls.clear()
    return service


def test_an_evaluation_without_a_place_is_recorded_and_not_scheduled(narrow, workflows):
    assert start(narrow) == start(narrow)
    assert narrow.view(EVAL_ID).queue.position == 1
    assert workflows.calls == []


def test_a_waiting_one_that_is_cancelled_has_no_workflow_to_be_told_but_subscribers(narrow, workflows, broker):
    start(narrow)
    for _ in range(2):
        assert narrow.cancel(EVAL_ID, by="api").status == "TERMINATED"
    assert workflows.calls == []
    assert broker.told == ["monitor_eval_job_progress.FAILED", "evaluate_model_status.TERMINATED"]


def test_last_words_on_a_waiting_one_survive_a_broker_that_is_away(narrow, notifier, broker):
    start(narrow)
    broker.refuses = lambda _topic, _body: True
    narrow.cancel(EVAL_ID, by="api")
    broker.refuses = lambda _topic, _body: False
    notifier.flush_all()
    assert broker.told == ["monitor_eval_job_progress.FAILED", "evaluate_model_status.TERMINATED"]


def test_a_cancellation_that_came_before_the_workflow_is_sent_to_it(service, record, workflows):
    workflows.away = True
    start(service)
    service.cancel(EVAL_ID, by="api")
    workflows.away = False
    start(service)
    assert workflows.calls == [("schedule", EVAL_ID), ("cancel", EVAL_ID), ("cancel", f"{EVAL_ID}-monitor")]

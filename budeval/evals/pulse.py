"""The pulse: what Dapr alone does not promise, that no evaluation is ever forgotten.

A workflow can hang for ever when the scheduler and the placement service die while daprd lives; any event wakes it. A
request can be recorded while daprd is away. An instance can be ended or purged from outside. So every few seconds the
pulse looks at each evaluation that has not ended and was silent for three of its poll intervals, and schedules it,
wakes it, cancels it again or has it ended. It also publishes what waits in the outbox, and lets in what waits for a
place: at once when a place comes free in this process, and at the next beat when it did in another.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from budeval.commons import wire
from budeval.commons.clock import utc_now
from budeval.commons.errors import BudEvalError
from budeval.commons.wire import WorkflowStatus
from budeval.evals.notifications import Notifier
from budeval.evals.runtime import ACTIVE_STATUSES, WorkflowClient
from budeval.evals.services import cancel_workflow, close, schedule
from budeval.record import Record, happenings
from budeval.record.record import ActiveEvaluation

logger = logging.getLogger("::EVAL:: Pulse")

SILENT_INTERVALS = 3
"""Poll intervals without a sign of life after which an evaluation is looked after."""
MINIMUM_SILENCE_SECONDS = 10
"""A short poll interval must not make the pulse wake steps that simply take their time."""
BEAT_SECONDS = 5.0


class Pulse:
    """A background task; one for each service, any number of them do no harm."""

    def __init__(self, record: Record, workflows: WorkflowClient, notifier: Notifier) -> None:
        self._record = record
        self._workflows = workflows
        self._notifier = notifier
        self._looked_after: dict[str, datetime] = {}
        self._freed = record.admission.freed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begins to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beats no more; answers when the last beat is over, or after two seconds."""
        self._stop.set()
        self._freed.set()
        self._thread.join(timeout=2)

    def beat(self, now: datetime) -> None:
        """Looks once after everything that is silent; what fails for one evaluation keeps it from no other."""
        _attempt("publishing what waits", self._notifier.flush_all)
        _attempt("letting in what waits", self.let_in)
        active = self._record.active()
        known = {evaluation.eval_id for evaluation in active}
        self._looked_after = {eval_id: at for eval_id, at in self._looked_after.items() if eval_id in known}
        for evaluation in active:
            if is_silent(evaluation, now, self._looked_after.get(evaluation.eval_id)):
                _attempt(f"looking after evaluation {evaluation.eval_id}", partial(self._look_after, evaluation, now))

    def let_in(self) -> None:
        """Gives the free places to evaluations that wait, and schedules those.

        The first that daprd does not take ends the scheduling: all that were let in and are silent are looked after.
        """
        admitted = self._record.admission.admit()
        for eval_id in admitted:
            logger.info("evaluation %s got a place", eval_id)
        for eval_id in admitted:
            schedule(self._record, self._workflows, self._record.definition(eval_id))

    def _run(self) -> None:
        due = time.monotonic() + BEAT_SECONDS
        while True:
            self._freed.wait(max(0.0, due - time.monotonic()))
            if self._stop.is_set():
                return
            # Before looking, not after: what comes free while we look is looked at again.
            self._freed.clear()
            if time.monotonic() < due:
                _attempt("letting in what waits", self.let_in)
            else:
                due = time.monotonic() + BEAT_SECONDS
                _attempt("a beat of the pulse", lambda: self.beat(utc_now()))

    def _look_after(self, evaluation: ActiveEvaluation, now: datetime) -> None:
        if evaluation.cancel_requested_at is None:
            self._keep_going(evaluation)
        else:
            cancel_workflow(self._record, self._workflows, self._notifier, evaluation.eval_id)
        self._looked_after[evaluation.eval_id] = now

    def _keep_going(self, evaluation: ActiveEvaluation) -> None:
        eval_id, attempt = evaluation.eval_id, evaluation.attempt
        workflow_id = wire.workflow_instance_id(eval_id, attempt)
        status = self._workflows.status(workflow_id)
        if status is None:
            logger.warning("evaluation %s has no workflow: scheduling it", eval_id)
            self._record.trying_again(
                eval_id, happenings.woken("It had no workflow, and is scheduled."), attempt=attempt
            )
            schedule(self._record, self._workflows, self._record.definition(eval_id, attempt=attempt))
        elif status not in ACTIVE_STATUSES:
            definition = self._record.definition(eval_id, attempt=attempt)
            close(self._record, self._workflows, self._notifier, definition, status)
        elif status == WorkflowStatus.SUSPENDED:
            # Somebody did that on purpose; events would pile up until it is resumed.
            logger.info("evaluation %s is suspended", eval_id)
        else:
            logger.warning("evaluation %s was silent since %s: waking it", eval_id, evaluation.last_heard_at)
            self._record.trying_again(eval_id, happenings.woken("Its workflow was silent, and is woken."))
            self._workflows.raise_event(workflow_id, wire.WAKE_EVENT)
            self._workflows.raise_event(wire.monitor_instance_id(eval_id, attempt), wire.WAKE_EVENT)


def _attempt(what: str, action: Callable[[], None]) -> None:
    """The outermost boundary of the pulse: whatever happens, it goes on beating, since nothing else would notice."""
    try:
        action()
    except (BudEvalError, SQLAlchemyError) as error:
        logger.warning("%s failed and is tried again in %s s: %s", what, BEAT_SECONDS, error)
    except Exception:
        logger.exception("%s failed unexpectedly and is tried again in %s s", what, BEAT_SECONDS)


def is_silent(evaluation: ActiveEvaluation, now: datetime, looked_after: datetime | None = None) -> bool:
    """Whether an evaluation was neither heard of nor looked after for three of its poll intervals.

    One that waits for a retry of its own is silent for long; an event at every beat would pile up in its history. Who
    cancelled waits for seconds, not for intervals.
    """
    intervals = SILENT_INTERVALS if evaluation.cancel_requested_at is None else 0
    silence = max(intervals * evaluation.poll_interval, MINIMUM_SILENCE_SECONDS)
    last = max(evaluation.last_heard_at, looked_after or evaluation.last_heard_at)
    return (now - last).total_seconds() > silence

"""Notifications: from what happened to what a subscriber reads, each told once.

The shape is the wire contract's: in the format ``budapp`` the JSON *is* the envelope, since its first consumer refuses
any key it does not know; plain CloudEvents carry the same content under ``data``.
"""

import logging
import threading
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Protocol

from budeval.commons.errors import PublishFailed, PublishUncertain
from budeval.commons.redaction import printable
from budeval.commons.wire import PROGRESS_TITLE, WORKFLOW_NAME, Event, WorkflowStatus, workflow_instance_id
from budeval.evals.models import Announcement, ErrorInfo, Evaluation
from budeval.record.outbox import ClaimedMessage, Outbox, OutgoingMessage
from budeval.record.views import EvaluationView, RunView

logger = logging.getLogger("::EVAL:: Notifications")

EVENT_NAMESPACE = uuid.UUID("5b3f5f0e-6f0c-5d0a-9d53-8b3f5c1f3c55")
"""Namespace of event ids: an id follows from (eval_id, event, status, sequence)."""
MAXIMUM_MESSAGE_LENGTH = 1000
AT_MOST_ONCE = frozenset({Event.RESULTS})
"""Events that a known consumer would count twice: when it is uncertain whether one went out, it is not sent again."""


class Publisher(Protocol):
    """Hands one message to the broker."""

    def connect(self) -> None:
        """Gets ready to publish. Raises :class:`PublishFailed`."""

    def publish(self, topic: str, body: dict[str, Any], event_id: str) -> None:
        """Raises :class:`PublishFailed` when the broker did not take it, :class:`PublishUncertain` when it may have."""


def event_id(eval_id: str, announcement: Announcement, attempt: int = 1) -> str:
    """The deterministic id of an announcement: a repetition has the same one, another attempt another one."""
    name = "/".join(
        (workflow_instance_id(eval_id, attempt), announcement.event, announcement.status, announcement.sequence)
    )
    return str(uuid.uuid5(EVENT_NAMESPACE, name))


def notification_body(evaluation: Evaluation, announcement: Announcement, topic: str) -> dict[str, Any]:
    """One announcement as one subscriber reads it."""
    asked = evaluation.notification
    result = {
        "evaluation_id": evaluation.eval_id,
        "event_id": event_id(evaluation.eval_id, announcement, evaluation.attempt),
        **(announcement.result or {}),
    }
    content = {
        "title": announcement.title,
        "message": printable(announcement.message, MAXIMUM_MESSAGE_LENGTH),
        "status": announcement.status,
        "result": result,
        "primary_action": None,
        "secondary_action": None,
    }
    return {
        "notification_type": asked.notification_type,
        "name": asked.name or WORKFLOW_NAME,
        "subscriber_ids": asked.subscriber_ids,
        "actor": asked.actor,
        "topic_keys": asked.topic_keys,
        "payload": {
            "category": asked.category,
            "type": WORKFLOW_NAME,
            "event": announcement.event,
            "workflow_id": asked.workflow_id or evaluation.eval_id,
            "source": "budeval",
            "content": content,
        },
        "source_topic": topic,
        "type": WORKFLOW_NAME,
    }


def outgoing(evaluation: Evaluation, announcements: Sequence[Announcement]) -> list[OutgoingMessage]:
    """Announcements as messages to every topic of the evaluation."""
    return [
        OutgoingMessage(
            event_id=event_id(evaluation.eval_id, announcement, evaluation.attempt),
            event=announcement.event,
            status=announcement.status,
            topic=topic,
            message=printable(announcement.message, MAXIMUM_MESSAGE_LENGTH),
            body=notification_body(evaluation, announcement, topic),
        )
        for announcement in announcements
        for topic in evaluation.source_topics
    ]


class Notifier:
    """Publishes from the outbox, in order.

    A broker that is away stops no evaluation: what could not be published waits in the outbox, and
    :meth:`flush_all` sends it later.
    """

    def __init__(self, outbox: Outbox, publisher: Publisher) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._flushing = threading.Lock()

    def flush(self, eval_id: str) -> None:
        """Publishes what waits, to each topic in order until it is refused, unless another thread is at it.

        A topic that the service may not publish to keeps no other topic waiting.
        """
        refused: set[str] = set()
        while (message := self._claim(eval_id, refused)) is not None:
            if not self._publish(eval_id, message):
                refused.add(message.topic)

    def resend(self, eval_id: str, by: str) -> None:
        """Publishes what is in doubt after all, because ``by`` knows that it did not arrive.

        Raises:
            EvaluationNotFound: there is no such evaluation.
            EvaluationConflict: nothing is in doubt.
        """
        self._outbox.resend(eval_id, by)
        self.flush(eval_id)

    def flush_all(self) -> None:
        """Publishes what waits of every evaluation; for the background task."""
        with self._flushing:
            for eval_id in self._outbox.waiting():
                self.flush(eval_id)

    def _claim(self, eval_id: str, refused: Collection[str]) -> ClaimedMessage | None:
        # Connected first: the less there is between a claim and its publishing, the rarer is a death in between.
        try:
            self._publisher.connect()
        except PublishFailed as error:
            logger.warning("notifications of evaluation %s wait: %s", eval_id, error)
            return None
        return self._outbox.claim_next(eval_id, refused)

    def _publish(self, eval_id: str, message: ClaimedMessage) -> bool:
        """Whether the next one to the same topic may follow."""
        once = message.event in AT_MOST_ONCE
        if message.uncertain and once:
            return self._let_be(eval_id, message, "whoever began to publish it died")
        try:
            self._publisher.publish(message.topic, message.body, message.event_id)
        except PublishFailed as error:
            if isinstance(error, PublishUncertain) and once:
                return self._let_be(eval_id, message, str(error))
            logger.warning("notification %s of evaluation %s waits: %s", message.event, eval_id, error)
            self._outbox.release(message.id)
            return False
        self._outbox.published(message.id)
        return True

    def _let_be(self, eval_id: str, message: ClaimedMessage, why: str) -> bool:
        logger.warning(
            "%s of evaluation %s may have been published, and is not sent again: %s", message.event, eval_id, why
        )
        self._outbox.let_be(message.id)
        return True


# ---------------------------------------------------------------------- announcements that several parts make


def status_announcement(status: WorkflowStatus, title: str, message: str = "") -> Announcement:
    """The first or the last word on an evaluation."""
    return Announcement(event=Event.STATUS, status=status, title=title, message=message)


def eta_announcement(minutes: int) -> Announcement:
    """Minutes left; one announcement for each number, since it never goes up again."""
    return Announcement(
        event=Event.ETA,
        status=WorkflowStatus.RUNNING,
        title="Estimated time to completion",
        message=str(minutes),
        sequence=str(minutes),
    )


def progress_announcement(message: str, check_count: int, runs: Sequence[RunView]) -> Announcement:
    """How far the runs are, in questions."""
    progress = [
        {"run_id": run.run_id, "status": run.status, "done": run.progress.done, "total": run.progress.total}
        for run in runs
    ]
    return Announcement(
        event=Event.MONITOR,
        status=WorkflowStatus.RUNNING,
        title=PROGRESS_TITLE,
        message=message,
        result={"progress": progress},
        sequence=f"{check_count}/{message}",
    )


def last_words(evaluation: Evaluation, view: EvaluationView) -> list[OutgoingMessage]:
    """The last words on an evaluation as messages, to be written down in the transaction of its end."""
    return outgoing(evaluation, final_announcements(view, results_told=evaluation.results_told))


def final_announcements(view: EvaluationView, *, results_told: bool = False) -> list[Announcement]:
    """The last words on an evaluation that has ended, from what the record says of its end.

    ``results_told``: an earlier attempt told results, so these have the runs of the present one alone.

    A failed one is closed at its consumer by ``monitor_eval_job_progress`` FAILED with ``result.evaluation_id``,
    whatever the stage at which it failed; a partly failed one is told by its results, since FAILED would paint all of
    it failed.
    """
    if view.status is WorkflowStatus.COMPLETED:
        good = sum(not run.error for run in view.runs)
        message = f"{good} of {len(view.runs)} runs completed successfully"
        done = Announcement(
            event=Event.MONITOR, status=WorkflowStatus.COMPLETED, title="Evaluation jobs completed", message=message
        )
        last = status_announcement(WorkflowStatus.COMPLETED, "Evaluation completed", message)
        return [eta_announcement(0), done, results_announcement(view, results_told=results_told), last]
    error = view.error or ErrorInfo(reason=view.status, message="")
    failed = Announcement(
        event=Event.MONITOR,
        status=WorkflowStatus.FAILED,
        title=f"Evaluation {_ENDED_WORDS[view.status]}",
        message=error.sentence(),
        result=_failure_result(view, error),
    )
    return [failed, status_announcement(view.status, failed.title, failed.message)]


_ENDED_WORDS = {WorkflowStatus.FAILED: "failed", WorkflowStatus.TERMINATED: "cancelled"}


def _failure_result(view: EvaluationView, error: ErrorInfo) -> dict[str, Any]:
    return {
        "failed_jobs": [run.run_id for run in view.runs if run.error],
        "error_category": error.reason,
        "error_details": [
            {
                "job_id": run.run_id,
                "category": run.error.reason,
                "error_type": run.error.reason,
                "message": printable(run.error.sentence(), MAXIMUM_MESSAGE_LENGTH),
            }
            for run in view.runs
            if run.error
        ],
    }


def results_announcement(view: EvaluationView, *, results_told: bool = False) -> Announcement:
    """The scores of every requested run; a failed run is an entry too, since an absent one would count as running.

    ``results_told``: runs of earlier attempts are left out, since their consumer would count them twice.
    """
    told = [run for run in view.runs if run.attempt == view.attempt or not results_told]
    good = sum(not run.error for run in view.runs)
    return Announcement(
        event=Event.RESULTS,
        status=WorkflowStatus.COMPLETED,
        title="Evaluation Results",
        message=f"{good} of {len(view.runs)} runs have scores",
        result={"results": [_result_entry(view.eval_id, run) for run in told]},
    )


def _result_entry(eval_id: str, run: RunView) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "run_id": run.run_id,
        "eval_id": eval_id,
        "status": "error" if run.error else "success",
        "scores": [] if run.error else [score.model_dump() for score in run.scores],
        "startTime": _zulu(run.started_at),
        "completionTime": _zulu(run.ended_at),
        "duration_seconds": run.duration_seconds,
    }
    if run.error:
        entry["error"] = {
            **run.error.model_dump(),
            "message": printable(run.error.message, MAXIMUM_MESSAGE_LENGTH),
        }
    return entry


def _zulu(time: datetime | None) -> str | None:
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")

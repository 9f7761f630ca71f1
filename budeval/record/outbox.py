"""The outbox: notifications are written down first and published from here, to each topic in order, each once.

A message is *claimed*, published and then marked. Whoever dies between the claim and the mark leaves a claim that grows
old: such a message goes out again under the same event id, except those that must never arrive twice.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Engine, func, or_, select, update
from sqlalchemy.orm import Session

from budeval.commons.clock import utc_now
from budeval.commons.errors import EvaluationConflict, EvaluationNotFound
from budeval.record import happenings
from budeval.record.database import insert
from budeval.record.tables import EvaluationRow, EventRow
from budeval.record.timeline import Happening, note

CLAIM_SECONDS = 30
"""A claim older than this was left by a process that died: publishing takes milliseconds and is bounded by 10 s."""


class OutgoingMessage(BaseModel):
    """One notification to one topic."""

    event_id: str
    event: str
    status: str
    topic: str
    message: str
    body: dict[str, Any]


class ClaimedMessage(OutgoingMessage):
    """A message that the caller alone may publish now."""

    id: int
    uncertain: bool
    """Somebody claimed it before and died: it may have been published already."""


class Outbox:
    """Messages of all evaluations, in a database."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._writing = database.execution_options(record_writes=True)

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with Session(self._writing) as session, session.begin():
            yield session

    def claim_next(self, eval_id: str, but_to: Collection[str] = ()) -> ClaimedMessage | None:
        """The oldest message to be published, claimed; none when there is none or another publishes right now.

        ``but_to``: topics whose messages are passed over.
        """
        now = utc_now()
        with self._write() as session:
            row = session.scalars(
                select(EventRow)
                .where(EventRow.eval_id == eval_id, EventRow.published_at.is_(None), EventRow.topic.not_in(but_to))
                .order_by(EventRow.id)
                .limit(1)
                .with_for_update()
            ).first()
            if row is None or _claimed(row.claimed_at, now):
                return None
            uncertain = row.claimed_at is not None
            row.claimed_at = now
            return ClaimedMessage(
                id=row.id,
                uncertain=uncertain,
                event_id=row.event_id,
                event=row.event,
                status=row.status,
                topic=row.topic,
                message=row.message,
                body=row.body,
            )

    def published(self, message_id: int) -> None:
        """The broker has it."""
        self._done_with(message_id, happenings.notified, in_doubt=False)

    def let_be(self, message_id: int) -> None:
        """The broker may have it or not, and it must not come twice: it is not published again."""
        self._done_with(message_id, happenings.perhaps_notified, in_doubt=True)

    def resend(self, eval_id: str, by: str) -> None:
        """Messages in doubt are published after all: somebody has looked, and knows that they did not arrive.

        Raises:
            EvaluationNotFound: there is no such evaluation.
            EvaluationConflict: nothing is in doubt.
        """
        with self._write() as session:
            evaluation = session.get(EvaluationRow, eval_id, with_for_update={"key_share": True})
            if evaluation is None:
                raise EvaluationNotFound(f"no evaluation has the id {eval_id}")
            rows = session.scalars(select(EventRow).where(EventRow.eval_id == eval_id, EventRow.in_doubt)).all()
            if not rows:
                raise EvaluationConflict(f"evaluation {eval_id} has no notification whose fate is unknown")
            for row in rows:
                row.claimed_at, row.published_at, row.in_doubt = None, None, False
                note(session, evaluation, happenings.sent_again(row, by))

    def in_doubt(self) -> int:
        """How many evaluations have messages in doubt."""
        query = select(func.count(EventRow.eval_id.distinct())).where(EventRow.in_doubt)
        with Session(self._database) as session:
            return session.scalar(query) or 0

    def _done_with(self, message_id: int, happening: Callable[[EventRow], Happening], *, in_doubt: bool) -> None:
        with self._write() as session:
            # The evaluation before the message: whoever adds to a timeline holds its row.
            evaluation = session.scalars(
                select(EvaluationRow)
                .join(EventRow, EventRow.eval_id == EvaluationRow.eval_id)
                .where(EventRow.id == message_id)
                .with_for_update(key_share=True, of=EvaluationRow)
            ).one_or_none()
            if evaluation is None:
                return  # deleted meanwhile, with all that was to be told
            row = session.get_one(EventRow, message_id)
            if row.published_at is None:
                row.published_at, row.in_doubt = utc_now(), in_doubt
                note(session, evaluation, happening(row))

    def release(self, message_id: int) -> None:
        """The broker said no: anyone may try again."""
        with self._write() as session:
            session.execute(update(EventRow).where(EventRow.id == message_id).values(claimed_at=None))

    def waiting(self) -> list[str]:
        """Evaluations with messages that nobody is publishing, oldest first."""
        stale = utc_now() - timedelta(seconds=CLAIM_SECONDS)
        query = (
            select(EventRow.eval_id)
            .where(EventRow.published_at.is_(None), or_(EventRow.claimed_at.is_(None), EventRow.claimed_at < stale))
            .group_by(EventRow.eval_id)
            .order_by(func.min(EventRow.id))
        )
        with Session(self._database) as session:
            return list(session.scalars(query))


def write_messages(session: Session, eval_id: str, messages: Sequence[OutgoingMessage]) -> None:
    """Writes messages down in the transaction of what they tell.

    One that is there already (same event id and topic) stays as it is.
    """
    if not messages:
        return
    now = utc_now()
    rows = [{"eval_id": eval_id, "created_at": now, "in_doubt": False, **message.model_dump()} for message in messages]
    session.execute(insert(session, EventRow).on_conflict_do_nothing(), rows)


def _claimed(claimed_at: datetime | None, now: datetime) -> bool:
    return claimed_at is not None and now - claimed_at < timedelta(seconds=CLAIM_SECONDS)

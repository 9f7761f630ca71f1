"""The timeline: one ordered list of what happened to each evaluation. It outlives the Jobs.

Entries are written in the transaction of what they tell, by whoever holds the evaluation's row: so sequences of one
evaluation are committed in order, and a reader that has seen one has missed none before it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from budeval.commons.clock import utc_now
from budeval.commons.errors import EvaluationNotFound
from budeval.commons.redaction import printable
from budeval.record.database import insert
from budeval.record.tables import EvaluationRow, TimelineRow

MAXIMUM_MESSAGE_LENGTH = 2000
MAXIMUM_WORD_LENGTH = 256
"""As much as the columns hold."""
LAST_WORDS_SECONDS = 5
"""After its end an evaluation still tells its subscribers; then its timeline is complete."""
HEADS_PER_QUERY = 1000
"""Evaluations asked about by one query: databases bound the parameters of one."""


class Kind(StrEnum):
    """What sort of thing happened."""

    CREATED = "created"
    QUEUE = "queue"
    STEP = "step"
    RETRY = "retry"
    RUN = "run"
    NOTIFICATION = "notification"
    ATTEMPT = "attempt"
    CANCEL = "cancel"
    DELETE = "delete"
    END = "end"


class Happening(NamedTuple):
    """Something to be told. Two in one attempt that differ in nothing are the same thing, twice."""

    kind: Kind
    title: str
    message: str = ""
    run_id: str | None = None
    reason: str | None = None
    actor: str | None = None


class TimelineEntry(BaseModel):
    """Something that happened, once or several times."""

    sequence: int
    """Place in the evaluation's timeline; one that happens again moves to the end."""
    at: datetime
    """When it happened last."""
    first_at: datetime
    kind: Kind
    title: str
    message: str
    run_id: str | None
    reason: str | None
    """The reason word: Kubernetes', the engine's, or a status."""
    actor: str | None
    """Who did it, where somebody did."""
    count: int


class Head(NamedTuple):
    """How far the timeline of an evaluation is."""

    newest: int
    complete: bool
    """Whether nothing will be added."""


def note(session: Session, evaluation: EvaluationRow, happening: Happening, *, once: bool = False) -> None:
    """Adds to the timeline of an evaluation whose row this session holds; again: counts, or ``once``: does nothing."""
    happening = _clean(happening)
    sequence, now = evaluation.newest_sequence + 1, utc_now()
    entry = insert(session, TimelineRow).values(
        eval_id=evaluation.eval_id,
        fingerprint=_fingerprint(happening, evaluation.attempt),
        sequence=sequence,
        count=1,
        first_at=now,
        at=now,
        **happening._asdict(),
    )
    same = [TimelineRow.eval_id, TimelineRow.fingerprint]
    if once:
        entry = entry.on_conflict_do_nothing(index_elements=same)
    else:
        again = {"sequence": sequence, "at": now, "count": TimelineRow.count + 1}
        entry = entry.on_conflict_do_update(index_elements=same, set_=again)
    # What else is changed here is written once, at the end.
    with session.no_autoflush:
        added = session.scalar(entry.returning(TimelineRow.sequence))
    if added is not None:
        evaluation.newest_sequence = sequence


class Timeline:
    """The timelines of all evaluations, to be read."""

    def __init__(self, database: Engine) -> None:
        self._database = database

    def entries(self, eval_id: str, after: int, limit: int) -> list[TimelineEntry]:
        """Entries behind a sequence, in order."""
        query = (
            select(TimelineRow)
            .where(TimelineRow.eval_id == eval_id, TimelineRow.sequence > after)
            .order_by(TimelineRow.sequence)
            .limit(limit)
        )
        with Session(self._database) as session:
            return [TimelineEntry.model_validate(row, from_attributes=True) for row in session.scalars(query)]

    def head(self, eval_id: str) -> Head:
        """Raises :class:`EvaluationNotFound`."""
        found = self.heads([eval_id])
        if eval_id not in found:
            raise EvaluationNotFound(f"no evaluation has the id {eval_id}")
        return found[eval_id]

    def heads(self, eval_ids: Sequence[str]) -> dict[str, Head]:
        """How far each timeline is, by eval_id, with one query for a thousand; without those that are not there."""
        now = utc_now()
        columns = (EvaluationRow.eval_id, EvaluationRow.newest_sequence, EvaluationRow.ended_at)
        with Session(self._database) as session:
            return {
                eval_id: Head(newest, _is_complete(ended_at, now))
                for part in _parts(eval_ids)
                for eval_id, newest, ended_at in session.execute(
                    select(*columns).where(EvaluationRow.eval_id.in_(part))
                )
            }


def _parts(eval_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (eval_ids[start : start + HEADS_PER_QUERY] for start in range(0, len(eval_ids), HEADS_PER_QUERY))


def _is_complete(ended_at: datetime | None, now: datetime) -> bool:
    return ended_at is not None and now - ended_at > timedelta(seconds=LAST_WORDS_SECONDS)


def _clean(happening: Happening) -> Happening:
    return happening._replace(
        title=printable(happening.title, MAXIMUM_WORD_LENGTH),
        message=printable(happening.message, MAXIMUM_MESSAGE_LENGTH),
        reason=None if happening.reason is None else printable(happening.reason, MAXIMUM_WORD_LENGTH),
        actor=None if happening.actor is None else printable(happening.actor, MAXIMUM_WORD_LENGTH),
    )


def _fingerprint(happening: Happening, attempt: int) -> str:
    # What happens in another attempt is another thing.
    told = json.dumps(happening) if attempt == 1 else json.dumps([attempt, *happening])
    return hashlib.sha256(told.encode()).hexdigest()

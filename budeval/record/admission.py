"""Who has a place, in the record. One decision at a time, whichever process takes it.

An evaluation waits while it is PENDING and has no ``admitted_at``; nobody may schedule it. It stands in the queue
where its ``last_heard_at`` puts it: no activity of it runs, so that is when it asked. It has its place from admission
until it ended, and its Jobs are the runs of its current attempt.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Engine, Select, Tuple, and_, func, literal, select, tuple_
from sqlalchemy.orm import Session

from budeval.commons.clock import utc_now
from budeval.commons.errors import FieldProblem, InvalidEvaluation, NoPlace
from budeval.commons.settings import AdmissionLimits
from budeval.commons.wire import WorkflowStatus
from budeval.evals.admission import Asking, Deciding, Obstacle, Usage, queue_obstacle, too_large
from budeval.record import happenings
from budeval.record.tables import EvaluationRow, RunRow
from budeval.record.timeline import note
from budeval.record.views import QueueView

WAITS: ColumnElement[bool] = and_(EvaluationRow.status == WorkflowStatus.PENDING, EvaluationRow.admitted_at.is_(None))
"""Condition on evaluations: those that wait for a place."""
HAS_PLACE: ColumnElement[bool] = and_(
    EvaluationRow.status.in_((WorkflowStatus.PENDING, WorkflowStatus.RUNNING)), EvaluationRow.admitted_at.is_not(None)
)
"""Condition on evaluations: those that count."""
_LOCK = 823477
"""PostgreSQL's advisory lock of all who decide; SQLite has one writer at a time anyway."""


class Counts(NamedTuple):
    """What runs and what waits."""

    running: int
    jobs: int
    waiting: int


class _Page(NamedTuple):
    """Some of those who wait, in their order."""

    asking: list[Asking]
    behind: ColumnElement[bool]
    """Condition on evaluations: those that stand behind all of these."""


class Admission:
    """Places of a record, and the queue for them."""

    def __init__(self, database: Engine, limits: AdmissionLimits) -> None:
        self.freed = threading.Event()
        """Set when this process may have made a place free; whoever admits waits for it."""
        self._database = database
        self._writing = database.execution_options(record_writes=True)
        self._limits = limits

    @contextmanager
    def deciding(self) -> Iterator[Session]:
        """A transaction that may give places: the lock comes before any row's, so that no two wait for each other."""
        with Session(self._writing) as session, session.begin():
            if session.get_bind().dialect.name == "postgresql":
                session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            yield session

    def ask(self, session: Session, row: EvaluationRow) -> None:
        """Gives a PENDING evaluation, new or to be tried again, its place or puts it behind all who wait.

        ``session`` is of :meth:`deciding`, and has the runs of the attempt. What is raised must undo the transaction.

        Raises:
            InvalidEvaluation: its Jobs are more than may ever run at once.
            NoPlace: there is no place, and it may not wait for one.
        """
        row.admitted_at, row.last_heard_at = None, _behind_all(session, row.eval_id)
        session.flush()
        (asking,) = _asking(session, EvaluationRow.eval_id == row.eval_id)
        self._refuse_too_large(asking)
        before = _before(row)
        obstacle = self._obstacle(session, asking, before)
        if obstacle is None:
            row.admitted_at = row.last_heard_at
            return
        waiting = _count(session, before)
        of_requester = _count(session, and_(before, EvaluationRow.requested_by == asking.requester))
        self._refuse_to_queue(waiting, of_requester, obstacle)
        note(session, row, happenings.queued(waiting + 1, obstacle))

    def admit(self) -> list[str]:
        """Gives the free places to those who wait; answers who got one, first come first. Cheap while nobody waits."""
        if not self._any_waits():
            return []
        with self.deciding() as session:
            deciding, still, chosen = Deciding(self._limits, _running(session)), WAITS, []
            while not deciding.closed and (page := _page(session, still)):
                chosen += [asking.eval_id for asking in page.asking if deciding.take(asking) is None]
                still = and_(WAITS, page.behind)
            return [eval_id for eval_id in chosen if _let_in(session, eval_id)]

    def is_waiting(self, eval_id: str) -> bool:
        """Whether an evaluation waits for a place."""
        return self._any_waits(EvaluationRow.eval_id == eval_id)

    def place(self, session: Session, row: EvaluationRow) -> QueueView:
        """Where an evaluation that waits stands in the queue; those before it are counted, not loaded."""
        before = _before(row)
        (asking,) = _asking(session, EvaluationRow.eval_id == row.eval_id)
        obstacle = self._obstacle(session, asking, before)
        position = 1 + _count(session, before)
        return QueueView(position=position, **({} if obstacle is None else obstacle._asdict()))

    def _obstacle(self, session: Session, asking: Asking, before: ColumnElement[bool]) -> Obstacle | None:
        """What one waits for behind those ``before``; from those alone who matter, mostly the first of them."""
        deciding, still = Deciding(self._limits, _running(session)), before
        while page := _page(session, still):
            for other in page.asking:
                deciding.take(other)
            if deciding.settled(asking.requester):
                break
            still = and_(before, page.behind)
            if deciding.closed:
                still = and_(still, EvaluationRow.requested_by == asking.requester)
        return deciding.take(asking)

    def counts(self) -> Counts:
        """How much runs and waits now."""
        with Session(self._database) as session:
            total = Usage(_running(session)).total
            waiting = _count(session, WAITS)
        return Counts(total.evaluations, total.jobs, waiting)

    def _any_waits(self, *conditions: ColumnElement[bool]) -> bool:
        with Session(self._database) as session:
            return session.scalar(select(EvaluationRow.eval_id).where(WAITS, *conditions).limit(1)) is not None

    def _refuse_too_large(self, asking: Asking) -> None:
        obstacle = too_large(self._limits, asking)
        if obstacle is not None:
            message = (
                f"{asking.jobs} data sets are {asking.jobs} Jobs, and there may be {obstacle.sentence()}; "
                "ask for fewer data sets in one evaluation"
            )
            raise InvalidEvaluation([FieldProblem("eval_datasets", message)])

    def _refuse_to_queue(self, waiting: int, of_requester: int, obstacle: Obstacle) -> None:
        again = "Nothing was started; ask again later, or raise the limit."
        if self._limits.when_full == "refuse":
            raise NoPlace(f"No place is free: {obstacle.sentence()}. {again}")
        full = queue_obstacle(self._limits, waiting, of_requester)
        if full is not None:
            raise NoPlace(f"No place is free, and at most {full.limit} evaluations may wait {full.whose}. {again}")


def is_waiting(row: EvaluationRow) -> bool:
    """Whether an evaluation waits for a place."""
    return row.status == WorkflowStatus.PENDING and row.admitted_at is None


def _let_in(session: Session, eval_id: str) -> bool:
    # It may have been cancelled, even removed, since it was found: that takes its row, not the lock of who decides.
    row = session.get(EvaluationRow, eval_id, with_for_update={"key_share": True})
    if row is None or not is_waiting(row):
        return False
    row.admitted_at = row.last_heard_at = utc_now()
    note(session, row, happenings.admitted())
    return True


def _running(session: Session) -> list[Asking]:
    return _asking(session, HAS_PLACE)


def _page(session: Session, condition: ColumnElement[bool]) -> _Page | None:
    """The first of those who wait; none: nobody does."""
    query = _ASKING.add_columns(EvaluationRow.last_heard_at)
    rows = session.execute(query.where(EvaluationRow.eval_id.in_(_FIRST.where(condition)))).all()
    if not rows:
        return None
    *_, (last_id, _, _, last_heard_at) = rows
    return _Page([Asking(*row[:3]) for row in rows], _stands > _standing(last_heard_at, last_id))


def _asking(session: Session, condition: ColumnElement[bool]) -> list[Asking]:
    return [Asking(*row) for row in session.execute(_ASKING.where(condition))]


def _behind_all(session: Session, eval_id: str) -> datetime:
    # Services may disagree about the time by more than two requests are apart.
    newest = session.scalar(
        select(func.max(EvaluationRow.last_heard_at, type_=EvaluationRow.last_heard_at.type)).where(
            WAITS, EvaluationRow.eval_id != eval_id
        )
    )
    now = utc_now()
    return now if newest is None else max(now, newest + timedelta(microseconds=1))


def _count(session: Session, condition: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(EvaluationRow).where(condition)) or 0


def _before(row: EvaluationRow) -> ColumnElement[bool]:
    """Condition on evaluations: those that wait and stand before this one."""
    return and_(WAITS, _stands < _standing(row.last_heard_at, row.eval_id))


def _standing(last_heard_at: datetime, eval_id: str) -> Tuple:
    return tuple_(literal(last_heard_at, EvaluationRow.last_heard_at.type), literal(eval_id))


_stands = tuple_(EvaluationRow.last_heard_at, EvaluationRow.eval_id)
"""Where an evaluation that waits stands in the queue."""
_FIRST = select(EvaluationRow.eval_id).order_by(EvaluationRow.last_heard_at, EvaluationRow.eval_id).limit(50)
_JOBS = (
    select(func.count())
    .where(RunRow.eval_id == EvaluationRow.eval_id, RunRow.attempt == EvaluationRow.attempt)
    .correlate(EvaluationRow)
    .scalar_subquery()
)
_ASKING: Select[str, str, int] = select(EvaluationRow.eval_id, EvaluationRow.requested_by, _JOBS).order_by(
    EvaluationRow.last_heard_at, EvaluationRow.eval_id
)

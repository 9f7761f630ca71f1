"""Finding evaluations: filtered, sorted, and page by page by the key of the last one seen, not by counting."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, Row, Select, and_, exists, func, not_, or_, select
from sqlalchemy.orm import Session

from budeval.commons.wire import WorkflowStatus
from budeval.jobs.models import JobState
from budeval.record.admission import WAITS
from budeval.record.tables import EvaluationRow, RunRow, UtcDateTime
from budeval.record.views import EvaluationSummary

NOT_ENDED = datetime(9999, 12, 31, tzinfo=UTC)
"""Where an evaluation that has not ended stands among the ends: after all of them, in every database."""


class Sort(StrEnum):
    """Order of evaluations; those that are equal go by eval_id."""

    CREATED = "created_at"
    NEWEST = "-created_at"
    ENDED = "ended_at"
    LAST_ENDED = "-ended_at"
    MODEL = "model"
    MODEL_BACKWARDS = "-model"

    @property
    def descending(self) -> bool:
        """Whether the greatest comes first."""
        return self.startswith("-")

    @property
    def by_time(self) -> bool:
        """Whether the key is a time; else a text."""
        return not self.endswith("model")


class Position(NamedTuple):
    """The last evaluation seen."""

    key: datetime | str
    eval_id: str


class Criteria(NamedTuple):
    """What evaluations are looked for; none: all."""

    status: WorkflowStatus | None = None
    queued: bool | None = None
    """Whether they wait for a place."""
    model: str | None = None
    dataset: str | None = None
    source: str | None = None
    requested_by: str | None = None
    experiment_id: str | None = None
    created_after: datetime | None = None
    """At this time or later."""
    created_before: datetime | None = None
    """Earlier than this."""


class EvaluationQueries:
    """Questions about many evaluations."""

    def __init__(self, database: Engine) -> None:
        self._database = database

    def find(self, criteria: Criteria, sort: Sort, after: Position | None, limit: int) -> list[EvaluationSummary]:
        """Evaluations that fit, behind ``after``, with two queries however many they are."""
        query = select(*_COLUMNS).where(*_conditions(criteria)).order_by(*_order(sort)).limit(limit)
        if after is not None:
            query = query.where(_behind(sort, after))
        with Session(self._database) as session:
            rows = session.execute(query).all()
            runs = session.execute(_runs_of([row.eval_id for row in rows])) if rows else ()
            runs_of = defaultdict(list)
            for run in runs:
                runs_of[run.eval_id].append(run)
        return [_summary(row, runs_of[row.eval_id]) for row in rows]


def position_of(summary: EvaluationSummary, sort: Sort) -> Position:
    """Where a page that ends with ``summary`` is to be continued."""
    if not sort.by_time:
        return Position(summary.model_name, summary.eval_id)
    time = summary.created_at if sort.endswith("created_at") else summary.ended_at or NOT_ENDED
    return Position(time, summary.eval_id)


_COLUMNS = (
    EvaluationRow.eval_id,
    EvaluationRow.experiment_id,
    EvaluationRow.status,
    EvaluationRow.attempt,
    WAITS.label("queued"),
    EvaluationRow.model_name,
    EvaluationRow.engine,
    EvaluationRow.source,
    EvaluationRow.requested_by,
    EvaluationRow.created_at,
    EvaluationRow.started_at,
    EvaluationRow.ended_at,
    EvaluationRow.eta_minutes,
    EvaluationRow.error,
)


def _conditions(criteria: Criteria) -> list[ColumnElement[bool]]:
    table = EvaluationRow
    wanted = (
        (table.status, criteria.status),
        (table.model_name, criteria.model),
        (table.source, criteria.source),
        (table.requested_by, criteria.requested_by),
        (table.experiment_id, criteria.experiment_id),
    )
    found: list[ColumnElement[bool]] = [column == value for column, value in wanted if value is not None]
    if criteria.queued is not None:
        found.append(WAITS if criteria.queued else not_(WAITS))
    if criteria.created_after is not None:
        found.append(table.created_at >= criteria.created_after)
    if criteria.created_before is not None:
        found.append(table.created_at < criteria.created_before)
    if criteria.dataset is not None:
        found.append(exists().where(RunRow.eval_id == table.eval_id, RunRow.dataset_id == criteria.dataset))
    return found


def _key(sort: Sort) -> ColumnElement[Any]:
    keys: dict[str, ColumnElement[Any]] = {
        "created_at": EvaluationRow.created_at.expression,
        "ended_at": func.coalesce(EvaluationRow.ended_at, NOT_ENDED, type_=UtcDateTime),
        "model": EvaluationRow.model_name.expression,
    }
    return keys[sort.removeprefix("-")]


def _order(sort: Sort) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    key, tie = _key(sort), EvaluationRow.eval_id.expression
    return (key.desc(), tie.desc()) if sort.descending else (key.asc(), tie.asc())


def _behind(sort: Sort, after: Position) -> ColumnElement[bool]:
    key, tie = _key(sort), EvaluationRow.eval_id
    if sort.descending:
        return or_(key < after.key, and_(key == after.key, tie < after.eval_id))
    return or_(key > after.key, and_(key == after.key, tie > after.eval_id))


def _runs_of(eval_ids: Sequence[str]) -> Select[str, str, str, int]:
    return (
        select(RunRow.eval_id, RunRow.dataset_id, RunRow.status, func.count().label("runs"))
        .where(RunRow.eval_id.in_(eval_ids))
        .group_by(RunRow.eval_id, RunRow.dataset_id, RunRow.status)
        .order_by(func.min(RunRow.position))
    )


def _summary(row: Row[Any], runs: list[Row[str, str, str, int]]) -> EvaluationSummary:
    return EvaluationSummary.model_validate(
        {
            **row._asdict(),
            "datasets": list(dict.fromkeys(run.dataset_id for run in runs)),
            "runs_total": sum(run.runs for run in runs),
            "runs_succeeded": sum(run.runs for run in runs if run.status == JobState.SUCCEEDED),
            "runs_failed": sum(run.runs for run in runs if run.status == JobState.FAILED),
        }
    )

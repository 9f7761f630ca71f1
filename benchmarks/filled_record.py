"""A record in which much has happened: evaluations of a year, all ended, with their runs, scores and stories."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, insert

from budeval.commons.wire import STEPS, WorkflowStatus
from budeval.evals.models import ModelInfo, Run
from budeval.jobs.models import JobState
from budeval.record.tables import Base, EvaluationRow, EventRow, RunRow, ScoreRow, TimelineRow
from tests.samples import an_evaluation

RUNS, HAPPENINGS, NOTIFICATIONS = 2, 12, 12
"""Of each evaluation."""
MODELS, DATASETS, SOURCES = 20, 50, 5
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
AT_ONCE = 500
STATUSES = (*[WorkflowStatus.COMPLETED] * 8, WorkflowStatus.FAILED, WorkflowStatus.TERMINATED)

Rows = dict[type[Base], list[dict[str, Any]]]


def fill(database: Engine, count: int) -> None:
    """Adds ``count`` evaluations to a migrated database."""
    for start in range(0, count, AT_ONCE):
        rows: Rows = {EvaluationRow: [], RunRow: [], ScoreRow: [], TimelineRow: [], EventRow: []}
        for number in range(start, min(start + AT_ONCE, count)):
            _add(rows, number)
        with database.execution_options(record_writes=True).begin() as connection:
            for table, values in rows.items():
                connection.execute(insert(table), values)


def eval_id(number: int) -> str:
    """Of the evaluation with this number."""
    return str(UUID(int=(number << 96) | (4 << 76) | (8 << 60) | number))


def dataset(number: int) -> str:
    """Name of a data set."""
    return f"dataset-{number % DATASETS}_gen"


def _add(rows: Rows, number: int) -> None:
    begun = BEGIN + timedelta(minutes=50 * number)
    status = STATUSES[number % len(STATUSES)]
    runs = [Run(run_id=f"run-{position}", dataset_id=dataset(number + position)) for position in range(RUNS)]
    model = ModelInfo(model_name=f"model-{number % MODELS}", endpoint="http://127.0.0.1:13200/v1")
    evaluation = an_evaluation(eval_id(number), model=model, runs=runs, source=f"source-{number % SOURCES}")
    common = {"eval_id": evaluation.eval_id}
    steps = {str(step.event): {"status": status, "message": "done", "at": begun.isoformat()} for step in STEPS}
    rows[EvaluationRow].append(
        {
            **common, "definition": evaluation.model_dump(mode="json"), "model_name": model.model_name,
            "engine": evaluation.engine, "source": evaluation.source, "attempt": 1, "requested_by": "api",
            "status": status, "created_at": begun, "admitted_at": begun, "started_at": begun,
            "ended_at": begun + timedelta(minutes=20), "last_heard_at": begun, "poll_interval": 30, "steps": steps,
            "eta_minutes": 0, "newest_sequence": HAPPENINGS,
        }
    )  # fmt: skip
    rows[RunRow] += [_run(common, position, run, begun) for position, run in enumerate(runs)]
    rows[ScoreRow] += [_score(common, run) for run in runs]
    rows[TimelineRow] += [_happening(common, sequence, begun) for sequence in range(1, HAPPENINGS + 1)]
    rows[EventRow] += [_notification(common, sequence, begun) for sequence in range(NOTIFICATIONS)]


def _run(common: Mapping[str, Any], position: int, run: Run, at: datetime) -> dict[str, Any]:
    return {
        **common, "run_id": run.run_id, "position": position, "dataset_id": run.dataset_id, "attempt": 1,
        "job_name": f"budeval-{run.run_id}", "engine_config": {"schema": 1, "dataset": run.dataset_id},
        "status": JobState.SUCCEEDED, "phase": "scoring", "questions_done": 1000, "questions_total": 1000,
        "started_at": at, "ended_at": at, "duration_seconds": 1200.0,
    }  # fmt: skip


def _score(common: Mapping[str, Any], run: Run) -> dict[str, Any]:
    score = {"dataset": run.dataset_id, "version": "18632c", "metric": "accuracy", "mode": "gen", "score": 35.42}
    return {**common, "run_id": run.run_id, "position": 0, **score}


def _happening(common: Mapping[str, Any], sequence: int, at: datetime) -> dict[str, Any]:
    return {
        **common, "fingerprint": f"{sequence:064}", "sequence": sequence, "kind": "step", "title": "A step",
        "message": "It was done as it was meant to be.", "reason": "COMPLETED", "count": 1, "first_at": at, "at": at,
    }  # fmt: skip


def _notification(common: Mapping[str, Any], number: int, at: datetime) -> dict[str, Any]:
    body: dict[str, Sequence[str]] = {"payload": ["as long as a notification is"] * 30}
    return {
        **common, "event_id": f"{number:064}", "event": "eta", "status": "RUNNING", "topic": "evaluations",
        "message": "12", "body": body, "created_at": at, "claimed_at": at, "published_at": at,
        "in_doubt": False,
    }  # fmt: skip

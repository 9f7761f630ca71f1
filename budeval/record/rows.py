"""What the record's rows hold: how each thing that happens changes them, and how they are shown.

Whoever changes an evaluation or its runs holds the row of the evaluation.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from budeval.commons.clock import utc_now
from budeval.commons.wire import STEPS, WorkflowStatus
from budeval.evals.models import ErrorInfo, Evaluation, RunResult, Score
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.models import JobState, Progress
from budeval.record.tables import EvaluationRow, EventRow, RunRow, ScoreRow
from budeval.record.views import EvaluationView, NotificationsView, QueueView, RunView, StepView, UnknownNotification


def new_evaluation(evaluation: Evaluation, requested_by: str, now: datetime) -> dict[str, Any]:
    """The values of a new evaluation, without what is secret."""
    return {
        "eval_id": evaluation.eval_id,
        "definition": evaluation.model_dump(mode="json"),
        "experiment_id": evaluation.experiment_id,
        "model_name": evaluation.model.model_name,
        "engine": evaluation.engine,
        "source": evaluation.source,
        "attempt": 1,
        "requested_by": requested_by,
        "newest_sequence": 0,
        "status": WorkflowStatus.PENDING,
        "created_at": now,
        "last_heard_at": now,
        "poll_interval": evaluation.monitor.poll_interval,
        "steps": {},
    }


def new_runs(evaluation: Evaluation, job_names: Mapping[str, str]) -> list[RunRow]:
    """The runs of a new evaluation; ``job_names`` by run id."""
    return [
        RunRow(
            eval_id=evaluation.eval_id,
            run_id=run.run_id,
            position=position,
            dataset_id=run.dataset_id,
            job_name=job_names[run.run_id],
            attempt=1,
            status=JobState.PENDING,
            questions_done=0,
            questions_total=0,
        )
        for position, run in enumerate(evaluation.runs)
    ]


def runs_of(session: Session, eval_id: str) -> list[RunRow]:
    """The runs of an evaluation, in the order of the request."""
    return list(session.scalars(select(RunRow).where(RunRow.eval_id == eval_id).order_by(RunRow.position)))


def has_ended(row: EvaluationRow) -> bool:
    """Whether an activity that comes late must not change anything any more."""
    return WorkflowStatus(row.status).ended


def start_again(row: EvaluationRow) -> None:
    """The evaluation waits to begin, as a new one does."""
    row.status, row.steps = WorkflowStatus.PENDING, {}
    row.started_at = row.ended_at = row.cancel_requested_at = row.cancelled_by = None
    row.error = row.eta_minutes = None


def wait_again(run: RunRow) -> None:
    """What is known of the run's progress stays: its engine goes on from there."""
    run.status = JobState.PENDING
    run.error = run.result_sha256 = run.started_at = run.ended_at = run.duration_seconds = None


def apply_update(row: RunRow, item: RunUpdate) -> None:
    """What a sweep found out about a run."""
    row.status = item.status
    row.phase = item.phase or row.phase
    row.result_sha256 = item.result_sha256 or row.result_sha256
    row.started_at = item.started_at or row.started_at
    row.ended_at = item.ended_at or row.ended_at
    row.error = None if item.error is None else item.error.model_dump(mode="json")
    if item.progress is not None:
        row.phase = item.progress.phase
        row.questions_done, row.questions_total = item.progress.done, item.progress.total


def save_result(session: Session, row: RunRow, result: RunResult) -> None:
    """The scores of a run, or why there are none."""
    row.status = JobState.SUCCEEDED if result.succeeded else JobState.FAILED
    row.error = None if result.error is None else result.error.model_dump(mode="json")
    row.started_at = result.start_time or row.started_at
    row.ended_at = result.completion_time or row.ended_at or utc_now()
    row.duration_seconds = result.duration_seconds
    if result.questions:
        row.questions_done, row.questions_total = result.questions["answered"], result.questions["asked"]
    for position, score in enumerate(result.scores):
        session.add(ScoreRow(eval_id=row.eval_id, run_id=row.run_id, position=position, **score.model_dump()))


def end(row: EvaluationRow, status: WorkflowStatus, error: ErrorInfo | None, message: str) -> None:
    """The evaluation has ended; a step that had begun ends with it, and says ``message``."""
    row.status = status
    row.ended_at = row.last_heard_at = utc_now()
    row.eta_minutes = 0
    last = {"status": status, "message": message, "at": row.ended_at.isoformat()}
    row.steps = {step: last if _is_running(entry) else entry for step, entry in row.steps.items()}
    row.error = None if error is None else error.model_dump(mode="json")


def _is_running(step: dict[str, Any]) -> bool:
    """Whether a step ends with its evaluation: one that had begun."""
    return bool(step["status"] == WorkflowStatus.RUNNING)


def last_message(error: ErrorInfo | None, runs: list[RunRow]) -> str:
    """How the step ended that ends with its evaluation; what it said last is not true any more."""
    if error is not None:
        return error.sentence()
    return f"{sum(run.error is None for run in runs)} of {len(runs)} runs completed successfully"


def fail_unfinished(session: Session, eval_id: str, error: ErrorInfo) -> None:
    """Every run without scores has failed because of ``error``; a reason that is known already stays."""
    # A Job may have completed without anybody having read its results: such a run is no success either.
    with_scores = set(session.scalars(select(ScoreRow.run_id).where(ScoreRow.eval_id == eval_id)))
    for row in runs_of(session, eval_id):
        if row.run_id not in with_scores and row.status != JobState.FAILED:
            row.status = JobState.FAILED
            row.ended_at = row.ended_at or utc_now()
            known = None if row.error is None else ErrorInfo.model_validate(row.error)
            row.error = error.after(known).model_dump(mode="json")


def _run_view(row: RunRow, scores: list[Score]) -> RunView:
    return RunView(
        run_id=row.run_id,
        dataset_id=row.dataset_id,
        attempt=row.attempt,
        job_name=row.job_name,
        status=JobState(row.status),
        progress=Progress.model_validate(
            {"phase": row.phase or "preparing", "done": row.questions_done, "total": row.questions_total}
        ),
        error=None if row.error is None else ErrorInfo.model_validate(row.error),
        scores=scores,
        started_at=row.started_at,
        ended_at=row.ended_at,
        duration_seconds=row.duration_seconds,
    )


def _notifications(session: Session, eval_id: str) -> NotificationsView:
    columns = (EventRow.event, EventRow.topic, EventRow.in_doubt)
    unsettled = or_(EventRow.published_at.is_(None), EventRow.in_doubt)
    rows = session.execute(select(*columns).where(EventRow.eval_id == eval_id, unsettled).order_by(EventRow.id)).all()
    unknown = [UnknownNotification(event=row.event, topic=row.topic) for row in rows if row.in_doubt]
    return NotificationsView(waiting=len(rows) - len(unknown), unknown=unknown)


def evaluation_view(session: Session, row: EvaluationRow, queue: QueueView | None) -> EvaluationView:
    """Everything about an evaluation that may be shown; ``queue``: its place, where it waits for one."""
    scores: dict[str, list[Score]] = {}
    for score in session.scalars(select(ScoreRow).where(ScoreRow.eval_id == row.eval_id).order_by(ScoreRow.position)):
        scores.setdefault(score.run_id, []).append(Score.model_validate(score, from_attributes=True))
    definition = Evaluation.model_validate(row.definition)
    pending = {"status": WorkflowStatus.PENDING}
    return EvaluationView(
        eval_id=row.eval_id,
        experiment_id=definition.experiment_id,
        attempt=row.attempt,
        status=WorkflowStatus(row.status),
        model_name=definition.model.model_name,
        engine=definition.engine,
        source=definition.source,
        requested_by=row.requested_by,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        last_heard_at=row.last_heard_at,
        eta_minutes=row.eta_minutes,
        error=None if row.error is None else ErrorInfo.model_validate(row.error),
        cancelled_by=row.cancelled_by,
        queue=queue,
        notifications=_notifications(session, row.eval_id),
        steps=[
            StepView.model_validate({"id": step.event, "title": step.title, **row.steps.get(step.event, pending)})
            for step in STEPS
        ],
        runs=[_run_view(run, scores.get(run.run_id, [])) for run in runs_of(session, row.eval_id)],
    )

"""Attempts at an evaluation: what a retry runs again, and how an attempt ends. Pure."""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from budeval.commons.errors import EvaluationConflict
from budeval.commons.settings import MonitorSettings
from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import AskedResources, ErrorInfo, Evaluation
from budeval.jobs.models import JobState
from budeval.record.views import EvaluationView, RunView


class RetryScope(StrEnum):
    """Which runs a retry runs again."""

    FAILED = "failed"
    """All without scores: failed, incomplete or cancelled."""


class RetryChanges(BaseModel):
    """What another attempt does otherwise than the one before it."""

    model_config = ConfigDict(frozen=True)

    has_api_key: bool
    monitor: MonitorSettings
    resources: AskedResources | None = None
    """None: as before."""


def runs_to_retry(view: EvaluationView) -> list[str]:
    """Ids of the runs without scores.

    Raises:
        EvaluationConflict: the evaluation has not ended, or every run has its scores.
    """
    if not view.status.ended:
        raise EvaluationConflict(f"evaluation {view.eval_id} is {view.status}; let it end, or cancel it first")
    found = [run.run_id for run in view.runs if not run.scores]
    if not found:
        raise EvaluationConflict(f"every run of evaluation {view.eval_id} has its scores: there is nothing to retry")
    return found


def next_attempt(evaluation: Evaluation, run_ids: Sequence[str], changes: RetryChanges) -> Evaluation:
    """The evaluation as its next attempt runs it: the runs of ``run_ids``, and nothing of the others."""
    attempt = evaluation.attempt + 1
    runs = [
        run.model_copy(update={"attempt": attempt}) if run.run_id in run_ids else run for run in evaluation.runs
    ]  # fmt: skip
    return evaluation.model_copy(
        update={
            "attempt": attempt,
            "runs": runs,
            "has_api_key": changes.has_api_key,
            "monitor": changes.monitor,
            "resources": changes.resources or evaluation.resources,
        }
    )


def keeps_scores(view: EvaluationView) -> bool:
    """Whether there are scores of an earlier attempt.

    Then no failure of this one may be told as a failure of the evaluation: to its consumer that would be the end of
    those scores.
    """
    return any(run.scores and run.attempt < view.attempt for run in view.runs)


def ending(
    view: EvaluationView, status: WorkflowStatus | None, error: ErrorInfo | None
) -> tuple[WorkflowStatus, ErrorInfo | None]:
    """How an evaluation ends whose workflow ended with ``status``; None: as its results say."""
    if status is None or keeps_scores(view):
        return _verdict_of_results(view.runs)
    return status, error


def _verdict_of_results(runs: Sequence[RunView]) -> tuple[WorkflowStatus, ErrorInfo | None]:
    """Completed when at least one run has scores; else failed, for the reason of the first run."""
    if any(run.status is JobState.SUCCEEDED and run.scores for run in runs):
        return WorkflowStatus.COMPLETED, None
    first = next((run.error for run in runs if run.error is not None), None)
    return WorkflowStatus.FAILED, first or ErrorInfo(reason="ResultsIncomplete", message="No run has a score.")

"""What the monitor decides: which runs have ended, what is news, whether to go on. Pure: no clock, no cluster.

The monitor's state goes through the workflow's history at every check, so it holds ids and counters only; what is
known about a run (reason, message, scores) is in the record.
"""

from collections.abc import Mapping
from datetime import datetime
from math import ceil

from pydantic import BaseModel, Field

from budeval.evals.models import ErrorInfo, EvaluationInput, Value
from budeval.jobs.models import JobState, JobStatus, Progress

MISSING_SWEEPS = 2
"""Good sweeps that must not show a Job before it counts as missing: one may have been made before the Job was."""
SWEEP_FAILURES_TOLD = 3
"""Failed sweeps in a row after which subscribers are told."""
FIRST_ETA_MINUTES = 30
"""Minutes told before anything was measured."""
SHOWN_CHECKS = 100
"""Checks at most, besides ends of runs, whose progress goes to the evaluation's own workflow: each stays in its
history, which cannot begin anew as the monitor's does."""
OVERTIME = 2
"""An evaluation is also out of time after so many times its planned duration: checks that were woken early do not
count as checks, so the count alone would never end an evaluation whose timers never fire."""


class RunUpdate(BaseModel):
    """What a sweep found out about a run."""

    run_id: str
    status: JobState
    phase: str | None = None
    progress: Progress | None = None
    error: ErrorInfo | None = None
    result_sha256: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class MonitorState(Value):
    """Input of the monitor, passed on from check to check by continue-as-new."""

    eval_id: str
    attempt: int = 1
    run_ids: list[str]
    poll_interval: int
    max_checks: int
    progress_every: int
    completed_jobs: list[str] = Field(default_factory=list)
    """Run ids; the guide's name."""
    failed_jobs: list[str] = Field(default_factory=list)
    """Run ids; the guide's name."""
    stuck_jobs: list[str] = Field(default_factory=list)
    """Run ids among the failed whose Job still stands, because its pod never started."""
    missing: dict[str, int] = Field(default_factory=dict)
    """Good sweeps in a row that did not show a run's Job."""
    check_count: int = 0
    failed_sweeps: int = 0
    """Sweeps in a row that failed."""
    woken: bool = False
    """Whether this check was woken before its time: such a check does not count."""
    started_at: datetime | None = None
    measured_from: datetime | None = None
    """Since when questions are counted, for the rate."""
    measured_done: int = 0
    """Questions that were done at ``measured_from``."""
    eta_minutes: int = FIRST_ETA_MINUTES
    told: str = ""
    """The last progress message, so that only a change is news."""

    @classmethod
    def first(cls, evaluation: EvaluationInput) -> "MonitorState":
        """The state before the first check; what it says in ``told`` is told before that check."""
        state = cls.model_validate(evaluation.model_dump())
        return state.model_copy(update={"told": progress_message(state)})

    @property
    def remaining(self) -> list[str]:
        """Run ids that have not ended."""
        ended = {*self.completed_jobs, *self.failed_jobs}
        return [run_id for run_id in self.run_ids if run_id not in ended]


class Verdict(BaseModel):
    """What one check came to."""

    state: MonitorState
    updates: list[RunUpdate] = Field(default_factory=list)
    newly_completed: list[str] = Field(default_factory=list)
    newly_failed: list[str] = Field(default_factory=list)
    progress_message: str | None = None
    """To be told now; none: nothing is news."""
    shown: bool = False
    """Whether the evaluation's own workflow is to show the progress."""
    eta_changed: bool = False
    finished: bool = False
    timed_out: bool = False


def judge(state: MonitorState, statuses: Mapping[str, JobStatus], now: datetime) -> Verdict:
    """A good sweep: ``statuses`` has the status of each remaining run, by run id."""
    missing = {run_id: state.missing.get(run_id, 0) + 1 for run_id in state.remaining if _is_missing(statuses, run_id)}
    updates = [_update(run_id, statuses.get(run_id), missing.get(run_id, 0)) for run_id in state.remaining]
    completed = [item.run_id for item in updates if item.status is JobState.SUCCEEDED]
    failed = [item.run_id for item in updates if item.status is JobState.FAILED]
    after = _counted(state, now).model_copy(
        update={
            "completed_jobs": [*state.completed_jobs, *completed],
            "failed_jobs": [*state.failed_jobs, *failed],
            "stuck_jobs": [*state.stuck_jobs, *(run_id for run_id in failed if _is_stuck(statuses, run_id))],
            "missing": missing,
            "failed_sweeps": 0,
        }
    )
    after = _measured(after, updates, now)
    finished = not after.remaining
    message = progress_message(after)
    news = message != after.told or _is_due(after)
    return Verdict(
        state=after.model_copy(update={"told": message}) if news else after,
        updates=updates,
        newly_completed=completed,
        newly_failed=failed,
        progress_message=message if news and not finished else None,
        shown=bool(completed or failed) or (not state.woken and _is_shown(after)),
        eta_changed=after.eta_minutes < state.eta_minutes,
        finished=finished,
        timed_out=not finished and _is_out_of_time(after, now),
    )


def judge_failed_sweep(state: MonitorState, error: str, now: datetime) -> Verdict:
    """A sweep that failed: nothing is known anew. It ends nothing before the time is up."""
    after = _counted(state, now).model_copy(update={"failed_sweeps": state.failed_sweeps + 1})
    told = after.failed_sweeps == SWEEP_FAILURES_TOLD
    message = f"The cluster could not be asked {after.failed_sweeps} times in a row; still trying. {error}"
    return Verdict(
        state=after.model_copy(update={"told": ""}) if told else after,
        progress_message=message if told else None,
        timed_out=_is_out_of_time(after, now),
    )


def progress_message(state: MonitorState) -> str:
    """The guide's words, and the failed ones where there are any."""
    text = f"Jobs: {len(state.completed_jobs)} completed, {len(state.remaining)} running"
    return f"{text}, {len(state.failed_jobs)} failed" if state.failed_jobs else text


def _is_missing(statuses: Mapping[str, JobStatus], run_id: str) -> bool:
    status = statuses.get(run_id)
    return status is None or status.status is JobState.MISSING


def _is_stuck(statuses: Mapping[str, JobStatus], run_id: str) -> bool:
    return run_id in statuses and statuses[run_id].fatal and not statuses[run_id].status.finished


def _update(run_id: str, status: JobStatus | None, missing: int) -> RunUpdate:
    if status is None or status.status is JobState.MISSING:
        return _missing_update(run_id, gone=missing >= MISSING_SWEEPS)
    ended = status.status.finished or status.fatal
    failed = status.status is JobState.FAILED or status.fatal
    return RunUpdate(
        run_id=run_id,
        status=JobState.FAILED if failed else status.status,
        progress=status.progress,
        error=_error(status),
        result_sha256=status.result_sha256,
        started_at=_time(status.start_time),
        ended_at=_time(status.completion_time) if ended else None,
    )


def _missing_update(run_id: str, *, gone: bool) -> RunUpdate:
    if not gone:
        return RunUpdate(run_id=run_id, status=JobState.MISSING)
    error = ErrorInfo(
        reason="JobMissing",
        message="The Job is not in the cluster any more.",
        resolution="Somebody or something deleted it; retry the evaluation.",
    )
    return RunUpdate(run_id=run_id, status=JobState.FAILED, error=error)


def _error(status: JobStatus) -> ErrorInfo | None:
    # A retrying or waiting Job has a reason too: it is shown while it lasts, and gone when the Job goes on.
    if status.status is JobState.SUCCEEDED:
        return None
    if status.reason is not None:
        return ErrorInfo(reason=status.reason, message=status.message, resolution=status.resolution)
    if status.status is JobState.FAILED:
        return ErrorInfo(reason="Failed", message=status.message or "The Job failed without a reason.")
    return None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _counted(state: MonitorState, now: datetime) -> MonitorState:
    return state.model_copy(
        update={
            "check_count": state.check_count + (0 if state.woken else 1),
            "started_at": state.started_at or now,
            "woken": False,
        }
    )


def _is_due(state: MonitorState) -> bool:
    return state.check_count % state.progress_every == 0


def _is_shown(state: MonitorState) -> bool:
    return state.check_count % max(state.progress_every, ceil(state.max_checks / SHOWN_CHECKS)) == 0


def _is_out_of_time(state: MonitorState, now: datetime) -> bool:
    if state.check_count >= state.max_checks:
        return True
    planned = state.max_checks * state.poll_interval
    return state.started_at is not None and (now - state.started_at).total_seconds() >= planned * OVERTIME


def _measured(state: MonitorState, updates: list[RunUpdate], now: datetime) -> MonitorState:
    """The time left from the questions answered since counting began. It never goes up."""
    if not state.remaining:
        return state.model_copy(update={"eta_minutes": 0})
    running = [item.progress for item in updates if item.run_id in state.remaining]
    known = [progress for progress in running if progress is not None and progress.total]
    done = sum(progress.done for progress in known)
    if state.measured_from is None or done < state.measured_done:
        start = {"measured_from": now, "measured_done": done}
        return state.model_copy(update=start) if known else state
    answered = done - state.measured_done
    if not answered or len(known) < len(running):
        return state
    rate = answered / max((now - state.measured_from).total_seconds(), 1.0)
    left = sum(max(progress.total - progress.done, 0) for progress in known)
    return state.model_copy(update={"eta_minutes": min(state.eta_minutes, max(ceil(left / rate / 60), 1))})

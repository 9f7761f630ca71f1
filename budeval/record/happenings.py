"""What the timeline says, in words: one function for each thing that can happen."""

from budeval.commons.errors import TemporaryError
from budeval.commons.wire import STEPS, WorkflowStatus
from budeval.commons.words import counted
from budeval.evals.admission import Obstacle
from budeval.evals.models import ErrorInfo, Evaluation, RunResult
from budeval.jobs.models import JobState
from budeval.record.tables import EventRow, RunRow
from budeval.record.timeline import Happening, Kind

_STEP_TITLES = {str(step.event): step.title for step in STEPS}
_RUN_TITLES = {
    JobState.PENDING: "Run is waiting",
    JobState.RUNNING: "Run is running",
    JobState.SUCCEEDED: "Job completed",
    JobState.FAILED: "Run failed",
    JobState.SUSPENDED: "Job is suspended",
}
_ENDED_TITLES = {
    WorkflowStatus.COMPLETED: "Evaluation completed",
    WorkflowStatus.FAILED: "Evaluation failed",
    WorkflowStatus.TERMINATED: "Evaluation cancelled",
}


def created(evaluation: Evaluation, by: str) -> Happening:
    """Somebody asked for the evaluation."""
    message = f"{counted(len(evaluation.runs), 'run')} of {evaluation.model.model_name}, for {evaluation.source}"
    return Happening(Kind.CREATED, "Evaluation requested", message, actor=by)


def tried_again(evaluation: Evaluation, by: str) -> Happening:
    """Somebody asked for another attempt."""
    runs = evaluation.runs_of_attempt
    message = f"To be tried again: {len(runs)} of {counted(len(evaluation.runs), 'run')}"
    return Happening(Kind.ATTEMPT, f"Attempt {evaluation.attempt} requested", message, actor=by)


def deletion_requested(by: str) -> Happening:
    """Somebody asked to delete the evaluation; the last thing that anybody reads of it."""
    return Happening(Kind.DELETE, "Deletion requested", actor=by)


def queued(position: int, obstacle: Obstacle) -> Happening:
    """There is no place for the evaluation; its place in the queue is the one it began with."""
    message = f"Place {position} in the queue: {obstacle.sentence()}"
    return Happening(Kind.QUEUE, "Waiting for a place", message, reason=obstacle.waiting_for)


def admitted() -> Happening:
    """The evaluation that waited has a place."""
    return Happening(Kind.QUEUE, "Got a place", reason="Admitted")


def step(step_id: str, status: WorkflowStatus, message: str) -> Happening:
    """A step began, came on or ended."""
    return Happening(Kind.STEP, _STEP_TITLES.get(step_id, step_id), message, reason=status)


def step_postponed(error: TemporaryError) -> Happening:
    """Something that a retry helps against."""
    return Happening(Kind.RETRY, f"{error.title}: trying again", error.detail, reason=error.category)


def woken(message: str) -> Happening:
    """The pulse looks after an evaluation."""
    return Happening(Kind.RETRY, "Evaluation was silent: trying again", message, reason="Silent")


def pods_failed(run_id: str, count: int) -> Happening:
    """Kubernetes starts another pod."""
    message = f"{counted(count, 'pod')} failed so far; Kubernetes starts another"
    return Happening(Kind.RETRY, "Run is tried again", message, run_id)


def run(row: RunRow) -> Happening | None:
    """How a run stands, with Kubernetes' or the engine's own reason; none: not worth a word."""
    status = JobState(row.status)
    if row.error is not None:
        error = ErrorInfo.model_validate(row.error)
        return Happening(Kind.RUN, _RUN_TITLES.get(status, status), error.message, row.run_id, error.reason)
    # A Job that waits without a reason has just been made, and one that one sweep missed may be there in the next.
    if status in (JobState.PENDING, JobState.MISSING):
        return None
    return Happening(Kind.RUN, _RUN_TITLES[status], "", row.run_id, status)


def result(found: RunResult) -> Happening:
    """What was read from the volume for a run that completed."""
    if found.error is not None:
        return Happening(Kind.RUN, "Run has no scores", found.error.message, found.run_id, found.error.reason)
    scores = ", ".join(f"{score.dataset} {score.metric} {score.score:g}" for score in found.scores)
    return Happening(Kind.RUN, "Scores were read", scores, found.run_id, "ScoresRead")


def notified(message: EventRow) -> Happening:
    """A subscriber was told something."""
    return Happening(
        Kind.NOTIFICATION,
        f"Notified {message.topic}",
        message.message,
        reason=f"{message.event} {message.status}",
    )


def perhaps_notified(message: EventRow) -> Happening:
    """Nobody can know whether a subscriber was told, and telling it twice would be worse."""
    unknown = f"Whether {message.event} reached the topic is unknown, and it is not sent again by itself."
    return notified(message)._replace(title=f"{message.topic} may not have been notified", message=unknown)


def sent_again(message: EventRow, by: str) -> Happening:
    """Somebody has looked at the topic, and knows that a message did not arrive."""
    return notified(message)._replace(title=f"To be sent to {message.topic} again", actor=by)


def cancelled(by: str) -> Happening:
    """Somebody asked the evaluation to end."""
    return Happening(Kind.CANCEL, "Cancellation requested", actor=by)


def ended(status: WorkflowStatus, error: ErrorInfo | None) -> Happening:
    """The last thing that happens, but for telling it."""
    reason = status if error is None else error.reason
    return Happening(Kind.END, _ENDED_TITLES.get(status, status), "" if error is None else error.message, reason=reason)

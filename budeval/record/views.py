"""What can be read from the record about evaluations; the answers of ``GET /evals`` and ``GET /evals/{eval_id}``."""

from datetime import datetime

from pydantic import BaseModel

from budeval.commons.wire import WorkflowStatus
from budeval.evals.admission import Resource, Scope
from budeval.evals.models import ErrorInfo, Score
from budeval.jobs.models import JobState, Progress


class StepView(BaseModel):
    """A step of the workflow and how far it is."""

    id: str
    title: str
    status: WorkflowStatus
    message: str = ""
    at: datetime | None = None


class RunView(BaseModel):
    """A run: one data set, one Kubernetes Job."""

    run_id: str
    dataset_id: str
    attempt: int
    """The attempt of the evaluation in which it runs or ran last."""
    job_name: str
    status: JobState
    progress: Progress
    error: ErrorInfo | None = None
    scores: list[Score] = []
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_seconds: float | None = None


class QueueView(BaseModel):
    """Where an evaluation stands that waits for a place, and what for."""

    position: int
    """Among all who wait, from 1. Who is held by a limit of its requester is passed by others."""
    waiting_for: Resource | None = None
    """What there is too much of; none: a place is free, and is given to it within seconds."""
    limit: int | None = None
    """How many there may be at once."""
    scope: Scope | None = None
    """Whom the limit is for."""


class UnknownNotification(BaseModel):
    """A notification of which nobody can know whether it reached its topic. It is not sent again by itself."""

    event: str
    topic: str


class NotificationsView(BaseModel):
    """What subscribers have not been told for certain."""

    waiting: int = 0
    """So many the broker has not taken yet; they are sent when it does."""
    unknown: list[UnknownNotification] = []


class EvaluationView(BaseModel):
    """An evaluation, whole; without secrets."""

    eval_id: str
    experiment_id: str | None
    attempt: int
    """1, and one more for each retry."""
    status: WorkflowStatus
    model_name: str
    engine: str
    source: str
    requested_by: str
    """Who asked for it, as the service knows the caller; ``source`` is what the request says of itself."""
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    last_heard_at: datetime
    eta_minutes: int | None
    error: ErrorInfo | None
    cancelled_by: str | None
    queue: QueueView | None = None
    """None: it does not wait for a place."""
    notifications: NotificationsView = NotificationsView()
    steps: list[StepView]
    runs: list[RunView]


class EvaluationSummary(BaseModel):
    """An evaluation in a list."""

    eval_id: str
    experiment_id: str | None
    attempt: int
    """1, and one more for each retry."""
    status: WorkflowStatus
    queued: bool
    """Whether it waits for a place."""
    model_name: str
    engine: str
    source: str
    requested_by: str
    """Who asked for it, as the service knows the caller; ``source`` is what the request says of itself."""
    datasets: list[str]
    """Data sets in the order of the request, each once."""
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    runs_total: int
    runs_succeeded: int
    runs_failed: int
    eta_minutes: int | None
    error: ErrorInfo | None

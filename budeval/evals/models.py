"""What an evaluation is. Plain values: no web, no sidecar, no cluster.

Models that travel through the workflow's history are lenient (``extra="ignore"``, no bounds): they are read again at
every replay, also by a later version of the service, and a tightened schema would break evaluations in flight.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from budeval.commons.settings import MonitorSettings
from budeval.commons.wire import Event, WorkflowStatus


class Value(BaseModel):
    """A value that never changes."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Run(Value):
    """One data set of an evaluation."""

    run_id: str
    dataset_id: str
    attempt: int = 1
    """The attempt of the evaluation in which it runs or ran last."""


class AskedResources(Value):
    """Requests and limits of the engine container that a retry asked for, as Kubernetes quantities by resource."""

    requests: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, str] = Field(default_factory=dict)


class ModelInfo(Value):
    """The model under evaluation. Its key is a secret and lives elsewhere, sealed."""

    model_name: str
    endpoint: str


class NotificationMetadata(Value):
    """What the requester wants to find in every notification again."""

    name: str | None = None
    workflow_id: str | None = None
    subscriber_ids: str | None = None
    category: str = "internal"
    notification_type: str = "event"
    actor: str | None = None
    topic_keys: Any = None


class Evaluation(Value):
    """One request, checked and normalised."""

    eval_id: str
    experiment_id: str | None = None
    model: ModelInfo
    runs: list[Run]
    engine: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The engine's parameters, typed by the engine (from ``extra_args``)."""
    max_questions: int | None = None
    """Questions asked of each data set at most; none: all."""
    monitor: MonitorSettings
    source: str
    source_topics: list[str]
    notification: NotificationMetadata = NotificationMetadata()
    has_api_key: bool = False
    has_kubeconfig: bool = False
    """Whether it has a cluster of its own, to which the way is lost when its secrets are erased."""
    attempt: int = 1
    resources: AskedResources | None = None
    """None: what every Job gets."""
    results_told: bool = False
    """Whether an earlier attempt told results: their consumer must never hear of the same run's scores twice."""
    deleting: bool = False
    """Whether somebody asked to delete it: it is not tried again then, since its files may be gone already."""

    @property
    def run_ids(self) -> list[str]:
        """The run ids, in the request's order."""
        return [run.run_id for run in self.runs]

    @property
    def runs_of_attempt(self) -> list[Run]:
        """The runs of the present attempt, in the request's order; of the first one, all."""
        return [run for run in self.runs if run.attempt == self.attempt]


class EvaluationInput(Value):
    """Input of the workflow ``evaluate_model``: ids and settings; the rest is in the record, secrets nowhere here."""

    eval_id: str
    attempt: int = 1
    run_ids: list[str]
    """The runs of this attempt."""
    poll_interval: int
    max_checks: int
    progress_every: int


class ErrorInfo(Value):
    """Why a run or an evaluation failed: a reason word (Kubernetes' or the engine's own), what happened, what to do."""

    reason: str
    message: str
    resolution: str | None = None

    def sentence(self) -> str:
        """The error as one text for a person."""
        text = f"{self.reason}: {self.message}" if self.message else self.reason
        return f"{text} {self.resolution}" if self.resolution else text

    def after(self, known: "ErrorInfo | None") -> "ErrorInfo":
        """The error of something that had another one before, which says why it came to this."""
        if known is None:
            return self
        message = f"{self.message} Before: {known.reason}: {known.message}".strip()
        return ErrorInfo(reason=self.reason, message=message, resolution=known.resolution or self.resolution)


CANCELLED = ErrorInfo(reason="Cancelled", message="The evaluation was cancelled.")
"""Why an evaluation ended that somebody cancelled."""


class Closing(Value):
    """Input of the workflow ``close_evaluation``: how an evaluation ends whose own workflow did not say so."""

    evaluation: EvaluationInput
    status: WorkflowStatus
    error: ErrorInfo
    may_have_jobs: bool
    """Whether its deployment had begun."""


class Score(Value):
    """One number of one data set. A data set can have several metrics."""

    dataset: str
    version: str
    metric: str
    mode: str
    score: float


class RunResult(Value):
    """How a run ended: scores, or the reason why there are none."""

    run_id: str
    scores: list[Score] = Field(default_factory=list)
    error: ErrorInfo | None = None
    start_time: datetime | None = None
    completion_time: datetime | None = None
    duration_seconds: float | None = None
    questions: dict[str, int] = Field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether every requested score is there."""
        return self.error is None


class Announcement(Value):
    """A notification to be: what happened, before it is dressed for a subscriber."""

    event: Event
    status: WorkflowStatus
    title: str
    message: str = ""
    result: dict[str, Any] | None = None
    sequence: str = "0"
    """Tells apart several announcements of the same event and status; deterministic, so that a repetition is known."""

"""Requests and answers as the client knows them.

Answers are lenient: a newer service may add fields and words, and an older client must go on reading.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

ENDED_STATUSES = frozenset({"COMPLETED", "FAILED", "TERMINATED"})


class Answer(BaseModel):
    """Something that the service says."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class FieldProblem(Answer):
    """What is wrong with one field of a request."""

    field: str
    message: str
    allowed: list[str] | None = None


class PreflightCheck(Answer):
    """One thing that an evaluation needs."""

    id: str
    title: str
    status: str
    """``ok``, ``warning``, ``failed`` or ``skipped``."""
    message: str = ""
    resolution: str | None = None
    field: str | None = None


class Validation(Answer):
    """What a preflight found out."""

    ok: bool
    """Whether no check failed."""
    checks: list[PreflightCheck]


class Problem(Answer):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str | None = None
    errors: list[FieldProblem] | None = None
    checks: list[PreflightCheck] | None = None
    """All that a preflight looked at, where it is the reason."""

    def sentence(self) -> str:
        """The problem as one text for a person."""
        if self.errors:
            return f"{self.title}: " + "; ".join(f"{error.field}: {error.message}" for error in self.errors)
        return f"{self.title}: {self.detail}" if self.detail else f"{self.title} ({self.status})"


class ErrorInfo(Answer):
    """Why a run or an evaluation failed, and what to do about it."""

    reason: str
    message: str = ""
    resolution: str | None = None


class Score(Answer):
    """One number of one data set."""

    dataset: str
    version: str = ""
    metric: str
    mode: str = ""
    score: float


class Progress(Answer):
    """How far a run is, in questions."""

    phase: str
    done: int
    total: int


class Step(Answer):
    """A step of the workflow."""

    id: str
    title: str
    status: str
    message: str = ""
    at: datetime | None = None


class Run(Answer):
    """One data set of an evaluation."""

    run_id: str
    dataset_id: str
    attempt: int = 1
    """The attempt in which it runs or ran last."""
    status: str
    job_name: str = ""
    progress: Progress
    error: ErrorInfo | None = None
    scores: list[Score] = []
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_seconds: float | None = None


class Queue(Answer):
    """Where an evaluation stands that waits for a place."""

    position: int
    """Among all who wait, from 1."""
    waiting_for: str | None = None
    """What there is too much of; none: it is about to get its place."""
    limit: int | None = None
    scope: str | None = None
    """``all``, or ``requester``: whom the limit is for."""


class UnknownNotification(Answer):
    """A notification of which nobody can know whether it reached its topic."""

    event: str
    topic: str


class Notifications(Answer):
    """What subscribers have not been told for certain."""

    waiting: int = 0
    """So many the broker has not taken yet; they are sent when it does."""
    unknown: list[UnknownNotification] = []
    """Not sent again by themselves."""


class Evaluation(Answer):
    """An evaluation, whole."""

    eval_id: str
    experiment_id: str | None = None
    attempt: int = 1
    """1, and one more for each retry."""
    status: str
    model_name: str
    engine: str
    source: str
    requested_by: str | None = None
    """Who asked for it, as the service knows the caller."""
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    eta_minutes: int | None = None
    error: ErrorInfo | None = None
    cancelled_by: str | None = None
    queue: Queue | None = None
    """None: it does not wait for a place."""
    notifications: Notifications = Notifications()
    steps: list[Step]
    runs: list[Run]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ENDED_STATUSES

    @property
    def succeeded(self) -> bool:
        """Whether every run has its scores."""
        return self.status == "COMPLETED"


class EvaluationSummary(Answer):
    """An evaluation in a list."""

    eval_id: str
    experiment_id: str | None = None
    attempt: int = 1
    """1, and one more for each retry."""
    status: str
    queued: bool = False
    """Whether it waits for a place."""
    model_name: str
    engine: str
    source: str
    requested_by: str | None = None
    datasets: list[str] = []
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    runs_total: int = 0
    runs_succeeded: int = 0
    runs_failed: int = 0
    eta_minutes: int | None = None
    error: ErrorInfo | None = None


class RunResult(Answer):
    """How a run ended."""

    run_id: str
    dataset_id: str
    status: str
    scores: list[Score] = []
    error: ErrorInfo | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_seconds: float | None = None


class Results(Answer):
    """The scores of an evaluation."""

    eval_id: str
    status: str
    results: list[RunResult]


class TimelineEntry(Answer):
    """One thing that happened."""

    sequence: int
    at: datetime
    kind: str
    title: str = ""
    message: str | None = None
    run_id: str | None = None
    reason: str | None = None
    actor: str | None = None
    count: int = 1


class Dataset(Answer):
    """A data set that an engine knows."""

    dataset_id: str
    engine: str
    kind: str
    usable: bool
    """Whether it can be run against a chat API."""
    whole: bool = False
    """Whether it can only be scored with all of its questions."""
    metrics: list[str] = []
    """Names of its scores, where known."""
    present: bool | None = None
    """Whether its files are on the volume; None: not known."""
    questions: int | None = None
    """How many it has there; None: not known."""


class EngineInfo(Answer):
    """An engine of the service."""

    name: str
    version: str = ""
    datasets: int = 0
    usable_datasets: int = 0
    parameters: dict[str, Any] = {}
    """JSON schema of the parameters that it takes."""


class Check(Answer):
    """One thing that the service needs."""

    name: str
    ok: bool
    detail: str = ""


class Readiness(Answer):
    """Whether the service can run evaluations."""

    ready: bool
    checks: list[Check]


class Identity(Answer):
    """As whom the service knows the caller."""

    name: str
    role: str
    """``viewer``, ``operator`` or ``admin``."""
    expires_at: datetime | None = None
    """When the token ends to be valid; none: it has no end."""


class StartedEvaluation(Answer):
    """What was started."""

    eval_id: str
    status: str
    eta_minutes: int
    run_ids: list[str]


class RetriedEvaluation(Answer):
    """What is tried again."""

    workflow_id: str
    """Id of the evaluation."""
    status: str
    attempt: int
    eta: int
    """Minutes."""
    run_ids: list[str]
    """Runs of this attempt; all others keep their scores."""


class RetryRequest(BaseModel):
    """What another attempt brings: the secrets again, since they were erased, and what is to be otherwise."""

    model_config = ConfigDict(extra="forbid")

    api_key: SecretStr = SecretStr("")
    kubeconfig: SecretStr | None = None
    configs: dict[str, str | int | float] = Field(default_factory=dict)
    """``poll_interval``, ``max_checks``, ``progress_every``."""
    requests: dict[str, str] = Field(default_factory=dict)
    """Kubernetes quantities by resource: ``cpu``, ``memory``, ``ephemeral-storage``."""
    limits: dict[str, str] = Field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The body of the request, secrets in clear."""
        configs = [{"config_name": name, "config_value": value} for name, value in self.configs.items()]
        body: dict[str, Any] = {"api_key": self.api_key.get_secret_value(), "eval_configs": configs}
        if self.kubeconfig is not None:
            body["kubeconfig"] = self.kubeconfig.get_secret_value()
        if self.requests or self.limits:
            body["resources"] = {"requests": self.requests, "limits": self.limits}
        return body


class DatasetRun(BaseModel):
    """A data set to evaluate on; the client makes a run id where there is none."""

    model_config = ConfigDict(extra="forbid")

    dataset_id: str
    run_id: str | None = None


class EvaluationRequest(BaseModel):
    """What to evaluate. Ids are made by the client where they are left out."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    eval_id: str | None = None
    experiment_id: str | None = None
    model_name: str
    endpoint: str
    """Base of an OpenAI-compatible API, reached from inside the cluster."""
    api_key: SecretStr = SecretStr("")
    parameters: dict[str, str | int | float] = Field(default_factory=dict)
    """Parameters of the engine."""
    datasets: list[DatasetRun]
    configs: dict[str, str | int | float] = Field(default_factory=dict)
    """``max_questions``, ``poll_interval``, ``max_checks``, ``progress_every``."""
    engine: str = "opencompass"
    kubeconfig: SecretStr | None = None
    """Of another cluster than the service's own."""
    source: str = "budeval-client"
    topics: list[str] = ["budeval-notifications"]
    """Pub/sub topics to be notified."""

    def body(self, eval_id: str, run_ids: list[str]) -> dict[str, Any]:
        """The body of the request, secrets in clear."""
        body: dict[str, Any] = {
            "eval_id": eval_id,
            "eval_model_info": {
                "model_name": self.model_name,
                "endpoint": self.endpoint,
                "api_key": self.api_key.get_secret_value(),
                "extra_args": self.parameters,
            },
            "eval_datasets": [
                {"dataset_id": run.dataset_id, "run_id": run_id}
                for run, run_id in zip(self.datasets, run_ids, strict=True)
            ],
            "eval_configs": [{"config_name": name, "config_value": value} for name, value in self.configs.items()],
            "engine": self.engine,
            "source": self.source,
            "source_topic": self.topics,
        }
        optional = {"experiment_id": self.experiment_id, "kubeconfig": self.kubeconfig}
        plain = {key: value.get_secret_value() if isinstance(value, SecretStr) else value
                 for key, value in optional.items()}  # fmt: skip
        return body | {key: value for key, value in plain.items() if value is not None}

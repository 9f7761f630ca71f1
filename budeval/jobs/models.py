"""What goes to a cluster and what comes back from it, as plain values."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from budeval.evals.models import AskedResources
from budeval.jobs.overlay import PodTemplateOverlay

JsonObject = dict[str, Any]
"""A Kubernetes object or a part of one, as parsed from JSON."""


class Frozen(BaseModel):
    """A value: unknown fields are refused, and nothing changes after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Resources(Frozen):
    """Requests and limits of the engine container, as Kubernetes quantities."""

    requests: dict[str, str] = Field(default_factory=lambda: {"cpu": "250m", "memory": "512Mi"})
    limits: dict[str, str] = Field(default_factory=lambda: {"memory": "2Gi"})


class JobSpecInput(Frozen):
    """All that decides how the Job of one run looks."""

    eval_id: str
    run_id: str
    attempt: int = 1
    """Of the evaluation: each has Jobs of its own, and the working directory of the first."""
    engine_config: JsonObject
    """What the engine reads from ``/etc/budeval/run.json``."""
    image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    namespace: str
    volume_claim: str
    """Name of the PersistentVolumeClaim with data sets and results."""
    has_api_key: bool
    """Whether the evaluation has a Secret; the key itself never comes here."""
    overlay: PodTemplateOverlay = PodTemplateOverlay()
    active_deadline_seconds: Annotated[int, Field(gt=0)] = 7200
    ttl_seconds: Annotated[int, Field(gt=0)] = 7 * 24 * 3600
    """How long a finished Job stays: longer than any outage of the service that loses nothing."""
    backoff_limit: Annotated[int, Field(ge=0)] = 3
    resources: Resources = Resources()
    asked_resources: AskedResources | None = None
    """What the requester wants; wins over ``resources`` and over the overlay."""


class EvaluationObjects(Frozen):
    """Everything that is applied for one evaluation."""

    eval_id: str
    attempt: int = 1
    namespace: str
    secret: JsonObject | None = Field(repr=False)
    config_map: JsonObject
    jobs: list[JsonObject]
    api_key: SecretStr | None = None
    """The key inside ``secret`` once more, so that messages can be cleared of it."""

    @property
    def job_names(self) -> list[str]:
        """Names of the Jobs, in the order of the runs."""
        return [job["metadata"]["name"] for job in self.jobs]


class DeployedJob(Frozen):
    """A Job that exists in the cluster."""

    name: str
    uid: str


class ClusterReport(Frozen):
    """A cluster that an evaluation can be run on."""

    server_version: str
    namespace: str
    volume_claim: str
    warnings: list[str] = []
    """What does not stop an evaluation, but may, in words for a user."""


class DeletedObjects(Frozen):
    """What a deletion found and removed, by name."""

    jobs: list[str] = []
    secrets: list[str] = []
    config_maps: list[str] = []


class JobState(StrEnum):
    """Status of a Job on the wire."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    MISSING = "Missing"

    @property
    def finished(self) -> bool:
        """Whether this state is the last one."""
        return self in (JobState.SUCCEEDED, JobState.FAILED)


class Progress(Frozen):
    """How far an engine has come, in questions."""

    phase: Literal["preparing", "inference", "scoring"]
    done: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0)]


class JobStatus(Frozen):
    """Status of one Job in the guide's shape, and what is known beyond it.

    Serialized by alias, so that ``model_dump()`` has the guide's keys.
    """

    name: str
    uid: str | None = None
    status: JobState
    phase: str
    """Phase of the newest pod, or the status again where there is no pod."""
    message: str = ""
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: str | None = Field(default=None, alias="startTime")
    completion_time: str | None = Field(default=None, alias="completionTime")
    reason: str | None = None
    """Kubernetes' own word (``DeadlineExceeded``, ``ImagePullBackOff``) or the engine's (``EndpointUnauthorized``)."""
    resolution: str | None = None
    """What a user can do about ``reason``."""
    fatal: bool = False
    """The Job has not failed, but its pod will never start: waiting is useless."""
    retrying: bool = False
    """An attempt failed and another one is made."""
    attempts: int = 0
    """Pods that have failed so far."""
    progress: Progress | None = None
    result_sha256: str | None = None
    """Digest of ``result.json`` as the engine told it at its end."""


class ResultFile(Frozen):
    """What the reader found of one run: the bytes of ``result.json``, or why there are none."""

    content: bytes | None = None
    error: str | None = None

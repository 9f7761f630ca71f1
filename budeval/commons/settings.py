"""Settings: read once from the environment (prefix ``BUDEVAL_``) and passed on as a value.

Each field says its unit and why its default is what it is. ``docs/operating.md`` lists them for operators.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PollInterval = Annotated[int, Field(ge=1, le=3600)]
MaximumChecks = Annotated[int, Field(ge=1, le=100_000)]


class MonitorSettings(BaseModel):
    """How an evaluation is monitored. A request may override each through ``eval_configs``."""

    model_config = ConfigDict(frozen=True)

    poll_interval: PollInterval = 30
    """Seconds between two checks (the guide's value)."""
    max_checks: MaximumChecks = 240
    """Checks before an evaluation is timed out: two hours at 30 s (the guide's value)."""
    progress_every: Annotated[int, Field(ge=1, le=10_000)] = 10
    """A progress notification at least every so many checks: five minutes at 30 s (the guide's value)."""


class Settings(BaseSettings):
    """Everything an operator can set. Values are validated at start: a typo ends the start, not an evaluation."""

    model_config = SettingsConfigDict(env_prefix="BUDEVAL_", env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on. Loopback by default: daprd is on the same host or in the same pod."""
    port: PositiveInt = 8099
    """HTTP port, as in the guide."""
    maximum_body_bytes: PositiveInt = 1_048_576
    """Bytes of a request body: a kubeconfig and a thousand runs fit in 1 MiB."""

    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] = "development"
    """Kubernetes namespace in which Jobs run."""
    kubeconfig: Path | None = None
    """kubeconfig file of the service's own cluster. Unset in a pod: the service account is used."""
    pvc_name: str = "budeval-data"
    """PersistentVolumeClaim with the data sets and the results."""
    results_mount: Path | None = None
    """Where that claim is mounted into the service. Unset: results are read by a short reader Job."""
    engine_image: str = "localhost/budeval-engine-opencompass:0.1.0"
    """Image of the engine opencompass."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Kubernetes' own word for when the engine image is pulled."""
    pod_template_overlay: Path | None = None
    """YAML file merged into the pod template of every Job: node selector, tolerations, resources, hostNetwork, ..."""
    job_ttl: PositiveInt = 7 * 24 * 3600
    """Seconds an ended Job is kept: longer than any outage of the service that must be survived."""
    job_backoff_limit: Annotated[int, Field(ge=0, le=10)] = 3
    """Pods that Kubernetes starts again after a failure that is worth a retry."""
    pending_grace: PositiveInt = 120
    """Seconds that a pod may be unschedulable, or fail to pull its image, before its Job counts as failed."""

    poll_interval: PollInterval = 30
    max_checks: MaximumChecks = 240
    progress_every: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Defaults of :class:`MonitorSettings`."""

    database_url: str = "sqlite:///.budeval/record.sqlite"
    """SQLAlchemy URL of the record. PostgreSQL: ``postgresql+psycopg://...``."""
    sealing_keys: SecretStr | None = None
    """Fernet keys separated by white space; the first seals, all open. Or:"""
    sealing_keys_file: Path | None = None
    """File with one Fernet key a line, newest first."""

    pubsub_name: str = "pubsub-redis"
    """Dapr pub/sub component for notifications and requests."""
    notification_format: Literal["budapp", "cloudevents"] = "budapp"
    """``budapp``: the JSON is the envelope. ``cloudevents``: plain CloudEvents with the same content under ``data``."""
    request_topic: str | None = None
    """Topic from which requests are also consumed. Unset: only HTTP."""

    app_api_token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("APP_API_TOKEN"))
    """What daprd sends to the service (Dapr's own variable). Unset: calls from the sidecar are not checked."""
    dapr_api_token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("DAPR_API_TOKEN"))
    """What the service sends to daprd (Dapr's own variable)."""
    dapr_http_endpoint: str | None = Field(default=None, validation_alias=AliasChoices("DAPR_HTTP_ENDPOINT"))
    dapr_http_port: PositiveInt = Field(default=3500, validation_alias=AliasChoices("DAPR_HTTP_PORT"))
    """Where daprd answers, for its health."""

    playbook_timeout: PositiveFloat = 120.0
    """Seconds a playbook may take. A sweep of 10,000 Jobs takes about 4."""
    playbook_concurrency: PositiveInt = 2
    """Playbooks at once: more only add latency on two cores."""
    playbook_run_dir: Path = Path("/dev/shm/budeval-runs")  # noqa: S108 - a tmpfs, made with mode 0700 by the runner
    """Directory for the private data of playbook runs: must be a tmpfs, since a kubeconfig lies there during a run."""
    preflight_concurrency: PositiveInt = 2
    """Preflights at once: each is a Job in a cluster, for seconds."""
    dataset_refresh: Annotated[int, Field(ge=0)] = 900
    """Seconds after which ``GET /datasets`` has the volume looked at again, in the background; 0: only on request."""
    sweep_ttl: Annotated[float, Field(ge=0, le=60)] = 2.0
    """Seconds for which one sweep of the cluster answers everybody who asks."""
    workflow_workers: PositiveInt = 12
    """Threads for activities."""

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def monitor(self) -> MonitorSettings:
        """The defaults of every evaluation's monitor."""
        return MonitorSettings(
            poll_interval=self.poll_interval, max_checks=self.max_checks, progress_every=self.progress_every
        )

    @property
    def dapr_http_url(self) -> str:
        """Base URL of daprd's HTTP API."""
        return (self.dapr_http_endpoint or f"http://127.0.0.1:{self.dapr_http_port}").rstrip("/")

    def pod_overlay(self) -> dict[str, Any]:
        """The pod template overlay as data; empty when none is set. Raises ``ValueError`` when it is no mapping."""
        if self.pod_template_overlay is None:
            return {}
        try:
            data = yaml.safe_load(self.pod_template_overlay.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{self.pod_template_overlay}: {error}") from error
        if not isinstance(data, dict):
            raise ValueError(
                f"{self.pod_template_overlay}: a pod template overlay is a mapping, not {type(data).__name__}"
            )
        return data


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read from the environment once."""
    return Settings()

"""Settings: read once from the environment (prefix ``BUDEVAL_``) and passed on as a value.

Each field says its unit and why its default is what it is. ``docs/operating.md`` lists them for operators.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from limits import parse as parse_limit
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from budeval.commons.roles import Role


class StartRefused(Exception):
    """The service must not start with these settings; the message says what to set."""


@contextmanager
def setting(variable: str, file: Path | None = None) -> Iterator[None]:
    """A block that uses what a setting names: where it cannot, the start is refused and the variable named.

    Messages of a ``ValueError`` are shown, behind the ``file``, so they must not have a secret in them.
    """
    try:
        yield
    except OSError as error:
        raise StartRefused(f"{variable}: {error.filename or file} cannot be used: {error.strerror}") from error
    except ValueError as error:
        raise StartRefused(f"{variable}: {f'{file} ' if file else ''}{_why(error)}") from error


def _why(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problems = error.errors(include_url=False)
    return "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'content'}: {problem['msg']}" for problem in problems)


def _words(value: Any) -> Any:
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _limit(text: str | None) -> str | None:
    if text is None or text == "none":
        return None
    try:
        parse_limit(text)
    except ValueError as error:
        raise ValueError("must be a limit such as 600/minute, or none") from error
    return text


RateLimit = Annotated[str | None, AfterValidator(_limit)]
"""So many in a time, e.g. ``600/minute`` or ``10/second``; ``none``: no limit."""
SignatureAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Those with a public key: with a shared one, whoever can check a token can make one."""
DaprName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$")]
PollInterval = Annotated[int, Field(ge=1, le=3600)]
MaximumChecks = Annotated[int, Field(ge=1, le=100_000)]
Limit = Annotated[PositiveInt | None, BeforeValidator(lambda value: None if value == "none" else value)]
"""At most so many; ``none``: as many as come. An empty variable counts as not set, so it cannot say that."""


class MonitorSettings(BaseModel):
    """How an evaluation is monitored. A request may override each through ``eval_configs``."""

    model_config = ConfigDict(frozen=True)

    poll_interval: PollInterval = 30
    """Seconds between two checks (the guide's value)."""
    max_checks: MaximumChecks = 240
    """Checks before an evaluation is timed out: two hours at 30 s (the guide's value)."""
    progress_every: Annotated[int, Field(ge=1, le=10_000)] = 10
    """A progress notification at least every so many checks: five minutes at 30 s (the guide's value)."""


class AdmissionLimits(BaseModel):
    """How much may run and wait at once; none: without limit. A requester is who the service knows as asking."""

    model_config = ConfigDict(frozen=True)

    evaluations: Limit = None
    """Evaluations that have been let in and have not ended."""
    evaluations_per_requester: Limit = None
    jobs: Limit = None
    """Runs of those evaluations, each a Kubernetes Job."""
    jobs_per_requester: Limit = None
    waiting: Limit = None
    """Evaluations that wait for a place."""
    waiting_per_requester: Limit = None
    when_full: Literal["queue", "refuse"] = "queue"
    """What happens to a request for which there is no place."""


class Settings(BaseSettings):
    """Everything an operator can set. Values are validated at start: a typo ends the start, not an evaluation."""

    model_config = SettingsConfigDict(env_prefix="BUDEVAL_", env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on. Loopback by default: daprd is on the same host or in the same pod."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8099
    """HTTP port, as in the guide."""
    maximum_body_bytes: PositiveInt = 1_048_576
    """Bytes of a request body: a kubeconfig and a thousand runs fit in 1 MiB."""

    access: Literal["required", "off"] = "required"
    """``off``: everybody who reaches the service may do everything; only where ``host`` is a loopback address."""
    tokens_file: Path | None = None
    """YAML or JSON list of tokens: name, role, sha256, and optionally expires_at. A change is noticed in a second."""
    tokens_secret_store: DaprName | None = None
    """Dapr secret store that has such a list:"""
    tokens_secret_name: DaprName = "budeval-tokens"  # noqa: S105 - a name
    tokens_secret_key: str = "tokens"  # noqa: S105 - a name
    """in this entry of this secret."""
    tokens_refresh: PositiveFloat = 10.0
    """Seconds between two looks into the secret store: so long may a revoked token still be good."""
    oidc_issuer: str | None = None
    """Issuer whose JSON Web Tokens are accepted, exactly as it stands in them."""
    oidc_audience: str | None = None
    """Audience of the tokens that are for this service."""
    oidc_jwks_url: str | None = None
    """Where the issuer publishes its keys. Unset: its discovery document says it."""
    oidc_algorithms: Annotated[tuple[SignatureAlgorithm, ...], NoDecode, BeforeValidator(_words)] = ("RS256", "ES256")
    """Signature algorithms that are accepted."""
    oidc_leeway: Annotated[float, Field(ge=0, le=300)] = 30.0
    """Seconds by which the issuer's clock may differ."""
    oidc_role_claim: str = "roles"
    """Claim with the caller's roles or groups, a list or words; a dotted path leads into objects."""
    oidc_roles: dict[str, Role] = Field(
        default_factory=lambda: {f"budeval-{role.value}": role for role in Role}, min_length=1
    )
    """Values of that claim, and the role that each gives."""
    oidc_name_claim: str = "sub"
    """Claim with the caller's name for the record; one that callers cannot choose themselves."""
    rate_limit: RateLimit = "1200/minute"
    """Requests of one caller, or of one address where access is off."""
    failure_limit: RateLimit = "30/minute"
    """Calls from one address that are not recognised; more are answered with 429, and not logged one by one."""

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

    maximum_evaluations: Limit = 100
    """Evaluations that run at once. At 30 s between checks that is three checks a second: a quarter of the workers."""
    maximum_evaluations_per_requester: Limit = None
    """The same for each who asks. Unlimited: without access control everybody is one requester."""
    maximum_jobs: Limit = 500
    """Jobs at once: as many as five nodes have pods by default (110 each). The largest request has 200."""
    maximum_jobs_per_requester: Limit = None
    maximum_waiting: Limit = 1000
    """Evaluations that wait for a place, before requests are refused: each keeps its sealed key in the record."""
    maximum_waiting_per_requester: Limit = None
    when_full: Literal["queue", "refuse"] = "queue"
    """``queue``: an evaluation without a place waits for one. ``refuse``: its request is answered with 429."""

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
    """What daprd sends to the service (Dapr's own variable). Unset: calls from the sidecar are not checked where access
    is off, and refused where it is required."""
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
    def admission(self) -> AdmissionLimits:
        """How much may run and wait."""
        return AdmissionLimits(
            evaluations=self.maximum_evaluations,
            evaluations_per_requester=self.maximum_evaluations_per_requester,
            jobs=self.maximum_jobs,
            jobs_per_requester=self.maximum_jobs_per_requester,
            waiting=self.maximum_waiting,
            waiting_per_requester=self.maximum_waiting_per_requester,
            when_full=self.when_full,
        )

    @property
    def dapr_http_url(self) -> str:
        """Base URL of daprd's HTTP API."""
        return (self.dapr_http_endpoint or f"http://127.0.0.1:{self.dapr_http_port}").rstrip("/")


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read from the environment once."""
    return Settings()

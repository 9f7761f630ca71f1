"""Bodies of requests, exactly as the wire contract has them. Unknown keys are refused, the envelope is ignored."""

import re
import unicodedata
from collections import Counter
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

MAXIMUM_RUNS = 200
"""Runs of one evaluation: their engine configurations share one ConfigMap, which Kubernetes bounds at 1 MiB."""
ENVELOPE = frozenset(
    {"specversion", "id", "datacontenttype", "topic", "pubsubname", "type", "time", "data", "debug", "traceid",
     "traceparent", "tracestate"}
)  # fmt: skip
"""Keys that Dapr or CloudEvents add around a request that comes by pub/sub."""


def _plain_text(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("must not contain control characters")
    return text


def _plain_secret(secret: SecretStr) -> SecretStr:
    # A key travels in an HTTP header and in an environment variable: neither can hold these.
    _plain_text(secret.get_secret_value())
    return secret


def _uuid(value: Any) -> Any:
    # UUID() itself also takes braces, a urn: prefix and missing dashes; an id in a URL should have one spelling.
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", value):
        raise ValueError("must be a UUID such as 444e4567-e89b-12d3-a456-426614174020")
    return UUID(value)


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"\s", url):
        raise ValueError("must be an http or https URL, the base of an OpenAI-compatible API, e.g. https://host/v1")
    if "@" in parts.netloc:
        raise ValueError("must not carry credentials; put the key into api_key")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    return url


def _topics(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number or a text")
    return value


Uuid = Annotated[UUID, BeforeValidator(_uuid)]
ShortText = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_plain_text)]
Topic = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]*$")]
Scalar = Annotated[str | int | float, BeforeValidator(_no_boolean)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class EvalModelInfo(_Body):
    """The model under evaluation."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: ShortText
    endpoint: Annotated[str, Field(max_length=2048), AfterValidator(_plain_text), AfterValidator(_endpoint)]
    """Base of an OpenAI-compatible API."""
    api_key: Annotated[SecretStr, Field(max_length=4096), AfterValidator(_plain_secret)] = SecretStr("")
    """Key of that API; may be empty."""
    extra_args: dict[ShortText, Scalar] = Field(default_factory=dict)
    """Parameters of the engine; numbers may be given as texts."""


class EvalDataset(_Body):
    """One run."""

    dataset_id: ShortText
    run_id: ShortText


def _distinct_runs(datasets: list[EvalDataset]) -> list[EvalDataset]:
    counts = Counter(dataset.run_id for dataset in datasets)
    twice = sorted(run_id for run_id, count in counts.items() if count > 1)
    if twice:
        raise ValueError(f"run_id must be unique in the request; given twice: {', '.join(twice)}")
    return datasets


class EvalConfig(_Body):
    """One setting of this evaluation."""

    config_name: ShortText
    config_value: Scalar


class NotificationMetadataBody(_Body):
    """What the requester wants to find in every notification."""

    name: ShortText | None = None
    workflow_id: ShortText | None = None
    subscriber_ids: ShortText | None = None
    category: ShortText | None = None
    notification_type: ShortText | None = None
    actor: ShortText | None = None
    topic_keys: Annotated[list[ShortText], Field(max_length=100)] | ShortText | None = None


class StartEvaluationRequest(_Body):
    """Body of ``POST /evals/start``, and of a request that comes by pub/sub."""

    eval_id: Uuid
    """Also the id of the Dapr workflow: starting twice never runs twice."""
    experiment_id: Uuid | None = None
    eval_model_info: EvalModelInfo
    eval_datasets: Annotated[
        list[EvalDataset], Field(min_length=1, max_length=MAXIMUM_RUNS), AfterValidator(_distinct_runs)
    ]
    eval_configs: Annotated[list[EvalConfig], Field(max_length=100)] = Field(default_factory=list)
    engine: ShortText = "opencompass"
    kubeconfig: SecretStr | None = None
    """kubeconfig of another cluster, JSON or YAML; empty: the service's own."""
    source: ShortText
    source_topic: Annotated[list[Topic], BeforeValidator(_topics), Field(min_length=1, max_length=10)]
    """Pub/sub topics to be notified."""
    notification_metadata: NotificationMetadataBody | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_envelope(cls, body: Any) -> Any:
        return {key: value for key, value in body.items() if key not in ENVELOPE} if isinstance(body, dict) else body


class StepMetadata(BaseModel):
    """A step of the workflow, by the id of the event that tells of it."""

    id: str
    title: str
    description: str


class WorkflowMetadata(BaseModel):
    """Answer to a started evaluation."""

    object: str = "workflow_metadata"
    workflow_id: str
    workflow_name: str
    steps: list[StepMetadata]
    status: str
    eta: int
    """Minutes."""


class FieldProblemBody(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str
    allowed: list[str] | None = None


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[FieldProblemBody] | None = None

"""Bodies of requests, exactly as the wire contract has them. Unknown keys are refused, the envelope is ignored."""

import hashlib
import re
import unicodedata
from collections import Counter
from ipaddress import IPv6Address
from itertools import count
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from budeval.jobs.checks import Check
from budeval.jobs.quantities import MAXIMUM_QUANTITY_LENGTH, parse_quantity

MAXIMUM_RUNS = 200
"""Runs of one evaluation: their engine configurations share one ConfigMap, which Kubernetes bounds at 1 MiB."""
MAXIMUM_NAME_IN_RUN_ID = 240
"""Characters of a data set's name in a run id that is made, which has at most 256."""
ENVELOPE = frozenset(
    {"specversion", "id", "datacontenttype", "topic", "pubsubname", "type", "time", "data", "debug", "traceid",
     "traceparent", "tracestate"}
)  # fmt: skip
"""Keys that Dapr or CloudEvents add around a request that comes by pub/sub."""


def _plain_text(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("must not contain control characters")
    return text


def _header_secret(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]*", secret.get_secret_value()):
        raise ValueError("must not have spaces, line ends or other characters that no HTTP header can carry")
    return secret


def _uuid(value: Any) -> Any:
    # UUID() itself also takes braces, a urn: prefix and missing dashes; an id in a URL should have one spelling.
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", value):
        raise ValueError("must be a UUID such as 444e4567-e89b-12d3-a456-426614174020")
    return UUID(value)


_LABEL = r"\w(?:[\w-]{0,61}\w)?"
_AUTHORITY = re.compile(rf"(?:\[[0-9A-Fa-f:.]+\]|{_LABEL}(?:\.{_LABEL})*\.?)(?::\d*)?")


def _is_http_url(url: str) -> bool:
    # urlsplit() takes nearly everything between // and the next / for a host.
    try:
        parts = urlsplit(url)
        authority = parts.netloc.rpartition("@")[2]
        if authority.startswith("["):
            IPv6Address(parts.hostname or "")
        valid = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        return False
    return valid and _AUTHORITY.fullmatch(authority) is not None and re.search(r"\s", url) is None


def _endpoint(url: str) -> str:
    if not _is_http_url(url):
        raise ValueError("must be an http or https URL, the base of an OpenAI-compatible API, e.g. https://host/v1")
    if "@" in urlsplit(url).netloc:
        raise ValueError("must not carry credentials; put the key into api_key")
    if "?" in url or "#" in url:
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


def _quantity(text: str) -> str:
    parse_quantity(text)
    return text


ResourceName = Literal["cpu", "memory", "ephemeral-storage"]
Quantity = Annotated[str, Field(max_length=MAXIMUM_QUANTITY_LENGTH), AfterValidator(_quantity)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class EvalModelInfo(_Body):
    """The model under evaluation."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: ShortText
    endpoint: Annotated[
        str,
        Field(max_length=2048, json_schema_extra={"pattern": r"^https?://[^/?#@\s]"}),
        AfterValidator(_plain_text),
        AfterValidator(_endpoint),
    ]
    """Base of an OpenAI-compatible API."""
    api_key: Annotated[SecretStr, Field(max_length=4096), AfterValidator(_header_secret)] = SecretStr("")
    """Key of that API; may be empty."""
    extra_args: dict[ShortText, Scalar] = Field(default_factory=dict)
    """Parameters of the engine; numbers may be given as texts."""


class EvalDataset(_Body):
    """One run."""

    dataset_id: ShortText
    run_id: ShortText


class NewDataset(_Body):
    """One run, whose id may be left to the service."""

    dataset_id: ShortText
    run_id: ShortText | None = None


_Dataset = TypeVar("_Dataset", EvalDataset, NewDataset)


def _distinct_runs(datasets: list[_Dataset]) -> list[_Dataset]:
    counts = Counter(dataset.run_id for dataset in datasets if dataset.run_id is not None)
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


class _Request(_Body):
    """What every request for an evaluation has."""

    experiment_id: Uuid | None = None
    eval_model_info: EvalModelInfo
    eval_configs: Annotated[list[EvalConfig], Field(max_length=100)] = Field(default_factory=list)
    engine: ShortText = "opencompass"
    kubeconfig: SecretStr | None = None
    """kubeconfig of another cluster, JSON or YAML; empty: the service's own."""
    source: ShortText
    source_topic: Annotated[
        list[Topic],
        BeforeValidator(_topics, json_schema_input_type=Topic | list[Topic]),
        Field(min_length=1, max_length=10),
    ]
    """Pub/sub topic, or topics, to be notified."""
    notification_metadata: NotificationMetadataBody | None = None


_CREATE_EXAMPLE: dict[str, Any] = {
    "eval_model_info": {
        "model_name": "smollm2-135m-instruct",
        "endpoint": "http://127.0.0.1:13200/v1",
        "api_key": "",
        "extra_args": {"query_per_second": "50", "max_out_len": "64"},
    },
    "eval_datasets": [{"dataset_id": "siqa_gen"}],
    "eval_configs": [{"config_name": "max_questions", "config_value": 24}],
    "source": "somebody",
    "source_topic": "evaluations",
}
_START_EXAMPLE = {
    **_CREATE_EXAMPLE,
    "eval_id": "444e4567-e89b-12d3-a456-426614174020",
    "eval_datasets": [{"dataset_id": "siqa_gen", "run_id": "my-first-run"}],
}


class StartEvaluationRequest(_Request):
    """Body of ``POST /evals/start``, and of a request that comes by pub/sub."""

    model_config = ConfigDict(json_schema_extra={"examples": [_START_EXAMPLE]})

    eval_id: Uuid
    """Also the id of the Dapr workflow: starting twice never runs twice."""
    eval_datasets: Annotated[
        list[EvalDataset], Field(min_length=1, max_length=MAXIMUM_RUNS), AfterValidator(_distinct_runs)
    ]

    @model_validator(mode="before")
    @classmethod
    def _without_envelope(cls, body: Any) -> Any:
        return {key: value for key, value in body.items() if key not in ENVELOPE} if isinstance(body, dict) else body


class CreateEvaluationRequest(_Request):
    """Body of ``POST /evals``: ids that are left out are made by the service."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CREATE_EXAMPLE]})

    eval_id: Uuid | None = None
    """Give one to be able to send the same request again without a second evaluation."""
    eval_datasets: Annotated[
        list[NewDataset], Field(min_length=1, max_length=MAXIMUM_RUNS), AfterValidator(_distinct_runs)
    ]

    def completed(self) -> StartEvaluationRequest:
        """With every id; the same ones for the same request where ``eval_id`` is given."""
        eval_id = self.eval_id or uuid4()
        taken = {dataset.run_id for dataset in self.eval_datasets}
        datasets = []
        for position, dataset in enumerate(self.eval_datasets):
            run_id = dataset.run_id or _new_run_id(eval_id, position, dataset.dataset_id, taken)
            datasets.append(EvalDataset(dataset_id=dataset.dataset_id, run_id=run_id))
            taken.add(run_id)
        rest = {name: getattr(self, name) for name in _Request.model_fields}
        return StartEvaluationRequest.model_construct(eval_id=eval_id, eval_datasets=datasets, **rest)


class RetryResources(_Body):
    """Requests and limits of the engine container, as Kubernetes quantities by resource."""

    requests: dict[ResourceName, Quantity] = Field(default_factory=dict)
    limits: dict[ResourceName, Quantity] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _requests_within_limits(self) -> Self:
        for name in self.requests.keys() & self.limits.keys():
            if parse_quantity(self.requests[name]) > parse_quantity(self.limits[name]):
                raise ValueError(f"the request of {name} must not be above its limit")
        return self


class RetryEvaluationRequest(_Body):
    """Body of ``POST /evals/{eval_id}/retry``: the secrets again, and what is to be otherwise."""

    api_key: Annotated[SecretStr, Field(max_length=4096), AfterValidator(_header_secret)] = SecretStr("")
    """Key of the model's API; needed where the evaluation had one, since it was erased."""
    kubeconfig: SecretStr | None = None
    """Of the evaluation's own cluster; needed where it had one, since it was erased."""
    eval_configs: Annotated[list[EvalConfig], Field(max_length=100)] = Field(default_factory=list)
    """``poll_interval``, ``max_checks``, ``progress_every``; what is left out stays as it was."""
    resources: RetryResources | None = None


def _new_run_id(eval_id: UUID, position: int, dataset_id: str, taken: set[str | None]) -> str:
    for attempt in count():
        digest = hashlib.sha256(f"{eval_id}/{position}/{attempt}/{dataset_id}".encode()).hexdigest()
        run_id = f"{dataset_id[:MAXIMUM_NAME_IN_RUN_ID]}-{digest[:8]}"
        if run_id not in taken:
            break
    return run_id


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


class RetriedEvaluation(WorkflowMetadata):
    """Answer to a retry: also which attempt it is, and of what."""

    attempt: int
    run_ids: list[str]
    """Runs of this attempt; all others keep their scores."""


class CreatedEvaluation(WorkflowMetadata):
    """Answer to a new evaluation: also the ids that were made."""

    run_ids: list[str]
    """In the order of the request's data sets."""


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
    checks: list[Check] | None = None
    """All that a preflight looked at, where it is the reason."""

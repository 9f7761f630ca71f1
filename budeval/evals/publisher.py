"""Publishing through the sidecar."""

import json
import re
import threading
from typing import Any, Literal

from dapr.clients import DaprClient
from dapr.conf import settings
from grpc import RpcError, StatusCode

from budeval.commons.errors import PublishFailed, PublishUncertain
from budeval.commons.wire import WORKFLOW_NAME

dapr_settings: Any = settings
"""The SDK's own settings, whose names exist at run time only."""

CLOUD_EVENT = "application/cloudevents+json"
SIDECAR_CALL_SECONDS = 10
"""Bound of every call to daprd. The SDK has none by default: a publish could hang for ever, and one that outlives its
claim in the outbox would be made twice. Daprd's own bound (components/resiliency.yaml) is shorter."""
SIDECAR_WAIT_SECONDS = 1
"""How long making a client waits for daprd; the SDK's minute would hold up the end of the service."""

_REFUSED_BY_DAPRD = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.PERMISSION_DENIED,
        StatusCode.UNAUTHENTICATED,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.UNIMPLEMENTED,
    }
)
"""What daprd answers before it asks the broker."""
_NOT_SENT = "failed to connect to all addresses"
"""gRPC's words where there was no connection to daprd at all."""
_REFUSED_BY_BROKER = re.compile(r"connection refused|dial tcp|error from publish: [A-Z]+ ")
"""Nobody was there, or Redis answered with an error: those begin with a word in capitals (``OOM command not ...``)."""


def is_uncertain(code: StatusCode, details: str) -> bool:
    """Whether the broker may have a message that could not be published; the doubt counts.

    Right as long as daprd and its component try once: of several tries daprd tells the last failure alone.
    """
    match code:
        case StatusCode.UNAVAILABLE:
            return _NOT_SENT not in details
        case StatusCode.INTERNAL:
            return _REFUSED_BY_BROKER.search(details) is None
    return code not in _REFUSED_BY_DAPRD


class DaprPublisher:
    """Publishes with daprd's pub/sub API. One client for the process, made at first use: making one waits for daprd."""

    def __init__(self, pubsub_name: str, message_format: Literal["budapp", "cloudevents"]) -> None:
        self._pubsub_name = pubsub_name
        self._format = message_format
        self._lock = threading.Lock()
        self._client: DaprClient | None = None

    def connect(self) -> None:
        """Raises :class:`PublishFailed` when there is no daprd to connect to for the first time."""
        self._connected()

    def publish(self, topic: str, body: dict[str, Any], event_id: str) -> None:
        """Raises :class:`PublishFailed` when daprd or the broker did not take the message, or may not have."""
        plain = self._format == "cloudevents"
        metadata = _cloud_event_metadata(body, event_id) if plain else {}
        try:
            self._connected().publish_event(
                pubsub_name=self._pubsub_name,
                topic_name=topic,
                data=json.dumps(body),
                data_content_type="application/json" if plain else CLOUD_EVENT,
                publish_metadata=metadata,
            )
        except RpcError as error:
            kind = PublishUncertain if is_uncertain(error.code(), error.details() or "") else PublishFailed
            raise kind(f"topic {topic!r} of {self._pubsub_name!r}: {error.details()}") from error

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            if self._client is not None:
                self._client.close()  # type: ignore[no-untyped-call]
                self._client = None

    def _connected(self) -> DaprClient:
        with self._lock:
            if self._client is None:
                self._client = _connect()
            return self._client


def bound_sidecar_calls() -> None:
    """To be called before a client of the SDK is made: all of them read the same settings."""
    dapr_settings.DAPR_API_TIMEOUT_SECONDS = SIDECAR_CALL_SECONDS
    dapr_settings.DAPR_HEALTH_TIMEOUT = SIDECAR_WAIT_SECONDS


def _connect() -> DaprClient:
    bound_sidecar_calls()
    try:
        return DaprClient()
    except TimeoutError as error:
        raise PublishFailed("daprd does not answer") from error


def _cloud_event_metadata(body: dict[str, Any], event_id: str) -> dict[str, str]:
    content = body["payload"]["content"]
    return {
        "cloudevent.id": event_id,
        "cloudevent.type": f"{WORKFLOW_NAME}.{body['payload']['event']}",
        "cloudevent.source": "budeval",
        "cloudevent.subject": content["result"]["evaluation_id"],
    }

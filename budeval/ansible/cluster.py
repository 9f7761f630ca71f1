"""An API server as budeval's own action plugins see it: paths, plain JSON in, plain JSON out.

Runs inside the playbook's process, where each import is paid for by every sweep: the standard library, the Kubernetes
client and nothing else. What is asked of it stands in the modules beside: ``sweep``, ``pod_logs``, ``surroundings``,
``removal``, ``preflight``.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import urllib3
from kubernetes import client, config

from budeval.ansible.projection import TEXT_LIMIT, cut

JsonObject = dict[str, Any]

PAGE_SIZE = 500
"""Objects of one page of a LIST; the size kubectl asks for."""

MAXIMUM_LIST_RESTARTS = 3
"""A LIST whose continue token expired is begun again so many times."""

REQUEST_TIMEOUT = (5.0, 30.0)
"""Seconds to connect and to read."""

MAXIMUM_CONNECTIONS = 8
"""At once, from one playbook."""

ANSWER_BYTES = 64 * 1024 * 1024
"""Of one answer: a request may name a server of its own, and a page of the largest pods has a quarter of it."""

_COLLECTIONS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Event": "/api/v1/namespaces/{}/events",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Secret": "/api/v1/namespaces/{}/secrets",
}
_WARNING = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')


class ClusterError(Exception):
    """The cluster did not give what was asked for.

    ``status`` is the HTTP status, or None where there was no answer at all.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Cluster:
    """An API server, by a kubeconfig file."""

    def __init__(self, kubeconfig: str) -> None:
        settings = client.Configuration()
        settings.retries = urllib3.Retry(total=1, redirect=0)
        settings.connection_pool_maxsize = MAXIMUM_CONNECTIONS
        self._client: Any = config.new_client_from_config(  # type: ignore[no-untyped-call]
            kubeconfig, client_configuration=settings, persist_config=False
        )

    def ask(
        self, method: str, path: str, body: JsonObject | None = None, query: Mapping[str, str | int] | None = None
    ) -> tuple[int, bytes]:
        """HTTP status and body of the answer. Raises ``ClusterError`` where there is none."""
        status, answer, _ = self.ask_aloud(method, path, body, query)
        return status, answer

    def ask_aloud(
        self, method: str, path: str, body: JsonObject | None = None, query: Mapping[str, str | int] | None = None
    ) -> tuple[int, bytes, list[str]]:
        """HTTP status, body and warnings of the answer. Raises ``ClusterError`` where there is none."""
        request = self._client.param_serialize(
            method=method,
            resource_path=path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._client.call_api(*request, _request_timeout=REQUEST_TIMEOUT)
            return answer.status, _read(answer.response), _warnings(answer.response.headers.getlist("Warning"))
        except (client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterError(_connection_reason(error)) from error

    def fetch(self, path: str, **query: str | int) -> JsonObject:
        """A successful answer to a GET as JSON. Raises ``ClusterError`` for any other."""
        status, body = self.ask("GET", path, query=query)
        return checked(status, body)

    def items(self, path: str, **selectors: str) -> Iterable[JsonObject]:
        """All objects behind a LIST, page by page; a page that fails fails all."""
        page: dict[str, str] = {}
        while True:
            answer = self.fetch(path, limit=PAGE_SIZE, **selectors, **page)
            yield from answer["items"]
            token = answer["metadata"].get("continue")
            if not token:
                return
            page = {"continue": token}

    def collect(self, path: str, selector: str, project: Callable[[JsonObject], JsonObject]) -> list[JsonObject]:
        """All objects behind a LIST, projected; begun again when they changed too much while they were read."""
        for attempt in range(MAXIMUM_LIST_RESTARTS + 1):
            try:
                return [project(item) for item in self.items(path, labelSelector=selector)]
            except ClusterError as error:
                if error.status != 410 or attempt == MAXIMUM_LIST_RESTARTS:
                    raise
        raise AssertionError("unreachable")


def collection(kind: str, namespace: str) -> str:
    """Path of all objects of a kind in a namespace."""
    return _COLLECTIONS[kind].format(segment(namespace))


def member(kind: str, namespace: str, name: str) -> str:
    """Path of one object."""
    return f"{collection(kind, namespace)}/{segment(name)}"


def wait_until(reached: Callable[[], bool], timeout: float) -> bool:
    """Whether it is reached before the time (s) is up; asks once at the least."""
    deadline, pause = time.monotonic() + timeout, 0.1
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    return True


def has_condition(job: JsonObject, *kinds: str) -> bool:
    """Whether a Job, as the API server gives it, has a condition of one of these kinds."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(condition["type"] in kinds and condition["status"] == "True" for condition in conditions)


def checked(status: int, body: bytes) -> JsonObject:
    """A successful answer as JSON. Raises ``ClusterError`` for any other."""
    if not 200 <= status < 300:
        raise error_of(status, body)
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise ClusterError("the server's answer is no JSON: is this a Kubernetes API server?") from error
    if not isinstance(answer, dict):
        raise ClusterError("the server's answer is no object: is this a Kubernetes API server?")
    return answer


def error_of(status: int, body: bytes) -> ClusterError:
    """What the API server said against a request."""
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")
    return ClusterError(cut(message) or f"HTTP status {status}", status)


def _connection_reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return cut(str(reason)) or type(error).__name__


def _warnings(headers: list[str]) -> list[str]:
    """The texts inside headers such as ``299 - "unknown field spec.x"``."""
    found = [match.group(1) for header in headers for match in _WARNING.finditer(header)]
    return [text.replace('\\"', '"')[:TEXT_LIMIT] for text in found]


def _read(response: Any) -> bytes:
    body: bytes = response.read(ANSWER_BYTES + 1)
    if len(body) > ANSWER_BYTES:
        response.close()
        raise ClusterError(f"the server's answer is larger than {ANSWER_BYTES} bytes")
    return body


def segment(text: str) -> str:
    """A name as one part of a path, whatever is in it."""
    return quote(text, safe="")

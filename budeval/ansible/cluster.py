"""What budeval's own action plugins ask of an API server: plain JSON in, projected JSON out.

Runs inside the playbook's process, where each import is paid for by every sweep: the standard library, the Kubernetes
client and nothing else.
"""

import gc
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import urllib3
from kubernetes import client, config

from budeval.ansible.projection import TEXT_LIMIT, cut, name_and_attempt, project_job, project_pod
from budeval.jobs.progress import last_progress

JsonObject = dict[str, Any]

PAGE_SIZE = 500
"""Objects of one page of a LIST; the size kubectl asks for."""

MAXIMUM_LIST_RESTARTS = 3
"""A LIST whose continue token expired is begun again so many times."""

REQUEST_TIMEOUT = (5.0, 30.0)
"""Seconds to connect and to read."""

MAXIMUM_PROGRESS_PODS = 100
PROGRESS_THREADS = 8
PROGRESS_SECONDS = 10.0
"""Progress is a comfort, so a sweep spends only so much on it: pods, connections, seconds in all."""

LOG_LINES = 200_000
LOG_BYTES = 32 * 1024 * 1024
"""Of one log; nodes begin a new file at 10 MiB."""

ANSWER_BYTES = 64 * 1024 * 1024
"""Of one answer: a request may name a server of its own, and a page of the largest pods has a quarter of it."""

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
        settings.connection_pool_maxsize = PROGRESS_THREADS
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
        return _checked(status, body)

    def items(self, path: str, selector: str) -> Iterable[JsonObject]:
        """All objects behind a LIST, page by page; a page that fails fails all."""
        page: dict[str, str] = {}
        while True:
            answer = self.fetch(path, labelSelector=selector, limit=PAGE_SIZE, **page)
            yield from answer["items"]
            token = answer["metadata"].get("continue")
            if not token:
                return
            page = {"continue": token}

    def collect(self, path: str, selector: str, project: Callable[[JsonObject], JsonObject]) -> list[JsonObject]:
        """All objects behind a LIST, projected; begun again when they changed too much while they were read."""
        for attempt in range(MAXIMUM_LIST_RESTARTS + 1):
            try:
                return [project(item) for item in self.items(path, selector)]
            except ClusterError as error:
                if error.status != 410 or attempt == MAXIMUM_LIST_RESTARTS:
                    raise
        raise AssertionError("unreachable")


def sweep(cluster: Cluster, namespace: str, selector: str) -> JsonObject:
    """All Jobs of budeval in a namespace with their pods, and the progress of those that run."""
    # A fork that ends after this answer: looking through its parent's heap for garbage, again and again while
    # pages of JSON are read, would only copy that heap.
    gc.disable()
    jobs = cluster.collect(f"/apis/batch/v1/namespaces/{_segment(namespace)}/jobs", selector, project_job)
    pods = cluster.collect(f"/api/v1/namespaces/{_segment(namespace)}/pods", selector, project_pod)
    _add_progress(cluster, namespace, pods)
    # As one text: Ansible copies and tags every value inside a structure, which costs more than the LIST.
    return {"schema": 1, "jobs": len(jobs), "pods": len(pods), "content": json.dumps({"jobs": jobs, "pods": pods})}


def verify(cluster: Cluster, namespace: str, volume_claim: str, permissions: list[list[str]]) -> JsonObject:
    """What a cluster says to all that an evaluation needs; each answer with its HTTP status, none judged."""
    version = _answer(cluster, "GET", "/version")
    if version["status"] == 401 or version["status"] >= 500:
        return {"version": version}
    # A Role may grant these on one object only.
    named = {"namespaces": namespace, "persistentvolumeclaims": volume_claim}
    return {
        "version": version,
        "permissions": [_access(cluster, namespace, permission, named) for permission in permissions],
        "namespace": _answer(cluster, "GET", f"/api/v1/namespaces/{_segment(namespace)}"),
        "volume_claim": _answer(
            cluster,
            "GET",
            f"/api/v1/namespaces/{_segment(namespace)}/persistentvolumeclaims/{_segment(volume_claim)}",
        ),
    }


def remove(
    cluster: Cluster,
    namespace: str,
    selector: str,
    only: list[str] | None,
    named: list[list[str]],
    timeout: float,
    *,
    before: int | None = None,
    pods: bool = False,
) -> JsonObject:
    """Delete the Jobs behind a selector and the named objects, and wait until the Jobs are gone.

    Args:
        only: names of Jobs; others behind the selector stay. None: all.
        named: collection (``secrets``) and name of further objects.
        timeout: seconds to wait; going on after it is an error.
        before: an attempt; what belongs to it or to a later one stays. None: nothing does.
        pods: wait for the end of the pods too, which may still write to the volume.
    """
    path = f"/apis/batch/v1/namespaces/{_segment(namespace)}/jobs"
    pods_path = f"/api/v1/namespaces/{_segment(namespace)}/pods"

    def found(collection: str) -> list[str]:
        objects = cluster.collect(collection, selector, name_and_attempt)
        return [each["name"] for each in objects if before is None or each["attempt"] < before]

    def present() -> list[str]:
        return [name for name in found(path) if only is None or name in only]

    removed: JsonObject = {"jobs": [name for name in present() if _delete(cluster, f"{path}/{_segment(name)}")]}
    for collection, name in named:
        one = f"/api/v1/namespaces/{_segment(namespace)}/{_segment(collection)}/{_segment(name)}"
        removed.setdefault(collection, []).extend([name] if _delete(cluster, one) else [])
    if not _wait_until(lambda: not present() and not (pods and found(pods_path)), timeout):
        what = "Jobs or their pods" if pods else "Jobs"
        raise ClusterError(f"the {what} are still there {timeout:g} s after their deletion")
    return removed


def finished_log(cluster: Cluster, namespace: str, job: str, limit_bytes: int, timeout: float) -> JsonObject:
    """Wait for the end of a Job, and return it with its pods and, where it succeeded, its log."""
    path = f"/apis/batch/v1/namespaces/{_segment(namespace)}/jobs/{_segment(job)}"
    raw: JsonObject = {}

    def ended() -> bool:
        raw.update(cluster.fetch(path))
        return _has_condition(raw, "Complete") or _has_condition(raw, "Failed")

    _wait_until(ended, timeout)
    pods = cluster.collect(f"/api/v1/namespaces/{_segment(namespace)}/pods", f"job-name={job}", project_pod)
    log = _log(cluster, namespace, pods[0]["name"], limit_bytes) if pods and _has_condition(raw, "Complete") else None
    return {"job": project_job(raw), "pods": pods, "log": log}


def run_logs(
    cluster: Cluster, namespace: str, job: str, container: str, read: JsonObject, limit_bytes: int
) -> JsonObject:
    """The log of the newest pod of a Job, each line with its time.

    Args:
        read: what was read before: ``pod``, and ``since``, a time from which to go on. Where that pod is not the newest
            any more, the logs of those after it come too. A time alone: begin with the pod that there was then. Empty:
            with the newest one.
        limit_bytes: of each log only the end of this size.
    """
    gc.disable()
    found = cluster.collect(f"/api/v1/namespaces/{_segment(namespace)}/pods", f"job-name={job}", project_pod)
    pods = sorted(found, key=lambda pod: (pod["created"] or "", pod["name"]))
    since = read.get("since")
    known = [position for position, pod in enumerate(pods) if pod["name"] == read.get("pod")]
    if not known and since and not read.get("pod"):
        before = [position for position, pod in enumerate(pods) if (pod["created"] or "") <= since]
        chosen = pods[max(before, default=0) :]
    else:
        chosen = pods[known[0] :] if known else pods[-1:]
    logs = [
        _pod_log(cluster, namespace, pod, container, since if known and not later else None, limit_bytes)
        for later, pod in enumerate(chosen)
    ]
    # As one text, as in a sweep.
    return {"content": json.dumps(logs)}


def _add_progress(cluster: Cluster, namespace: str, pods: list[JsonObject]) -> None:
    running = [pod for pod in pods if pod["deleted"] is None and any(c["running"] for c in pod["containers"])]
    if len(running) > MAXIMUM_PROGRESS_PODS:
        # A random choice: over a few sweeps every pod has its turn.
        running = random.sample(running, MAXIMUM_PROGRESS_PODS)
    if not running:
        return
    deadline = time.monotonic() + PROGRESS_SECONDS
    with ThreadPoolExecutor(PROGRESS_THREADS) as pool:
        found = pool.map(lambda pod: _progress(cluster, namespace, pod["name"], deadline), running)
        for pod, progress in zip(running, found, strict=True):
            pod["progress"] = progress


def _progress(cluster: Cluster, namespace: str, pod: str, deadline: float) -> JsonObject | None:
    if time.monotonic() > deadline:
        return None
    path = f"/api/v1/namespaces/{_segment(namespace)}/pods/{_segment(pod)}/log"
    try:
        status, body = cluster.ask("GET", path, query={"tailLines": 20, "limitBytes": 65536})
    except ClusterError:
        return None
    return last_progress(body.decode(errors="replace")) if status == 200 else None


def _log(cluster: Cluster, namespace: str, pod: str, limit_bytes: int) -> str:
    path = f"/api/v1/namespaces/{_segment(namespace)}/pods/{_segment(pod)}/log"
    status, body = cluster.ask("GET", path, query={"limitBytes": limit_bytes})
    if status != 200:
        raise _error(status, body)
    return body.decode(errors="replace")


def _pod_log(
    cluster: Cluster, namespace: str, pod: JsonObject, container: str, since: str | None, limit_bytes: int
) -> JsonObject:
    path = f"/api/v1/namespaces/{_segment(namespace)}/pods/{_segment(pod['name'])}/log"
    begin: dict[str, str | int] = {"sinceTime": since} if since else {}
    # The server keeps the beginning of what is too large, so it is asked for so much that nothing is.
    query = {"container": container, "timestamps": "true", "tailLines": LOG_LINES, "limitBytes": LOG_BYTES, **begin}
    status, body = cluster.ask("GET", path, query=query)
    if status in (401, 403):
        raise _error(status, body)
    told = {
        "name": pod["name"],
        "started": pod["phase"] != "Pending",
        "ended": pod["phase"] in ("Succeeded", "Failed"),
    }
    # What a node answers, with status 200, when it has removed the log.
    if status != 200 or body.startswith(b"unable to retrieve container logs"):
        return {**told, "text": None, "message": str(_error(status, body))}
    kept = body[-limit_bytes:]
    if len(kept) < len(body):
        # Half a line could be the second half of a secret.
        kept = kept.partition(b"\n")[2]
    return {**told, "text": kept.decode(errors="replace"), "cut": len(kept) < len(body)}


def _access(cluster: Cluster, namespace: str, permission: list[str], named: Mapping[str, str]) -> JsonObject:
    group, resource, verb, subresource = permission
    wanted = {
        "namespace": namespace,
        "group": group,
        "resource": resource,
        "verb": verb,
        "subresource": subresource,
        "name": named.get(resource, ""),
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": wanted},
    }
    answer = _answer(cluster, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return {"permission": permission, **answer}


def _answer(cluster: Cluster, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
    status, text = cluster.ask(method, path, body)
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {"message": cut(text.decode(errors="replace"))}
    return {"status": status, "body": answer}


def _delete(cluster: Cluster, path: str) -> bool:
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    status, body = cluster.ask("DELETE", path, options)
    if status == 404:
        return False
    _checked(status, body)
    return True


def _wait_until(reached: Callable[[], bool], timeout: float) -> bool:
    deadline, pause = time.monotonic() + timeout, 0.1
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    return True


def _has_condition(job: JsonObject, kind: str) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)


def _checked(status: int, body: bytes) -> JsonObject:
    if not 200 <= status < 300:
        raise _error(status, body)
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise ClusterError("the server's answer is no JSON: is this a Kubernetes API server?") from error
    if not isinstance(answer, dict):
        raise ClusterError("the server's answer is no object: is this a Kubernetes API server?")
    return answer


def _error(status: int, body: bytes) -> ClusterError:
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


def _segment(text: str) -> str:
    return quote(text, safe="")

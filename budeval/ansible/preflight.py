"""What the preflight's action plugins ask of an API server: objects judged without being made, and a probe's findings.

Raw answers only; ``budeval.jobs.preflight`` judges them.
"""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from budeval.ansible.cluster import Cluster, ClusterError, JsonObject, collection, has_condition, member
from budeval.ansible.projection import TEXT_LIMIT, project_job, project_pod
from budeval.ansible.sweep import add_refusals
from budeval.jobs.diagnosis import diagnose

_POLL_SECONDS = 0.5
_NEVER_LASTING = 1e9
"""Seconds of grace: only what is hopeless at once counts."""
_LATE_SECRET = "CreateContainerConfigError"  # noqa: S105 - a reason of Kubernetes
"""The Secret is made right after the Job that owns it, and kubelet looks again."""


def dry_run(cluster: Cluster, objects: list[JsonObject]) -> JsonObject:
    """What the API server, with all its admission, says to the creation of each object. Nothing is stored."""
    return {"objects": [_judged(cluster, each) for each in objects]}


def probe(cluster: Cluster, request: Mapping[str, Any]) -> JsonObject:
    """Make a probe's Job, and its Secret where it needs one, and wait for its end or until it cannot start.

    Args:
        request: ``job``, ``secret`` (or None), ``pending_seconds``, ``seconds``, ``limit_bytes``.

    Returns:
        ``refused``: status and message where the Job was not taken, else None; and the Job, its pods and their log.
    """
    job, secret = request["job"], request["secret"]
    status, body = cluster.ask("POST", _collection(job), job)
    if status != 201:
        return {"refused": {"status": status, **_words(body)}}
    created = json.loads(body)
    if secret is not None:
        _make_owned(cluster, secret, created)
    path = member("Job", job["metadata"]["namespace"], job["metadata"]["name"])
    raw, pods = _wait(cluster, path, created, request["pending_seconds"], request["seconds"])
    seen = project_job(raw)
    add_refusals(cluster, job["metadata"]["namespace"], [seen], pods)
    return {"refused": None, "job": seen, "pods": pods, "log": _log(cluster, job, pods, request)}


def _judged(cluster: Cluster, wanted: JsonObject) -> JsonObject:
    status, body, warnings = cluster.ask_aloud("POST", _collection(wanted), wanted, {"dryRun": "All"})
    told = {"reason": None, "message": None} if status == 201 else _words(body)
    return {"kind": wanted["kind"], "name": wanted["metadata"]["name"], "status": status, "warnings": warnings, **told}


def _make_owned(cluster: Cluster, secret: JsonObject, job: JsonObject) -> None:
    """Make the Secret as the Job's own: whatever removes the Job takes it along."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    owned = {**secret, "metadata": {**secret["metadata"], "ownerReferences": [owner]}}
    status, body = cluster.ask("POST", _collection(secret), owned)
    if status != 201:
        raise ClusterError(str(_words(body)["message"]), status)


def _wait(
    cluster: Cluster, path: str, job: JsonObject, pending_seconds: float, seconds: float
) -> tuple[JsonObject, list[JsonObject]]:
    began = time.monotonic()
    pods_path = collection("Pod", job["metadata"]["namespace"])
    while True:
        raw = cluster.fetch(path)
        pods = cluster.collect(pods_path, f"job-name={job['metadata']['name']}", project_pod)
        waited = time.monotonic() - began
        if (
            has_condition(raw, "Complete", "Failed")
            or waited > seconds
            or _cannot_start(pods, lasting=waited > pending_seconds)
        ):
            return raw, pods
        time.sleep(_POLL_SECONDS)


def _cannot_start(pods: list[JsonObject], *, lasting: bool) -> bool:
    if not pods:
        return lasting
    found = diagnose(pods[0], datetime.now(UTC), 0.0 if lasting else _NEVER_LASTING)
    return found is not None and found.fatal and (lasting or found.reason != _LATE_SECRET)


def _log(cluster: Cluster, job: JsonObject, pods: list[JsonObject], request: Mapping[str, Any]) -> str | None:
    """The log; None where no container has run."""
    if not pods or pods[0]["phase"] == "Pending":
        return None
    path = f"{member('Pod', job['metadata']['namespace'], pods[0]['name'])}/log"
    status, body = cluster.ask("GET", path, query={"limitBytes": request["limit_bytes"]})
    return body.decode(errors="replace") if status == 200 else None


def _collection(wanted: JsonObject) -> str:
    return collection(wanted["kind"], wanted["metadata"]["namespace"])


def _words(body: bytes) -> JsonObject:
    try:
        answer = json.loads(body)
        return {"reason": answer.get("reason"), "message": str(answer.get("message"))[:TEXT_LIMIT]}
    except (ValueError, AttributeError):
        return {"reason": None, "message": body.decode(errors="replace")[:TEXT_LIMIT]}

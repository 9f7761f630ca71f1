"""Logs of Jobs: of a short one when it has ended, and of a run as it grows."""

import gc
import json

from budeval.ansible.cluster import (
    Cluster,
    JsonObject,
    collection,
    error_of,
    has_condition,
    member,
    wait_until,
)
from budeval.ansible.projection import project_job, project_pod
from budeval.ansible.sweep import add_refusals

LOG_LINES = 200_000
LOG_BYTES = 32 * 1024 * 1024
"""Of one log; nodes begin a new file at 10 MiB."""


def finished_log(cluster: Cluster, namespace: str, job: str, limit_bytes: int, timeout: float) -> JsonObject:
    """Wait for the end of a Job, and return it with its pods and, where it succeeded, its log."""
    path = member("Job", namespace, job)
    raw: JsonObject = {}

    def ended() -> bool:
        raw.update(cluster.fetch(path))
        return has_condition(raw, "Complete", "Failed")

    wait_until(ended, timeout)
    pods = cluster.collect(collection("Pod", namespace), f"job-name={job}", project_pod)
    log = _log(cluster, namespace, pods[0]["name"], limit_bytes) if pods and has_condition(raw, "Complete") else None
    seen = project_job(raw)
    add_refusals(cluster, namespace, [seen], pods)
    return {"job": seen, "pods": pods, "log": log}


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
    found = cluster.collect(collection("Pod", namespace), f"job-name={job}", project_pod)
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


def _log(cluster: Cluster, namespace: str, pod: str, limit_bytes: int) -> str:
    path = f"{member('Pod', namespace, pod)}/log"
    status, body = cluster.ask("GET", path, query={"limitBytes": limit_bytes})
    if status != 200:
        raise error_of(status, body)
    return body.decode(errors="replace")


def _pod_log(
    cluster: Cluster, namespace: str, pod: JsonObject, container: str, since: str | None, limit_bytes: int
) -> JsonObject:
    path = f"{member('Pod', namespace, pod['name'])}/log"
    begin: dict[str, str | int] = {"sinceTime": since} if since else {}
    # The server keeps the beginning of what is too large, so it is asked for so much that nothing is.
    query = {"container": container, "timestamps": "true", "tailLines": LOG_LINES, "limitBytes": LOG_BYTES, **begin}
    status, body = cluster.ask("GET", path, query=query)
    if status in (401, 403):
        raise error_of(status, body)
    told = {
        "name": pod["name"],
        "started": pod["phase"] != "Pending",
        "ended": pod["phase"] in ("Succeeded", "Failed"),
    }
    # What a node answers, with status 200, when it has removed the log.
    if status != 200 or body.startswith(b"unable to retrieve container logs"):
        return {**told, "text": None, "message": str(error_of(status, body))}
    kept = body[-limit_bytes:]
    if len(kept) < len(body):
        # Half a line could be the second half of a secret.
        kept = kept.partition(b"\n")[2]
    return {**told, "text": kept.decode(errors="replace"), "cut": len(kept) < len(body)}

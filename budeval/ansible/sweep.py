"""One sweep: all Jobs of budeval in a namespace with their pods, their progress, and why one has none."""

import gc
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice

from budeval.ansible.cluster import MAXIMUM_CONNECTIONS, Cluster, ClusterError, JsonObject, collection, member
from budeval.ansible.projection import project_job, project_pod, project_refusal
from budeval.jobs.progress import last_progress

MAXIMUM_PROGRESS_PODS = 100
PROGRESS_SECONDS = 10.0
"""Progress is a comfort, so a sweep spends only so much on it: pods, seconds in all."""

MAXIMUM_EVENTS = 5000
"""So are the words of a refusal: events that a sweep looks at."""
SECONDS_TO_A_POD = 5.0
"""A Job that has begun gets its pod within this time, or what is in the way is told."""
SECONDS_OF_A_REFUSAL = 400.0
"""Refused pods are tried again each minute, and told every five minutes at the least. An older refusal is over."""


def sweep(cluster: Cluster, namespace: str, selector: str) -> JsonObject:
    """All Jobs of budeval in a namespace with their pods, the progress of those that run, and why one has none."""
    # A fork that ends after this answer: looking through its parent's heap for garbage, again and again while
    # pages of JSON are read, would only copy that heap.
    gc.disable()
    jobs = cluster.collect(collection("Job", namespace), selector, project_job)
    pods = cluster.collect(collection("Pod", namespace), selector, project_pod)
    _add_progress(cluster, namespace, pods)
    add_refusals(cluster, namespace, jobs, pods)
    # As one text: Ansible copies and tags every value inside a structure, which costs more than the LIST.
    return {"schema": 1, "jobs": len(jobs), "pods": len(pods), "content": json.dumps({"jobs": jobs, "pods": pods})}


def add_refusals(cluster: Cluster, namespace: str, jobs: list[JsonObject], pods: list[JsonObject]) -> None:
    """Give each Job that waits for a pod what the API server says against it, as ``refusal``, where it does.

    Asks nothing as long as no Job waits for longer than is usual. Who may not list events goes on without them.
    """
    now, held = datetime.now(UTC), {pod["job_uid"] for pod in pods}
    waiting = {job["uid"]: job for job in jobs if job["uid"] not in held and _waits_for_a_pod(job, now)}
    if not waiting:
        return
    events = cluster.items(
        collection("Event", namespace),
        fieldSelector="involvedObject.kind=Job,reason=FailedCreate",
    )
    try:
        for refusal in map(project_refusal, islice(events, MAXIMUM_EVENTS)):
            job = waiting.get(refusal["job_uid"])
            if job is not None and _age(refusal["last"], now) < SECONDS_OF_A_REFUSAL:
                job["refusal"] = _newest(job.get("refusal", refusal), refusal)
    except ClusterError:
        return


def _waits_for_a_pod(job: JsonObject, now: datetime) -> bool:
    if job["suspend"] or job["deleted"] or job.get("active") or job.get("failed"):
        return False
    ending = any(condition["status"] == "True" for condition in job["conditions"])
    return not ending and _age(job.get("startTime"), now) > SECONDS_TO_A_POD


def _newest(known: JsonObject, other: JsonObject) -> JsonObject:
    """The newer of two refusals of a Job, with the time of the first."""
    newer: JsonObject = max(known, other, key=lambda refusal: refusal["last"])
    return {**newer, "first": min(known["first"], other["first"])}


def _age(since: str | None, now: datetime) -> float:
    return (now - datetime.fromisoformat(since)).total_seconds() if since else 0.0


def _add_progress(cluster: Cluster, namespace: str, pods: list[JsonObject]) -> None:
    running = [pod for pod in pods if pod["deleted"] is None and any(c["running"] for c in pod["containers"])]
    if len(running) > MAXIMUM_PROGRESS_PODS:
        # A random choice: over a few sweeps every pod has its turn.
        running = random.sample(running, MAXIMUM_PROGRESS_PODS)
    if not running:
        return
    deadline = time.monotonic() + PROGRESS_SECONDS
    with ThreadPoolExecutor(MAXIMUM_CONNECTIONS) as pool:
        found = pool.map(lambda pod: _progress(cluster, namespace, pod["name"], deadline), running)
        for pod, progress in zip(running, found, strict=True):
            pod["progress"] = progress


def _progress(cluster: Cluster, namespace: str, pod: str, deadline: float) -> JsonObject | None:
    if time.monotonic() > deadline:
        return None
    path = f"{member('Pod', namespace, pod)}/log"
    try:
        status, body = cluster.ask("GET", path, query={"tailLines": 20, "limitBytes": 65536})
    except ClusterError:
        return None
    return last_progress(body.decode(errors="replace")) if status == 200 else None

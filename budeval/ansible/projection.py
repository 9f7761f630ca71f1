"""The fields of Jobs and pods that budeval needs, out of the many that Kubernetes has."""

import re
from typing import Any

from budeval.jobs.names import ATTEMPT_LABEL

JsonObject = dict[str, Any]

TEXT_LIMIT = 2000
"""Characters kept of a message in a status; the termination message has 4096 bytes by contract and is kept whole."""
_TERMINATION_LIMIT = 4096

_GENERATED_PREFIX = 58
"""Characters of a Job's name that a pod's name keeps; five random ones follow."""
_RETOLD = re.compile(r"(\(combined from similar events\): )?(Error creating: )?")


def project_job(job: JsonObject) -> JsonObject:
    """The fields of a Job that its status depends on."""
    metadata, spec, status = job["metadata"], job.get("spec", {}), job.get("status", {})
    kept = ("active", "ready", "succeeded", "failed", "startTime", "completionTime")
    return {
        "name": metadata["name"],
        "uid": metadata["uid"],
        "created": metadata.get("creationTimestamp"),
        "deleted": metadata.get("deletionTimestamp"),
        "suspend": spec.get("suspend", False),
        **{field: status[field] for field in kept if field in status},
        "conditions": [_condition(condition) for condition in status.get("conditions", [])],
    }


def project_pod(pod: JsonObject) -> JsonObject:
    """The fields of a pod that tell why it does not run, or how it ended."""
    metadata, status = pod["metadata"], pod.get("status", {})
    return {
        "name": metadata["name"],
        "job": metadata.get("labels", {}).get("batch.kubernetes.io/job-name"),
        "job_uid": metadata.get("labels", {}).get("batch.kubernetes.io/controller-uid"),
        "created": metadata.get("creationTimestamp"),
        "deleted": metadata.get("deletionTimestamp"),
        "phase": status.get("phase", "Pending"),
        "reason": status.get("reason"),
        "message": cut(status.get("message")),
        "conditions": [_condition(condition) for condition in status.get("conditions", [])],
        "containers": [_container(container) for container in status.get("containerStatuses", [])],
    }


def project_refusal(event: JsonObject) -> JsonObject:
    """What the API server said when it refused a pod of a Job, out of an event of the Job."""
    job, made = event["involvedObject"], event["metadata"].get("creationTimestamp")
    return {
        "job_uid": job.get("uid"),
        "message": cut(_same_each_time(event.get("message") or "", job["name"])),
        "first": event.get("firstTimestamp") or made,
        "last": event.get("lastTimestamp") or made,
    }


def _same_each_time(message: str, job: str) -> str:
    """Without the random end of the pod's name: each try has another, and would be news."""
    pod = re.escape(f"{job}-"[:_GENERATED_PREFIX]) + "[a-z0-9]{5}"
    return re.sub(pod, lambda _: job, _RETOLD.sub("", message, count=1))


def name_and_attempt(obj: JsonObject) -> JsonObject:
    attempt = obj["metadata"].get("labels", {}).get(ATTEMPT_LABEL, "1")
    return {"name": obj["metadata"]["name"], "attempt": int(attempt) if attempt.isdecimal() else 1}


def _condition(condition: JsonObject) -> JsonObject:
    return {
        "type": condition["type"],
        "status": condition["status"],
        "reason": condition.get("reason"),
        "message": cut(condition.get("message")),
        "since": condition.get("lastTransitionTime"),
    }


def _container(container: JsonObject) -> JsonObject:
    state: JsonObject = container.get("state", {})
    waiting, ended = state.get("waiting", {}), state.get("terminated", {})
    return {
        "running": "running" in state,
        "ready": container.get("ready", False),
        "waiting": {"reason": waiting.get("reason"), "message": cut(waiting.get("message"))} if waiting else None,
        "terminated": _terminated(ended) if ended else None,
    }


def _terminated(ended: JsonObject) -> JsonObject:
    return {
        "reason": ended.get("reason"),
        "exit_code": ended.get("exitCode"),
        "signal": ended.get("signal"),
        "message": (ended.get("message") or "")[:_TERMINATION_LIMIT],
    }


def cut(text: str | None) -> str | None:
    """A text of any size, bounded."""
    return text[:TEXT_LIMIT] if text else text

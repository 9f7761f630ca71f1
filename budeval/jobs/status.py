"""From what a sweep saw to the status of a Job. Conditions decide, never counters.

A counter of failed pods is above zero while a Job still has attempts left, one of succeeded pods before all are done,
and both stay at zero when a deadline ends a Job.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from budeval.commons.redaction import printable
from budeval.jobs.diagnosis import (
    JOB_REASONS,
    MAXIMUM_DETAIL_LENGTH,
    Diagnosis,
    Termination,
    diagnose,
    diagnose_without_pod,
    termination,
)
from budeval.jobs.models import JobState, JobStatus, Progress

JsonObject = Mapping[str, Any]

DEFAULT_GRACE_SECONDS = 120.0
"""Seconds in which a pod that cannot start may still do so."""

_POD_TELLS_MORE = frozenset({"BackoffLimitExceeded", "PodFailurePolicy"})
"""Reasons of a Job that only say that its pods failed."""


class _Seen(NamedTuple):
    job: JsonObject
    pod: JsonObject | None
    diagnosis: Diagnosis | None
    said: Termination


def missing(name: str) -> JobStatus:
    """The status of a Job that a good sweep did not show."""
    message = "The Job is not in the cluster"
    return JobStatus(name=name, status=JobState.MISSING, phase=JobState.MISSING, message=message)


def job_status(
    job: JsonObject, pods: Sequence[JsonObject], now: datetime, grace_seconds: float = DEFAULT_GRACE_SECONDS
) -> JobStatus:
    """The status of one Job.

    Args:
        job: as projected by a sweep.
        pods: all pods of that name's Jobs, in any order; those of another uid are left out.
        now: the present, in UTC.
        grace_seconds: seconds in which a pod that cannot start may still do so.
    """
    pod = newest_pod(pod for pod in pods if pod["job_uid"] == job["uid"])
    found = diagnose(pod, now, grace_seconds) if pod else _without_pod(job, now, grace_seconds)
    seen = _Seen(job, pod, found, termination(pod) if pod else Termination())
    state = _state(job)
    reason, message, resolution = _explanation(state, seen)
    attempts = job.get("failed", 0)
    return JobStatus(
        name=job["name"],
        uid=job["uid"],
        status=state,
        phase=pod["phase"] if pod else state,
        message=message,
        active=job.get("active", 0),
        succeeded=job.get("succeeded", 0),
        failed=attempts,
        start_time=job.get("startTime"),
        completion_time=_completion_time(job, state),
        reason=reason,
        resolution=resolution,
        fatal=not state.finished and state is not JobState.SUSPENDED and bool(found and found.fatal),
        retrying=not state.finished and attempts > 0,
        attempts=attempts,
        progress=_progress(seen),
        result_sha256=seen.said.result_sha256 if state is JobState.SUCCEEDED else None,
    )


def newest_pod(pods: Iterable[JsonObject]) -> JsonObject | None:
    """The pod that was made last; of several in one second, one that has not ended."""
    return max(pods, key=lambda pod: (pod["created"] or "", pod["phase"] not in ("Succeeded", "Failed")), default=None)


def _state(job: JsonObject) -> JobState:
    if _condition(job, "Complete"):
        return JobState.SUCCEEDED
    if _condition(job, "Failed"):
        return JobState.FAILED
    if job.get("deleted"):
        return JobState.MISSING
    if job["suspend"]:
        return JobState.SUSPENDED
    # SuccessCriteriaMet and FailureTarget say how a Job is about to end; it has not ended before its pods have.
    ending = _condition(job, "SuccessCriteriaMet") or _condition(job, "FailureTarget")
    if ending or (job.get("active", 0) and job.get("ready", 0)):
        return JobState.RUNNING
    return JobState.PENDING


def _explanation(state: JobState, seen: _Seen) -> tuple[str | None, str, str | None]:
    if state is JobState.SUCCEEDED:
        return None, seen.said.message, None
    if state is JobState.FAILED:
        return _failure(_condition(seen.job, "Failed") or {}, seen)
    if state is JobState.MISSING:
        return None, "The Job is being deleted", None
    if seen.diagnosis is not None:
        return seen.diagnosis.reason, seen.diagnosis.message, seen.diagnosis.resolution
    return None, "", None


def _failure(condition: JsonObject, seen: _Seen) -> tuple[str, str, str]:
    reason = condition.get("reason") or "Failed"
    told = printable(condition.get("message") or "", MAXIMUM_DETAIL_LENGTH)
    if reason in _POD_TELLS_MORE and seen.diagnosis is not None:
        attempts = f" ({seen.job.get('failed', 0)} attempts)" if reason == "BackoffLimitExceeded" else ""
        return seen.diagnosis.reason, f"{seen.diagnosis.message}{attempts}", seen.diagnosis.resolution
    summary, resolution = JOB_REASONS.get(reason, ("The Job failed", "Look at the events of the Job."))
    return reason, f"{summary}: {told}" if told else summary, resolution


def _without_pod(job: JsonObject, now: datetime, grace_seconds: float) -> Diagnosis | None:
    created, refusal = job.get("created"), job.get("refusal")
    waited = (now - datetime.fromisoformat(created)).total_seconds() if created else 0.0
    if job["suspend"] or job.get("failed", 0) or (refusal is None and waited < grace_seconds):
        return None
    return diagnose_without_pod(refusal, now, grace_seconds)


def _completion_time(job: JsonObject, state: JobState) -> str | None:
    if state is JobState.FAILED:
        return (_condition(job, "Failed") or {}).get("since")
    time: str | None = job.get("completionTime")
    return time


def _progress(seen: _Seen) -> Progress | None:
    if seen.said.done is not None and seen.said.total is not None:
        return Progress(phase="scoring", done=seen.said.done, total=seen.said.total)
    found = (seen.pod or {}).get("progress")
    try:
        return Progress.model_validate(found) if found else None
    except ValidationError:
        return None


def _condition(job: JsonObject, kind: str) -> JsonObject | None:
    found: list[JsonObject] = [each for each in job["conditions"] if each["type"] == kind and each["status"] == "True"]
    return found[0] if found else None

"""Why a pod does not run, or how it ended: pure functions over the projected state of a pod.

Reasons are Kubernetes' own words (``ImagePullBackOff``, ``OOMKilled``) or the engine's (``EndpointUnauthorized``), so
that a user can search for them. Each comes with what can be done about it.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from budeval.commons.redaction import printable

JsonObject = Mapping[str, Any]

MAXIMUM_DETAIL_LENGTH = 500
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FATAL_IMAGE = re.compile(r"not found|unauthorized|denied|does not exist|authentication required", re.IGNORECASE)
_FATAL_CONFIG = re.compile(r"not found|couldn't find key|non-root|non-numeric", re.IGNORECASE)


class Diagnosis(NamedTuple):
    """What is wrong with a pod."""

    reason: str
    summary: str
    detail: str
    resolution: str
    fatal: bool = False
    """Waiting longer is useless."""

    @property
    def message(self) -> str:
        """Summary and detail as one text."""
        return f"{self.summary}: {self.detail}" if self.detail else self.summary


class Termination(NamedTuple):
    """What the engine wrote at its end; a field it did not write well is None."""

    reason: str | None = None
    message: str = ""
    done: int | None = None
    total: int | None = None
    result_sha256: str | None = None


ENGINE_REASONS: dict[str, tuple[str, str]] = {
    "EndpointUnauthorized": (
        "The model's endpoint refused the key",
        "Check api_key in the request, and that the key may use this model.",
    ),
    "EndpointUnreachable": (
        "The model's endpoint does not answer",
        "Check endpoint in the request: it must be reachable from the pods of the cluster, not only from your machine.",
    ),
    "EndpointRateLimited": (
        "The model's endpoint refuses so many questions",
        "Lower query_per_second or batch_size in extra_args, or raise the limit at the endpoint.",
    ),
    "ModelNotFound": (
        "The endpoint does not serve this model",
        "Check model_name in the request against the endpoint's list of models.",
    ),
    "DatasetMissing": (
        "The files of the data set are not on the volume",
        "Put the data set on the volume, under datasets/data/.",
    ),
    "DatasetUnknown": (
        "The engine does not know this data set",
        "Check dataset_id in the request against the engine's list of data sets.",
    ),
    "OutOfMemory": (
        "The engine ran out of memory",
        "Raise the memory limit in the pod template overlay, or lower batch_size in extra_args.",
    ),
    "ResultsIncomplete": (
        "Not every question was answered, or a score is missing",
        "Look into engine.log in the run's directory on the volume, then retry the evaluation.",
    ),
    "InvalidConfiguration": (
        "The engine refused its configuration",
        "Check extra_args and eval_configs in the request.",
    ),
    "EngineFailed": (
        "The engine failed",
        "Look into engine.log in the run's directory on the volume.",
    ),
}

_PULL = (
    "The image cannot be pulled",
    "Check the image's name and tag, imagePullSecrets, and that the node reaches the registry.",
)
_WAITING: dict[str, tuple[str, str]] = {
    "ImagePullBackOff": _PULL,
    "ErrImagePull": _PULL,
    "InvalidImageName": ("The image's name is not valid", "Correct BUDEVAL_ENGINE_IMAGE."),
    "ErrImageNeverPull": (
        "The image is not on the node, and must not be pulled",
        "Import the image into the node, or set BUDEVAL_IMAGE_PULL_POLICY to IfNotPresent.",
    ),
    "CreateContainerConfigError": (
        "The container's configuration names something that is not there",
        "See the detail: a Secret, a ConfigMap or one of their keys is missing. Retry the evaluation.",
    ),
    "CreateContainerError": (
        "The container cannot be made",
        "See the detail; often a mount or the runtime of the node.",
    ),
    "RunContainerError": ("The container cannot be started", "See the detail; often the image's entry point or user."),
    "CrashLoopBackOff": ("The container ends again and again", "Look into the pod's log."),
}
_FATAL_AT_ONCE = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_UNSCHEDULABLE = (
    "No node takes the pod",
    "See the detail: free resources, correct nodeSelector or tolerations of the overlay, or bind the volume claim.",
)
_SLOW_START = (
    "The container has not been made yet",
    "A large image may still be pulled. Else look at the pod's events: often a volume cannot be mounted.",
)
_UNPREPARED = (
    "The node has not prepared the pod: its sandbox, its network or a volume is missing",
    "Look at the pod's events: FailedCreatePodSandBox, FailedMount or FailedAttachVolume say what is in the way.",
)
_GIVEN_UP = (
    "Nothing: the run goes on in another pod when this one has ended. Where its node is lost, that is when the node is "
    "back or removed from the cluster."
)
_LOST = (
    "The node of the pod does not answer",
    "Bring the node back. After five minutes Kubernetes gives the pod up, and the run goes on in another one.",
)
_TERMINATED: dict[str, tuple[str, str]] = {
    "OOMKilled": (
        "The engine was killed for using more memory than its limit",
        "Raise the memory limit in the pod template overlay, or lower batch_size in extra_args.",
    ),
    "Evicted": (
        "The node evicted the pod",
        "The node was short of a resource, see the detail; free it or use another node.",
    ),
    "DeadlineExceeded": (
        "The time was up",
        "Raise max_checks in eval_configs, or ask fewer questions (max_questions).",
    ),
    "ContainerCannotRun": ("The container cannot be started", "See the detail; often the image's entry point or user."),
    "StartError": ("The container cannot be started", "See the detail; often the image's entry point or user."),
    "Error": ("The engine ended with an error", "Look into engine.log in the run's directory on the volume."),
}
JOB_REASONS: dict[str, tuple[str, str]] = {
    "DeadlineExceeded": _TERMINATED["DeadlineExceeded"],
    "BackoffLimitExceeded": ("Every attempt failed", "Look into engine.log in the run's directory on the volume."),
    "PodFailurePolicy": (
        "The engine failed in a way that another attempt cannot help",
        "Look into engine.log in the run's directory on the volume.",
    ),
    "FailedCreate": (
        "Kubernetes has not made a pod for the Job",
        "Look at the Job's events: often a quota or an admission policy is in the way.",
    ),
}
_UNKNOWN_RESOLUTION = "Look at the events of the pod and the Job."


def diagnose(pod: JsonObject, now: datetime, grace_seconds: float) -> Diagnosis | None:
    """What is wrong with a pod; None where nothing is.

    Args:
        pod: as projected by a sweep.
        now: the present, for states that may pass.
        grace_seconds: seconds after which a state that may pass counts as lasting.
    """
    if pod["phase"] == "Succeeded":
        return None
    ended = _ended_container(pod)
    if pod["phase"] == "Failed" or ended is not None:
        return _diagnose_end(pod, ended)
    disruption = _condition(pod, "DisruptionTarget")
    if disruption is not None:
        return _disrupted(disruption, _GIVEN_UP)
    grace = timedelta(seconds=grace_seconds)
    return _diagnose_start(pod, now, grace) if pod["phase"] == "Pending" else _diagnose_running(pod, now, grace)


def termination(pod: JsonObject) -> Termination:
    """What the engine wrote at its end. A stranger's text: whatever is not as agreed is dropped."""
    ended = _ended_container(pod)
    return parse_termination(ended["message"]) if ended else Termination()


def parse_termination(text: str) -> Termination:
    """A termination message; text that is not as agreed becomes the message."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or value.get("schema") != 1:
        return Termination(message=printable(text, MAXIMUM_DETAIL_LENGTH))
    reason, digest = value.get("reason"), value.get("result_sha256")
    return Termination(
        reason=reason if isinstance(reason, str) and (reason in ENGINE_REASONS or reason == "Completed") else None,
        message=printable(str(value.get("message") or ""), MAXIMUM_DETAIL_LENGTH),
        done=_count(value.get("done")),
        total=_count(value.get("total")),
        result_sha256=digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None,
    )


def _diagnose_end(pod: JsonObject, ended: JsonObject | None) -> Diagnosis | None:
    if ended is not None and ended["exit_code"] == 0:
        return None
    # Out of memory, the kernel ends the engine before it can say anything that could be believed.
    if ended is not None and ended["reason"] == "OOMKilled":
        return _told("OOMKilled", _TERMINATED, "")
    said = termination(pod)
    if said.reason in ENGINE_REASONS:
        return _told(said.reason, ENGINE_REASONS, said.message)
    disruption = _condition(pod, "DisruptionTarget")
    if disruption is not None and not pod["reason"]:
        return _disrupted(disruption, "Nothing: the run goes on in another pod, and this does not count as an attempt.")
    reason = pod["reason"] or (ended["reason"] if ended else None)
    detail = pod["message"] or said.message or (f"exit code {ended['exit_code']}" if ended else "")
    return _told(_word(reason, "Error"), _TERMINATED, detail)


def _disrupted(condition: JsonObject, resolution: str) -> Diagnosis:
    reason = _word(condition["reason"], "DisruptionTarget")
    return Diagnosis(reason, "The node gave the pod up", _detail(condition["message"]), resolution)


def _diagnose_running(pod: JsonObject, now: datetime, grace: timedelta) -> Diagnosis | None:
    # An engine has no readiness probe: a container that runs is ready as long as its node says so.
    not_ready = _condition(pod, "Ready", status="False")
    lasting = not_ready is not None and _age(not_ready["since"], now) >= grace
    if lasting and pod["deleted"] is None and any(container["running"] for container in pod["containers"]):
        return Diagnosis("NodeNotReady", _LOST[0], "", _LOST[1])
    return None


def _diagnose_start(pod: JsonObject, now: datetime, grace: timedelta) -> Diagnosis | None:
    scheduled = _condition(pod, "PodScheduled", status="False")
    if scheduled is not None:
        lasting = _age(scheduled["since"] or pod["created"], now) >= grace
        summary, resolution = _UNSCHEDULABLE
        reason = _word(scheduled["reason"], "Unschedulable")
        return Diagnosis(reason, summary, _detail(scheduled["message"]), resolution, lasting)
    since = _condition(pod, "ContainersReady", status="False")
    lasting = _age((since or {}).get("since") or pod["created"], now) >= grace
    unprepared = _condition(pod, "PodReadyToStartContainers", status="False") is not None
    for container in pod["containers"]:
        if container["waiting"]:
            return _diagnose_waiting(container["waiting"], lasting=lasting, unprepared=unprepared)
    return None


def _diagnose_waiting(waiting: JsonObject, *, lasting: bool, unprepared: bool) -> Diagnosis | None:
    reason, message = _word(waiting["reason"], "Waiting"), waiting["message"] or ""
    if reason in ("ContainerCreating", "PodInitializing"):
        summary, resolution = _UNPREPARED if unprepared else _SLOW_START
        return Diagnosis(reason, summary, _detail(message), resolution) if lasting else None
    hopeless = (
        reason in _FATAL_AT_ONCE
        or (_WAITING.get(reason) is _PULL and _FATAL_IMAGE.search(message) is not None)
        or (reason == "CreateContainerConfigError" and _FATAL_CONFIG.search(message) is not None)
    )
    return _told(reason, _WAITING, message)._replace(fatal=hopeless or (lasting and reason in _WAITING))


def _told(reason: str, table: Mapping[str, tuple[str, str]], detail: str | None) -> Diagnosis:
    summary, resolution = table.get(reason, ("The pod does not run as it should", _UNKNOWN_RESOLUTION))
    return Diagnosis(reason, summary, _detail(detail), resolution)


def _ended_container(pod: JsonObject) -> JsonObject | None:
    ended: list[JsonObject] = [each["terminated"] for each in pod["containers"] if each["terminated"]]
    return ended[0] if ended else None


def _condition(pod: JsonObject, kind: str, status: str = "True") -> JsonObject | None:
    found: list[JsonObject] = [each for each in pod["conditions"] if each["type"] == kind and each["status"] == status]
    return found[0] if found else None


def _age(since: str | None, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(since) if since else timedelta(0)


def _word(reason: str | None, otherwise: str) -> str:
    return reason if reason and re.fullmatch(r"[A-Za-z0-9]{1,100}", reason) else otherwise


def _detail(text: str | None) -> str:
    return printable(text or "", MAXIMUM_DETAIL_LENGTH)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**12 else None

"""The short Job that looks from inside the cluster before an evaluation begins: its objects, and what it prints.

The program is part of the engine image (``budeval_engine.preflight``): it asks the endpoint as a run would, and loads
data sets as a run would. A Job, its pod and the Secret with the model's key live for seconds; the Job owns the Secret,
ends at its deadline and is removed soon after by Kubernetes itself, should nobody else do it.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field, SecretStr

from budeval.commons.redaction import printable
from budeval.jobs import names
from budeval.jobs.manifest import (
    API_KEY_VARIABLE,
    CONTAINER,
    container_security,
    data_volume,
    pod_spec,
    without_resources,
)
from budeval.jobs.models import Frozen, JsonObject
from budeval.jobs.overlay import PodTemplateOverlay

PROBE_NAME = "budeval-probe"
PROBE_SELECTOR = f"{names.MANAGED_SELECTOR},{names.NAME_LABEL}={PROBE_NAME}"
SCHEMA = 1
"""Of the questions; an engine image that knows another says so."""

PENDING_SECONDS = 20.0
"""For a pod to be scheduled and its image to be pulled, where that fails at first."""
LOOK_SECONDS = 40.0
"""For the program; loading OpenCompass takes 5 of them on two idle cores."""
PROBE_SECONDS = 60.0
"""From the creation of the Job to its end. What is not known then is told as not known."""
DEADLINE_SECONDS = 75
"""After which Kubernetes ends the Job, whatever became of who started it."""
TTL_SECONDS = 60
LIMIT_BYTES = 2 * 1024 * 1024
"""Of the log that is read."""

_MARK = "preflight"


class Subject(Frozen):
    """The model to be asked for one token."""

    model: str
    endpoint: str


class Questions(Frozen):
    """What a probe is to find out."""

    endpoint: Subject | None = None
    datasets: list[str] = Field(default_factory=list)
    """To be loaded; needs the volume."""
    inventory: dict[str, list[str]] | None = None
    """Paths of many data sets; those whose paths are all there are named, and of ``datasets`` only these are loaded."""

    def argument(self) -> str:
        """As the program's argument.

        Kubernetes replaces ``$(NAME)`` in arguments by the value of a variable, such as the key: no dollar may be left.
        """
        document = {"schema": SCHEMA, "seconds": LOOK_SECONDS, **self.model_dump(mode="json")}
        return json.dumps(document).replace("$", "\\u0024")


class Trial(Frozen):
    """What a cluster is to try out."""

    objects: list[JsonObject] = Field(default_factory=list, repr=False)
    """To be judged without being made."""
    questions: Questions | None = None
    """For a probe; None: without one."""
    bound: bool = True
    """Whether the probe may use the volume."""
    api_key: SecretStr | None = None
    """Of the model."""


class DatasetFinding(Frozen):
    """What loading a data set showed."""

    questions: int | None = None
    reason: str | None = None
    message: str = ""


class EndpointFinding(Frozen):
    """What asking the endpoint showed."""

    reason: str | None = None
    message: str = ""
    seconds: float | None = None


class ProbeReport(Frozen):
    """What a probe printed; the rest of its log is somebody else's words."""

    began: bool = False
    """Whether the program was there at all."""
    ended: bool = False
    """Whether it found out everything that it was asked."""
    present: list[str] | None = None
    endpoint: EndpointFinding | None = None
    datasets: dict[str, DatasetFinding] = Field(default_factory=dict)
    tail: str = ""
    """The last words of the log, where the program was not there."""


def build_probe(
    name: str,
    questions: Questions,
    *,
    namespace: str,
    image: str,
    image_pull_policy: str,
    overlay: PodTemplateOverlay,
    volume_claim: str | None,
    has_api_key: bool,
) -> JsonObject:
    """The Job; ``volume_claim`` None: it sees no data."""
    labels = {names.NAME_LABEL: PROBE_NAME, names.MANAGED_BY_LABEL: names.MANAGER}
    spec = pod_spec(_container(name, questions, image, image_pull_policy, volume_claim, has_api_key=has_api_key), [])
    spec["volumes"] = [{"name": "tmp", "emptyDir": {}}, *([data_volume(volume_claim)] if volume_claim else [])]
    # It answers SIGTERM at once, and nothing of it is worth waiting for.
    spec["terminationGracePeriodSeconds"] = 2
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "template": without_resources(overlay).lay_over({"metadata": {"labels": labels}, "spec": spec}),
        },
    }


def build_probe_secret(name: str, namespace: str, api_key: SecretStr) -> JsonObject:
    """The Secret with the model's key; its owner is added when the Job exists."""
    labels = {names.NAME_LABEL: PROBE_NAME, names.MANAGED_BY_LABEL: names.MANAGER}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "data": {API_KEY_VARIABLE: base64.b64encode(api_key.get_secret_value().encode()).decode()},
    }


def trial_pod(job: JsonObject) -> JsonObject:
    """The pod that a Job would make, for a dry run."""
    metadata, template = job["metadata"], job["spec"]["template"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template.get("metadata", {}), "name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": template["spec"],
    }


def parse_report(log: str | None) -> ProbeReport:
    """What the program printed. Lines that are not as agreed are dropped: they are strangers' words."""
    lines = [line for text in (log or "").splitlines() if (line := _line(text)) is not None]
    endpoint = next((line for line in lines if line.get("check") == "endpoint"), None)
    present = next((line["present"] for line in lines if _texts(line.get("present"))), None)
    return ProbeReport(
        began=bool(lines),
        ended=any(line.get("ended") is True for line in lines),
        present=present,
        endpoint=_endpoint(endpoint) if endpoint else None,
        datasets={line["dataset"]: _dataset(line) for line in lines if isinstance(line.get("dataset"), str)},
        tail="" if lines else printable((log or "")[-2000:], 500),
    )


def _container(
    name: str,
    questions: Questions,
    image: str,
    image_pull_policy: str,
    volume_claim: str | None,
    *,
    has_api_key: bool,
) -> JsonObject:
    home = {"name": "HOME", "value": "/tmp"}  # noqa: S108 - a path in the pod
    key = {"name": API_KEY_VARIABLE, "valueFrom": {"secretKeyRef": {"name": name, "key": API_KEY_VARIABLE}}}
    data = {"name": "data", "mountPath": "/cache", "subPath": "datasets", "readOnly": True}
    scratch = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - a path in the pod, an emptyDir of its own
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": image_pull_policy,
        "command": ["python", "-m", "budeval_engine.preflight", questions.argument()],
        "env": [home, *([key] if has_api_key else [])],
        "workingDir": "/tmp",  # noqa: S108 - a path in the pod
        "securityContext": container_security(),
        # Data sets are loaded whole, as a run does.
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}},
        "volumeMounts": [scratch, *([data] if volume_claim else [])],
    }


def _line(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("budeval") == _MARK else None


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _dataset(line: Mapping[str, Any]) -> DatasetFinding:
    questions = line.get("questions")
    counted = isinstance(questions, int) and not isinstance(questions, bool) and questions >= 0
    return DatasetFinding(
        questions=questions if counted else None, reason=_word(line.get("reason")), message=_words(line.get("message"))
    )


def _endpoint(line: Mapping[str, Any]) -> EndpointFinding:
    seconds = line.get("seconds")
    return EndpointFinding(
        reason=_word(line.get("reason")),
        message=_words(line.get("message")),
        seconds=seconds if isinstance(seconds, int | float) and not isinstance(seconds, bool) else None,
    )


def _word(value: object) -> str | None:
    return printable(value, 50) if isinstance(value, str) else None


def _words(value: object) -> str:
    return printable(value, 500) if isinstance(value, str) else ""

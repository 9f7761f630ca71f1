"""The Kubernetes objects of an evaluation, built as data.

Nothing here is text that somebody parses later: a value from a request can only become a value.
"""

import base64
import json
from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from budeval.evals.models import AskedResources
from budeval.jobs import names
from budeval.jobs.models import EvaluationObjects, JobSpecInput, JsonObject
from budeval.jobs.overlay import PodTemplateOverlay
from budeval.jobs.quantities import with_asked
from budeval.jobs.reader import RESULTS_DIRECTORY

CONTAINER = "engine"
API_KEY_VARIABLE = "OPENAI_API_KEY"
USER_ID = 65532
"""The user and group of the engine image: neither root nor any user of the node."""

PERMANENT_EXIT_CODE = 10
"""The engine says so when another attempt cannot help; the Job then fails at once."""


def build_evaluation(runs: Sequence[JobSpecInput], api_key: SecretStr | None = None) -> EvaluationObjects:
    """All objects of one evaluation: a Job for each run, one ConfigMap, and one Secret if there is a key.

    The same input gives the same objects, so that applying them twice changes nothing.

    Raises:
        ValueError: there is no run, the runs do not belong together, or two of them would share a name.
    """
    eval_id, namespace, attempt = _shared(runs)
    jobs = [build_job(run) for run in runs]
    if len({job["metadata"]["name"] for job in jobs}) != len(jobs):
        raise ValueError("two runs of the evaluation have the same Job name")
    return EvaluationObjects(
        eval_id=eval_id,
        attempt=attempt,
        namespace=namespace,
        secret=build_secret(eval_id, namespace, api_key, attempt) if api_key else None,
        config_map=build_config_map(runs),
        jobs=jobs,
        api_key=api_key,
    )


def build_job(run: JobSpecInput) -> JsonObject:
    """The Job of one run."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": _job_name(run),
            "namespace": run.namespace,
            "labels": _labels(run),
            "annotations": {names.RUN_ANNOTATION: run.run_id},
        },
        "spec": {
            "backoffLimit": run.backoff_limit,
            "activeDeadlineSeconds": run.active_deadline_seconds,
            "ttlSecondsAfterFinished": run.ttl_seconds,
            "podFailurePolicy": _pod_failure_policy(),
            "podReplacementPolicy": "Failed",
            "template": _with_asked_resources(run.overlay.lay_over(_pod_template(run)), run.asked_resources),
        },
    }


def build_config_map(runs: Sequence[JobSpecInput]) -> JsonObject:
    """The ConfigMap with the engine's configuration of every run."""
    eval_id, namespace, attempt = _shared(runs)
    data = {names.config_key(_job_name(run)): _json(run.engine_config) for run in runs}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _evaluation_metadata(names.config_map_name(eval_id, attempt), eval_id, namespace, attempt),
        "data": data,
    }


def build_secret(eval_id: str, namespace: str, api_key: SecretStr, attempt: int = 1) -> JsonObject:
    """The Secret with the model's key."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": _evaluation_metadata(names.secret_name(eval_id, attempt), eval_id, namespace, attempt),
        "data": {API_KEY_VARIABLE: base64.b64encode(api_key.get_secret_value().encode()).decode()},
    }


def build_reader_job(
    name: str,
    eval_id: str,
    *,
    namespace: str,
    volume_claim: str,
    image: str,
    image_pull_policy: str,
    command: Sequence[str],
    overlay: PodTemplateOverlay,
    deadline_seconds: int,
    removes: bool = False,
) -> JsonObject:
    """A short Job that sees the results of one evaluation, read-only, and prints what ``command`` does with them.

    ``removes``: it may change the results of all evaluations, in order to remove those of one.
    """
    directory = {"subPath": "results"} if removes else {"subPath": f"results/{eval_id}", "readOnly": True}
    labels = {
        names.NAME_LABEL: names.REMOVER_NAME if removes else names.READER_NAME,
        names.MANAGED_BY_LABEL: names.MANAGER,
        names.EVALUATION_LABEL: eval_id,
    }
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": image_pull_policy,
        "command": list(command),
        "securityContext": container_security(),
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": RESULTS_DIRECTORY, **directory}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod_spec(container, [data_volume(volume_claim)])}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline_seconds,
            "ttlSecondsAfterFinished": 300,
            "template": without_resources(overlay).lay_over(template),
        },
    }


def _job_name(run: JobSpecInput) -> str:
    return names.job_name(run.eval_id, run.run_id, run.attempt)


def _shared(runs: Sequence[JobSpecInput]) -> tuple[str, str, int]:
    owners = {(run.eval_id, run.namespace, run.attempt) for run in runs}
    if len(owners) != 1:
        raise ValueError(f"runs of one attempt at one evaluation in one namespace are needed, not of {len(owners)}")
    return owners.pop()


def _labels(run: JobSpecInput) -> dict[str, str]:
    return {
        names.NAME_LABEL: names.RUN_NAME,
        names.MANAGED_BY_LABEL: names.MANAGER,
        names.EVALUATION_LABEL: run.eval_id,
        names.RUN_LABEL: names.run_label(run.run_id),
        **names.attempt_labels(run.attempt),
    }


def _evaluation_metadata(name: str, eval_id: str, namespace: str, attempt: int) -> JsonObject:
    labels = {
        names.NAME_LABEL: names.RUN_NAME,
        names.MANAGED_BY_LABEL: names.MANAGER,
        names.EVALUATION_LABEL: eval_id,
        **names.attempt_labels(attempt),
    }
    return {"name": name, "namespace": namespace, "labels": labels}


def _pod_failure_policy() -> JsonObject:
    return {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [PERMANENT_EXIT_CODE]},
            },
            # A drained or preempted node is not the run's fault, so it costs no attempt.
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
    }


def _with_asked_resources(template: JsonObject, asked: AskedResources | None) -> JsonObject:
    if asked is None:
        return template
    engine = template["spec"]["containers"][0]
    changed = {**engine, "resources": with_asked(engine.get("resources", {}), asked)}
    return {**template, "spec": {**template["spec"], "containers": [changed]}}


def _pod_template(run: JobSpecInput) -> JsonObject:
    volumes = [
        {
            "name": "config",
            "configMap": {
                "name": names.config_map_name(run.eval_id, run.attempt),
                "items": [{"key": names.config_key(_job_name(run)), "path": "run.json"}],
            },
        },
        data_volume(run.volume_claim),
        {"name": "tmp", "emptyDir": {}},
    ]
    metadata = {"labels": _labels(run), "annotations": {names.RUN_ANNOTATION: run.run_id}}
    return {"metadata": metadata, "spec": pod_spec(_engine_container(run), volumes)}


def pod_spec(container: JsonObject, volumes: list[JsonObject]) -> JsonObject:
    """What the pods of all Jobs of budeval have in common: no root, no privileges, no token."""
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 20,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }


def _engine_container(run: JobSpecInput) -> JsonObject:
    workspace = names.result_path(run.eval_id, names.workspace_name(run.eval_id, run.run_id))
    return {
        "name": CONTAINER,
        "image": run.image,
        "imagePullPolicy": run.image_pull_policy,
        "env": _environment(run),
        "workingDir": "/workspace",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "securityContext": container_security(),
        "resources": run.resources.model_dump(),
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/budeval", "readOnly": True},
            {"name": "data", "mountPath": "/cache", "subPath": "datasets", "readOnly": True},
            {"name": "data", "mountPath": "/workspace", "subPath": workspace},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the pod, an emptyDir of its own
        ],
    }


def _environment(run: JobSpecInput) -> list[JsonObject]:
    home: JsonObject = {"name": "HOME", "value": "/tmp"}  # noqa: S108 - a path in the pod
    if not run.has_api_key:
        return [home]
    reference = {"name": names.secret_name(run.eval_id, run.attempt), "key": API_KEY_VARIABLE}
    return [home, {"name": API_KEY_VARIABLE, "valueFrom": {"secretKeyRef": reference}}]


def container_security() -> JsonObject:
    """What keeps a container apart from its node."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def data_volume(volume_claim: str) -> JsonObject:
    """The volume ``data``: data sets and results."""
    return {"name": "data", "persistentVolumeClaim": {"claimName": volume_claim}}


def without_resources(overlay: PodTemplateOverlay) -> PodTemplateOverlay:
    """For a small Job: what an engine needs would keep it waiting for a large node."""
    return overlay.model_copy(update={"spec": overlay.spec.model_copy(update={"containers": []})})


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

"""Judges what a cluster answered: can evaluations be run on it, and what exactly is in the way. Pure."""

from collections.abc import Mapping
from typing import Any

from budeval.commons.errors import ClusterNotReady, ClusterUnauthorized, ClusterUnreachable
from budeval.commons.redaction import printable
from budeval.jobs.models import ClusterReport
from budeval.jobs.permissions import Permission

JsonObject = Mapping[str, Any]


def judge_cluster(answers: JsonObject, namespace: str, volume_claim: str) -> ClusterReport:
    """A report on a cluster that is ready.

    Args:
        answers: HTTP status and body of each question, as the playbook brings them.
        namespace: the namespace that was asked about.
        volume_claim: name of the PersistentVolumeClaim that was asked about.

    Raises:
        ClusterUnreachable: the API server is there, but cannot answer now.
        ClusterUnauthorized: it does not know these credentials.
        ClusterNotReady: names everything that is missing, not only the first; or it is no cluster at all.
    """
    version = answers["version"]
    raise_for_server(version)
    missing = [answer for answer in answers["permissions"] if not is_allowed(answer)]
    of_claim, warnings = claim_problems(answers["volume_claim"], namespace, volume_claim)
    problems = [
        *namespace_problems(answers["namespace"], namespace, none_granted=len(missing) == len(answers["permissions"])),
        *permission_problems(missing, namespace, volume_claim),
        *of_claim,
    ]
    if problems:
        raise ClusterNotReady("; ".join(problems))
    return ClusterReport(
        server_version=printable(str(version["body"].get("gitVersion", "unknown")), 50),
        namespace=namespace,
        volume_claim=volume_claim,
        warnings=warnings,
    )


def raise_for_server(version: JsonObject) -> None:
    """Raises where the server does not take these credentials, cannot answer now, or is none of Kubernetes."""
    message = printable(str(version["body"].get("message", "")), 300)
    if version["status"] == 401:
        raise ClusterUnauthorized(
            f"the API server does not accept the credentials of the kubeconfig (401 {message}): use valid ones"
        )
    if version["status"] == 429 or version["status"] >= 500:
        raise ClusterUnreachable(f"the API server answered {version['status']} {message}".rstrip())
    # Who may not see the version may still run evaluations.
    if version["status"] != 403 and "gitVersion" not in version["body"]:
        raise ClusterNotReady(
            f"what answers there is no Kubernetes API server ({version['status']} {message}): "
            "check the server in the kubeconfig"
        )


def is_allowed(answer: JsonObject) -> bool:
    """Whether a permission is granted."""
    return bool(answer["body"].get("status", {}).get("allowed")) if answer["status"] == 201 else False


def namespace_problems(answer: JsonObject, namespace: str, *, none_granted: bool) -> list[str]:
    """What is wrong with the namespace."""
    if answer["status"] == 404:
        return [f"namespace {namespace} does not exist: create it, or set BUDEVAL_NAMESPACE"]
    if answer["status"] == 403 and none_granted:
        return [f"namespace {namespace} does not exist, or nothing is granted in it to the identity of the kubeconfig"]
    if answer["status"] == 200 and answer["body"].get("status", {}).get("phase") == "Terminating":
        return [f"namespace {namespace} is being deleted"]
    return []


def permission_problems(missing: list[JsonObject], namespace: str, volume_claim: str) -> list[str]:
    """Names all permissions that are missing, in one sentence."""
    if not missing:
        return []
    words = ", ".join(_permission(answer["permission"], volume_claim) for answer in missing)
    return [f"not permitted in namespace {namespace}: {words}; grant them by the Role that budeval comes with"]


def _permission(parts: list[str], volume_claim: str) -> str:
    group, resource, verb, subresource = parts
    words = str(Permission(group, resource, verb, subresource))
    # The only one that a Role usually grants on one object, which may be another than the settings name.
    return f"{words} {volume_claim}" if resource == "persistentvolumeclaims" else words


def claim_problems(answer: JsonObject, namespace: str, name: str) -> tuple[list[str], list[str]]:
    """Problems and warnings. A claim that may not be read is already told as a missing permission."""
    if answer["status"] == 404:
        return [f"PersistentVolumeClaim {name} does not exist in namespace {namespace}: create it"], []
    if answer["status"] != 200:
        return [], []
    phase = answer["body"].get("status", {}).get("phase", "Pending")
    if phase == "Bound":
        return [], []
    if phase == "Pending" and answer["body"].get("spec", {}).get("storageClassName"):
        # Its class may bind it when the first pod is there; a Role cannot look at classes.
        return [], [f"PersistentVolumeClaim {name} is not bound yet; it may be when the first pod uses it"]
    return [f"PersistentVolumeClaim {name} is {phase}, not Bound: it needs a volume or a storage class"], []

"""What the service's identity must be allowed to do in its namespace.

The Role under ``manifests/`` grants exactly this. ``verify_cluster_connection`` asks the cluster for what is required,
a preflight for all.
"""

from typing import NamedTuple


class Permission(NamedTuple):
    """One verb on one resource, in the words of a Role."""

    group: str
    resource: str
    verb: str
    subresource: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {resource}/{self.subresource}" if self.subresource else f"{self.verb} {resource}"


def _verbs(group: str, resource: str, *verbs: str) -> list[Permission]:
    return [Permission(group, resource, verb) for verb in verbs]


REQUIRED_PERMISSIONS: tuple[Permission, ...] = (
    *_verbs("batch", "jobs", "get", "list", "create", "patch", "delete"),
    *_verbs("", "secrets", "get", "create", "patch", "delete"),
    *_verbs("", "configmaps", "get", "create", "patch", "delete"),
    *_verbs("", "pods", "list"),
    Permission("", "pods", "get", "log"),
    *_verbs("", "persistentvolumeclaims", "get"),
    *_verbs("", "namespaces", "get"),
)
"""``get`` on namespaces works by a Role too: a namespace counts as being inside itself."""

CREATE_PODS = Permission("", "pods", "create")
"""Only for dry runs: quotas, limit ranges and admission policies judge pods, not the Jobs that make them. It gives away
nothing, since who may create Jobs can create pods anyhow."""

LIST_EVENTS = Permission("", "events", "list")
"""What the API server said when it refused a Job's pod is in an event of the Job, and nowhere else."""

OPTIONAL_PERMISSIONS: dict[Permission, str] = {
    CREATE_PODS: "dry runs of pods",
    LIST_EVENTS: "the cluster's words where a Job gets no pod",
}
"""What evaluations run without, each with what is then missing."""

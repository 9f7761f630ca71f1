"""A second identity in the cluster, with the permissions of the service."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import Admin, kubeconfig_text

NAME = "budeval-e2e"


@contextmanager
def second_identity(admin: Admin) -> Iterator[str]:
    """A service account with the service's Role; the text of its kubeconfig. Gone afterwards, and its token with it."""
    remove(admin)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "budeval"},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": admin.namespace}],
    }
    try:
        admin.made({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}})
        admin.made(binding)
        yield kubeconfig_text(admin, NAME)
    finally:
        remove(admin)


def remove(admin: Admin) -> None:
    """Take the identity away; nothing happens where there is none."""
    admin.delete("RoleBinding", NAME)
    admin.delete("ServiceAccount", NAME)

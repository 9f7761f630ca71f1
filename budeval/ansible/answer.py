"""What budeval's action plugins have in common: arguments in, one answer or one reason out."""

from collections.abc import Callable
from typing import Any

from kubernetes.config import ConfigException

from budeval.ansible.cluster import Cluster, ClusterError


def answer(kubeconfig: str, question: Callable[[Cluster], dict[str, Any]]) -> dict[str, Any]:
    """The result of a task: ``answer`` with what the cluster said, or ``failed`` with why it did not."""
    try:
        return {"changed": False, "answer": question(Cluster(kubeconfig))}
    except (ConfigException, ValueError) as error:
        return {"failed": True, "msg": f"the kubeconfig cannot be used: {error}", "cluster_error": {"kind": "config"}}
    except ClusterError as error:
        kind = "status" if error.status else "connection"
        return {"failed": True, "msg": str(error), "cluster_error": {"kind": kind, "status": error.status}}

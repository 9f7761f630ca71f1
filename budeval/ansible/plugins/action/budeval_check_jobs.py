"""One sweep: all Jobs of budeval in a namespace with their pods."""

from collections.abc import Mapping
from typing import Any

from budeval.ansible.action import ClusterAction
from budeval.ansible.cluster import Cluster
from budeval.ansible.sweep import sweep


class ActionModule(ClusterAction):
    """See :func:`budeval.ansible.sweep.sweep`."""

    def ask(self, cluster: Cluster, args: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the cluster."""
        return sweep(cluster, args["namespace"], args["selector"])

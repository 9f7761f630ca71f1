"""Reads the log of a run from its newest pod."""

from collections.abc import Mapping
from typing import Any

from budeval.ansible.action import ClusterAction
from budeval.ansible.cluster import Cluster
from budeval.ansible.pod_logs import run_logs


class ActionModule(ClusterAction):
    """See :func:`budeval.ansible.pod_logs.run_logs`."""

    def ask(self, cluster: Cluster, args: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the cluster."""
        return run_logs(cluster, args["namespace"], args["job"], args["container"], args["read"], args["limit_bytes"])

"""Waits for the end of a Job and returns its log."""

from collections.abc import Mapping
from typing import Any

from budeval.ansible.action import ClusterAction
from budeval.ansible.cluster import Cluster
from budeval.ansible.pod_logs import finished_log


class ActionModule(ClusterAction):
    """See :func:`budeval.ansible.pod_logs.finished_log`."""

    def ask(self, cluster: Cluster, args: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the cluster."""
        return finished_log(cluster, args["namespace"], args["name"], args["limit_bytes"], args["timeout"])

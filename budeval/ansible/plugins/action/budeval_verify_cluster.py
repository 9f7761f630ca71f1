"""What a cluster says to all that an evaluation needs."""

from collections.abc import Mapping
from typing import Any

from budeval.ansible.action import ClusterAction
from budeval.ansible.cluster import Cluster
from budeval.ansible.surroundings import verify


class ActionModule(ClusterAction):
    """See :func:`budeval.ansible.surroundings.verify`."""

    def ask(self, cluster: Cluster, args: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the cluster."""
        return verify(cluster, args["namespace"], args["volume_claim"], args["permissions"])

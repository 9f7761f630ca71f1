"""Deletes what an evaluation has in a cluster."""

from collections.abc import Mapping
from typing import Any

from budeval.ansible.action import ClusterAction
from budeval.ansible.cluster import Cluster
from budeval.ansible.removal import remove


class ActionModule(ClusterAction):
    """See :func:`budeval.ansible.removal.remove`."""

    def ask(self, cluster: Cluster, args: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the cluster."""
        return remove(
            cluster,
            args["namespace"],
            args["selector"],
            args["only"],
            args["named"],
            args["timeout"],
            before=args.get("before"),
            pods=args.get("pods", False),
        )

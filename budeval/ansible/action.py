"""What the action plugins of the playbooks have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

from budeval.ansible.answer import answer
from budeval.ansible.cluster import Cluster


class ClusterAction(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """One question to a cluster, put in the playbook's own process: no module process, no file."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:  # noqa: ARG002 - Ansible's signature
        """The answer of the cluster that the task's ``kubeconfig`` names."""
        args = self._task.args
        return answer(args["kubeconfig"], lambda cluster: self.ask(cluster, args))

    @abstractmethod
    def ask(self, cluster: Cluster, args: Mapping[str, Any]) -> dict[str, Any]:
        """The answer, from the task's arguments."""

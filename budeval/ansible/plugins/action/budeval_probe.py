"""Starts a probe, and tells what it found out."""

from typing import Any

from ansible.plugins.action import ActionBase

from budeval.ansible.answer import answer
from budeval.ansible.preflight import probe


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """Runs in the playbook's own process: no module process, no file."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:  # noqa: ARG002 - Ansible's signature
        """The answer of the cluster."""
        args = self._task.args
        return answer(args["kubeconfig"], lambda cluster: probe(cluster, args["request"]))

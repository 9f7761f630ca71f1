"""Runs playbooks: the only door to ansible-runner."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from budeval.commons.settings import Settings


class PlaybookRunner:
    """Runs one playbook at a time in a private directory, a few of them at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(
        self,
        playbook: str,
        request: BaseModel | Mapping[str, Any],
        kubeconfig: str | None,
        *,
        timeout_seconds: float,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Run a playbook and bring back what it set as the statistic ``budeval``."""
        raise NotImplementedError

    def terminate_all(self) -> None:
        """End every playbook that runs, at once, and refuse new ones."""
        raise NotImplementedError

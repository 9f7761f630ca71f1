"""The service as its own ``main`` makes it, with a cluster of files (:mod:`tests.workflow.world`).

Usage: ``python -m tests.workflow.scripted_service DIRECTORY``; settings come from the environment as always.
"""

import sys
from pathlib import Path
from typing import Any, cast

from budeval.commons.logging import configure_logging
from budeval.commons.settings import get_settings
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.main import Server, create_app
from tests.workflow.world import ScriptedOrchestrator


def main() -> None:
    """Serves until SIGTERM."""
    settings = get_settings()
    configure_logging(settings.log_format, settings.log_level)
    servers: list[Server] = []
    orchestrator: Any = ScriptedOrchestrator(Path(sys.argv[1]), stopping=lambda: servers[0].should_exit)
    servers.append(Server(create_app(settings, cast("AnsibleOrchestrator", orchestrator)), settings))
    servers[0].run()


if __name__ == "__main__":
    main()

"""The service as its own ``main`` makes it, with a cluster of files (:mod:`tests.workflow.world`).

Usage: ``python -m tests.workflow.scripted_service DIRECTORY``; settings come from the environment as always.
"""

import sys
from pathlib import Path
from typing import Any, cast

import uvicorn

from budeval.commons.logging import configure_logging
from budeval.commons.settings import get_settings
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.main import GRACEFUL_SHUTDOWN_SECONDS, create_app
from tests.workflow.world import ScriptedOrchestrator


def main() -> None:
    """Serves until SIGTERM."""
    settings = get_settings()
    configure_logging(settings.log_format, settings.log_level)
    servers: list[uvicorn.Server] = []
    orchestrator: Any = ScriptedOrchestrator(Path(sys.argv[1]), stopping=lambda: servers[0].should_exit)
    config = uvicorn.Config(
        create_app(settings, cast("AnsibleOrchestrator", orchestrator)),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
    )
    servers.append(uvicorn.Server(config))
    servers[0].run()


if __name__ == "__main__":
    main()

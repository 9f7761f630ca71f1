"""Composition root: joins everything, starts it and ends it."""

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import SettingsError

from budeval import __version__
from budeval.access.authentication import Authenticator, authenticator_for
from budeval.ansible.runner import PlaybookRunner
from budeval.api.access import Gate, document_access, whoami_router
from budeval.api.attempts import attempts_router
from budeval.api.documentation import documentation_router
from budeval.api.health import Readiness, health_router
from budeval.api.links import document_links
from budeval.api.log_streams import LogStreams
from budeval.api.logs import logs_router
from budeval.api.methods import refuse_other_methods
from budeval.api.metrics import Metrics
from budeval.api.middleware import BodyLimit, RequestMetrics
from budeval.api.problem import add_problem_handlers, document_problems
from budeval.api.routes import evaluation_router
from budeval.api.streams import OpenStreams
from budeval.api.subscriptions import subscription_router
from budeval.commons.logging import configure_logging
from budeval.commons.sealing import Sealer
from budeval.commons.settings import Settings, StartRefused, get_settings, setting
from budeval.evals.activities import Activities
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.evals.inventory import InventoryKeeper
from budeval.evals.logs import RunLogs
from budeval.evals.notifications import Notifier
from budeval.evals.preflight import Preflight
from budeval.evals.publisher import DaprPublisher
from budeval.evals.pulse import Pulse
from budeval.evals.removal import EvaluationRemoval
from budeval.evals.results_processor import MountedResults, ResultsProcessor, Volume
from budeval.evals.runtime import Runtime, WorkflowClient
from budeval.evals.services import EvaluationService
from budeval.record import Record
from budeval.record.database import open_database
from budeval.record.outbox import Outbox

logger = logging.getLogger("budeval")

GRACEFUL_SHUTDOWN_SECONDS = 3
"""Seconds for requests in flight at SIGTERM; activities are ended at once and run again after the restart."""


class Application:
    """All parts of one service, joined."""

    def __init__(
        self,
        settings: Settings,
        orchestrator: AnsibleOrchestrator | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        """Raises :class:`StartRefused`; the database comes last, so that a start that is refused changes nothing."""
        self.authenticator = authenticator
        sealer = Sealer.from_settings(settings.sealing_keys, settings.sealing_keys_file)
        self.runner = PlaybookRunner(settings)
        orchestrator = orchestrator or AnsibleOrchestrator(settings, self.runner)
        mount = settings.results_mount
        if mount is not None:
            with setting("BUDEVAL_RESULTS_MOUNT"):
                os.scandir(mount).close()
        database = open_database(settings.database_url)
        self.database = database
        self.record = Record(database, sealer, settings.admission)
        self.outbox = Outbox(database)
        self.publisher = DaprPublisher(settings.pubsub_name, settings.notification_format)
        self.notifier = Notifier(self.outbox, self.publisher)
        volume: Volume = orchestrator if mount is None else MountedResults(mount, orchestrator)
        results = ResultsProcessor(volume)
        self.workflows = WorkflowClient()
        activities = Activities(settings, self.record, self.notifier, orchestrator, results, self.workflows)
        self.runtime = Runtime(activities, settings.workflow_workers)
        self.service = EvaluationService(self.record, self.workflows, self.notifier)
        self.logs = RunLogs(self.record, orchestrator, mount)
        self.log_streams = LogStreams(self.logs)
        self.removal = EvaluationRemoval(self.record, self.workflows, orchestrator, volume)
        self.preflight = Preflight(settings, orchestrator)
        self.inventory = InventoryKeeper(orchestrator, self.preflight, settings.dataset_refresh)
        self.pulse = Pulse(self.record, self.workflows, self.notifier)

    def start(self) -> None:
        """Answers at once, also when the sidecar is not there yet."""
        if self.authenticator is not None:
            self.authenticator.start()
        self.runtime.start()
        self.pulse.start()

    def stop(self) -> None:
        """Ends playbooks first: the worker waits for activities, and activities wait for playbooks."""
        self.runner.terminate_all()
        self.pulse.stop()
        self.runtime.shutdown()
        self.workflows.close()
        self.publisher.close()
        if self.authenticator is not None:
            self.authenticator.stop()
        self.database.dispose()


def create_app(settings: Settings, orchestrator: AnsibleOrchestrator | None = None) -> FastAPI:
    """The service as an ASGI application; ``orchestrator`` is for tests without a cluster.

    Raises :class:`StartRefused` where the settings would let in anybody, or nobody, or name what cannot be used.
    """
    authenticator = authenticator_for(settings)
    joined = Application(settings, orchestrator, authenticator)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        joined.start()
        yield
        joined.stop()
        logger.info("stopped")

    app = FastAPI(
        title="budeval",
        version=__version__,
        summary="Durable LLM evaluations on Kubernetes",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.open_streams = OpenStreams()
    metrics = Metrics(joined.record, joined.outbox)
    app.add_middleware(BodyLimit, maximum_bytes=settings.maximum_body_bytes)
    app.add_middleware(Gate, authenticator=authenticator, settings=settings, refused=metrics.refused)
    app.add_middleware(RequestMetrics, histogram=metrics.requests)
    add_problem_handlers(app)
    app.include_router(evaluation_router(joined.service, settings.monitor, joined.preflight, joined.inventory))
    app.include_router(logs_router(joined.logs, joined.log_streams))
    app.include_router(attempts_router(joined.service, joined.removal))
    app.include_router(subscription_router(joined.service, settings))
    app.include_router(whoami_router())
    app.include_router(documentation_router())
    app.include_router(health_router(Readiness(settings, joined.record, joined.runtime, authenticator)))
    app.include_router(metrics.router())
    document_problems(app)
    if authenticator is not None:
        document_access(app)
    document_links(app)
    refuse_other_methods(app)
    return app


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, and then ends open streams before it waits for what is in flight."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        )
        super().__init__(config)
        self._streams: OpenStreams = app.state.open_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once, on the event loop."""
        self._streams.end()
        await super().shutdown(sockets)


def main() -> None:
    """Serves until SIGTERM or SIGINT; ends at once, and says why, where the settings are not good."""
    try:
        settings = get_settings()
        configure_logging(settings.log_format, settings.log_level)
        app = create_app(settings)
    except (ValidationError, SettingsError, StartRefused) as error:
        raise SystemExit(f"budeval does not start: {_why(error)}") from error
    Server(app, settings).run()


def _why(error: Exception) -> str:
    """In words that name the variables, but show no value: it may be a secret."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{_variable(problem['loc'])}: {problem['msg']}" for problem in error.errors(include_url=False))


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]).upper()
    return name if name.startswith(("APP_", "DAPR_")) else f"BUDEVAL_{name}"

import logging
import threading
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, text

from budeval.commons.errors import SidecarUnavailable
from budeval.commons.sealing import Sealer
from budeval.commons.settings import Settings
from budeval.commons.wire import workflow_instance_id
from budeval.evals.models import EvaluationInput
from budeval.main import create_app
from budeval.record import Record
from budeval.record.database import open_database

MAXIMUM_BODY_BYTES = 100_000
START_SECONDS = 10


BOTH_DATABASES = ("sqlite", "postgresql")


class RecordingWorkflows:
    """Stands where daprd would be: remembers what it was asked for."""

    def __init__(self) -> None:
        self.scheduled: list[EvaluationInput] = []
        self.events: list[tuple[str, str]] = []
        self.purged: list[str] = []
        self.away = False

    def schedule(self, evaluation: EvaluationInput) -> None:
        self._answer()
        if evaluation not in self.scheduled:
            self.scheduled.append(evaluation)

    def status(self, instance_id: str) -> str | None:
        self._answer()
        known = [workflow_instance_id(item.eval_id, item.attempt) for item in self.scheduled]
        return "RUNNING" if instance_id in known else None

    def raise_event(self, instance_id: str, event: str) -> None:
        self._answer()
        self.events.append((instance_id, event))

    def purge(self, instance_id: str) -> None:
        self._answer()
        self.purged.append(instance_id)

    def close(self) -> None:
        """Nothing to close."""

    def _answer(self) -> None:
        if self.away:
            raise SidecarUnavailable("nobody answers")


class Service:
    """The service behind a real HTTP server, and what it did."""

    def __init__(self, client: httpx.Client, settings: Settings, workflows: RecordingWorkflows) -> None:
        self.client = client
        self.workflows = workflows
        self.database = create_engine(settings.database_url)
        self.record = Record(self.database, Sealer.from_settings(settings.sealing_keys, None))

    def start(self, body, **options) -> httpx.Response:
        return self.client.post("/evals/start", json=body, **options)

    def created(self) -> SimpleNamespace:
        """What there is: evaluations in the record, and scheduled workflows."""
        with self.database.connect() as connection:
            rows = connection.execute(text("SELECT eval_id FROM evaluations")).scalars().all()
        return SimpleNamespace(evaluations=list(rows), scheduled=[item.eval_id for item in self.workflows.scheduled])


@pytest.fixture(scope="module")
def serve(new_database, tmp_path_factory):
    """Starts services, each with an empty record."""
    running, databases = [], []

    def open_and_remember(url):
        databases.append(open_database(url))
        return databases[-1]

    def start(orchestrator=None, **changes) -> Service:
        directory = tmp_path_factory.mktemp("service")
        settings = Settings(
            database_url=new_database(),
            sealing_keys=Fernet.generate_key().decode(),
            maximum_body_bytes=MAXIMUM_BODY_BYTES,
            playbook_run_dir=directory / "runs",
            **changes,
        )
        workflows = RecordingWorkflows()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("budeval.main.WorkflowClient", lambda: workflows)
            patch.setattr("budeval.main.open_database", open_and_remember)
            app = create_app(settings, orchestrator)
        config = uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        base_url = f"http://127.0.0.1:{_port(server, thread)}"
        service = Service(httpx.Client(base_url=base_url, timeout=20, trust_env=False), settings, workflows)
        running.append((service, server, thread))
        return service

    yield start
    for service, server, _ in running:
        service.client.close()
        service.database.dispose()
        server.should_exit = True
    for _, _, thread in running:
        thread.join(timeout=20)
        assert not thread.is_alive()
    # Without a lifespan nobody else does, and there are more services than file descriptors.
    for database in databases:
        database.dispose()


def _port(server: uvicorn.Server, thread: threading.Thread) -> int:
    started = threading.Event()
    for _ in range(START_SECONDS * 100):
        if server.started:
            return int(server.servers[0].sockets[0].getsockname()[1])
        assert thread.is_alive(), "the server ended before it served"
        started.wait(0.01)
    raise AssertionError(f"the server did not start within {START_SECONDS} s")


@pytest.fixture(scope="module")
def shared(serve) -> Service:
    """One service for all tests of a module that create nothing."""
    return serve()


@pytest.fixture
def service(serve) -> Service:
    """A service of the test's own."""
    return serve()


@pytest.fixture
def refusing(shared, caplog):
    """The shared service; checks that the test created nothing and that no secret went into the log."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpcore", "httpx", "asyncio"):
        caplog.set_level(logging.WARNING, logger=name)
    yield shared
    assert (shared.created().evaluations, shared.created().scheduled) == ([], [])
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if "canary" in text] == []

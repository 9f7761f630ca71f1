"""What holds for all tests."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from budeval.record import Record
from budeval.record.database import open_database
from budeval.record.outbox import Outbox
from tests.postgresql import PORT, running_postgresql
from tests.samples import a_sealer

pytest_plugins = ["tests.scripted_logs"]
STACK_LANE = ("e2e", "playbooks", "stack")
"""Folders whose tests share the local stack, and take turns."""
OPEN_SERVICE = {"BUDEVAL_ACCESS": "off", "BUDEVAL_RATE_LIMIT": "none"}
"""Services are for everybody on this machine, as often as they like, but where a test is about just that."""


@pytest.fixture(autouse=True, scope="session")
def open_service() -> Iterator[None]:
    """In the environment: services that are processes of their own find it there too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OPEN_SERVICE.items():
            patch.setenv(name, value)
        yield


# A shell has what it runs in the background ignore it, and every process that the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Lanes(LoadScopeScheduling):
    """What shares something runs one after the other, in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return _lane(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Lanes | None:
    """``--dist loadscope`` means lanes."""
    return Lanes(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest lane starts first."""
    items.sort(key=lambda item: _lane(item.nodeid) != "stack")


def _lane(nodeid: str) -> str:
    folder = nodeid.split("/")[1]
    return "stack" if folder in STACK_LANE else folder


@pytest.fixture(scope="session")
def postgresql(worker_id: str):
    """One PostgreSQL server for all tests of a lane that need one."""
    port = PORT + int(worker_id.removeprefix("gw").replace("master", "0"))
    # Not under tmp_path: that directory belongs to the user of the tests alone, and the server is another one.
    with (
        tempfile.TemporaryDirectory(prefix="budeval-postgresql-") as directory,
        running_postgresql(Path(directory), port) as server,
    ):
        yield server


@pytest.fixture
def database(database_url):
    """The empty database of a test, whose directory says by ``database_url`` which one."""
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def record(database):
    return Record(database, a_sealer())


@pytest.fixture
def outbox(database):
    return Outbox(database)


def pytest_generate_tests(metafunc):
    """A module with ``DATABASES`` runs on each kind."""
    kinds = getattr(metafunc.module, "DATABASES", None)
    if kinds and "new_database" in metafunc.fixturenames:
        metafunc.parametrize("new_database", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def new_database(request, tmp_path_factory):
    """Makes empty databases, and answers the URL of each."""
    if getattr(request, "param", "sqlite") == "postgresql":
        return request.getfixturevalue("postgresql").another
    return lambda: f"sqlite:///{tmp_path_factory.mktemp('record')}/record.sqlite"

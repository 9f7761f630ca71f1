"""What holds for all tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from budeval.record import Record
from budeval.record.database import open_database
from budeval.record.outbox import Outbox
from tests.postgresql import running_postgresql
from tests.samples import a_sealer

pytest_plugins = ["tests.scripted_logs"]
OPEN_SERVICE = {"BUDEVAL_ACCESS": "off", "BUDEVAL_RATE_LIMIT": "none"}
"""Services are for everybody on this machine, as often as they like, but where a test is about just that."""


@pytest.fixture(autouse=True, scope="session")
def open_service() -> Iterator[None]:
    """In the environment: services that are processes of their own find it there too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OPEN_SERVICE.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def postgresql():
    """One PostgreSQL server for all tests that need one."""
    # Not under tmp_path: that directory belongs to the user of the tests alone, and the server is another one.
    with (
        tempfile.TemporaryDirectory(prefix="budeval-postgresql-") as directory,
        running_postgresql(Path(directory)) as server,
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

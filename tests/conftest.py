import tempfile
from pathlib import Path

import pytest

from tests.postgresql import running_postgresql


@pytest.fixture(scope="session")
def postgresql():
    """One PostgreSQL server for all tests that need one."""
    # Not under tmp_path: that directory belongs to the user of the tests alone, and the server is another one.
    with (
        tempfile.TemporaryDirectory(prefix="budeval-postgresql-") as directory,
        running_postgresql(Path(directory)) as server,
    ):
        yield server


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

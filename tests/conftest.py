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

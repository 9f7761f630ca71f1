"""Settings of a stack that lives in a temporary folder."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.settings import Settings, load_settings


@pytest.fixture
def settings() -> Iterator[Settings]:
    # pytest's own folders have names too long for sockets.
    with tempfile.TemporaryDirectory() as folder:
        yield load_settings({"BUDEVAL_STATE_DIR": folder, "BUDEVAL_CACHE": str(Path(folder) / "cache")})

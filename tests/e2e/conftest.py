"""The whole system, once for all end-to-end tests."""

from collections.abc import Iterator

import pytest

from tests.e2e.system import System


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The local stack with the service and a subscriber; afterwards as it was found."""
    with System(tmp_path_factory.mktemp("e2e")).running() as running:
        yield running

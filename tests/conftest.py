"""What holds for all tests."""

from collections.abc import Iterator

import pytest

OPEN_SERVICE = {"BUDEVAL_ACCESS": "off", "BUDEVAL_RATE_LIMIT": "none"}
"""Services are for everybody on this machine, as often as they like, but where a test is about just that."""


@pytest.fixture(autouse=True, scope="session")
def open_service() -> Iterator[None]:
    """In the environment: services that are processes of their own find it there too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OPEN_SERVICE.items():
            patch.setenv(name, value)
        yield

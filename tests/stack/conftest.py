"""Stacks with a folder and ports of their own beside the one in use, so that a test may kill and remove them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.second_stack import SecondStack


def make_stack(port_base: int) -> Iterator[SecondStack]:
    # Not pytest's own folder: its long names would not leave room for the sockets.
    stack = SecondStack(Path(tempfile.mkdtemp(prefix="budeval-")), port_base)
    try:
        yield stack
    finally:
        stack.dev("down")
        shutil.rmtree(stack.state)


@pytest.fixture(scope="session")
def second_stack() -> Iterator[SecondStack]:
    """A stack that is up; tests may kill parts of it, not take it down."""
    for stack in make_stack(port_base=20000):
        stack.up()
        yield stack


@pytest.fixture
def doomed_stack() -> Iterator[SecondStack]:
    """A stack that is not up yet and may be destroyed."""
    yield from make_stack(port_base=21000)

"""One set of real processes for all workflow tests."""

import json
from collections.abc import Iterator

import pytest

from tests.dapr_harness import DaprParts
from tests.workflow.stack import Stack

PORT_BASE = 14000
KUBECONFIG_TOKEN = "canary-token-7d41aa90c3"


@pytest.fixture(scope="session")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Started once; no part is left after the session."""
    stack = Stack(DaprParts(tmp_path_factory.mktemp("dapr"), PORT_BASE))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def stack(running_stack: Stack) -> Stack:
    """All parts up and a cluster that behaves, whatever the test before did."""
    running_stack.world.calm()
    running_stack.start()
    return running_stack


@pytest.fixture
def kubeconfig() -> str:
    """A kubeconfig whose token is a canary; nobody listens where it points to."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": "https://127.0.0.1:14097"}}],
            "users": [{"name": "test", "user": {"token": KUBECONFIG_TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
    )

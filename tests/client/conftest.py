from contextlib import ExitStack

import pytest

from budeval.client import Client
from tests.api.conftest import serve, service, shared
from tests.client.service import CuttingProxy, http_server, url_of

__all__ = ["serve", "service", "shared"]


@pytest.fixture
def client(service):
    with Client(url_of(service), patience=20) as client:
        yield client


@pytest.fixture
def proxy(service):
    proxy = CuttingProxy(url_of(service))
    yield proxy
    proxy.close()


@pytest.fixture
def answering():
    """Starts servers that give one answer to everybody who asks."""
    with ExitStack() as servers:

        def start(status, body):
            def answer(handler):
                code, _, phrase = status.partition(" ")
                handler.send_response(int(code), phrase)
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            return servers.enter_context(http_server(answer))

        yield start

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from budeval.client import Client
from tests.api.conftest import serve, service, shared
from tests.client.service import CuttingProxy, url_of

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
    started = []

    def start(status, body):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                code, _, phrase = status.partition(" ")
                self.send_response(int(code), phrase)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                """Says nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

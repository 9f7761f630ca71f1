"""SIGTERM to a real process with open streams: it stops at once, and its listeners go on with the next one."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from types import SimpleNamespace

import httpx
import pytest
from cryptography.fernet import Fernet

from budeval.commons.sealing import Sealer
from budeval.record import Record
from budeval.record.database import open_database
from tests.api.test_events import Listener, happens
from tests.samples import EVAL_ID, SECRETS, an_evaluation, job_names

LISTENERS = 50
START_SECONDS = 30
STOP_SECONDS = 1.5
GRACE_SECONDS = 3
"""For an answer whose client does not read."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Process:
    """The service as ``python -m budeval`` starts it, without a sidecar, and its record."""

    def __init__(self, directory):
        self.port, key = free_port(), Fernet.generate_key().decode()
        self.client = SimpleNamespace(base_url=httpx.URL(f"http://127.0.0.1:{self.port}"))
        self._log = directory / "service.log"
        self._environment = {
            "PATH": os.defpath,
            "BUDEVAL_PORT": str(self.port),
            "BUDEVAL_ACCESS": "off",
            "BUDEVAL_DATABASE_URL": f"sqlite:///{directory}/record.sqlite",
            "BUDEVAL_SEALING_KEYS": key,
            "BUDEVAL_PLAYBOOK_RUN_DIR": str(directory / "runs"),
            "DAPR_GRPC_PORT": str(free_port()),
            "DAPR_HTTP_PORT": str(free_port()),
        }
        self.database = open_database(self._environment["BUDEVAL_DATABASE_URL"])
        self.record = Record(self.database, Sealer([key]))

    @contextmanager
    def running(self):
        """Starts it, and ends it whatever happened."""
        with self._log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "budeval"], env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            self._wait_alive(process)
            yield process
        finally:
            process.kill()
            process.wait(10)

    def _wait_alive(self, process):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(f"{self.client.base_url}/livez", timeout=2).raise_for_status()
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(self._log.read_text())


@pytest.fixture
def service(tmp_path):
    process = Process(tmp_path)
    evaluation = an_evaluation()
    assert process.record.create(evaluation, SECRETS, b"", job_names(evaluation), "tester")
    yield process
    process.database.dispose()


def stop(process):
    """Seconds from SIGTERM to its end."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    return time.monotonic() - began


def test_open_streams_end_at_once_and_who_comes_back_to_the_next_instance_misses_nothing(service):
    with service.running() as first, ExitStack() as connections:
        listeners = [connections.enter_context(closing(Listener(service))) for _ in range(LISTENERS)]
        happens(service, "before")
        assert [[sequence for sequence, _ in listener.take(2)] for listener in listeners] == [[1, 2]] * LISTENERS
        assert stop(first) < STOP_SECONDS
        # Each was ended as an answer ends, not cut: nothing came behind what was heard, and nothing is half a frame.
        assert [list(listener.frames()) for listener in listeners] == [[]] * LISTENERS
    happens(service, "away")
    with service.running() as second, closing(Listener(service, last_event_id=2)) as again:
        happens(service, "back")
        assert again.take(2) == [(3, "away"), (4, "back")]
        assert stop(second) < STOP_SECONDS


def test_a_listener_who_does_not_read_does_not_keep_the_service_from_stopping(service):
    with service.running() as process, closing(Listener(service)):
        happens(service, *(f"{number} {'x' * 1900}" for number in range(2000)))
        time.sleep(1)
        assert stop(process) < STOP_SECONDS + GRACE_SECONDS


def test_followed_logs_end_at_once_too(service):
    url = f"{service.client.base_url}/evals/{EVAL_ID}/runs/run-a/logs"
    with service.running() as process, httpx.stream("GET", url, params={"follow": True}, timeout=10) as response:
        assert response.status_code == 200
        assert stop(process) < STOP_SECONDS
        # As an answer ends, not cut.
        assert response.read() == b""

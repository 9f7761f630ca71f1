"""The real service on a real port, and what happens to its evaluations."""

import socket
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.models import ErrorInfo, RunResult, Score
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.models import JobState, Progress

STARTED = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)


def url_of(service):
    """The base URL of a service of ``tests.api.conftest``."""
    return str(service.client.base_url).rstrip("/")


def progress(service, eval_id, done, total=48):
    """Every run has answered ``done`` questions."""
    service.record.step(eval_id, Event.MONITOR, WorkflowStatus.RUNNING, "following")
    told = Progress(phase="inference", done=done, total=total)
    updates = [RunUpdate(run_id=run, status=JobState.RUNNING, progress=told, started_at=STARTED)
               for run in run_ids(service, eval_id)]  # fmt: skip
    service.record.update_runs(eval_id, updates, eta_minutes=7)


def complete(service, eval_id, score=35.42):
    """Every run has a score, and the evaluation ends well."""
    results = [
        RunResult(
            run_id=run,
            scores=[Score(dataset="siqa", version="18632c", metric="accuracy", mode="gen", score=score)],
            start_time=STARTED,
            completion_time=STARTED,
            duration_seconds=0,
        )
        for run in run_ids(service, eval_id)
    ]
    service.record.save_results(eval_id, results)
    service.record.finish(eval_id, WorkflowStatus.COMPLETED)


def fail(service, eval_id):
    """The evaluation ends without a score."""
    error = ErrorInfo(
        reason="EndpointUnauthorized", message="the endpoint refused the key", resolution="Check api_key."
    )
    service.record.save_results(eval_id, [RunResult(run_id=run, error=error) for run in run_ids(service, eval_id)])
    service.record.finish(eval_id, WorkflowStatus.FAILED, error)


def run_ids(service, eval_id):
    return [run.run_id for run in service.record.view(eval_id).runs]


class CuttingProxy:
    """Stands between a client and a service, and cuts every connection when it is told to."""

    def __init__(self, url):
        host, _, port = url.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets = []
        self.connections = 0
        self.requests = b""
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self):
        """Ends all connections as a network does: without a word."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(timeout=5)
            assert not thread.is_alive()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target, timeout=5)
                far.settimeout(None)
                with self._lock:
                    self.connections += 1
                    self._sockets += [near, far]
                for source, target, heard in ((near, far, True), (far, near, False)):
                    self._threads.append(threading.Thread(target=self._forward, args=(source, target, heard)))
                    self._threads[-1].start()

    def _forward(self, source, target, heard):
        with suppress(OSError):
            while chunk := source.recv(65536):
                if heard:
                    self.requests += chunk
                target.sendall(chunk)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def http_server(get):
    """A server that answers each GET by ``get(handler)``; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            get(self)

        def log_message(self, *arguments):
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

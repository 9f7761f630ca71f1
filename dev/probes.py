"""Readiness: each probe either returns or raises `NotReady` with what it saw."""

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from dev.errors import NotReady, StackError

Probe = Callable[[], None]

PROBE_TIMEOUT_SECONDS = 2.0
POLL_SECONDS = 0.1
HOST = "127.0.0.1"


def wait_until(probe: Probe, timeout: float, what: str, alive: Probe | None = None) -> None:
    """Poll until `probe` passes.

    Args:
        timeout: seconds to wait at most.
        alive: raises StackError as soon as waiting is hopeless.

    Raises:
        StackError: it did not get ready in time; the message says what was seen last.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            probe()
        except NotReady as seen:
            if time.monotonic() > deadline:
                raise StackError(f"{what} is not ready after {timeout:.0f} s: {seen}") from seen
        else:
            return
        if alive is not None:
            alive()
        time.sleep(POLL_SECONDS)


def passes(probe: Probe) -> bool:
    """Whether the probe passes right now."""
    try:
        probe()
    except NotReady:
        return False
    return True


def tcp(port: int) -> Probe:
    """Somebody accepts connections on this port of 127.0.0.1."""

    def probe() -> None:
        try:
            socket.create_connection((HOST, port), PROBE_TIMEOUT_SECONDS).close()
        except OSError as error:
            raise NotReady(f"port {port}: {error}") from error

    return probe


def unix(path: Path) -> Probe:
    """Somebody accepts connections on this socket."""

    def probe() -> None:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PROBE_TIMEOUT_SECONDS)
                client.connect(str(path))
        except OSError as error:
            raise NotReady(f"socket {path}: {error}") from error

    return probe


def redis(port: int) -> Probe:
    """A Redis server answers PING (it may still be loading its file)."""

    def probe() -> None:
        try:
            with socket.create_connection((HOST, port), PROBE_TIMEOUT_SECONDS) as client:
                client.sendall(b"PING\r\n")
                answer = client.recv(64)
        except OSError as error:
            raise NotReady(f"port {port}: {error}") from error
        if not answer.startswith(b"+PONG"):
            raise NotReady(f"port {port} answers {answer!r}")

    return probe


def http_ok(port: int, path: str, tls: Callable[[], ssl.SSLContext] | None = None) -> Probe:
    """GET of this path answers with a 2xx status."""

    def probe() -> None:
        if tls is None:
            connection = http.client.HTTPConnection(HOST, port, timeout=PROBE_TIMEOUT_SECONDS)
        else:
            connection = http.client.HTTPSConnection(HOST, port, timeout=PROBE_TIMEOUT_SECONDS, context=tls())
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(200).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise NotReady(f"port {port}: {error}") from error
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise NotReady(f"{path} on port {port} answers {answer.status}: {' '.join(body.split())}")

    return probe


def unverified() -> ssl.SSLContext:
    """TLS to a part that makes its own certificate at every start; used for health pages on 127.0.0.1 only."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def verified(authority: Path, certificate: Path, key: Path) -> Callable[[], ssl.SSLContext]:
    """TLS with the stack's own authority and a client certificate."""

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority))
        made.load_cert_chain(certificate, key)
        return made

    return context

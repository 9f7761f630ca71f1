"""What only a real connection shows: redirects, certificates, proxies, answers that never end."""

import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from budeval_engine import endpoint
from budeval_engine.endpoint import Completion, EndpointClient, QuestionRefused
from budeval_engine.outcome import EngineError, Reason
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

KEY = "sk-canary-of-a-key"
ANSWER = b'{"choices": [{"finish_reason": "stop", "message": {"content": "A"}}]}'

Handle = Callable[[BaseHTTPRequestHandler], None]


class Host:
    """A host on 127.0.0.1 that notes the first line and the key of every request."""

    def __init__(self, server: ThreadingHTTPServer, scheme: str) -> None:
        self.url = f"{scheme}://127.0.0.1:{server.server_port}/v1"
        self.asked: list[tuple[str, str | None]] = []


Serve = Callable[..., Host]


@contextmanager
def _serving(handle: Handle, context: ssl.SSLContext | None) -> Iterator[Host]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            host.asked.append((self.path, self.headers["Authorization"]))
            handle(self)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of clients that went away, which is what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    host = Host(server, "https" if context else "http")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda handle, context=None: stack.enter_context(_serving(handle, context))


def send(request: BaseHTTPRequestHandler, status: int = 200, body: bytes = ANSWER, **headers: str) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def ask(base: str, *, timeout: float = 10.0) -> Completion:
    with closing(EndpointClient(base, "m", KEY, timeout=timeout, retries=0)) as client:
        return client.complete(client.request([{"role": "user", "content": "Q"}], max_tokens=3, temperature=0.0))


def reason_of(base: str, *, timeout: float = 10.0) -> tuple[Reason, str]:
    with pytest.raises(EngineError) as caught:
        ask(base, timeout=timeout)
    return caught.value.reason, caught.value.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_does_not_carry_the_key_to_another_host(serve: Serve, status: int) -> None:
    other = serve(send)
    here = serve(lambda request: send(request, status, b"", Location=f"{other.url}/chat/completions"))
    reason, message = reason_of(here.url)
    assert (reason, str(status) in message) == (Reason.INVALID_CONFIGURATION, True)
    assert len(here.asked) == 1
    assert other.asked == []


@pytest.mark.parametrize("piece", [b" ", b'data: {"choices": []}\n\n'], ids=["dribbles", "streams"])
def test_an_answer_that_never_ends_is_given_up_when_the_time_for_one_answer_is_over(serve: Serve, piece: bytes) -> None:
    over = threading.Event()

    def without_end(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        while not over.wait(0.05):
            request.wfile.write(piece)

    try:
        reason, message = reason_of(serve(without_end).url, timeout=1.0)
    finally:
        over.set()
    assert reason is Reason.ENDPOINT_UNREACHABLE
    assert "did not answer in time" in message


def test_a_huge_answer_is_refused_before_it_is_read(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_TOO_LARGE", 100_000)
    sent: list[int] = []

    def flood(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        for _ in range(100_000):
            request.wfile.write(b" " * 100_000)
            sent.append(1)

    with pytest.raises(QuestionRefused, match="larger than"):
        ask(serve(flood).url)
    assert len(sent) < 1000


@pytest.mark.parametrize("charset", ["hex", "utf-16", "zlib", "nonsense"])
def test_an_answer_is_utf_8_whatever_its_header_says(serve: Serve, charset: str) -> None:
    kind = f"application/json; charset={charset}"
    assert ask(serve(lambda request: send(request, **{"Content-Type": kind})).url).text == "A"


def test_a_dropped_connection_is_an_endpoint_that_can_not_be_reached(serve: Serve) -> None:
    def drop(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(ANSWER[:20])
        request.close_connection = True

    assert reason_of(serve(drop).url)[0] is Reason.ENDPOINT_UNREACHABLE


@pytest.mark.parametrize("host", ["a..b", ".a", f"{'a' * 64}.b", "xn--a.b"])
def test_a_host_name_that_can_not_be_is_told_as_such(host: str) -> None:
    reason, message = reason_of(f"http://{host}/v1")
    assert reason in {Reason.INVALID_CONFIGURATION, Reason.ENDPOINT_UNREACHABLE}
    assert "endpoint" in message


def test_as_many_questions_are_asked_at_once_as_there_are_threads(serve: Serve) -> None:
    together = threading.Barrier(130)

    def when_all_are_here(request: BaseHTTPRequestHandler) -> None:
        together.wait(20)
        send(request)

    base = serve(when_all_are_here).url
    with closing(EndpointClient(base, "m", KEY, timeout=15, retries=0)) as client, ThreadPoolExecutor(130) as pool:
        request = client.request([{"role": "user", "content": "Q"}], max_tokens=3, temperature=0.0)
        assert {answer.text for answer in pool.map(lambda _: client.complete(request), range(130))} == {"A"}


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that nobody knows, and a server's end with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "of one's own")])
    now = dt.datetime.now(dt.UTC)
    later = now + dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, later)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, tmp_path / "key.pem")
    return file, context


def test_a_certificate_that_nobody_vouches_for_gets_no_key(
    serve: Serve, authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    host = serve(send, authority[1])
    reason, message = reason_of(host.url)
    assert (reason, "certificate" in message) == (Reason.ENDPOINT_UNREACHABLE, True)
    assert host.asked == []


def test_an_authority_of_ones_own_is_trusted_where_ssl_cert_file_names_it(
    serve: Serve, authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    assert ask(serve(send, authority[1]).url).text == "A"


def test_a_proxy_of_the_environment_is_used_except_where_no_proxy_says_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, model = serve(send), serve(send)
    monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert ask("http://model.invalid/v1").text == ask(model.url).text == "A"
    assert [path for path, _ in proxy.asked] == ["http://model.invalid/v1/chat/completions"]
    assert [path for path, _ in model.asked] == ["/v1/chat/completions"]

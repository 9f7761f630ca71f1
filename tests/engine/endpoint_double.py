"""An OpenAI-compatible endpoint on 127.0.0.1 that behaves as a test wants, and remembers what it was asked."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROBE = "Hello"
"""What the engine asks before it begins; not a question of any data set."""


@dataclass(frozen=True)
class Reply:
    """One HTTP answer; no status means that the connection is closed without one."""

    status: int | None = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(text: str | None, *, finish: str = "stop", tokens: int | None = 3) -> Reply:
    """A chat completion."""
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    return Reply(body=json.dumps({"object": "chat.completion", "choices": [choice], **usage}))


def error(status: int, message: str) -> Reply:
    """An error as OpenAI words it."""
    return Reply(status, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}))


@dataclass(frozen=True)
class Asked:
    """One request."""

    number: int
    """Counts the questions from 1, the probe apart, which is 0."""
    text: str
    """The last message."""
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    """Names in lower case."""


Behaviour = Callable[[Asked], Reply]


class EndpointDouble:
    """The endpoint; set `behave` to make it misbehave."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[Asked] = []
        self.answered: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """The base that an OpenAI client takes."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def questions(self) -> list[Asked]:
        """The requests without the probes."""
        return [asked for asked in self.requests if asked.number]

    @contextmanager
    def serving(self) -> Iterator["EndpointDouble"]:
        """Serve while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def reply(self, path: str, headers: Mapping[str, str], raw: bytes) -> Reply:
        """Note a request and answer it."""
        if path != "/v1/chat/completions":
            return error(404, f"no such path {path}")
        body = json.loads(raw)
        text = body["messages"][-1]["content"]
        with self._lock:
            number = 0 if text == PROBE else len(self.questions) + 1
            asked = Asked(number, text, body, headers)
            self.requests.append(asked)
        reply = self.behave(asked)
        with self._lock:
            self.answered[text] += reply.status == 200
        return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                reply = double.reply(self.path, {name.lower(): value for name, value in self.headers.items()}, raw)
                if reply.status is None:
                    self.close_connection = True
                    return
                content = reply.body.encode()
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                # Whoever asked may have been killed meanwhile.
                with suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Say nothing."""

        return Handler

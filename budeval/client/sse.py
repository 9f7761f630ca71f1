"""Server-sent events, read as the HTML standard has them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MAXIMUM_LINE_BYTES = 1_048_576


class MalformedStream(ValueError):
    """What arrives is no event stream."""


@dataclass
class ServerSentEvent:
    """One event, complete."""

    id: str = ""
    """The last id that the stream named so far."""
    event: str = "message"
    data: str = ""


@dataclass
class EventParser:
    """From bytes to events; keeps what a client needs to resume."""

    last_event_id: str = ""
    retry_seconds: float | None = None
    """How long the server wants a client to wait before it comes again."""
    _pending: bytes = b""
    _event: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str | None = None

    def parse(self, chunks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
        """Yields each event as soon as it is complete; what is incomplete at the end is dropped."""
        self._pending, self._event, self._data, self._id = b"", "", [], None
        for chunk in chunks:
            for line in self._lines(chunk):
                event = self._take(line)
                if event:
                    yield event

    def _lines(self, chunk: bytes) -> list[str]:
        # Not httpx' lines nor splitlines(): these also split at characters that may stand inside of data.
        text = self._pending + chunk
        held = b"\r" if text.endswith(b"\r") else b""
        # The other half of a CRLF may still be on its way.
        text = text.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._pending = rest + held
        if len(rest) > MAXIMUM_LINE_BYTES:
            raise MalformedStream(f"a line of more than {MAXIMUM_LINE_BYTES} bytes")
        return [line.decode("utf-8", "replace") for line in lines]

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_seconds = int(value) / 1000
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        if self._id is not None:
            self.last_event_id = self._id
        event, data = self._event, self._data
        self._event, self._data, self._id = "", [], None
        return ServerSentEvent(self.last_event_id, event or "message", "\n".join(data)) if data else None

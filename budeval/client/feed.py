"""The stream of events of one evaluation: connects again where it broke, and goes on where it stopped."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

import httpx
from pydantic import ValidationError

from budeval.client.errors import (
    BudevalClientError,
    ServerFailed,
    TooManyRequests,
    UnexpectedAnswer,
    Unreachable,
    problem_error,
)
from budeval.client.models import TimelineEntry
from budeval.client.sse import EventParser, MalformedStream, ServerSentEvent

SILENCE_SECONDS = 45.0
"""Three of the service's signs of life: a stream that is silent for so long is broken."""
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0
TEMPORARY = (Unreachable, ServerFailed, TooManyRequests)
"""Errors that may be gone a moment later."""
END_KIND = "end"


class EventFeed:
    """Reads the events of ``path`` until their end, also when the connection breaks; may be closed by another thread.

    ``patience``: seconds that the service may be away. ``eager``: where it is away from the first, that is an error.
    """

    def __init__(
        self,
        http: httpx.Client,
        path: str,
        patience: float,
        last_event_id: str = "",
        *,
        query: Mapping[str, str] | None = None,
        eager: bool = False,
    ) -> None:
        self._http = http
        self._path = path
        self._query = query or {}
        self._patience = patience
        self._eager = eager
        self._parser = EventParser(last_event_id)
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self._told_end = False
        self._heard = time.monotonic()

    def close(self) -> None:
        """Ends the stream, also while another thread waits for it."""
        self._closed.set()
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def entries(self, ended: Callable[[], bool]) -> Iterator[TimelineEntry]:
        """The events as entries of a timeline; see :meth:`events`."""
        for event in self.events(ended):
            yield self._entry(event.data)

    def events(self, ended: Callable[[], bool]) -> Iterator[ServerSentEvent]:
        """What happens; ``ended`` tells whether all has been told, where a stream has ended without saying so."""
        wait, last_round = FIRST_WAIT_SECONDS, False
        while not self._closed.is_set():
            try:
                for event in self._connection():
                    wait = FIRST_WAIT_SECONDS
                    self._told_end = self._told_end or event.event == END_KIND
                    yield event
                if self._told_end or last_round:
                    return
                # What was told between the end of the stream and this question comes in one more round.
                last_round = ended()
            except TEMPORARY as error:
                if self._eager or time.monotonic() - self._heard > self._patience:
                    raise
                if isinstance(error, TooManyRequests) and error.retry_after:
                    self._closed.wait(min(error.retry_after, self._patience))
            if not last_round:
                self._closed.wait(self._parser.retry_seconds or wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _connection(self) -> Iterator[ServerSentEvent]:
        resume = {"Last-Event-ID": self._parser.last_event_id} if self._parser.last_event_id else {}
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **resume}
        timeout = httpx.Timeout(**{**self._http.timeout.as_dict(), "read": SILENCE_SECONDS})
        try:
            with self._http.stream("GET", self._path, params=self._query, headers=headers, timeout=timeout) as response:
                self._check(response)
                self._socket = _socket_of(response)
                self._eager = False
                yield from self._parser.parse(self._heard_bytes(response))
        except (httpx.HTTPError, MalformedStream) as error:
            raise Unreachable(f"the stream of events broke: {error}") from error
        finally:
            self._socket = None

    def _heard_bytes(self, response: httpx.Response) -> Iterator[bytes]:
        for chunk in response.iter_bytes():
            self._heard = time.monotonic()
            yield chunk
        self._heard = time.monotonic()

    def _check(self, response: httpx.Response) -> None:
        if response.is_error:
            response.read()
            raise problem_error(response)
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise UnexpectedAnswer(f"{self._path} does not answer with a stream of events")

    def _entry(self, data: str) -> TimelineEntry:
        try:
            return TimelineEntry.model_validate_json(data)
        except ValidationError as error:
            raise UnexpectedAnswer(f"{self._path} tells an event that is no timeline entry") from error


def _socket_of(response: httpx.Response) -> socket.socket | None:
    stream = response.extensions.get("network_stream")
    found = stream.get_extra_info("socket") if stream is not None else None
    return found if isinstance(found, socket.socket) else None


class Listener:
    """Reads a feed in a thread of its own and wakes who waits for news.

    Without a feed (an older service has none), or with one that failed for good, waiting takes its full time.
    """

    def __init__(self, feed: EventFeed, ended: Callable[[], bool]) -> None:
        self._feed = feed
        self._ended = ended
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="budeval-events", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.close()
        self._thread.join(timeout=1.0)

    def wait(self, seconds: float) -> None:
        """Until something happens, ``seconds`` at the most."""
        self._news.wait(seconds)
        self._news.clear()

    def _listen(self) -> None:
        # Whoever watches polls as well, and meets the same error there if it matters.
        with contextlib.suppress(BudevalClientError):
            for _ in self._feed.entries(self._ended):
                self._news.set()

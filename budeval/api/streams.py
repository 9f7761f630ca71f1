"""Answers that last, such as events as they happen: they end at once when the service stops.

A server that stops waits for its answers, and these last as long as an evaluation. Ended properly instead of being cut
off, a client knows that it has what was sent whole, and comes back to the next instance.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class OpenStreams:
    """The lasting answers of one process. Used on the event loop alone."""

    def __init__(self) -> None:
        self._open: set[asyncio.Timeout] = set()
        self._ended = False

    def end(self) -> None:
        """Ends all that are open, and from now on each as soon as it begins."""
        self._ended = True
        for stream in self._open:
            stream.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def until_ended(self) -> AsyncIterator[None]:
        """A block that is left where it stands, without an error, once the streams are ended."""
        limit = asyncio.timeout(0 if self._ended else None)
        try:
            async with limit:
                self._open.add(limit)
                try:
                    yield
                finally:
                    self._open.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise


class LiveStream(StreamingResponse):
    """An answer that lasts, one whole piece after the other; the application's ``state.open_streams`` ends it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        self._streams: OpenStreams = scope["app"].state.open_streams
        await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Begins, sends what there is until nothing comes any more or the service stops, and ends as answers end."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with self._streams.until_ended():
            async for chunk in self.body_iterator:
                body = chunk.encode(self.charset) if isinstance(chunk, str) else chunk
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

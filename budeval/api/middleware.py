"""What every request passes beside the gate: the body limit and the metrics."""

import time
from http import HTTPMethod, HTTPStatus

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from budeval.api.problem import problem_response


class BodyLimit:
    """Refuses a body that is too large, announced or not, before it is read into memory."""

    def __init__(self, app: ASGIApp, maximum_bytes: int) -> None:
        self._app = app
        self._maximum = maximum_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._maximum:
            return await self._refuse(scope, receive, send)
        body = await self._read(receive)
        if body is None:
            return await self._refuse(scope, receive, send)
        return await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._maximum:
                return None
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"The body is larger than {self._maximum} bytes."
        response = problem_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Body too large", detail, None, scope["path"])
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class RequestMetrics:
    """Counts and times requests by route, not by path: paths have ids in them.

    The time is that until the answer begins: a stream of events may last for hours.
    """

    def __init__(self, app: ASGIApp, histogram: Histogram) -> None:
        self._app = app
        self._histogram = histogram

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status, seconds = time.perf_counter(), 500, 0.0

        async def note(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - began
            await send(message)

        try:
            return await self._app(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            # A client can make up methods without end, and each would be a series of its own.
            method = scope["method"] if scope["method"] in HTTPMethod.__members__ else "other"
            self._histogram.labels(method, route, str(status)).observe(seconds or time.perf_counter() - began)

"""``GET /evals/{eval_id}/runs/{run_id}/logs``: what the engine says."""

from collections.abc import AsyncIterator
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.concurrency import run_in_threadpool

from budeval.api.events import EVENT_STREAM, RECONNECT, STILL_HERE
from budeval.api.log_streams import LEFT_OUT, LogStreams, Told
from budeval.api.negotiation import preferred
from budeval.api.parameters import EvalId
from budeval.api.problem import documented, problem_response
from budeval.api.streams import LiveStream
from budeval.commons.clock import utc_now
from budeval.commons.errors import LogsBusy
from budeval.evals.logs import LogText, RunLogs
from budeval.jobs.logs import MARK_PATTERN, LogLine, mark_of, parse_duration

TEXT = "text/plain"
MAXIMUM_TAIL = 1_000_000
RETRY_SECONDS = "5"
COMPLETE = "complete"
"""Id of the last event of a log that was told whole."""

Mark = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID", pattern=f"^{COMPLETE}$|{MARK_PATTERN}", description="The newest id that was received"
    ),
]
RunId = Annotated[str, Path(min_length=1, max_length=256, description="The run_id of the request")]


class LogQuery(BaseModel):
    """Which part of the log."""

    model_config = ConfigDict(extra="forbid")

    tail: Annotated[int | None, Field(ge=0, le=MAXIMUM_TAIL, description="Only so many lines, the last ones")] = None
    since: Annotated[
        str | None, Field(max_length=30, description="Only lines of the last time span such as 90s, 10m or 1h30m")
    ] = None
    follow: Annotated[bool, Field(description="Go on until the run has ended")] = False

    @field_validator("since")
    @classmethod
    def _is_a_duration(cls, since: str | None) -> str | None:
        if since is not None:
            parse_duration(since)
        return since

    @property
    def span(self) -> timedelta | None:
        """``since`` as a time span."""
        return None if self.since is None else parse_duration(self.since)


def logs_router(logs: RunLogs, streams: LogStreams) -> APIRouter:
    """``/evals/{eval_id}/runs/{run_id}/logs``."""
    router = APIRouter(prefix="/evals", tags=["evaluations"])

    @router.get("/{eval_id}/runs/{run_id:path}/logs", response_class=PlainTextResponse, responses=_documented())
    async def run_logs(
        request: Request, eval_id: EvalId, run_id: RunId, query: Annotated[LogQuery, Query()], mark: Mark = None
    ) -> Response:
        """The engine's log as text: from the pod while there is one, then from the volume; secrets are masked.

        At most the last 4 MiB; the first line says so where something is left out. Control characters are replaced.
        With `follow`, lines come as they are written, until the run has ended; a run without a log is waited for. With
        `Accept: text/event-stream` as well they come as server-sent events, which go on behind `Last-Event-ID`.
        """
        key = (str(eval_id), run_id)
        try:
            if query.follow:
                stream = preferred(request.headers.get("Accept"), (TEXT, EVENT_STREAM)) == EVENT_STREAM
                return await _followed(logs, streams, key, query, (mark or "") if stream else None)
            text = await streams.read(lambda: logs.read(*key, query.span, query.tail))
        except LogsBusy as error:
            response = problem_response(
                HTTPStatus.SERVICE_UNAVAILABLE, error.title, error.detail, None, request.url.path
            )
            response.headers["Retry-After"] = RETRY_SECONDS
            return response
        return Response(_whole(text), media_type=TEXT, headers=_HEADERS)

    return router


_HEADERS = {
    "Cache-Control": "no-store",
    # A browser must not take what a model said for a page.
    "X-Content-Type-Options": "nosniff",
}
_UNBUFFERED = {**_HEADERS, "X-Accel-Buffering": "no"}


async def _followed(
    logs: RunLogs, streams: LogStreams, key: tuple[str, str], query: LogQuery, mark: str | None
) -> Response:
    """``mark``: where to go on with events; empty: at the beginning; none: as plain text."""
    run = await run_in_threadpool(logs.find, *key)
    if mark == COMPLETE:
        # The one answer that keeps a browser from coming back for ever.
        return Response(status_code=HTTPStatus.NO_CONTENT)
    streams.check_room(key)
    await run_in_threadpool(logs.open_secrets, run)
    since = None if query.span is None else utc_now() - query.span
    told = streams.follow(key, since, query.tail, mark or "")
    if mark is None:
        return LiveStream(_as_text(told), media_type=TEXT, headers=_UNBUFFERED)
    return LiveStream(_as_events(told), media_type=EVENT_STREAM, headers=_UNBUFFERED)


async def _as_text(told: AsyncIterator[Told]) -> AsyncIterator[str]:
    async for part in told:
        if part.lines:
            yield _text(part.lines)


async def _as_events(told: AsyncIterator[Told]) -> AsyncIterator[str]:
    yield RECONNECT
    async for part in told:
        # Told whole or not, a stream that ends without an end was cut off.
        end = (f"id: {COMPLETE}\n" if part.complete else "") + "event: end\ndata: \n\n" if part.ended else ""
        yield "".join(map(_event, part.lines)) + end or STILL_HERE


def _event(line: LogLine) -> str:
    mark = mark_of(line)
    return (f"id: {mark}\n" if mark else "") + f"data: {line.text}\n\n"


def _text(lines: list[LogLine]) -> str:
    return "".join(f"{line.text}\n" for line in lines)


def _whole(text: LogText) -> str:
    return _text([LEFT_OUT, *text.lines] if text.cut else text.lines)


def _documented() -> dict[int | str, dict[str, Any]]:
    refused = {
        HTTPStatus.NOT_FOUND: "No evaluation or run has this id, or the run has no log, or none yet",
        HTTPStatus.GONE: "The log is in the evaluation's own cluster, whose kubeconfig was erased at its end",
        HTTPStatus.UNPROCESSABLE_ENTITY: "An id or a parameter is not valid",
        HTTPStatus.BAD_GATEWAY: "The cluster refuses the credentials",
        HTTPStatus.SERVICE_UNAVAILABLE: "The record or the cluster does not answer, or too many logs are being read",
    }
    line = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "id": {"type": "string", "description": "time and digest of the line; not of the service's own remarks"},
            "event": {"const": "end", "description": "nothing more comes; its id is `complete` where all was told"},
            "data": {"type": "string", "description": "one line of the log"},
        },
    }
    content = {TEXT: {"schema": {"type": "string"}}, EVENT_STREAM: {"schema": line}}
    return {
        200: {"description": "The log", "content": content},
        204: {"description": "The log was received whole (Last-Event-ID: complete)"},
        **documented(refused),
    }

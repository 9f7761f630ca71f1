"""``GET /evals/{eval_id}/runs/{run_id}/logs``: what the engine says."""

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.concurrency import run_in_threadpool

from budeval.api.log_streams import LEFT_OUT, LogStreams
from budeval.api.parameters import EvalId
from budeval.api.problem import documented, problem_response
from budeval.api.streams import LiveStream
from budeval.commons.clock import utc_now
from budeval.commons.errors import LogsBusy
from budeval.evals.logs import LogText, RunLogs
from budeval.jobs.logs import parse_duration

TEXT = "text/plain"
MAXIMUM_TAIL = 1_000_000
RETRY_SECONDS = "5"

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
        request: Request, eval_id: EvalId, run_id: RunId, query: Annotated[LogQuery, Query()]
    ) -> Response:
        """The engine's log as text: from the pod while there is one, then from the volume; secrets are masked.

        At most the last 4 MiB; the first line says so where something is left out. Control characters are replaced.
        With `follow`, lines come as they are written, until the run has ended; a run without a log is waited for.
        """
        key = (str(eval_id), run_id)
        try:
            if query.follow:
                return await _followed(logs, streams, key, query)
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


async def _followed(logs: RunLogs, streams: LogStreams, key: tuple[str, str], query: LogQuery) -> Response:
    run = await run_in_threadpool(logs.find, *key)
    streams.check_room(key)
    await run_in_threadpool(logs.open_secrets, run)
    since = None if query.span is None else utc_now() - query.span
    return LiveStream(streams.follow(key, since, query.tail), media_type=TEXT, headers=_UNBUFFERED)


def _whole(text: LogText) -> str:
    lines = "".join(f"{line.text}\n" for line in text.lines)
    return LEFT_OUT + lines if text.cut else lines


def _documented() -> dict[int | str, dict[str, Any]]:
    refused = {
        HTTPStatus.NOT_FOUND: "No evaluation or run has this id, or the run has no log, or none yet",
        HTTPStatus.GONE: "The log is in the evaluation's own cluster, whose kubeconfig was erased at its end",
        HTTPStatus.UNPROCESSABLE_ENTITY: "An id or a parameter is not valid",
        HTTPStatus.BAD_GATEWAY: "The cluster refuses the credentials",
        HTTPStatus.SERVICE_UNAVAILABLE: "The record or the cluster does not answer, or too many logs are being read",
    }
    return {200: {"description": "The log"}, **documented(refused)}

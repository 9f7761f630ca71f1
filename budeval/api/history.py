"""``GET /evals/{eval_id}/timeline`` and ``/events``: what happened, and what happens."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field, TypeAdapter, field_validator
from starlette.concurrency import run_in_threadpool

from budeval.api.events import EVENT_STREAM, EventHub
from budeval.api.pages import Cursor, Page, PageQuery, decode_cursor, page_of
from budeval.api.parameters import SHOWN, EvalId
from budeval.api.problem import documented
from budeval.api.streams import LiveStream
from budeval.evals.services import EvaluationService
from budeval.record.timeline import Head, TimelineEntry

MAXIMUM_SEQUENCE = 2**31 - 1
"""As much as the column holds."""
_SEQUENCE: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(strict=True, ge=0, le=MAXIMUM_SEQUENCE)])

LastEventId = Annotated[int, Header(ge=0, le=MAXIMUM_SEQUENCE, description="The newest id that was received")]


class TimelineQuery(PageQuery):
    """Which part of the timeline."""

    cursor: Cursor | None = None

    @field_validator("cursor")
    @classmethod
    def _is_a_sequence(cls, cursor: str | None) -> str | None:
        if cursor is not None:
            decode_cursor(cursor, _SEQUENCE)
        return cursor

    @property
    def after(self) -> int:
        """Sequence of the last entry of the page before."""
        return 0 if self.cursor is None else decode_cursor(self.cursor, _SEQUENCE)


def history_router(service: EvaluationService) -> APIRouter:
    """``/evals/{eval_id}/timeline`` and ``/evals/{eval_id}/events``."""
    router = APIRouter(prefix="/evals", tags=["evaluations"])
    hub = EventHub(service.timeline)

    @router.get("/{eval_id}/timeline", responses=documented(SHOWN))
    def timeline(eval_id: EvalId, query: Annotated[TimelineQuery, Query()]) -> Page[TimelineEntry]:
        """What happened, in order. An entry that happens again counts, and moves to the end."""
        service.timeline.head(str(eval_id))
        found = service.timeline.entries(str(eval_id), query.after, query.limit + 1)
        return page_of(found, query.limit, lambda entry: entry.sequence)

    @router.get("/{eval_id}/events", response_class=LiveStream, responses=_STREAMED)
    async def events(eval_id: EvalId, last_event_id: LastEventId = 0) -> Response:
        """The timeline as server-sent events, until the evaluation has ended; goes on behind ``Last-Event-ID``."""
        head = await run_in_threadpool(service.timeline.head, str(eval_id))
        after = _resumed(last_event_id, head)
        if head.complete and after == head.newest:
            # The one answer that keeps a browser from coming back for ever.
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return LiveStream(hub.stream(str(eval_id), after, head), media_type=EVENT_STREAM, headers=_UNBUFFERED)

    return router


_UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "description": "sequence of the entry"},
        "event": {"$ref": "#/components/schemas/Kind"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/TimelineEntry"},
        },
    },
}
"""One event of the stream, as OpenAPI 3.1 has it."""
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Entries of the timeline", "content": {EVENT_STREAM: {"schema": _EVENT}}},
    204: {"description": "The evaluation has ended and everything was received"},
    **documented(SHOWN),
}


def _resumed(last_event_id: int, head: Head) -> int:
    """Where to go on. An id that is not of this evaluation says nothing: better everything again than a gap."""
    return 0 if last_event_id > head.newest else last_event_id

"""``GET /evals``: what can be asked for, and where a page goes on."""

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, TypeAdapter, ValidationInfo, field_validator

from budeval.api.pages import Cursor, Page, PageQuery, decode_cursor, page_of
from budeval.api.problem import documented
from budeval.api.schemas import ShortText, Uuid
from budeval.commons.wire import WorkflowStatus
from budeval.evals.services import EvaluationService
from budeval.record.queries import Criteria, Position, Sort, position_of
from budeval.record.views import EvaluationSummary


def _rfc3339(value: Any) -> Any:
    if not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", str(value)):
        raise ValueError("must be a time such as 2026-01-31T09:30:00Z (a + in a URL is written %2B)")
    return value


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is out of range") from error


Time = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_in_utc)]
_BY_TIME = TypeAdapter(tuple[Time, UUID])
_BY_NAME = TypeAdapter(tuple[ShortText, UUID])


class EvaluationQuery(PageQuery):
    """Filters, sort and page; every filter that is given must fit."""

    status: WorkflowStatus | None = None
    queued: bool | None = None
    """Whether they wait for a place."""
    model: ShortText | None = None
    dataset: ShortText | None = None
    """dataset_id of at least one run."""
    source: ShortText | None = None
    requested_by: ShortText | None = None
    """Name of the caller who asked for it."""
    experiment_id: Uuid | None = None
    created_after: Time | None = None
    """RFC 3339; at this time or later."""
    created_before: Time | None = None
    """RFC 3339; earlier than this."""
    sort: Sort = Sort.NEWEST
    """``-``: the greatest first. Evaluations that have not ended stand behind all ends."""

    cursor: Cursor | None = None

    @field_validator("cursor")
    @classmethod
    def _fits_the_sort(cls, cursor: str | None, info: ValidationInfo) -> str | None:
        if cursor is not None and "sort" in info.data:
            _position(cursor, info.data["sort"])
        return cursor

    def criteria(self) -> Criteria:
        """The filters alone."""
        return Criteria(
            status=self.status,
            queued=self.queued,
            model=self.model,
            dataset=self.dataset,
            source=self.source,
            requested_by=self.requested_by,
            experiment_id=str(self.experiment_id) if self.experiment_id else None,
            created_after=self.created_after,
            created_before=self.created_before,
        )

    def after(self) -> Position | None:
        """The last evaluation of the page before."""
        return None if self.cursor is None else _position(self.cursor, self.sort)


def _position(cursor: str, sort: Sort) -> Position:
    key, eval_id = decode_cursor(cursor, _BY_TIME) if sort.by_time else decode_cursor(cursor, _BY_NAME)
    return Position(key, str(eval_id))


def listing_router(service: EvaluationService) -> APIRouter:
    """``GET /evals``."""
    router = APIRouter(prefix="/evals", tags=["evaluations"])

    @router.get("", responses=documented(_LISTED))
    def find(query: Annotated[EvaluationQuery, Query()]) -> Page[EvaluationSummary]:
        """Evaluations, newest first; with filters, another order, and page by page."""
        found = service.queries.find(query.criteria(), query.sort, query.after(), query.limit + 1)
        return page_of(found, query.limit, lambda item: _plain(position_of(item, query.sort)))

    return router


_LISTED = {
    HTTPStatus.UNPROCESSABLE_ENTITY: "A filter, the sort, the limit or the cursor is not valid",
    HTTPStatus.SERVICE_UNAVAILABLE: "The record does not answer",
}


def _plain(position: Position) -> list[str]:
    key = position.key
    return [key.isoformat() if isinstance(key, datetime) else key, position.eval_id]

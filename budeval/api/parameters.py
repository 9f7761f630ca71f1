"""What the routes of one evaluation have in common."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request

from budeval.api.access import caller_of

EvalId = Annotated[UUID, Path(description="The eval_id of the request")]


def _actor(request: Request) -> str:
    return caller_of(request).name


Actor = Annotated[str, Depends(_actor)]
"""Who calls, for the record and its timeline."""

UNREADABLE = "The body cannot be read: it is not in UTF-8, or nested too deeply"
FULL = "Too much runs and waits already; nothing was recorded. See Retry-After"
SHOWN = {
    HTTPStatus.NOT_FOUND: "No evaluation has this id",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The id is no UUID, or a parameter is not valid",
    HTTPStatus.SERVICE_UNAVAILABLE: "The record does not answer",
}

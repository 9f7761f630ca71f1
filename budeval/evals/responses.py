"""What activities answer: the guide's ``SuccessResponse`` and ``ErrorResponse``."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field


class SuccessResponse(BaseModel):
    """``code`` 200: done; 202: to be continued."""

    object: str = "success"
    code: int = HTTPStatus.OK
    message: str
    param: dict[str, Any] = Field(default_factory=dict)


class ErrorResponse(BaseModel):
    """``code`` is the HTTP status that fits best; 408: the time is up."""

    object: str = "error"
    code: int
    message: str
    param: dict[str, Any] = Field(default_factory=dict)

"""Errors as RFC 9457 ``application/problem+json``, with the one table of status codes."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from budeval.api.schemas import FieldProblemBody, Problem
from budeval.commons.errors import (
    BudEvalError,
    ClusterNotReady,
    ClusterUnauthorized,
    EvaluationConflict,
    EvaluationNotFound,
    FieldProblem,
    InvalidEvaluation,
    LogGone,
    LogNotFound,
    NoPlace,
    TemporaryError,
)
from budeval.commons.redaction import printable
from budeval.evals.preflight import PreflightFailed
from budeval.jobs.checks import Check

logger = logging.getLogger("::EVAL:: API")

MEDIA_TYPE = "application/problem+json"
MAXIMUM_FIELD_LENGTH = 200
_PLACES = ("body", "query", "header", "path")
"""Where FastAPI found a field; its name alone is enough."""

STATUS_CODES: tuple[tuple[type[BudEvalError], HTTPStatus], ...] = (
    (InvalidEvaluation, HTTPStatus.UNPROCESSABLE_ENTITY),
    (EvaluationNotFound, HTTPStatus.NOT_FOUND),
    (LogNotFound, HTTPStatus.NOT_FOUND),
    (LogGone, HTTPStatus.GONE),
    (EvaluationConflict, HTTPStatus.CONFLICT),
    (ClusterUnauthorized, HTTPStatus.BAD_GATEWAY),
    (ClusterNotReady, HTTPStatus.SERVICE_UNAVAILABLE),
    (NoPlace, HTTPStatus.TOO_MANY_REQUESTS),
    (TemporaryError, HTTPStatus.SERVICE_UNAVAILABLE),
    (BudEvalError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
"""The first that fits counts."""


def add_problem_handlers(app: FastAPI) -> None:
    """Every error of the application is answered as a problem."""
    app.add_exception_handler(BudEvalError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(OperationalError, _on_database_away)
    app.add_exception_handler(Exception, _on_unexpected)


def document_problems(app: FastAPI) -> None:
    """Adds the shape of a problem to the OpenAPI document, for the references of :func:`documented`."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, shapes = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
        document["components"]["schemas"].update(shapes["$defs"])
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def documented(meanings: dict[HTTPStatus, str]) -> dict[int | str, dict[str, Any]]:
    """What a route says in the OpenAPI document about the problems it can answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(status): {"description": meaning, "content": content} for status, meaning in meanings.items()}


def problem_response(
    status: int,
    title: str,
    detail: str,
    problems: list[FieldProblem] | None = None,
    instance: str | None = None,
    checks: list[Check] | None = None,
) -> JSONResponse:
    """A problem as a response."""
    errors = None if problems is None else [FieldProblemBody(**vars(problem)) for problem in problems]
    problem = Problem(
        title=title, status=status, detail=printable(detail, 2000), instance=instance, errors=errors, checks=checks
    )
    return JSONResponse(problem.model_dump(mode="json", exclude_none=True), status_code=status, media_type=MEDIA_TYPE)


def field_problems(errors: Any) -> list[FieldProblem]:
    """pydantic's errors, each with the path of its field; never with the value, which may be a secret."""
    return [FieldProblem(_field(error), str(error["msg"]).removeprefix("Value error, ")) for error in errors]


def _field(error: Any) -> str:
    if error["type"] == "json_invalid":
        return "body"
    # A path has the request's own keys in it, which can be anything of any length.
    path = ".".join(str(part) for part in error["loc"] if part not in _PLACES)
    return printable(path, MAXIMUM_FIELD_LENGTH) or "body"


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BudEvalError)  # noqa: S101 - registered for this class
    status = next(code for kind, code in STATUS_CODES if isinstance(error, kind))
    problems = error.problems if isinstance(error, InvalidEvaluation) else None
    checks = error.checks if isinstance(error, PreflightFailed) else None
    response = problem_response(status, error.title, error.detail, problems, request.url.path, checks)
    if isinstance(error, NoPlace):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    problems = field_problems(error.errors())
    detail = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid request", detail, problems, request.url.path)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    title = HTTPStatus(error.status_code).phrase
    response = problem_response(error.status_code, title, str(error.detail), None, request.url.path)
    response.headers.update(error.headers or {})
    return response


async def _on_database_away(request: Request, error: Exception) -> JSONResponse:
    logger.error("the record does not answer: %s", error)
    detail = "The record's database does not answer. Try again; the same request is never run twice."
    return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "Record unavailable", detail, None, request.url.path)


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("unexpected error in %s", request.url.path, exc_info=error)
    detail = "The service failed to answer; its log says why. Nothing was started unless the evaluation can be shown."
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error", detail, None, request.url.path)

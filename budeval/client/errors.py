"""What can go wrong between the client and the service; everything is a :class:`BudevalClientError`."""

from http import HTTPStatus

import httpx
from pydantic import ValidationError

from budeval.client.models import Problem


class BudevalClientError(Exception):
    """Any failure of a call."""


class Unreachable(BudevalClientError):
    """No answer: the service is down, the address is wrong, or the time was up."""


class UnexpectedAnswer(BudevalClientError):
    """An answer that budeval does not give: something else listens there, or its version does not fit."""


class ProblemError(BudevalClientError):
    """The service refused; ``problem`` has its own words."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentence())
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status


class Unauthorized(ProblemError):
    """The token is missing, wrong or expired (401)."""


class Forbidden(ProblemError):
    """The token is good, but its role does not allow this (403)."""


class NotFound(ProblemError):
    """There is no such evaluation (404)."""


class Conflict(ProblemError):
    """The state of the evaluation does not allow this (409)."""


class InvalidRequest(ProblemError):
    """The request cannot be run (another 4xx); ``problem.errors`` names the fields."""


class TooManyRequests(ProblemError):
    """A limit is reached (429)."""

    def __init__(self, problem: Problem, retry_after: float | None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after
        """Seconds to wait, where the service says so."""


class ServerFailed(ProblemError):
    """The service failed to answer (5xx)."""


class Unavailable(ServerFailed):
    """The service, or what it needs, is away for now (502, 503, 504): try again."""


_UNAVAILABLE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_KINDS: dict[int, type[ProblemError]] = {
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    **dict.fromkeys(_UNAVAILABLE, Unavailable),
}


def problem_error(response: httpx.Response) -> ProblemError:
    """The error for an answer of 4xx or 5xx; its body must have been read."""
    problem = _problem(response)
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        return TooManyRequests(problem, _retry_after(response))
    fallback = ServerFailed if response.is_server_error else InvalidRequest
    return _KINDS.get(response.status_code, fallback)(problem)


def _problem(response: httpx.Response) -> Problem:
    # A proxy on the way answers in its own shape.
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return Problem(title=response.reason_phrase or "Refused", status=response.status_code)


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None

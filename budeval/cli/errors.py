"""Exit codes, and which error ends with which."""

from enum import IntEnum

from budeval.client import (
    BudevalClientError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unauthorized,
)


class ExitCode(IntEnum):
    """What the shell learns."""

    GOOD = 0
    FAILED = 1
    """The evaluation failed or was cancelled, the gate is not met, or a check failed."""
    USAGE = 2
    """The command, or the request in it, is wrong."""
    UNREACHABLE = 3
    """The service does not answer as it should, or does not accept the token."""
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    """Nobody reads the output any more, e.g. ``budeval list | head -1``."""


EXIT_CODES_HELP = (
    "Exit codes: 0 good; 1 the evaluation failed or was cancelled, the gate is not met, or a check failed; 2 wrong "
    "usage, or a request that the service refuses; 3 the service is unreachable, failing or not ready, or the token is "
    "refused; 130 interrupted."
)


class UsageProblem(Exception):
    """The command is wrong in a way that only shows when it is carried out."""


def exit_code(error: BudevalClientError) -> ExitCode:
    """The exit code for an error of the client."""
    refused = (NotFound, Conflict, InvalidRequest)
    return ExitCode.USAGE if isinstance(error, refused) else ExitCode.UNREACHABLE


def advice(error: BudevalClientError) -> str:
    """What the user can do, where that is not said by the error itself."""
    if isinstance(error, Unauthorized):
        return "Give a token that is valid: BUDEVAL_TOKEN, BUDEVAL_TOKEN_FILE, or budeval context set."
    if isinstance(error, Forbidden):
        return "budeval whoami shows your role; ask the service's operator for a token that allows this."
    if isinstance(error, TooManyRequests):
        return f"Try again in {error.retry_after:g} s." if error.retry_after else "Try again later."
    return "" if exit_code(error) is ExitCode.USAGE else "budeval doctor says more."

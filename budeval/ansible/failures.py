"""From what a playbook printed to an error of budeval. Pure."""

import re
from typing import Any, NamedTuple

from budeval.commons.errors import BudEvalError, ClusterUnauthorized, ClusterUnreachable, PlaybookFailed
from budeval.commons.redaction import printable

MAXIMUM_MESSAGE_LENGTH = 1000

_UNANSWERED = re.compile(
    r"Max retries exceeded|Connection refused|Connection reset|Connection aborted|timed out|No route to host"
    r"|Network is unreachable|Name or service not known|Temporary failure in name resolution|Remote end closed",
    re.IGNORECASE,
)
_OVERLOADED = re.compile(
    r"\b(429|500|502|503|504)\b[^\n]{0,40}(Reason|Too Many|Internal|Bad Gateway|Unavailable|Timeout)"
)
_UNAUTHORIZED = re.compile(r"\b401\b|Unauthorized")


class TaskFailure(NamedTuple):
    """A task that failed: its name, the message, and what our own plugins add to it."""

    task: str
    message: str
    cluster_error: dict[str, Any] | None = None


def playbook_error(playbook: str, failures: list[TaskFailure], tail: list[str]) -> BudEvalError:
    """The error that tells most about why a playbook failed.

    Args:
        playbook: file name of the playbook.
        failures: failed tasks, in order.
        tail: last lines of the output, for failures before the first task.
    """
    told = [failure for failure in failures if failure.message]
    if not told:
        return PlaybookFailed(f"{playbook}: {printable(' '.join(tail), MAXIMUM_MESSAGE_LENGTH) or 'no reason given'}")
    first = told[0]
    message = printable(first.message, MAXIMUM_MESSAGE_LENGTH)
    if first.cluster_error is not None:
        return _of_cluster(message, first.cluster_error)
    if _UNANSWERED.search(first.message) or _OVERLOADED.search(first.message):
        return ClusterUnreachable(message)
    if _UNAUTHORIZED.search(first.message):
        return ClusterUnauthorized(message)
    return PlaybookFailed(f"{first.task}: {message}")


def _of_cluster(message: str, error: dict[str, Any]) -> BudEvalError:
    status = error.get("status")
    if error["kind"] == "connection":
        return ClusterUnreachable(message)
    if error["kind"] == "config":
        return PlaybookFailed(message)
    if status == 401:
        return ClusterUnauthorized(message)
    if status == 429 or (isinstance(status, int) and status >= 500):
        return ClusterUnreachable(f"the API server answered {status}: {message}")
    return PlaybookFailed(f"the API server answered {status}: {message}")

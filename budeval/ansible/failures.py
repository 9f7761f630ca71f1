"""From what a playbook printed to an error of budeval. Pure."""

import json
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
    if first.cluster_error is not None:
        return _of_cluster(first.message, first.cluster_error)
    status = _status_object(first.message)
    if status is not None:
        return _of_cluster(str(status.get("message")), {"kind": "status", "status": status.get("code")})
    if _UNANSWERED.search(first.message):
        return ClusterUnreachable(printable(first.message, MAXIMUM_MESSAGE_LENGTH))
    return PlaybookFailed(f"{first.task}: {printable(first.message, MAXIMUM_MESSAGE_LENGTH)}")


def _of_cluster(text: str, error: dict[str, Any]) -> BudEvalError:
    message, status = printable(text, MAXIMUM_MESSAGE_LENGTH), error.get("status")
    if error["kind"] == "connection":
        return ClusterUnreachable(message)
    if error["kind"] == "config":
        return PlaybookFailed(message)
    if status == 401:
        return ClusterUnauthorized(message)
    if status == 429 or (isinstance(status, int) and status >= 500):
        return ClusterUnreachable(f"the API server answered {status}: {message}")
    return PlaybookFailed(f"the API server answered {status}: {message}")


def _status_object(text: str) -> dict[str, Any] | None:
    """The ``Status`` of Kubernetes that modules of kubernetes.core put behind words of their own."""
    begin = text.find('{"kind":"Status"')
    if begin < 0:
        return None
    try:
        status, _ = json.JSONDecoder().raw_decode(text[begin:])
    except ValueError:
        return None
    return status if isinstance(status, dict) else None

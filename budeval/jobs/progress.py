"""Progress lines of an engine, found in the tail of a pod's log. The log is a stranger's text.

Imported by playbook processes too, so it costs nothing to import.
"""

import json
from typing import Any

PHASES = ("preparing", "inference", "scoring")
_MAXIMUM_LINE_LENGTH = 500
_MAXIMUM_COUNT = 10**12


def last_progress(log: str) -> dict[str, Any] | None:
    """The newest progress line of a log as ``{"phase", "done", "total"}``, or None where there is no valid one."""
    for line in reversed(log.splitlines()):
        progress = _progress(line.strip())
        if progress is not None:
            return progress
    return None


def _progress(line: str) -> dict[str, Any] | None:
    if not line.startswith("{") or len(line) > _MAXIMUM_LINE_LENGTH:
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("budeval") != "progress" or value.get("phase") not in PHASES:
        return None
    done, total = value.get("done"), value.get("total")
    if not (_is_count(done) and _is_count(total)):
        return None
    return {"phase": value["phase"], "done": done, "total": total}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAXIMUM_COUNT

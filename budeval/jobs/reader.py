"""The short Job that reads results and logs where the service has no access to their volume.

Its program gets names as arguments and prints one JSON line for each. A log holds about 10 MiB before the node rotates
it, so what does not fit is deferred, and asked for again by another reader.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from budeval.commons.redaction import printable
from budeval.jobs.logs import LOG_FILE, MAXIMUM_ANSWER_BYTES, LogFile, log_file
from budeval.jobs.models import ResultFile
from budeval.jobs.names import is_job_name

RESULTS_DIRECTORY = "/results"
"""Where the reader sees the results of its evaluation."""

MAXIMUM_RESULT_BYTES = 1024 * 1024
"""Bytes of one ``result.json``; real ones have about one thousand."""

MAXIMUM_LOG_BYTES = 8 * 1024 * 1024
"""Bytes that one reader prints; kubelet rotates a log at 10 MiB."""

RESULT_FILE = "result.json"

PROGRAM = """
import base64, hashlib, json, os, stat, sys
root, limit, budget, wanted, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5] == "end"
def read(name):
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    place = os.open(os.path.join(root, name), flags | os.O_DIRECTORY)
    try:
        found = os.open(wanted, flags, dir_fd=place)
    finally:
        os.close(place)
    with os.fdopen(found, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return {"error": "%s is no regular file" % wanted}
        file.seek(max(0, status.st_size - limit) if end else 0)
        content = file.read(limit if end else limit + 1)
    if len(content) > limit:
        return {"error": "%s is larger than %d bytes" % (wanted, limit)}
    digest = hashlib.sha256(content).hexdigest()
    return {"size": len(content), "sha256": digest, "content_base64": base64.b64encode(content).decode()}
for name in sys.argv[6:]:
    try:
        told = read(name)
    except FileNotFoundError:
        told = {"error": "there is no %s" % wanted, "missing": True}
    except OSError as error:
        told = {"error": "%s cannot be read: %s" % (wanted, error.strerror)}
    line = json.dumps({"run": name, **told})
    if len(line) > budget:
        line = json.dumps({"run": name, "deferred": True})
    budget -= len(line)
    print(line, flush=True)
"""


def reader_command(job_names: Sequence[str]) -> list[str]:
    """The command of a reader of results.

    Raises:
        ValueError: a name is no name of a Job, and so may not become a path.
    """
    budget = MAXIMUM_LOG_BYTES - 200 * len(job_names)
    return _command(RESULT_FILE, "begin", MAXIMUM_RESULT_BYTES, budget, job_names)


def log_reader_command(directory: str, limit: int = MAXIMUM_ANSWER_BYTES) -> list[str]:
    """The command of a reader of the last ``limit`` bytes of a run's log.

    ``directory`` is the run's working directory below those of its evaluation. Raises as :func:`reader_command`.
    """
    return _command(LOG_FILE, "end", limit + 1, MAXIMUM_LOG_BYTES, [directory])


def _command(file: str, part: str, limit: int, budget: int, directories: Sequence[str]) -> list[str]:
    for name in directories:
        if not is_job_name(name):
            raise ValueError(f"no name of a Job: {printable(name, 80)!r}")
    return ["python3", "-I", "-c", PROGRAM, RESULTS_DIRECTORY, str(limit), str(budget), file, part, *directories]


def parse_log(log: str, job_names: Sequence[str]) -> tuple[dict[str, ResultFile], list[str]]:
    """Results by name, and the names to ask for again.

    Of a name nothing valid was printed for, the result is an error.
    """
    lines = _lines(log)
    deferred = [name for name in job_names if lines.get(name, {}).get("deferred") is True]
    results = {name: _result(lines.get(name)) for name in job_names if name not in deferred}
    return results, deferred


def parse_log_file(log: str, directory: str, limit: int = MAXIMUM_ANSWER_BYTES) -> LogFile:
    """The log that a reader printed."""
    line = _lines(log).get(directory)
    found = _result(line, LOG_FILE)
    if found.content is None:
        missing = line is not None and line.get("missing") is True
        return LogFile(message="" if missing else found.error or "")
    return log_file(found.content, limit)


def _lines(log: str) -> dict[str, dict[str, Any]]:
    return {line["run"]: line for text in log.splitlines() if (line := _line(text)) is not None}


def _line(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("run"), str) else None


def _result(line: dict[str, Any] | None, wanted: str = RESULT_FILE) -> ResultFile:
    if line is None:
        return ResultFile(error="the reader did not tell about this run")
    if "error" in line:
        return ResultFile(error=printable(str(line["error"]), 300))
    try:
        content = base64.b64decode(line["content_base64"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return ResultFile(error="the reader's line cannot be decoded")
    if len(content) != line.get("size") or hashlib.sha256(content).hexdigest() != line.get("sha256"):
        return ResultFile(error=f"{wanted} was damaged on its way: size or checksum do not match")
    return ResultFile(content=content)

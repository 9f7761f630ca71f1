"""The short Job that removes an evaluation's files where the service cannot: its program, and what it prints."""

import json
import re

from budeval.jobs.reader import RESULTS_DIRECTORY

_EVAL_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

PROGRAM = """
import json, os, shutil, stat, sys
root, name = sys.argv[1:3]
try:
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    if stat.S_ISDIR(os.lstat(name, dir_fd=place).st_mode):
        shutil.rmtree(name, dir_fd=place)
    else:
        os.unlink(name, dir_fd=place)
    told = {"removed": True}
except FileNotFoundError:
    told = {"removed": False}
except OSError as error:
    told = {"error": "%s: %s" % (error.filename or name, error.strerror or error)}
print(json.dumps(told), flush=True)
"""
"""``rmtree`` follows no link; what an evaluation left behind was written by foreign code."""


def is_eval_id(text: str) -> bool:
    """Whether a text is an eval_id as the record has it, and so is safe as one path segment."""
    return _EVAL_ID.fullmatch(text) is not None


def remover_command(eval_id: str) -> list[str]:
    """The command of a remover.

    Raises:
        ValueError: ``eval_id`` is none, and so may not become a path.
    """
    if not is_eval_id(eval_id):
        raise ValueError("no eval_id")
    return ["python3", "-I", "-c", PROGRAM, RESULTS_DIRECTORY, eval_id]


def removal_error(log: str) -> str | None:
    """Why the files are still there, from what a remover printed; none: they are gone."""
    try:
        told = json.loads(log)
    except (ValueError, RecursionError):
        return "the remover said nothing"
    if not isinstance(told, dict) or "removed" not in told:
        return str(told.get("error", "the remover gave no reason")) if isinstance(told, dict) else "no answer"
    return None

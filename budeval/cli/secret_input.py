"""Secrets from an environment variable, a file or a prompt; never from the arguments, which every process can read."""

import os
import sys
from getpass import getpass
from pathlib import Path

from budeval.cli.errors import UsageProblem

MAXIMUM_SECRET_BYTES = 1_048_576


def secret_from(
    what: str, *, variable: str | None = None, file: Path | None = None, prompt: bool = False
) -> str | None:
    """The secret from the one place that is named; None where none is."""
    if sum((variable is not None, file is not None, prompt)) > 1:
        raise UsageProblem(f"{what}: name one of environment variable, file and prompt")
    if variable is not None:
        return _from_variable(what, variable)
    if file is not None:
        return read_secret_file(what, file)
    return _asked(what) if prompt else None


def _from_variable(what: str, variable: str) -> str:
    if not os.environ.get(variable):
        raise UsageProblem(f"{what}: the environment variable {variable!r} is not set")
    return os.environ[variable].strip()


def read_secret_file(what: str, path: Path) -> str:
    """Content of a file, or of standard input for ``-``, without white space around it."""
    try:
        with sys.stdin.buffer if str(path) == "-" else path.expanduser().open("rb") as file:
            content = file.read(MAXIMUM_SECRET_BYTES + 1)
        if len(content) > MAXIMUM_SECRET_BYTES:
            raise UsageProblem(f"{what}: {path} is larger than {MAXIMUM_SECRET_BYTES} bytes")
        return content.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{what}: {path} cannot be read: {error}") from error


def _asked(what: str) -> str:
    if not sys.stdin.isatty():
        raise UsageProblem(f"{what}: there is no terminal to ask on; use an environment variable or a file")
    return getpass(f"{what}: ").strip()

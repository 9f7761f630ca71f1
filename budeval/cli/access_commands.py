"""``token new`` and ``whoami``: tokens for a service, and as whom it knows the caller."""

import fcntl
import hashlib
import os
import re
import secrets
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml

from budeval.cli.errors import UsageProblem
from budeval.cli.options import JsonOption, session_of
from budeval.cli.views import when

TOKEN_PREFIX = "budeval_"  # noqa: S105 - by which a token is known as one, for those who look for leaked ones
TOKEN_BYTES = 32
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

tokens_app = typer.Typer(help="Tokens for a service, as its operator makes them.", no_args_is_help=True)


@tokens_app.command("new")
def new_token(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Who will have it; the record names it.", show_default=False)],
    role: Annotated[Literal["viewer", "operator", "admin"], typer.Option(help="What it allows.", show_default=False)],
    expires: Annotated[
        str | None, typer.Option(metavar="90d", help="How long it is good: hours (h), days (d) or weeks (w).")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Token file of the service, to which it is added.")] = None,
    _json: JsonOption = False,
) -> None:
    """Make a token and print it, this once; the service keeps its hash alone.

    The entry for the service's token file (BUDEVAL_TOKENS_FILE) is added to --file, or shown beside it.
    """
    entry: dict[str, Any] = {"name": _checked_name(name), "role": role}
    token = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    entry["sha256"] = hashlib.sha256(token.encode()).hexdigest()
    if expires is not None:
        entry["expires_at"] = (datetime.now(UTC).replace(microsecond=0) + _span(expires)).isoformat()
    if file is not None:
        append_entry(file.expanduser(), entry)
    output = session_of(context).output
    if output.json:
        output.data({"token": token, "entry": entry, "file": str(file) if file else None})
        return
    output.raw(token)
    if file is None:
        output.note("The token is shown this once. Add this to the service's token file (BUDEVAL_TOKENS_FILE):")
        output.note(_yaml(entry).rstrip(), "")
    else:
        output.note(f"The token is shown this once; {file} has its hash, and the service knows it within a second.")


def whoami(context: typer.Context, _json: JsonOption = False) -> None:
    """Show as whom the service knows you, and what your role allows."""
    session = session_of(context)
    with session.client() as client:
        identity = client.whoami()
    if session.output.json:
        session.output.data(identity)
        return
    end = f"until {when(identity.expires_at)}" if identity.expires_at else "without an end"
    session.output.line(f"{identity.name}, {identity.role}, {end}, at {client.server}")


def append_entry(path: Path, entry: dict[str, Any]) -> None:
    """Adds an entry to a list in a YAML file, which is made with mode 0600; what is in it stays as it is.

    Raises :class:`UsageProblem` where others can change the file, or where it is no such list.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _refuse_foreign_writers(path, os.fstat(file.fileno()))
            file.write(_addition(path, file.read(), entry))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path} cannot be changed: {error}") from error


def _refuse_foreign_writers(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UsageProblem(f"{path} is no file")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageProblem(f"{path} can be changed by others, who could give themselves any role; chmod 600 {path}")


def _addition(path: Path, before: str, entry: dict[str, Any]) -> str:
    """What is to be written behind ``before``; only where the whole is then the old list and the entry."""
    addition = ("\n" if before and not before.endswith("\n") else "") + _yaml(entry)
    try:
        old, new = yaml.safe_load(before) or [], yaml.safe_load(before + addition)
    except yaml.YAMLError as error:
        raise UsageProblem(f"{path} is no block list in YAML; add the entry by hand") from error
    if new != [*old, entry]:
        raise UsageProblem(f"{path} is no list of tokens in YAML; add the entry by hand")
    return addition


def _yaml(entry: dict[str, Any]) -> str:
    """The entry as it stands in a list; every value is a text, whatever it looks like."""
    lines = [f"{key}: '{value}'" for key, value in entry.items()]
    return "- " + "\n  ".join(lines) + "\n"


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name) or name in ("api", "pubsub"):
        raise UsageProblem("a token's name has letters, digits and . _ @ + -, 128 at most, and is not api or pubsub")
    return name


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", text)
    if found is None:
        raise UsageProblem(f"--expires {text!r} is no time such as 12h, 90d or 52w")
    return int(found[1]) * UNITS[found[2]]

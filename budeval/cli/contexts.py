"""Contexts: services by name, with their tokens, in a file that only its owner can read."""

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_serializer, field_validator

from budeval.cli.errors import UsageProblem
from budeval.client.client import checked_server, checked_token

FOREIGN_ACCESS = stat.S_IRWXG | stat.S_IRWXO


class Context(BaseModel):
    """One service."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    server: str
    token: SecretStr | None = None

    @field_validator("server")
    @classmethod
    def _server(cls, server: str) -> str:
        return checked_server(server)

    @field_validator("token")
    @classmethod
    def _token(cls, token: SecretStr | None) -> SecretStr | None:
        return SecretStr(checked_token(token.get_secret_value())) if token else None

    @field_serializer("token")
    def _clear(self, token: SecretStr | None) -> str | None:
        return token.get_secret_value() if token else None


class Contexts(BaseModel):
    """The file's content."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    current: str | None = None
    contexts: dict[str, Context] = Field(default_factory=dict)


def contexts_path() -> Path:
    """Where the file is (``XDG_CONFIG_HOME``, or ``~/.config``)."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".config") / "budeval" / "contexts.json"


def read_contexts() -> Contexts:
    """All contexts; none where there is no file. Raises :class:`UsageProblem` where others can read the file."""
    path = contexts_path()
    try:
        with path.open(encoding="utf-8") as file:
            _refuse_foreign_access(path, os.fstat(file.fileno()))
            return Contexts.model_validate_json(file.read())
    except FileNotFoundError:
        return Contexts()
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, item["loc"])) or item["msg"] for item in error.errors())
        raise UsageProblem(f"{path} is not understood: {fields}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path} cannot be read: {error}") from error


def _refuse_foreign_access(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise UsageProblem(f"{path} belongs to another user")
    if status.st_mode & FOREIGN_ACCESS:
        mode = stat.S_IMODE(status.st_mode)
        raise UsageProblem(f"{path} has tokens, but its mode {mode:04o} lets others at it; chmod 600 {path}")


@contextlib.contextmanager
def changed_contexts() -> Iterator[Contexts]:
    """The contexts to be changed; written when the block ends well. One process at a time."""
    path = contexts_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            contexts = read_contexts()
            yield contexts
            _write(path, contexts)
    except OSError as error:
        raise UsageProblem(f"{path} cannot be written: {error}") from error


def _write(path: Path, contexts: Contexts) -> None:
    # mkstemp makes the file with mode 0600 from the first moment on.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".contexts-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(contexts.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise

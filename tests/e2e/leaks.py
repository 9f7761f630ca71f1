"""Looking for a secret everywhere it could have got to."""

import base64
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psutil
import redis

SAMPLE_SECONDS = 0.03
CHUNK = 16 * 1024 * 1024
PLAYBOOK_MARKER = "AWX_ISOLATED_DATA_DIR"


def spellings(secret: str) -> list[bytes]:
    """A secret as it stands in plain text, in JSON, in a URL, in hexadecimal and in base64 of something around it."""
    plain = secret.encode()
    texts = {plain, json.dumps(secret)[1:-1].encode(), quote(secret).encode(), plain.hex().encode()}
    # Base64 writes three bytes as four characters: what is around the secret shifts it by none, one or two.
    for shift in range(3):
        shifted = base64.b64encode(b"\0" * shift + plain)
        texts.add(shifted[4 if shift else 0 : len(shifted) - 4])
    return sorted(texts)


def files_with(
    secrets: Sequence[str], folder: Path, *, since: float = 0.0, leave_out: Sequence[Path] = ()
) -> list[str]:
    """Files below a folder that hold one of the secrets, and were written to since a time (seconds since 1970)."""
    needles = [needle for secret in secrets for needle in spellings(secret)]
    return [str(path) for path in _files(folder, since, leave_out) if _holds(path, needles)]


def _files(folder: Path, since: float, leave_out: Sequence[Path]) -> Iterator[Path]:
    # As it goes on where a directory has gone meanwhile.
    for path in (Path(place) / name for place, _, names in os.walk(folder) for name in names):
        try:
            status = path.stat()
            if not path.is_file() or path.is_symlink() or status.st_mtime < since:
                continue
        except OSError:
            continue  # gone meanwhile
        if not any(path.is_relative_to(left_out) for left_out in leave_out):
            yield path


def _holds(path: Path, needles: Sequence[bytes]) -> bool:
    overlap = max(map(len, needles))
    content = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                content = content[-overlap:] + chunk
                if any(needle in content for needle in needles):
                    return True
    except OSError:
        pass  # gone meanwhile
    return False


def database_text(path: Path) -> str:
    """Every value in a SQLite database, its log included."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for table in tables for row in connection.execute(f'SELECT * FROM "{table}"')]  # noqa: S608
    connection.close()
    return "\n".join(str(value) for row in rows for value in row)


def broker_text(port: int) -> str:
    """Everything that lies in Redis."""
    with redis.Redis(host="127.0.0.1", port=port, decode_responses=True) as broker:
        return "\n".join(str(_value(broker, key)) for key in broker.scan_iter())


def _value(broker: Any, key: str) -> object:
    match broker.type(key):
        case "stream":
            return broker.xrange(key)
        case "hash":
            return broker.hgetall(key)
        case "set":
            return broker.smembers(key)
        case "list":
            return broker.lrange(key, 0, -1)
        case "zset":
            return broker.zrange(key, 0, -1)
        case _:
            return broker.get(key)


class ProcessWatch:
    """Looks again and again at the command lines and environments of all processes of this machine.

    Left out are environments of containers: the engine gets its key there. Of a playbook it also looks at the files of
    its run: a secret may lie there in files that are its user's alone.
    """

    def __init__(self, secrets: Sequence[str], container_cgroup: str) -> None:
        self.found: set[str] = set()
        self.playbooks: set[int] = set()
        """Process ids of playbooks that were looked at."""
        self._looked_at: dict[Path, float] = {}
        """When the files of each run were looked at last (seconds since 1970)."""
        self.private_files: set[str] = set()
        """Names of files of playbooks in which a secret was seen."""
        self._needles = [needle for secret in secrets for needle in spellings(secret)]
        self._cgroup = container_cgroup.encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="process-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            for pid in psutil.pids():
                self._look(pid)

    def _look(self, pid: int) -> None:
        folder = Path("/proc") / str(pid)
        command, environment = _read(folder / "cmdline"), _read(folder / "environ")
        if PLAYBOOK_MARKER.encode() in environment:
            self.playbooks.add(pid)
            self._look_at_files(environment)
        seen = {"command line": command}
        if self._cgroup not in _read(folder / "cgroup"):
            seen["environment"] = environment
        for what, text in seen.items():
            if any(needle in text for needle in self._needles):
                self.found.add(f"{what} of {command.decode(errors='replace')[:200]}")

    def _look_at_files(self, environment: bytes) -> None:
        variables = dict(part.split(b"=", 1) for part in environment.split(b"\0") if b"=" in part)
        # What ansible-runner names is two levels below the directory of the run.
        run = Path(variables[PLAYBOOK_MARKER.encode()].decode()).parent.parent
        # Each file once for each time it is written: reading all all the time would slow down what is looked at.
        since, self._looked_at[run] = self._looked_at.get(run, 0.0), time.time() - 1
        for path in _files(run, since, ()):
            if _holds(path, self._needles):
                self.private_files.add(path.name)
                if not is_private(path, run):
                    self.found.add(f"a file that others can read: {path}")


def is_private(path: Path, root: Path) -> bool:
    """Whether a file is its user's alone, and so is the directory in which all of them lie."""
    try:
        return not (path.stat().st_mode | root.stat().st_mode) & 0o077
    except OSError:
        return True  # gone meanwhile


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # ended meanwhile


def texts_with(secrets: Sequence[str], texts: Mapping[str, str]) -> list[str]:
    """Names of the texts that hold one of the secrets."""
    needles = [needle.decode() for secret in secrets for needle in spellings(secret)]
    return [name for name, text in texts.items() if any(needle in text for needle in needles)]

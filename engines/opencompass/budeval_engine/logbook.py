"""The engine's log: standard output and a file on the volume, with the key masked in both."""

import base64
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO
from urllib.parse import quote

from budeval_engine.progress import MARK

_SHORTEST_SECRET = 4
# The code of a shorter one is a word like any other.
_SHORTEST_ENCODED_SECRET = 8
_LARGEST_FILE = 16 * 1024 * 1024
_LONGEST_LINE = 4096


def masked(text: str, secret: str) -> str:
    """Return `text` without `secret`. One of under 4 characters is no secret, and would take half the text along."""
    for spelling in spellings(secret):
        text = text.replace(spelling, "***")
    return text


def spellings(secret: str) -> list[str]:
    """Return how `secret` may stand in a log, longest first: plain, or written for JSON, URLs, as hex or base64."""
    if len(secret) < _SHORTEST_SECRET:
        return []
    plain, found = secret.encode(), {secret}
    if len(secret) >= _SHORTEST_ENCODED_SECRET:
        found |= {json.dumps(secret)[1:-1], quote(secret), quote(secret, safe=""), plain.hex()}
        found |= {_inside_base64(plain, before) for before in range(3)}
    return sorted(found, key=len, reverse=True)


def _inside_base64(plain: bytes, before: int) -> str:
    """Return the characters that do not depend on what is around: `before` bytes, modulo 3, come first."""
    whole = (before + len(plain)) // 3 * 3
    return base64.b64encode(b"\0" * before + plain)[4 if before else 0 : whole // 3 * 4].decode()


def _now() -> datetime:
    return datetime.now(UTC)


class Logbook:
    """Writes lines to standard output and, behind the time, to the log file, which stops at 16 MiB."""

    def __init__(
        self, path: Path, secret: str, console: TextIO = sys.stdout, clock: Callable[[], datetime] = _now
    ) -> None:
        """Open the log at `path` for appending."""
        self._clock = clock
        self._file = path.open("ab", buffering=0)
        self._room = _LARGEST_FILE - path.stat().st_size
        self._secret = secret
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._file.close()

    def line(self, text: str) -> None:
        """Write one line of plain log; one that looks like a progress line is set apart by an indent."""
        clean = masked(text.rstrip("\r\n"), self._secret)[:_LONGEST_LINE].encode("utf-8", "replace").decode("utf-8")
        self._console.write(f"  {clean}\n" if clean.lstrip().startswith(MARK) else f"{clean}\n")
        self._console.flush()
        entry = f"{self._clock():%Y-%m-%dT%H:%M:%S.%fZ} {clean}\n".encode()
        self._room -= len(entry)
        if self._room > 0:
            try:
                self._file.write(entry)
            except OSError:  # a full volume, which ends the run where something is lost by it
                self._room = 0

    def progress(self, line: str) -> None:
        """Write one progress line to standard output only."""
        self._console.write(line + "\n")
        self._console.flush()

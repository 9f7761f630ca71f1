"""The engine's log: standard output and a file on the volume, with the key masked in both."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from budeval_engine.progress import MARK

_SHORTEST_SECRET = 4
_LARGEST_FILE = 16 * 1024 * 1024
_LONGEST_LINE = 4096


def masked(text: str, secret: str) -> str:
    """Return `text` without `secret`. One of under 4 characters is no secret, and would take half the text along."""
    return text.replace(secret, "***") if len(secret) >= _SHORTEST_SECRET else text


class Logbook:
    """Writes lines to standard output and to the log file, which stops at 16 MiB."""

    def __init__(self, path: Path, secret: str, console: TextIO = sys.stdout) -> None:
        """Open the log at `path` for appending."""
        self._file = path.open("a", encoding="utf-8", errors="replace")
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
        clean = masked(text.rstrip("\r\n"), self._secret)[:_LONGEST_LINE]
        self._console.write(f"  {clean}\n" if clean.lstrip().startswith(MARK) else f"{clean}\n")
        self._console.flush()
        self._room -= len(clean) + 1
        if self._room > 0:
            self._file.write(clean + "\n")
            self._file.flush()

    def progress(self, line: str) -> None:
        """Write one progress line to standard output only."""
        self._console.write(line + "\n")
        self._console.flush()

"""Progress on the terminal: one line for each part, with its state, how long it took and how far it is."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME_WIDTH = 26
# A file gets whole lines of a log, within reason; a terminal gets what fits.
FILE_WIDTH = 200
# A log file gets a sign of life this often (s); a terminal gets its line redrawn twice a second.
HEARTBEAT_SECONDS = 15.0
REDRAW_SECONDS = 0.5
WORKING = "..."
_working: "list[Line]" = []
"""Lines that are being worked on, in the order in which they began; a terminal shows the last."""


class Line:
    """One line that is being worked on; `note` says how far it is, and so does the end of `log`, which grows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "ready"
        self.note = ""
        self.log: Path | None = None
        self.step, self.steps = "", 0
        """How a line of the log begins that is one of so many steps."""
        self.started = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the line began."""
        return time.monotonic() - self.started

    def render(self, state: str) -> str:
        """The line as it is now; on a terminal cut where that ends, since it could not be redrawn if it wrapped."""
        said = self._said() if state == WORKING and self.log else []
        note = "".join(f"  {part}" for part in (self.note, *said) if part)
        times = f"{state:<9} {self.elapsed():6.1f} s"
        if not sys.stdout.isatty():
            return _cut(f"  {self.name:<{NAME_WIDTH}} {times}{note}", FILE_WIDTH)
        # The last column stays free: some terminals wrap as soon as it is taken.
        width = shutil.get_terminal_size().columns - 1
        return _cut(f"  {_cut(self.name, NAME_WIDTH):<{NAME_WIDTH}} {times}{note}", width)

    def _said(self) -> list[str]:
        """How far it is by its log, and the last line there, without what a terminal would obey."""
        text = self.log.read_text(errors="replace") if self.log and self.log.exists() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        done = sum(line.startswith(self.step) for line in lines) if self.steps else 0
        last = "".join(character for character in lines[-1] if character.isprintable()) if lines else ""
        return [f"{min(done, self.steps)} of {self.steps}" if self.steps else "", last]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


@contextmanager
def line(name: str) -> Iterator[Line]:
    """Show `name` while the block runs, then the state the block left in the line, or "failed"."""
    current = Line(name)
    stop = threading.Event()
    ticker = threading.Thread(target=_tick, args=(current, stop), daemon=True)
    _working.append(current)
    ticker.start()
    try:
        yield current
    except BaseException:
        current.state = "failed"
        raise
    finally:
        stop.set()
        ticker.join()
        _working.remove(current)
        _finish(current)


def _tick(current: Line, stop: threading.Event) -> None:
    interactive = sys.stdout.isatty()
    while not stop.wait(REDRAW_SECONDS if interactive else HEARTBEAT_SECONDS):
        if not interactive:
            print(current.render(WORKING), flush=True)
        elif current is _working[-1]:
            print(f"\r\033[2K{current.render(WORKING)}", end="", flush=True)


def _finish(current: Line) -> None:
    clear = "\r\033[2K" if sys.stdout.isatty() else ""
    print(f"{clear}{current.render(current.state)}", flush=True)

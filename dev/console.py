"""Progress on the terminal: one line for each part, with its state and how long it took."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

NAME_WIDTH = 34
# A log file gets a sign of life this often (s); a terminal gets its line redrawn twice a second.
HEARTBEAT_SECONDS = 15.0
REDRAW_SECONDS = 0.5


class Line:
    """One line that is being worked on; `note` says how far it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "ready"
        self.note = ""
        self.started = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the line began."""
        return time.monotonic() - self.started

    def render(self, state: str) -> str:
        note = f"  {self.note}" if self.note else ""
        return f"  {self.name:<{NAME_WIDTH}} {state:<9} {self.elapsed():6.1f} s{note}"


@contextmanager
def line(name: str) -> Iterator[Line]:
    """Show `name` while the block runs, then the state the block left in the line, or "failed"."""
    current = Line(name)
    stop = threading.Event()
    ticker = threading.Thread(target=_tick, args=(current, stop), daemon=True)
    ticker.start()
    try:
        yield current
    except BaseException:
        current.state = "failed"
        raise
    finally:
        stop.set()
        ticker.join()
        _finish(current)


def _tick(current: Line, stop: threading.Event) -> None:
    interactive = sys.stdout.isatty()
    while not stop.wait(REDRAW_SECONDS if interactive else HEARTBEAT_SECONDS):
        if interactive:
            print(f"\r\033[2K{current.render('...')}", end="", flush=True)
        else:
            print(current.render("..."), flush=True)


def _finish(current: Line) -> None:
    clear = "\r\033[2K" if sys.stdout.isatty() else ""
    print(f"{clear}{current.render(current.state)}", flush=True)

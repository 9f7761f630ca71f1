"""Progress lines: one JSON object alone on a line of standard output, at most once a second for each phase."""

import json
import time
from collections.abc import Callable

MARK = '{"budeval":'
"""How every progress line, and no other line, begins."""

_INTERVAL_SECONDS = 1.0


class Progress:
    """Says how far the run is, when there is news and not too often."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Write lines with `write`; `clock` returns seconds."""
        self._write = write
        self._clock = clock
        self._told: tuple[str, int, int] | None = None
        self._told_at = float("-inf")

    def tell(self, phase: str, done: int, total: int) -> None:
        """Tell that `done` of `total` questions are answered, `total` 0 meaning not yet known."""
        now = self._clock()
        news = (phase, done, total)
        if news == self._told:
            return
        turning_point = self._told is None or self._told[0] != phase or self._told[2] != total or done == total
        if turning_point or now - self._told_at >= _INTERVAL_SECONDS:
            self._told, self._told_at = news, now
            content = json.dumps({"phase": phase, "done": done, "total": total}, separators=(",", ":"))
            self._write(f'{MARK}"progress",{content[1:]}')

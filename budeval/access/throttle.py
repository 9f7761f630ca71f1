"""How often somebody may do something: a moving window for each, in the memory of this process."""

import math
import time

from limits import parse
from limits.storage.memory import Entry, MemoryStorage
from limits.strategies import MovingWindowRateLimiter

MAXIMUM_KEYS = 10_000
"""Of more, those that were not seen for longest are forgotten: addresses are without number."""


class BoundedMemory(MemoryStorage):
    """The library's storage in memory, for one thread; that one never forgets a key, and starts threads to look."""

    def __init__(self, maximum_keys: int = MAXIMUM_KEYS) -> None:
        super().__init__()
        self.timer.cancel()
        self._maximum = maximum_keys

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Whether there is a place in the window, which is then taken."""
        events = self.events.pop(key, [])
        # The one that was used last stands last.
        self.events[key] = events
        while len(self.events) > self._maximum:
            del self.events[next(iter(self.events))]
        if amount > limit or (len(events) > limit - amount and events[limit - amount].atime > time.time() - expiry):
            return False
        events[:0] = [Entry(expiry)] * amount
        del events[limit:]
        return True


class Throttle:
    """One limit, counted for each key. Used on the event loop alone."""

    def __init__(self, limit: str | None, maximum_keys: int = MAXIMUM_KEYS) -> None:
        """``limit`` such as ``600/minute``; none: there is no limit. Raises ``ValueError`` for what is no limit."""
        self._item = None if limit is None else parse(limit)
        self._limiter = MovingWindowRateLimiter(BoundedMemory(maximum_keys))

    def take(self, key: str) -> int:
        """Counts one; answers the whole seconds to wait where that is one too many, else 0."""
        if self._item is None or self._limiter.hit(self._item, key):
            return 0
        return max(1, math.ceil(self._limiter.get_window_stats(self._item, key).reset_time - time.time()))

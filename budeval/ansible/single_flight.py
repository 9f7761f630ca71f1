"""One answer for everybody who asks the same at about the same time."""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, NamedTuple, TypeVar

Answer = TypeVar("Answer")


class _Flight(NamedTuple, Generic[Answer]):
    started: float
    future: Future[Answer]

    def will_do(self, not_before: float) -> bool:
        """Whether this flight's answer is, or may become, one to a question that was put late enough."""
        return self.started >= not_before and not (self.future.done() and self.future.exception())


class SingleFlight(Generic[Answer]):
    """Asks once for all that wait, and keeps the answer for a short time. Errors are told to all, and not kept."""

    def __init__(self, time_to_live: float, concurrency: int) -> None:
        """A desk for questions.

        Args:
            time_to_live: seconds, from the moment a question was put, in which its answer serves others.
            concurrency: different questions asked at once.
        """
        self._time_to_live = time_to_live
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="single-flight")
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight[Answer]] = {}

    def ask(
        self, key: Hashable, question: Callable[[], Answer], *, not_before: float = float("-inf")
    ) -> tuple[Answer, float]:
        """An answer, and when (``time.monotonic()``) its question was put.

        Args:
            key: equal for equal questions.
            question: called in a thread if no other's answer will do.
            not_before: answers to questions put before this moment will not do.
        """
        while True:
            flight = self._board(key, question, not_before)
            if flight.started >= not_before:
                return flight.future.result(), flight.started
            # Put too early, but two of the same at once would only slow each other down.
            wait([flight.future])

    def _board(self, key: Hashable, question: Callable[[], Answer], not_before: float) -> _Flight[Answer]:
        now = time.monotonic()
        with self._lock:
            self._forget_old(now)
            flight = self._flights.get(key)
            if flight is None or (flight.future.done() and not flight.will_do(not_before)):
                flight = _Flight(now, self._pool.submit(question))
                self._flights[key] = flight
            return flight

    def _forget_old(self, now: float) -> None:
        latest = now - self._time_to_live
        for key in [key for key, flight in self._flights.items() if flight.future.done() and flight.started <= latest]:
            del self._flights[key]

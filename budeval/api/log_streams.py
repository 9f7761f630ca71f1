"""Logs for any number of readers: one playbook at a time, and one for all who follow the same run.

The newest part of a followed log is kept for as long as somebody follows it, so that who joins later begins where it
pleases, and who reads slowly holds up nobody.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import NamedTuple, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from budeval.commons.errors import BudEvalError, LogsBusy, TemporaryError
from budeval.evals.logs import FOLLOWED_BYTES, Following, LogText, RunLogs
from budeval.jobs.logs import LogLine, LogPosition, behind_mark, second_of, select

logger = logging.getLogger("::EVAL:: Logs")

POLL_SECONDS = 2.0
LONGEST_POLL_SECONDS = 10.0
"""Between two looks at a log to which nothing was added for a while."""
MAXIMUM_FOLLOWED = 20
"""Runs that are followed at once: each costs a playbook every few seconds."""
MAXIMUM_WAITING = 20
"""Readers that wait for their turn."""
MAXIMUM_FAILURES = 10
"""Looks in a row that may fail before followers are sent home."""
LINES_AT_ONCE = 1000
KEEP_ALIVE_SECONDS = 15.0
"""After so long without a line a follower hears that the stream is still there."""

AnswerT = TypeVar("AnswerT")
RunKey = tuple[str, str]


def remark(text: str) -> LogLine:
    """A line that is not from the log."""
    return LogLine("", f"[budeval: {text}]")


LEFT_OUT = remark("older lines are left out, the log is too large")


class Told(NamedTuple):
    """What a follower is told at once; nothing: the stream is still there."""

    lines: list[LogLine]
    ended: bool = False
    """Nothing more comes."""
    complete: bool = False
    """Since the log has ended and was told whole."""


class _Followed:
    """One run that somebody follows."""

    def __init__(self) -> None:
        self.followers = 0
        self.started = False
        """Whether it was looked at, and a beginning can be chosen."""
        self.ended = False
        self.last_words: LogLine | None = None
        """What is told at the end beside the log, where it could not be told whole."""
        self._lines: deque[LogLine] = deque()
        self._begin = 0
        """Number of the first line that is kept."""
        self._size = 0
        self._left_out: set[int] = set()
        """Numbers of lines before which some are missing."""
        self._changed = asyncio.Event()

    @property
    def _end(self) -> int:
        return self._begin + len(self._lines)

    def add(self, text: LogText) -> None:
        """Appends what is new."""
        self.started = True
        if text.cut:
            self._left_out.add(self._end)
        self._lines.extend(text.lines)
        self._size += sum(_size(line) for line in text.lines)
        while self._size > FOLLOWED_BYTES and len(self._lines) > 1:
            self._size -= _size(self._lines.popleft())
            self._begin += 1
        self._left_out = {number for number in self._left_out if number >= self._begin}
        self._wake()

    def end(self, last_words: LogLine | None = None) -> None:
        """There is no more."""
        if not self.ended:
            self.ended, self.last_words = True, last_words
            self._wake()

    async def wait(self, seconds: float | None = None) -> bool:
        """Whether something is new; false when the time is up."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def is_ready(self, mark: str) -> bool:
        """Whether a follower can begin: one that goes on behind a mark needs lines to find it among."""
        return self.ended or (self.started and (not mark or bool(self._lines)))

    def beginning(self, since: datetime | None, tail: int | None, mark: str) -> int:
        """Number of the first line for a follower who does not want all, or has a part already."""
        if mark:
            behind = behind_mark(self._lines, mark)
            # Where nothing is kept that the follower has, something may be missing between.
            return self._begin + behind if behind else 0
        if since is None and tail is None:
            # All there ever was, so that it is told when that is not kept any more.
            return 0
        return self._end - len(select(list(self._lines), since, tail))

    def lines_from(self, number: int) -> tuple[list[LogLine], int]:
        """Lines from a number on, so many as fit into one piece, and the number to go on with."""
        missing, number = number < self._begin, max(number, self._begin)
        lines = []
        for line in islice(self._lines, number - self._begin, number - self._begin + LINES_AT_ONCE):
            if missing or number in self._left_out:
                lines.append(LEFT_OUT)
            lines.append(line)
            missing, number = False, number + 1
        return lines, number

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _size(line: LogLine) -> int:
    return len(line.text) + 1


class LogStreams:
    """All who read logs in this process. Used on the event loop alone."""

    def __init__(self, logs: RunLogs) -> None:
        self._logs = logs
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0
        self._followed: dict[RunKey, _Followed] = {}
        self._pollers: set[asyncio.Task[None]] = set()

    async def read(self, question: Callable[[], AnswerT]) -> AnswerT:
        """An answer of :class:`RunLogs`, when it is its turn. Raises :class:`LogsBusy`."""
        if self._waiting >= MAXIMUM_WAITING:
            raise LogsBusy(f"{self._waiting} logs are being read already; try again in a few seconds")
        self._waiting += 1
        try:
            return await self._in_turn(question)
        finally:
            self._waiting -= 1

    def check_room(self, key: RunKey) -> None:
        """Raises :class:`LogsBusy` where another run cannot be followed."""
        if key not in self._followed and len(self._followed) >= MAXIMUM_FOLLOWED:
            raise LogsBusy(f"{MAXIMUM_FOLLOWED} runs are followed already; try again later, or read without follow")

    async def follow(self, key: RunKey, since: datetime | None, tail: int | None, mark: str) -> AsyncIterator[Told]:
        """The log of a run as it grows, until the run has ended; with a ``mark`` what is behind that line."""
        with self._following(key, mark) as followed:
            while not followed.is_ready(mark):
                if not await followed.wait(KEEP_ALIVE_SECONDS):
                    yield Told([])
            number = followed.beginning(since, tail, mark)
            while True:
                lines, number = followed.lines_from(number)
                if lines:
                    yield Told(lines)
                elif followed.ended:
                    last = followed.last_words
                    yield Told([] if last is None else [last], ended=True, complete=last is None)
                    return
                elif not await followed.wait(KEEP_ALIVE_SECONDS):
                    yield Told([])

    @contextmanager
    def _following(self, key: RunKey, mark: str) -> Iterator[_Followed]:
        followed = self._followed.get(key)
        if followed is None:
            followed = self._followed[key] = _Followed()
            # Whoever comes back to a new process may have read the pod before the newest.
            begin = Following(position=LogPosition(since=second_of(mark)))
            poller = asyncio.create_task(self._poll(key, followed, begin), name="log-poller")
            self._pollers.add(poller)
            poller.add_done_callback(self._pollers.discard)
        followed.followers += 1
        try:
            yield followed
        finally:
            followed.followers -= 1
            if not followed.followers and self._followed.get(key) is followed:
                # Its poller sees it, and ends.
                del self._followed[key]

    async def _in_turn(self, question: Callable[[], AnswerT]) -> AnswerT:
        async with self._turn:
            return await run_in_threadpool(question)

    async def _poll(self, key: RunKey, followed: _Followed, following: Following) -> None:
        """Looks at a log for as long as somebody follows it and it has not ended."""
        pause, failures = POLL_SECONDS, 0
        try:
            while followed.followers and not followed.ended:
                following, news, failures = await self._look(key, followed, following, failures)
                pause = POLL_SECONDS if news else min(1.5 * pause, LONGEST_POLL_SECONDS)
                if not followed.ended:
                    await asyncio.sleep(pause)
        finally:
            # Whatever happens here: nobody must wait for it for ever.
            followed.end(remark("the log is not read any more; the service's own log may say why"))

    async def _look(
        self, key: RunKey, followed: _Followed, following: Following, failures: int
    ) -> tuple[Following, bool, int]:
        """How far the log is followed now, whether there was news, and how many looks in a row failed."""
        try:
            news = await self._in_turn(lambda: self._logs.look(*key, following))
        except (TemporaryError, SQLAlchemyError) as error:
            logger.warning("the log of run %s of evaluation %s: %s", key[1], key[0], error)
            if failures + 1 >= MAXIMUM_FAILURES:
                followed.end(remark("the log cannot be read: what it needs does not answer; follow again later"))
            return following, False, failures + 1
        except BudEvalError as error:
            followed.end(remark(f"the log cannot be read: {error}"))
            return following, False, failures
        followed.add(news.text)
        if news.complete:
            followed.end()
        return news.following, bool(news.text.lines), 0

"""The timeline as it happens, for any number of listeners: one watcher asks the record once a second for all of them.

A listener that waits costs memory alone. Those who listen to the same evaluation share what is read when something
happens.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from budeval.record.timeline import Head, Timeline, TimelineEntry

logger = logging.getLogger("::EVAL:: Events")

WATCH_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
"""Proxies close a connection on which nothing is sent for long."""
EVENT_STREAM = "text/event-stream"
RECONNECT = "retry: 2000\n\n"
"""How long a browser waits before it comes back, in milliseconds."""
STILL_HERE = ": still here\n\n"
"""A comment, for those who wait."""
ENTRIES_AT_ONCE = 200


class _Channel:
    """What is known of one evaluation that somebody listens to."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.listeners = 0
        self._changed = asyncio.Event()
        self._reading = asyncio.Lock()
        self._shared: tuple[int, Head, list[TimelineEntry]] = (-1, head, [])

    def update(self, head: Head) -> None:
        """Wakes every listener when there is something new."""
        if head != self.head:
            self.head = head
            self._changed.set()
            self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Whether something is new; false when the time is up."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def read(self, timeline: Timeline, eval_id: str, after: int) -> list[TimelineEntry]:
        """Entries behind ``after``; read once for all listeners who are equally far."""
        async with self._reading:
            if self._shared[:2] != (after, self.head):
                head = self.head
                entries = await run_in_threadpool(timeline.entries, eval_id, after, ENTRIES_AT_ONCE)
                self._shared = (after, head, entries)
            return self._shared[2]


class EventHub:
    """All listeners of the process. Used on the event loop alone."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._channels: dict[str, _Channel] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def stream(self, eval_id: str, after: int, head: Head) -> AsyncIterator[str]:
        """Server-sent events: entries behind ``after``, and then each as it happens, until the timeline is complete."""
        yield RECONNECT
        try:
            with self._listening(eval_id, head) as channel:
                async for text in self._told(channel, eval_id, after):
                    yield text
        except SQLAlchemyError as error:
            logger.warning("listeners of evaluation %s have to come back: %s", eval_id, error)

    async def _told(self, channel: _Channel, eval_id: str, after: int) -> AsyncIterator[str]:
        while True:
            if after < channel.head.newest:
                entries = await channel.read(self._timeline, eval_id, after)
                for entry in entries:
                    yield _event(entry)
                    after = entry.sequence
                if not entries:
                    # The evaluation was deleted meanwhile; the watcher will say so.
                    await channel.wait(WATCH_SECONDS)
            elif channel.head.complete:
                return
            elif not await channel.wait(KEEP_ALIVE_SECONDS):
                yield STILL_HERE

    @contextmanager
    def _listening(self, eval_id: str, head: Head) -> Iterator[_Channel]:
        channel = self._channels.setdefault(eval_id, _Channel(head))
        channel.listeners += 1
        if head.newest > channel.head.newest:
            channel.update(head)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="timeline-watcher")
        try:
            yield channel
        finally:
            channel.listeners -= 1
            if not channel.listeners:
                del self._channels[eval_id]

    async def _watch(self) -> None:
        """Lives as long as somebody listens."""
        while self._channels:
            await asyncio.sleep(WATCH_SECONDS)
            await self._look()

    async def _look(self) -> None:
        watched = list(self._channels)
        if not watched:
            return
        try:
            heads = await run_in_threadpool(self._timeline.heads, watched)
        except SQLAlchemyError as error:
            logger.warning("the record does not answer; listeners wait: %s", error)
            return
        for eval_id in watched:
            if eval_id in self._channels:
                channel = self._channels[eval_id]
                # One that is not there any more has nothing to tell either.
                channel.update(heads.get(eval_id, Head(0, complete=True)))


def _event(entry: TimelineEntry) -> str:
    return f"id: {entry.sequence}\nevent: {entry.kind}\ndata: {entry.model_dump_json()}\n\n"

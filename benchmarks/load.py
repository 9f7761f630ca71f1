"""Requests and listeners, bounded in number, from this one process."""

import asyncio
import time
from collections.abc import Callable, Sequence
from statistics import quantiles
from typing import Any, NamedTuple

import aiohttp

CONNECTIONS = 8
"""Requests at once."""
REQUEST_SECONDS = 60
OPENING_AT_ONCE = 50
"""Listeners that connect at the same time: a listen queue is not endless."""


class Request(NamedTuple):
    """What is sent."""

    method: str
    path: str
    body: dict[str, Any] | None = None


class Speed(NamedTuple):
    """How fast a number of requests were answered."""

    per_second: float
    p50: float
    """Seconds."""
    p99: float


def best_of(rounds: Sequence[Sequence[Request]], base_url: str, settle: Callable[[], None]) -> Speed:
    """The fastest of some rounds, the first of which only warms up; what else runs here can but slow them down.

    ``settle`` is called before each round. Raises ``RuntimeError`` for an answer that is no 2xx.
    """
    return max(asyncio.run(_rounds(rounds, base_url, settle))[1:])


async def _rounds(rounds: Sequence[Sequence[Request]], base_url: str, settle: Callable[[], None]) -> list[Speed]:
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    speeds = []
    async with aiohttp.ClientSession(base_url, connector=connector, timeout=timeout, trust_env=False) as session:
        for requests in rounds:
            await asyncio.to_thread(settle)
            speeds.append(await _round(session, requests))
    return speeds


async def _round(session: aiohttp.ClientSession, requests: Sequence[Request]) -> Speed:
    waiting, seconds = iter(requests), list[float]()

    async def work() -> None:
        for request in waiting:
            began = time.perf_counter()
            async with session.request(request.method, request.path, json=request.body) as response:
                text = await response.text()
            seconds.append(time.perf_counter() - began)
            if not response.ok:
                raise RuntimeError(f"{request.method} {request.path} was answered {response.status}: {text[:500]}")

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    wall = time.perf_counter() - began
    percentiles = quantiles(seconds, n=100, method="inclusive")
    return Speed(len(seconds) / wall, percentiles[49], percentiles[98])


class Listeners:
    """Connections that listen to the events of one evaluation."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connect(self, number: int, eval_id: str, newest: int) -> None:
        """``number`` listeners who have heard everything up to the sequence ``newest``."""
        gate = asyncio.Semaphore(OPENING_AT_ONCE)

        async def open_one() -> None:
            async with gate:
                reader, writer = await asyncio.open_connection(*self._address)
                headers = f"Host: localhost\r\nLast-Event-ID: {newest}\r\n"
                writer.write(f"GET /evals/{eval_id}/events HTTP/1.1\r\n{headers}\r\n".encode())
                status = await reader.readline()
                if b" 200 " not in status:
                    raise RuntimeError(f"a listener was answered {status!r}")
                await reader.readuntil(b"retry: ")
                self._streams.append((reader, writer))

        await asyncio.gather(*(open_one() for _ in range(number)))

    async def next_event(self, seconds: float) -> list[float]:
        """When each heard the next event (``time.perf_counter``)."""

        async def hear(reader: asyncio.StreamReader) -> float:
            await reader.readuntil(b"\nevent: ")
            return time.perf_counter()

        return list(await asyncio.wait_for(asyncio.gather(*(hear(reader) for reader, _ in self._streams)), seconds))

    def close(self) -> None:
        """Everybody leaves."""
        for _, writer in self._streams:
            writer.close()

"""How fast the service answers with a long record behind it, and what people cost who listen and hear nothing.

The service is a process of its own beside a real daprd, scheduler and placement service, on SQLite and on PostgreSQL
with its durable defaults. Its record has 10,000 evaluations that have ended. Each ``start`` is a whole one: recorded,
scheduled, and its workflow runs while the next ones are started. Only the cluster is a stand-in of files that answers
at once: nobody wants hundreds of Jobs, and what a cluster costs is measured by the other benchmark.

The requests come from this process over 8 connections, on the same processors. Of several rounds the fastest counts.
Needs the programs of the local stack (``make up``), not the stack itself.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx
import psutil

from benchmarks import filled_record
from benchmarks.counted_service import statements
from benchmarks.load import Listeners, Request, best_of
from benchmarks.report import Report
from budeval.record.database import open_database
from tests.dapr_harness import HOST, DaprParts, Part
from tests.postgresql import running_postgresql
from tests.samples import a_request
from tests.workflow.stack import Stack

PORT_BASES = {"SQLite": 20000, "PostgreSQL": 21000}
EVALUATIONS = 10_000
ROUNDS = 3
READS, STARTS = 500, 50
"""Requests of a round."""
SETTLE_SECONDS, SETTLED_FOR_SECONDS, SETTLED_PERCENT = 30.0, 0.5, 10.0
"""Between rounds: at most so long, until the service used less than so much of a processor for so long."""
QUIET_SECONDS = 5.0
"""After which a workflow that was started has nothing to do until its next poll."""
EVENT_SECONDS = 30.0
POLL_INTERVAL = {"config_name": "poll_interval", "config_value": 3600}

UNLIMITED = {
    "BUDEVAL_ACCESS": "off",
    "BUDEVAL_RATE_LIMIT": "none",
    "BUDEVAL_MAXIMUM_EVALUATIONS": "none",
    "BUDEVAL_MAXIMUM_JOBS": "none",
}
"""What is measured is the service, not how well it holds callers off."""


class Subject(Stack):
    """The service, and what it needs; nobody subscribes."""

    def __init__(self, directory: Path, port_base: int, database_url: str) -> None:
        super().__init__(DaprParts(directory, port_base), {**UNLIMITED, "BUDEVAL_DATABASE_URL": database_url})
        self.service.command[-2] = "benchmarks.counted_service"

    @property
    def parts(self) -> list[Part]:
        """In the order in which they start."""
        return [self.redis, self.placement, self.scheduler, self.service, self.daprd]


class Usage(NamedTuple):
    """What the service has used so far."""

    cpu: float
    memory: int
    """Bytes that are its own."""
    statements: int

    @classmethod
    def of(cls, subject: Subject) -> "Usage":
        """Now."""
        process = psutil.Process(subject.service.pid)
        times = process.cpu_times()
        return cls(times.user + times.system, process.memory_full_info().uss, statements(subject.world.root))


def bench_requests(report: Report, name: str, subject: Subject) -> None:
    """Adds a line for each kind of request."""
    kinds = {
        "`GET /evals/{eval_id}`": (READS, _get),
        "`GET /evals`": (READS, _list),
        "`GET /evals?dataset=…&status=…`": (READS, _filtered),
        "`POST /evals/start`": (STARTS, _start),
    }
    for title, (requests, make) in kinds.items():
        numbers = count()
        rounds = [[make(next(numbers)) for _ in range(amount)] for amount in (requests // 10, *[requests] * ROUNDS)]
        speed = best_of(rounds, subject.url, partial(_settle, subject))
        report.row(title, name, f"{speed.per_second:.0f}", f"{speed.p50 * 1000:.1f}", f"{speed.p99 * 1000:.1f}")


def _settle(subject: Subject) -> None:
    """Waits until workflows that were started before have nothing to do."""
    process, deadline = psutil.Process(subject.service.pid), time.monotonic() + SETTLE_SECONDS
    while process.cpu_percent(SETTLED_FOR_SECONDS) > SETTLED_PERCENT and time.monotonic() < deadline:
        pass


def _get(number: int) -> Request:
    return Request("GET", f"/evals/{filled_record.eval_id(number * 7919 % EVALUATIONS)}")


def _list(_number: int) -> Request:
    return Request("GET", "/evals")


def _filtered(number: int) -> Request:
    return Request("GET", f"/evals?status=FAILED&dataset={filled_record.dataset(number)}")


def _start(_number: int) -> Request:
    return Request("POST", "/evals/start", a_request(eval_id=str(uuid4()), eval_configs=[POLL_INTERVAL]))


async def bench_listeners(report: Report, subject: Subject, number: int, seconds: float) -> None:
    """Adds a line for nobody and for ``number`` listeners, and what it takes to tell them something."""
    eval_id, newest = await asyncio.to_thread(_quiet_evaluation, subject.url)
    report.table("listeners", "CPU-s a minute", "memory of each, kB", "database statements a second")
    alone = await _idle(report, subject, "nobody", seconds, None, 0)
    listeners = Listeners(HOST, subject.ports.service)
    try:
        await listeners.connect(number, eval_id, newest)
        await asyncio.sleep(QUIET_SECONDS)
        await _idle(report, subject, f"{number:,} who hear nothing", seconds, alone, number)
        began = time.perf_counter()
        heard = asyncio.create_task(listeners.next_event(EVENT_SECONDS))
        await asyncio.to_thread(httpx.post, f"{subject.url}/evals/{eval_id}/cancel", timeout=EVENT_SECONDS)
        times = sorted(moment - began for moment in await heard)
    finally:
        listeners.close()
    report.table("one event to all of them", "s")
    report.row("first", f"{times[0]:.2f}")
    report.row("last", f"{times[-1]:.2f}")


async def _idle(
    report: Report, subject: Subject, title: str, seconds: float, alone: Usage | None, number: int
) -> Usage:
    before = Usage.of(subject)
    await asyncio.sleep(seconds)
    after = Usage.of(subject)
    memory = "" if alone is None else f"{(after.memory - alone.memory) / number / 1024:.0f}"
    rate = (after.statements - before.statements) / seconds
    report.row(title, f"{(after.cpu - before.cpu) / seconds * 60:.2f}", memory, f"{rate:.1f}")
    return after


def _quiet_evaluation(url: str) -> tuple[str, int]:
    """An evaluation that runs and has nothing to tell for an hour, and the newest sequence of its timeline."""
    start = _start(0)
    started = httpx.post(f"{url}{start.path}", json=start.body, timeout=30).raise_for_status()
    time.sleep(QUIET_SECONDS)
    eval_id = started.json()["workflow_id"]
    timeline = httpx.get(f"{url}/evals/{eval_id}/timeline", params={"limit": 200}, timeout=30).raise_for_status()
    return eval_id, timeline.json()["items"][-1]["sequence"]


@contextmanager
def running(directory: Path, port_base: int, database_url: str) -> Iterator[Subject]:
    """The service, on a record that is full."""
    database = open_database(database_url)
    filled_record.fill(database, EVALUATIONS)
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    database.dispose()
    subject = Subject(directory, port_base, database_url)
    try:
        subject.start()
        yield subject
    finally:
        subject.stop()


@contextmanager
def databases(directory: Path) -> Iterator[Mapping[str, str]]:
    """URLs of an empty database of each kind."""
    with running_postgresql(directory / "postgresql", PORT_BASES["PostgreSQL"] + 432, forgetful=False) as server:
        yield {"SQLite": f"sqlite:///{directory}/record.sqlite", "PostgreSQL": server.url}


def main(report: Report, options: argparse.Namespace) -> int:
    """Measures everything."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A connection is a file, here and in the service, which inherits the limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="budeval-bench-")))
        directory.chmod(0o755)
        for name, url in stack.enter_context(databases(directory)).items():
            with running(directory / name, PORT_BASES[name], url) as subject:
                if name == "SQLite":
                    asyncio.run(bench_listeners(report, subject, options.listeners, options.idle_seconds))
                report.table("request", f"record of {EVALUATIONS:,}", "a second", "p50, ms", "p99, ms")
                bench_requests(report, name, subject)
    return 0

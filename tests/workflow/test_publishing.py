"""From the outbox through a real daprd to a real Redis, over a wire that fails: what must not come twice never does.

The components are those of the local stack, as they are.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import redis
import yaml

from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals import publisher as publisher_module
from budeval.evals.models import Announcement
from budeval.evals.notifications import Notifier, eta_announcement, status_announcement
from budeval.evals.publisher import DaprPublisher
from budeval.record import Record
from budeval.record.database import open_database
from budeval.record.outbox import Outbox
from tests.dapr_harness import APP_ID, HOST, ROOT, TOPIC, DaprParts, Part, wait_for, write_components
from tests.samples import SECRETS, a_sealer, an_evaluation, announce, job_names

PORT_BASE = 16000
WIRE_OFFSET = 639
RESULTS = Announcement(event=Event.RESULTS, status=WorkflowStatus.COMPLETED, title="Evaluation Results")
STORY = [eta_announcement(0), RESULTS, status_announcement(WorkflowStatus.COMPLETED, "Evaluation completed")]
TOLD = ["eta", "results", "evaluate_model_status"]


class Wire:
    """Stands between daprd and Redis, and fails at the messages that carry a word."""

    def __init__(self, port: int, target: int) -> None:
        self.fails_at = b"nothing that is ever sent"
        self.delivers = True
        """Whether Redis gets the message at which the wire fails; its answer is lost in any case."""
        self.failures = 0
        self._port, self._target = port, target
        self._threads: list[threading.Thread] = []
        self.listen()

    def listen(self) -> None:
        """Takes connections, again."""
        self._listener = socket.create_server((HOST, self._port))
        self._start(self._accept, self._listener)

    def refuse(self) -> None:
        """Takes no more connections: who tries is told so."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        """Takes nobody any more, and waits for those who are there."""
        self.refuse()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                try:
                    far = socket.create_connection((HOST, self._target))
                except OSError:
                    near.close()
                    continue
                self._start(self._up, near, far)
                self._start(self._down, far, near)

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError), near, far:
            while chunk := near.recv(1 << 20):
                if self.fails_at in chunk:
                    self.failures += 1
                    near.shutdown(socket.SHUT_RDWR)
                    if self.delivers:
                        far.sendall(chunk)
                        # Redis reads to the end of what was sent before it answers the goodbye.
                        far.shutdown(socket.SHUT_WR)
                        while far.recv(1 << 20):
                            pass
                    return
                far.sendall(chunk)

    def _down(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while chunk := far.recv(1 << 20):
                near.sendall(chunk)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)


class Line:
    """The outbox, daprd, the wire and Redis."""

    def __init__(self, directory: Path) -> None:
        factory = DaprParts(directory, PORT_BASE)
        self.ports = factory.ports
        self.redis: Part = factory.redis()
        self.daprd: Part = factory.daprd(_components(directory / "components"), _addresses(PORT_BASE + WIRE_OFFSET))
        # It runs no workflow: without these two it needs neither placement nor scheduler.
        self.daprd.command += ["--placement-host-address=", "--scheduler-host-address="]
        self.wire = Wire(PORT_BASE + WIRE_OFFSET, self.ports.redis)
        database = open_database(f"sqlite:///{directory}/record.sqlite")
        self._close_database = database.dispose
        self._record, self.outbox = Record(database, a_sealer()), Outbox(database)
        self._publisher = DaprPublisher("pubsub-redis", "budapp")
        self.notifier = Notifier(self.outbox, self._publisher)
        self.evaluation = an_evaluation(source_topics=[TOPIC])
        assert self._record.create(self.evaluation, SECRETS, b"", job_names(self.evaluation), "tester")

    @contextmanager
    def running(self) -> Iterator["Line"]:
        """Starts everything, and leaves nothing behind."""
        with ExitStack() as ends:
            for end in (self._close_database, self.wire.close, self.redis.kill, self.daprd.kill, self._publisher.close):
                ends.callback(end)
            self.redis.start()
            self.daprd.start()
            yield self

    def tell(self) -> None:
        """The last words on an evaluation; what waits is sent later."""
        announce(self.notifier, self.evaluation, STORY)

    def told_later(self) -> list[str]:
        """Publishes until nothing waits, as the pulse does; answers what is in the topic."""
        wait_for(lambda: self.notifier.flush_all() or not self.outbox.waiting(), 30, "everything was published")
        with redis.Redis(host=HOST, port=self.ports.redis) as broker:
            entries = [fields[b"data"].decode() for _, fields in broker.xrange(TOPIC)]
        return [yaml.safe_load(entry)["payload"]["event"] for entry in entries]

    @contextmanager
    def redis_stopped(self) -> Iterator[None]:
        """Redis keeps its connections and answers nobody."""
        os.kill(self.redis.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.redis.pid, signal.SIGCONT)


def _components(directory: Path) -> Path:
    documents = [
        yaml.safe_load((ROOT / "components" / f"{name}.yaml").read_text()) for name in ("pubsub-redis", "resiliency")
    ]
    return write_components(directory, *({**document, "scopes": [APP_ID]} for document in documents))


def _addresses(port: int) -> dict[str, str]:
    return {"BUDEVAL_REDIS_HOST": f"{HOST}:{port}"}


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    line = Line(tmp_path)
    monkeypatch.setattr(publisher_module.dapr_settings, "DAPR_GRPC_PORT", line.ports.daprd_grpc)
    monkeypatch.setattr(publisher_module.dapr_settings, "DAPR_HTTP_PORT", line.ports.daprd_http)
    with line.running():
        yield line


def test_over_a_good_wire_everything_comes_once_and_in_order(line: Line) -> None:
    line.tell()
    assert line.told_later() == TOLD


def test_results_that_arrived_while_the_answer_was_lost_do_not_come_twice(line: Line) -> None:
    line.wire.fails_at = b'"results"'
    line.tell()
    assert line.told_later() == TOLD
    assert line.wire.failures == 1


def test_anything_else_whose_answer_was_lost_comes_again_before_what_follows(line: Line) -> None:
    line.wire.fails_at = b'"eta"'
    line.tell()
    line.wire.fails_at = b"nothing"
    assert line.told_later() == ["eta", *TOLD]


def test_results_of_which_nobody_can_know_whether_they_arrived_are_given_up(line: Line) -> None:
    line.wire.fails_at, line.wire.delivers = b'"results"', False
    line.tell()
    assert line.told_later() == ["eta", "evaluate_model_status"]


def test_results_wait_for_a_redis_that_hangs_and_come_once_at_most(line: Line) -> None:
    announce(line.notifier, line.evaluation, STORY[:1])
    with line.redis_stopped():
        line.tell()
    assert line.told_later() == TOLD


def test_results_that_a_dead_daprd_cannot_have_got_are_not_lost(line: Line) -> None:
    announce(line.notifier, line.evaluation, STORY[:1])
    line.daprd.kill()
    for _ in range(3):
        line.tell()
    line.daprd.start()
    assert line.told_later() == TOLD


def test_results_that_a_dead_redis_cannot_have_got_are_not_lost(line: Line) -> None:
    announce(line.notifier, line.evaluation, STORY[:1])
    line.redis.kill()
    line.wire.refuse()
    for _ in range(3):
        line.tell()
    line.redis.start()
    line.wire.listen()
    assert line.told_later() == TOLD


def test_results_are_not_tried_before_the_broker_took_what_comes_before_them(line: Line) -> None:
    # As behind a load balancer: connections are taken and then cut, so that no failure is certain.
    line.redis.kill()
    for _ in range(3):
        line.tell()
    line.redis.start()
    assert line.told_later() == TOLD


def test_results_do_not_come_twice_when_daprd_dies_while_it_publishes_them(line: Line) -> None:
    announce(line.notifier, line.evaluation, STORY[:1])
    with line.redis_stopped():
        telling = threading.Thread(target=line.tell)
        telling.start()
        wait_for(lambda: not line.outbox.waiting(), 10, "results are claimed")
        time.sleep(0.5)
        line.daprd.kill()
        telling.join(20)
    line.daprd.start()
    told = line.told_later()
    assert told.count("results") <= 1
    assert [event for event in told if event != "results"] == ["eta", "evaluate_model_status"]

"""Server-sent events on real connections, which break."""

import json
import socket
import struct
import time
from collections import Counter
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import Engine, event, update

from budeval.api import events as events_module
from budeval.commons.clock import utc_now
from budeval.commons.wire import WorkflowStatus
from budeval.record.tables import EvaluationRow
from budeval.record.timeline import LAST_WORDS_SECONDS
from tests.api.conftest import BOTH_DATABASES
from tests.api.test_history import OTHER_ID, UNREACHABLE
from tests.api.test_listing import id_of
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, a_request

DATABASES = BOTH_DATABASES

LISTENERS = 200
SECONDS = 10


class Listener:
    """A client that reads events off its own socket."""

    def __init__(self, service, last_event_id=None, eval_id=EVAL_ID):
        url = service.client.base_url
        self._socket = socket.create_connection((url.host, url.port), timeout=SECONDS)
        resume = "" if last_event_id is None else f"Last-Event-ID: {last_event_id}\r\n"
        self._socket.sendall(f"GET /evals/{eval_id}/events HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode())
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        lines = iter(self._file.readline, b"\r\n")
        self.headers = dict(line.decode().strip().lower().split(": ", 1) for line in lines)

    def frames(self):
        """Frames as they come, until the server ends the answer."""
        while size := int(self._file.readline(), 16):
            frame = self._file.read(size).decode()
            self._file.readline()
            yield frame

    def events(self):
        """Events alone: id, kind and data of each."""
        for frame in self.frames():
            if frame.startswith("id: "):
                fields = dict(line.split(": ", 1) for line in frame.strip().splitlines())
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])

    def take(self, count):
        """The next events: sequence and message of each."""
        found = self.events()
        return [(sequence, data["message"]) for sequence, _, data in (next(found) for _ in range(count))]

    def kill(self):
        """As if the cable were cut: a reset, no goodbye."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self._file.close()
        self._socket.close()


@pytest.fixture
def listen(service):
    """Connects listeners and leaves no connection behind."""
    with ExitStack() as connections:

        def connect(*arguments, **options):
            listener = Listener(service, *arguments, **options)
            connections.callback(listener.close)
            return listener

        yield connect


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(events_module, "WATCH_SECONDS", 0.2)


def happens(service, *messages):
    for message in messages:
        service.record.trying_again(EVAL_ID, UNREACHABLE._replace(message=message))


def long_ago(service):
    """The evaluation ended long before now."""
    before = utc_now().replace(year=2020)
    with service.database.begin() as connection:
        connection.execute(update(EvaluationRow).values(ended_at=before))


@contextmanager
def counted():
    """Statements on every database of the process meanwhile."""
    statements = Counter()

    def note(_connection, _cursor, statement, *_rest):
        statements[statement.split()[0]] += 1

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_listener_hears_what_happened_and_then_what_happens(service, listen):
    service.start(a_request())
    listener = listen()
    assert (listener.status, listener.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert listener.headers["cache-control"] == "no-store"
    sequence, kind, data = next(listener.events())
    assert (sequence, kind, data["kind"], data["sequence"]) == (1, "created", "created", 1)
    happens(service, "one", "two")
    assert listener.take(2) == [(2, "one"), (3, "two")]


def test_data_is_the_entry_of_the_timeline(service, listen):
    service.start(a_request())
    happens(service, "line one\nline two — ü")
    found = [data for _, _, data in (next(listener) for listener in [listen().events()] for _ in range(2))]
    assert found == service.client.get(f"/evals/{EVAL_ID}/timeline").json()["items"]


def test_who_comes_back_after_a_cut_connection_misses_nothing_and_hears_nothing_twice(service, listen):
    service.start(a_request())
    heard, last = [], None
    for turn in range(5):
        listener = listen(last)
        happens(service, f"{turn} connected")
        heard += listener.take(3 if turn else 2)
        last = heard[-1][0]
        listener.kill()
        happens(service, f"{turn} away a", f"{turn} away b")
    heard += listen(last).take(2)
    told = [message for turn in range(5) for message in (f"{turn} connected", f"{turn} away a", f"{turn} away b")]
    assert heard == [(1, "1 run of gpt-oss-20b, for budapp"), *enumerate(told, start=2)]


def test_what_repeats_is_told_again_with_its_count(service, listen):
    service.start(a_request())
    listener = listen(1)
    happens(service, "again")
    assert listener.take(1) == [(2, "again")]
    happens(service, "again")
    sequence, _, data = next(listener.events())
    assert (sequence, data["count"]) == (3, 2)


def test_an_id_that_this_evaluation_never_had_gets_everything(service, listen):
    service.start(a_request())
    happens(service, "one")
    assert [sequence for sequence, _ in listen(99).take(2)] == [1, 2]


def test_more_than_is_read_at_once_comes_whole(service, listen, monkeypatch):
    monkeypatch.setattr(events_module, "ENTRIES_AT_ONCE", 3)
    service.start(a_request())
    happens(service, *(f"{number}" for number in range(10)))
    assert [sequence for sequence, _ in listen().take(11)] == list(range(1, 12))


def test_the_stream_ends_when_the_last_words_were_said(service, listen):
    service.start(a_request())
    listener = listen()
    service.record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    happened = listener.events()
    assert [next(happened)[1] for _ in range(2)] == ["created", "end"]
    began = time.monotonic()
    assert list(happened) == []
    assert time.monotonic() - began < LAST_WORDS_SECONDS + 3


def test_of_an_evaluation_that_ended_long_ago_everything_is_told_at_once_and_once(service, listen):
    service.start(a_request())
    service.record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    long_ago(service)
    assert [kind for _, kind, _ in listen().events()] == ["created", "end"]
    assert listen(2).status == 204


def test_a_listener_of_a_deleted_evaluation_is_sent_home(service, listen):
    service.start(a_request())
    listener = listen()
    with service.database.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        connection.exec_driver_sql("DELETE FROM evaluations")
    assert [kind for _, kind, _ in listener.events()] in ([], ["created"])


def test_a_silent_stream_is_kept_alive(service, listen, monkeypatch):
    monkeypatch.setattr(events_module, "KEEP_ALIVE_SECONDS", 0.3)
    service.start(a_request())
    frames = listen(1).frames()
    assert next(frames) == events_module.RECONNECT
    assert [next(frames) for _ in range(2)] == [": still here\n\n"] * 2


def test_a_record_that_is_away_for_a_while_is_waited_for(service, listen):
    service.start(a_request())
    listener = listen(1)
    with service.database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE evaluations RENAME TO elsewhere")
    time.sleep(0.6)
    with service.database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO evaluations")
    happens(service, "back")
    assert listener.take(1) == [(2, "back")]


def test_many_idle_listeners_cost_one_query_a_second_together_and_all_hear_what_happens(service, listen):
    ids = [EVAL_ID, *(id_of(number) for number in range(1, 10))]
    for eval_id in ids:
        service.start(a_request(eval_id=eval_id))
    listeners = [listen(1, eval_id=ids[number % len(ids)]) for number in range(LISTENERS)]
    assert {listener.status for listener in listeners} == {200}
    time.sleep(1)
    with counted() as statements:
        time.sleep(2)
    assert 5 <= statements["SELECT"] <= 11
    with counted() as statements:
        happens(service, "news")
        mine = [listener for number, listener in enumerate(listeners) if number % len(ids) == 0]
        assert [listener.take(1) for listener in mine] == [[(2, "news")]] * (LISTENERS // len(ids))
    assert statements["SELECT"] < LISTENERS // len(ids)


def test_nobody_listening_costs_nothing(service, listen):
    service.start(a_request())
    listen(1).kill()
    time.sleep(1)
    with counted() as statements:
        time.sleep(1)
    assert statements["SELECT"] == 0


@pytest.mark.parametrize("last", ["-1", "x", "1.5", str(2**31), str(10**30)])
def test_an_id_that_is_none_is_refused_by_name(shared, last):
    response = shared.client.get(f"/evals/{EVAL_ID}/events", headers={"Last-Event-ID": last})
    assert [error["field"] for error in is_problem(response, 422)["errors"]] == ["last-event-id"]


def test_what_nobody_asked_for_has_no_events(shared):
    is_problem(shared.client.get(f"/evals/{OTHER_ID}/events"), 404)

import threading
import time

import pytest

from budeval.client import Client, NotFound, Unreachable
from tests.client.service import complete, progress
from tests.client.test_calls import a_request
from tests.samples import EVAL_ID


class Following:
    """A generator read in a thread, as it comes."""

    def __init__(self, items):
        self.items = []
        self.error = None
        self._source = items
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        try:
            for item in self._source:
                self.items.append(item)
        except (Unreachable, NotFound) as error:
            self.error = error

    def until(self, condition, seconds=15):
        deadline = time.monotonic() + seconds
        while not condition(self.items):
            assert time.monotonic() < deadline, self.items
            time.sleep(0.02)

    def finished(self, seconds=30):
        self._thread.join(timeout=seconds)
        assert not self._thread.is_alive()
        return self.items


def test_events_come_until_the_evaluation_has_ended(client, service):
    eval_id = client.start(a_request()).eval_id
    following = Following(client.events(eval_id))
    following.until(lambda items: [entry.kind for entry in items] == ["created"])
    complete(service, eval_id)
    kinds = [entry.kind for entry in following.finished()]
    assert kinds[-1] == "end"


def test_events_miss_nothing_when_the_connection_is_killed(client, service, proxy):
    eval_id = client.start(a_request()).eval_id
    with Client(proxy.url, patience=20) as cut_off:
        following = Following(cut_off.events(eval_id))
        following.until(lambda items: len(items) == 1)
        proxy.cut()
        progress(service, eval_id, done=12)
        following.until(lambda items: len(items) > 1)
        proxy.cut()
        complete(service, eval_id)
        told = following.finished()
    assert [entry.sequence for entry in told] == [entry.sequence for entry in client.timeline(eval_id)]
    assert b"last-event-id: " in proxy.requests.lower()
    assert proxy.connections >= 3


def test_events_can_be_resumed_by_hand(client, service):
    eval_id = client.start(a_request()).eval_id
    complete(service, eval_id)
    every = Following(client.events(eval_id)).finished()
    rest = Following(client.events(eval_id, str(every[0].sequence))).finished()
    assert rest == every[1:]


def test_events_of_an_unknown_evaluation_are_not_found(client):
    with pytest.raises(NotFound):
        list(client.events(EVAL_ID))


def test_a_service_that_stays_away_is_given_up(client, service, proxy):
    eval_id = client.start(a_request()).eval_id
    with Client(proxy.url, patience=1) as cut_off:
        following = Following(cut_off.events(eval_id))
        following.until(lambda items: len(items) == 1)
        proxy.close()
        following.finished()
    assert isinstance(following.error, Unreachable)


def test_watching_shows_each_change_and_ends(client, service):
    eval_id = client.start(a_request()).eval_id
    following = Following(client.watch(eval_id, interval=0.2))
    following.until(lambda items: len(items) == 1)
    progress(service, eval_id, done=12)
    following.until(lambda items: items[-1].runs[0].progress.done == 12)
    progress(service, eval_id, done=24)
    following.until(lambda items: items[-1].runs[0].progress.done == 24)
    complete(service, eval_id)
    assert following.finished()[-1].succeeded


def test_watching_hears_of_the_end_without_polling(client, service):
    eval_id = client.start(a_request()).eval_id
    following = Following(client.watch(eval_id, interval=600))
    following.until(lambda items: len(items) == 1)
    time.sleep(0.5)
    complete(service, eval_id)
    assert following.finished(seconds=10)[-1].succeeded


def test_watching_outlives_a_killed_connection(client, service, proxy):
    eval_id = client.start(a_request()).eval_id
    with Client(proxy.url, patience=20) as cut_off:
        following = Following(cut_off.watch(eval_id, interval=0.2))
        following.until(lambda items: len(items) == 1)
        proxy.cut()
        progress(service, eval_id, done=12)
        following.until(lambda items: items[-1].runs[0].progress.done == 12)
        proxy.cut()
        complete(service, eval_id)
        assert following.finished()[-1].succeeded


def test_watching_polls_where_the_service_has_no_events(client, service, monkeypatch):
    monkeypatch.setattr(Client, "_feed", _feed_of_nothing)
    eval_id = client.start(a_request()).eval_id
    following = Following(client.watch(eval_id, interval=0.1))
    following.until(lambda items: len(items) == 1)
    complete(service, eval_id)
    assert following.finished()[-1].succeeded


def _feed_of_nothing(client, eval_id, last_event_id=""):
    from budeval.client.feed import EventFeed

    return EventFeed(client._http, f"/evals/{eval_id}/no-such-path", 5.0)


def test_watching_can_be_left_early(client):
    eval_id = client.start(a_request()).eval_id
    watching = client.watch(eval_id)
    next(watching)
    before = time.monotonic()
    watching.close()
    assert time.monotonic() - before < 1
    assert not [thread for thread in threading.enumerate() if thread.name == "budeval-events"]

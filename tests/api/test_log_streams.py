"""Logs that are followed: as text, and as events that go on where they were."""

import threading
import time
from contextlib import ExitStack
from itertools import islice

import pytest

from budeval.api import log_streams
from budeval.api.log_streams import LEFT_OUT
from budeval.client.sse import EventParser
from budeval.commons.errors import ClusterUnauthorized, ClusterUnreachable
from budeval.commons.wire import WorkflowStatus
from budeval.jobs.logs import LogFile
from tests.api.test_listing import id_of
from tests.api.test_logs import KEY, PATH, RUN, cluster, ends, logs, secret_parts, served
from tests.api.test_start import is_problem
from tests.cluster import until
from tests.samples import EVAL_ID, a_request
from tests.scripted_logs import deployed

__all__ = ["cluster", "served"]


class Follower(threading.Thread):
    """Reads a followed log on a connection of its own."""

    def __init__(self, service, path=PATH, **query):
        super().__init__()
        self.lines = []
        self.status = 0
        self._stack = ExitStack()
        stream = service.client.stream("GET", path, params={"follow": True, **query}, timeout=30)
        self.response = self._stack.enter_context(stream)
        self.status = self.response.status_code
        self.start()

    def run(self):
        with self._stack:
            self.lines.extend(line for line in self.response.iter_lines())

    def ended(self):
        self.join(15)
        assert not self.is_alive()
        return self.lines


def test_a_followed_log_comes_whole_and_once_and_ends_with_the_run(served, cluster):
    pod = cluster.pod("line 0")
    follower = Follower(served)
    assert follower.response.headers["x-accel-buffering"] == "no"
    for number in range(1, 60):
        pod.say(f"line {number}")
        time.sleep(0.01)
    ends(served)
    pod.say("the last word")
    pod.ended = True
    assert follower.ended() == [*(f"line {number}" for number in range(60)), "the last word"]


def test_a_follower_sees_no_key_however_the_line_came_to_be_written(served, cluster, monkeypatch):
    pod = cluster.pod("begin")
    follower = Follower(served)
    until(lambda: follower.lines == ["begin"], 10, 0.02)
    half = len(KEY) // 2
    # A line that is not whole yet is not told.
    log = pod.log
    monkeypatch.setattr(pod, "log", lambda since: (told := log(since)).model_copy(
        update={"text": f"{told.text}2026-01-01T10:00:00Z key {KEY[:half]}"}))  # fmt: skip
    time.sleep(0.3)
    monkeypatch.undo()
    pod.say(f"key {KEY}", "end")
    until(lambda: "end" in follower.lines, 10, 0.02)
    served.record.finish(EVAL_ID, WorkflowStatus.FAILED)
    pod.say(f"last {KEY}")
    pod.ended = True
    told = "\n".join(follower.ended())
    assert secret_parts(told) == []
    assert KEY[:half] not in told
    assert "last [redacted]" in told


def test_a_run_is_waited_for(cluster, service):
    service.start(a_request())
    follower = Follower(service)
    assert follower.status == 200
    time.sleep(0.3)
    assert cluster.asked == []
    deployed(service, EVAL_ID)
    pod = cluster.pod(started=False)
    time.sleep(0.3)
    pod.started = True
    pod.say("at last")
    until(lambda: follower.lines == ["at last"], 10, 0.02)
    pod.ended = True
    ends(service)
    assert follower.ended() == ["at last"]


def test_a_pod_that_is_started_again_is_followed_on(served, cluster):
    first = cluster.pod("first")
    follower = Follower(served)
    until(lambda: follower.lines, 10, 0.02)
    first.say("first dies")
    first.ended = True
    second = cluster.pod("second")
    until(lambda: "second" in follower.lines, 10, 0.02)
    second.ended = True
    ends(served)
    assert follower.ended() == ["first", "first dies", "second"]


def test_when_the_pod_vanishes_the_file_tells_the_rest(served, cluster):
    cluster.pod("one", "two")
    follower = Follower(served)
    until(lambda: len(follower.lines) == 2, 10, 0.02)
    cluster.pods.clear()
    stamp = "2026-01-01T10:00:01.000000Z"
    cluster.file = LogFile(text="".join(f"{stamp} {text}\n" for text in ("earlier", "one", "two", "stopped")))
    served.record.finish(EVAL_ID, WorkflowStatus.TERMINATED)
    assert follower.ended() == ["one", "two", "stopped"]


def test_the_log_of_a_run_that_has_ended_is_told_and_ends(served, cluster):
    cluster.pod("all").ended = True
    ends(served)
    assert Follower(served).ended() == ["all"]


def test_followers_begin_where_they_please_and_cost_one_look_together(served, cluster):
    pod = cluster.pod()
    pod.say("old", ago=3600)
    pod.say("a", "b", "c")
    followers = [Follower(served), Follower(served, tail=1), Follower(served, since="5m"), Follower(served, tail=0)]
    followers += [Follower(served) for _ in range(16)]
    until(lambda: all(follower.lines for follower in followers[:3]), 10, 0.02)
    before = len(cluster.asked)
    time.sleep(1)
    # Ten looks a second, however many follow.
    assert 4 <= len(cluster.asked) - before <= 14
    pod.say("new")
    until(lambda: all(follower.lines[-1:] == ["new"] for follower in followers), 10, 0.02)
    pod.ended = True
    ends(served)
    heads = [["old", "a", "b", "c"], ["c"], ["a", "b", "c"], [], *[["old", "a", "b", "c"]] * 16]
    assert [follower.ended() for follower in followers] == [[*head, "new"] for head in heads]
    assert cluster.most_at_once == 1


def test_nobody_following_costs_nothing(served, cluster):
    cluster.pod("one")
    with served.client.stream("GET", PATH, params={"follow": True}) as response:
        assert next(response.iter_lines()) == "one"
    time.sleep(0.5)
    before = len(cluster.asked)
    time.sleep(0.5)
    assert len(cluster.asked) == before


def test_only_so_many_runs_are_followed_at_once(served, cluster, monkeypatch):
    monkeypatch.setattr(log_streams, "MAXIMUM_FOLLOWED", 1)
    served.start(a_request(eval_id=id_of(1)))
    pod = cluster.pod("one")
    followers = [Follower(served), Follower(served)]
    until(lambda: all(follower.lines for follower in followers), 10, 0.02)
    other = f"/evals/{id_of(1)}/runs/{RUN}/logs"
    refused = logs(served, other, follow=True)
    assert refused.headers["retry-after"] == "5"
    assert is_problem(refused, 503)["title"] == "Too many logs at once"
    pod.ended = True
    ends(served)
    assert [follower.ended() for follower in followers] == [["one"], ["one"]]
    follower = Follower(served, other)
    assert follower.status == 200
    served.record.finish(id_of(1), WorkflowStatus.TERMINATED)
    follower.ended()


def test_only_so_many_readers_wait(served, cluster, monkeypatch):
    monkeypatch.setattr(log_streams, "MAXIMUM_WAITING", 2)
    cluster.pod("one")
    cluster.seconds = 1.0
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(logs(served).status_code)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == [200, 200, 503, 503, 503]
    assert cluster.most_at_once == 1


def test_a_cluster_that_is_away_for_a_while_is_waited_for(served, cluster):
    pod = cluster.pod("one")
    follower = Follower(served)
    until(lambda: follower.lines == ["one"], 10, 0.02)
    cluster.failing = ClusterUnreachable("nobody answers")
    pod.say("two")
    time.sleep(0.3)
    cluster.failing = None
    pod.ended = True
    ends(served)
    assert follower.ended() == ["one", "two"]


@pytest.mark.parametrize("error", [ClusterUnreachable("nobody answers"), ClusterUnauthorized("who are you")])
def test_followers_of_what_cannot_be_read_are_sent_home_with_a_word(served, cluster, error):
    cluster.failing = error
    (line,) = Follower(served).ended()
    assert line.startswith("[budeval: the log cannot be read")


def test_a_slow_reader_is_told_what_it_missed(served, cluster, monkeypatch):
    monkeypatch.setattr(log_streams, "FOLLOWED_BYTES", 100)
    pod = cluster.pod(*(f"line {number}" for number in range(50)))
    pod.ended = True
    ends(served)
    told = Follower(served).ended()
    assert told[0] == LEFT_OUT.text
    assert told[-1] == "line 49"
    assert len(told) < 20


def test_the_evaluation_is_deleted_while_its_log_is_followed(served, cluster):
    cluster.pod("one")
    follower = Follower(served)
    until(lambda: follower.lines == ["one"], 10, 0.02)
    with served.database.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        connection.exec_driver_sql("DELETE FROM evaluations")
    assert follower.ended()[1].startswith("[budeval: the log cannot be read")


# ---------------------------------------------------------------- following as events


class Listener(threading.Thread):
    """Reads a followed log as server-sent events."""

    def __init__(self, service, last_event_id="", **query):
        super().__init__()
        self.events = []
        self._stack = ExitStack()
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_event_id} if last_event_id else {})}
        query = {"follow": True, **query}
        stream = service.client.stream("GET", PATH, params=query, headers=headers, timeout=30)
        self.response = self._stack.enter_context(stream)
        assert self.response.status_code == 200
        assert self.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert self.response.headers["x-accel-buffering"] == "no"
        self.start()

    def run(self):
        with self._stack:
            self.events.extend(EventParser().parse(self.response.iter_bytes()))

    @property
    def lines(self):
        return [event.data for event in self.events if event.event == "message"]

    def ended(self):
        self.join(15)
        assert not self.is_alive()
        return self.lines


def test_a_log_as_events_goes_on_behind_any_line_and_says_when_it_was_told_whole(served, cluster):
    pod = cluster.pod("same", "same", " data: x", "", "ü — end")
    pod.ended = True
    ends(served)
    whole = Listener(served)
    assert whole.ended() == ["same", "same", " data: x", "", "ü — end"]
    *lines, end = whole.events
    assert (end.event, end.data, end.id) == ("end", "", "complete")
    for position, event in enumerate(lines):
        assert Listener(served, event.id).ended() == whole.lines[position + 1 :]
    response = logs_as_events(served, "complete")
    assert (response.status_code, response.content) == (204, b"")


def first_events(service, count):
    """What a listener hears who then leaves."""
    headers = {"Accept": "text/event-stream"}
    with service.client.stream("GET", PATH, params={"follow": True}, headers=headers) as response:
        return list(islice(EventParser().parse(response.iter_bytes()), count))


def logs_as_events(service, last_event_id):
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last_event_id}
    return service.client.get(PATH, params={"follow": True}, headers=headers)


def test_who_goes_on_gets_what_was_said_meanwhile_also_by_the_pod_before(served, cluster):
    first = cluster.pod("one")
    (heard,) = first_events(served, 1)
    first.say("dying words")
    first.ended = True
    first.created = "2026-01-01T10:00:00Z"
    second = cluster.pod("two")
    second.created = "2999-01-01T10:00:00Z"
    # As after a restart of the service: nobody followed meanwhile.
    time.sleep(0.5)
    again = Listener(served, heard.id, tail=1)
    until(lambda: again.lines == ["dying words", "two"], 10, 0.02)
    second.ended = True
    ends(served)
    assert again.ended() == ["dying words", "two"]


def test_who_goes_on_when_the_pod_is_gone_goes_on_in_the_file(served, cluster):
    pod = cluster.pod("one", "two")
    _, heard = first_events(served, 2)
    again = Listener(served, heard.id)
    cluster.pods.clear()
    written = [*(f"{at} {text}" for at, text in pod.lines), f"{pod.lines[-1][0]} three"]
    cluster.file = LogFile(text="".join(f"{line}\n" for line in written))
    third = Listener(served, heard.id)
    time.sleep(0.3)
    served.record.finish(EVAL_ID, WorkflowStatus.TERMINATED)
    assert third.ended() == ["three"]
    assert again.ended() == ["three"]


def test_a_log_that_could_not_be_told_whole_ends_without_being_complete(served, cluster):
    cluster.failing = ClusterUnauthorized("who are you")
    listener = Listener(served)
    (line,) = listener.ended()
    assert line.startswith("[budeval: the log cannot be read")
    assert [(event.event, event.id) for event in listener.events] == [("message", ""), ("end", "")]


def test_a_listener_who_hears_nothing_hears_that_it_is_still_there(served, cluster, monkeypatch):
    monkeypatch.setattr(log_streams, "KEEP_ALIVE_SECONDS", 0.05)
    cluster.pod(started=False)
    headers = {"Accept": "text/event-stream"}
    with served.client.stream("GET", PATH, params={"follow": True}, headers=headers) as response:
        lines = response.iter_lines()
        assert next(lines) == "retry: 2000"
        assert [line for line in (next(lines) for _ in range(6)) if line] == [": still here"] * 3


@pytest.mark.parametrize("last_event_id", ["1", "2026-01-01/x", "complete/x", "x" * 200])
def test_an_id_that_no_line_has_is_refused_by_name(served, cluster, last_event_id):
    problem = is_problem(logs_as_events(served, last_event_id), 422)
    assert [error["field"] for error in problem["errors"]] == ["Last-Event-ID"]
    assert cluster.asked == []

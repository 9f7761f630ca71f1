import time

import pytest

from budeval.client import Client, NotFound, UnexpectedAnswer, Unreachable
from budeval.client.logs import log_path
from budeval.commons.wire import WorkflowStatus
from tests.client.service import run_ids
from tests.client.test_calls import a_request
from tests.client.test_following import Following
from tests.scripted_logs import deployed


@pytest.fixture(autouse=True)
def cluster(scripted_logs):
    return scripted_logs


@pytest.fixture
def evaluation(cluster, client, service):
    eval_id = client.start(a_request()).eval_id
    deployed(service, eval_id)
    return eval_id, run_ids(service, eval_id)[0]


def test_a_log_comes_line_by_line(cluster, client, evaluation):
    cluster.pod("one", "", "three — ü")
    assert list(client.logs(*evaluation)) == ["one", "", "three — ü"]
    assert list(client.logs(*evaluation, tail=1)) == ["three — ü"]
    assert list(client.logs(*evaluation, since="10m", tail=2)) == ["", "three — ü"]


def test_a_followed_log_ends_with_the_run(cluster, client, service, evaluation):
    pod = cluster.pod("one")
    lines = client.logs(*evaluation, follow=True)
    assert next(lines) == "one"
    pod.say("two")
    assert next(lines) == "two"
    pod.ended = True
    service.record.finish(evaluation[0], WorkflowStatus.COMPLETED)
    assert list(lines) == []


def test_where_there_is_no_log_the_service_says_why(client, evaluation):
    with pytest.raises(NotFound, match="no log yet"):
        list(client.logs(*evaluation))


def test_a_followed_log_goes_on_where_it_was_when_the_connection_is_killed(cluster, service, evaluation, proxy):
    pod = cluster.pod("old", "one")
    with Client(proxy.url, patience=20) as client:
        following = Following(client.logs(*evaluation, follow=True, tail=1))
        following.until(lambda lines: lines == ["one"])
        for text in ("two", "three"):
            proxy.cut()
            pod.say(text)
            following.until(lambda lines, text=text: lines[-1] == text)
        proxy.cut()
        pod.say("last")
        pod.ended = True
        service.record.finish(evaluation[0], WorkflowStatus.COMPLETED)
        assert following.finished() == ["one", "two", "three", "last"]
    assert proxy.connections >= 4


def test_a_service_that_stays_away_is_given_up(cluster, evaluation, proxy):
    cluster.pod("one")
    with Client(proxy.url, patience=1) as client:
        following = Following(client.logs(*evaluation, follow=True))
        following.until(lambda lines: lines == ["one"])
        proxy.close()
        assert following.finished() == ["one"]
    assert isinstance(following.error, Unreachable)


def test_a_service_that_is_away_from_the_first_is_not_waited_for(proxy, evaluation):
    proxy.close()
    began = time.monotonic()
    with Client(proxy.url, patience=60) as client, pytest.raises(Unreachable):
        next(client.logs(*evaluation, follow=True))
    assert time.monotonic() - began < 30


def test_something_else_that_answers_is_no_log(answering):
    with Client(answering("200 OK", b"{}")) as client, pytest.raises(UnexpectedAnswer):
        list(client.logs("id", "run"))


@pytest.mark.parametrize("run_id", ["a/b", "..", "?x=1", "#", "%2F", "ü 实"])
def test_a_run_id_is_one_segment_whatever_it_is(run_id):
    segment = log_path("id", run_id).removeprefix("/evals/id/runs/").removesuffix("/logs")
    assert segment.isascii()
    assert not set(segment) & set("/?#. ")

import threading

import pytest

from budeval.client import Client, NotFound, UnexpectedAnswer, Unreachable
from budeval.client.logs import log_path
from budeval.commons.wire import WorkflowStatus
from tests.client.service import run_ids
from tests.client.test_calls import a_request
from tests.cluster import until
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


def test_a_log_that_is_cut_off_is_an_error_and_no_end(cluster, evaluation, proxy):
    cluster.pod("one")
    heard, errors = [], []

    def listen():
        with Client(proxy.url) as client:
            try:
                heard.extend(client.logs(*evaluation, follow=True))
            except Unreachable as error:
                errors.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    until(lambda: cluster.asked, 10, 0.02)
    until(lambda: proxy.connections, 10, 0.02)
    proxy.cut()
    thread.join(20)
    assert not thread.is_alive()
    assert len(errors) == 1


def test_something_else_that_answers_is_no_log(answering):
    with Client(answering("200 OK", b"{}")) as client, pytest.raises(UnexpectedAnswer):
        list(client.logs("id", "run"))


@pytest.mark.parametrize("run_id", ["a/b", "..", "?x=1", "#", "%2F", "ü 实"])
def test_a_run_id_is_one_segment_whatever_it_is(run_id):
    segment = log_path("id", run_id).removeprefix("/evals/id/runs/").removesuffix("/logs")
    assert segment.isascii()
    assert not set(segment) & set("/?#. ")

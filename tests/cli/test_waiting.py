"""What the command says while an evaluation waits for a place."""

import threading

import pytest

from budeval.client import Client, TooManyRequests
from tests.api.conftest import serve
from tests.cli.conftest import ended, environment, pipe, start_in_pipe, terminal
from tests.client.service import complete, url_of
from tests.client.test_calls import a_request

__all__ = ["environment", "pipe", "serve", "start_in_pipe", "terminal"]

PLACE = "waiting, place 1: at most 1 evaluations at once"
FLAGS = ("start", "-m", "a-model", "-e", "http://127.0.0.1:13200/v1", "-d", "siqa_gen")


@pytest.fixture
def service(serve):
    """One place, and one in the queue."""
    return serve(maximum_evaluations=1, maximum_waiting=1)


@pytest.fixture
def client(service):
    with Client(url_of(service)) as client:
        yield client


@pytest.fixture
def waiting(client):
    """The first evaluation has the place, the second waits; answers both ids."""
    return [client.start(a_request()).eval_id for _ in range(2)]


@pytest.mark.parametrize("where", ["pipe", "terminal"])
def test_show_tells_the_place_and_what_it_waits_for(request, waiting, where):
    if where == "pipe":
        output = request.getfixturevalue("pipe")("show", waiting[1]).out
    else:
        output, _ = ended(request.getfixturevalue("terminal")("show", waiting[1]))
    assert f"PENDING, {PLACE}" in output


def test_show_in_json_has_the_place_as_data(pipe, waiting):
    told = pipe("show", waiting[1], "--json").json()["queue"]
    assert told == {"position": 1, "waiting_for": "evaluations", "limit": 1, "scope": "all"}
    assert pipe("show", waiting[0], "--json").json()["queue"] is None


def test_list_tells_who_waits_and_can_be_asked_for_them(pipe, waiting):
    rows = {row.split("\t")[0]: row.split("\t")[1:6] for row in pipe("list").out.splitlines()[1:]}
    assert (rows[waiting[1]][0], rows[waiting[1]][4]) == ("PENDING", "waiting")
    assert rows[waiting[0]][4] == ""
    for flag, expected in (("--queued", waiting[1]), ("--not-queued", waiting[0])):
        assert [item["eval_id"] for item in pipe("list", flag, "--json").json()] == [expected]


def test_watch_tells_the_place_once_and_goes_on_when_it_has_one(start_in_pipe, service, waiting):
    process = start_in_pipe("watch", waiting[1])
    lines = [process.stdout.readline().strip()]

    def go_on():
        complete(service, waiting[0])
        service.record.admission.admit()
        complete(service, waiting[1])

    acting = threading.Timer(1.5, go_on)
    acting.start()
    rest, _ = process.communicate(timeout=30)
    acting.join()
    lines += rest.splitlines()
    assert len([line for line in lines if line == PLACE]) == 1
    assert lines[-1].endswith("COMPLETED")
    assert process.returncode == 0


def test_a_full_queue_is_told_with_when_to_try_again(pipe, client, service, waiting):
    done = pipe(*FLAGS)
    assert (done.code, done.out) == (3, "")
    assert "at most 1 evaluations may wait in all" in done.err
    assert "Try again in 30 s." in done.err
    assert len(service.created().evaluations) == 2
    with pytest.raises(TooManyRequests) as refused:
        client.start(a_request())
    assert refused.value.retry_after == 30

"""What nodes and API servers answer about logs when something is wrong, over real HTTP."""

import json

import pytest

from budeval.ansible.cluster import Cluster, ClusterError
from budeval.ansible.pod_logs import run_logs
from tests.unit.ansible.test_sweep import _garbage_is_collected_again, page, server

__all__ = ["_garbage_is_collected_again", "server"]

STAMP = "2026-01-01T10:00:00.000000000Z"


def pod(name, phase="Running", created="2026-01-01T10:00:00Z"):
    return {"metadata": {"name": name, "creationTimestamp": created}, "status": {"phase": phase}}


@pytest.fixture
def read(server):
    """Reads logs of ``pods``, of which each has the answer of ``logs``."""

    def ask(pods, logs, limit=1000, **position):
        asked = []

        def answer(path, query):
            if not path.endswith("/log"):
                return page(pods)
            name = path.split("/")[-2]
            asked.append((name, query))
            return logs[name]

        server.answer = answer
        found = json.loads(run_logs(Cluster(server.kubeconfig), "ns", "job", "engine", position, limit)["content"])
        return found, asked

    return ask


def test_the_newest_pod_is_read(read):
    pods = [pod("b", created="2026-01-01T11:00:00Z"), pod("a", "Failed"), pod("c", created="2026-01-01T11:00:00Z")]
    (found,), asked = read(pods, {"c": (200, f"{STAMP} c\n")})
    assert (found["name"], found["text"], found["started"], found["ended"]) == ("c", f"{STAMP} c\n", True, False)
    ((_, query),) = asked
    assert (query["container"], query["timestamps"]) == ("engine", "true")
    assert "sinceTime" not in query


def test_behind_the_pod_that_was_read_those_after_it_are_read_whole(read):
    pods = [pod(name, created=f"2026-01-01T1{number}:00:00Z") for number, name in enumerate("abc")]
    found, asked = read(pods, {name: (200, name) for name in "abc"}, pod="b", since="2026-01-01T10:00:00Z")
    assert [log["name"] for log in found] == ["b", "c"]
    assert [(name, query.get("sinceTime")) for name, query in asked] == [("b", "2026-01-01T10:00:00Z"), ("c", None)]


def test_where_the_pod_that_was_read_is_gone_the_newest_is_read_whole(read):
    found, asked = read([pod("b"), pod("c")], {"c": (200, "c")}, pod="a", since="2026-01-01T10:00:00Z")
    assert [log["name"] for log in found] == ["c"]
    assert "sinceTime" not in asked[0][1]


@pytest.mark.parametrize(
    ("since", "names"),
    [
        ("2026-01-01T11:30:00Z", ["b", "c"]),
        ("2026-01-01T12:00:00Z", ["c"]),
        ("2026-01-01T13:00:00Z", ["c"]),
        ("2026-01-01T09:00:00Z", ["a", "b", "c"]),
    ],
)
def test_of_a_time_alone_the_pod_that_there_was_then_and_those_after_it_are_read_whole(read, since, names):
    pods = [pod(name, created=f"2026-01-01T1{number}:00:00Z") for number, name in enumerate("abc")]
    found, asked = read(pods, {name: (200, name) for name in "abc"}, pod=None, since=since)
    assert [log["name"] for log in found] == names
    assert not [query for _, query in asked if "sinceTime" in query]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, {"message": "waiting to start: ContainerCreating"}, "waiting to start: ContainerCreating"),
        (404, {"message": 'pods "a" not found'}, 'pods "a" not found'),
        (500, {"message": "dial tcp: connection refused"}, "dial tcp: connection refused"),
        (200, "unable to retrieve container logs for containerd://123", "unable to retrieve container logs for"),
        (502, "<html>", "<html>"),
    ],
)
def test_a_log_that_cannot_be_had_says_why(read, status, body, message):
    (found,), _ = read([pod("a", "Failed")], {"a": (status, body)})
    assert (found["text"], found["ended"]) == (None, True)
    assert message in found["message"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_an_error(read, status):
    with pytest.raises(ClusterError) as caught:
        read([pod("a")], {"a": (status, {"message": "no"})})
    assert caught.value.status == status


@pytest.mark.parametrize(("limit", "text", "cut"), [(8, "one\ntwo\n", False), (7, "two\n", True), (3, "", True)])
def test_the_end_is_kept_and_begins_with_a_whole_line(read, limit, text, cut):
    (found,), _ = read([pod("a")], {"a": (200, "one\ntwo\n")}, limit)
    assert (found["text"], found["cut"]) == (text, cut)


def test_no_pod_is_no_log(read):
    assert read([], {}) == ([], [])

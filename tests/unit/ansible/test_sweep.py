"""Faults of an API server that a real one does not show on demand, over real HTTP."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from budeval.ansible import cluster
from budeval.ansible import sweep as sweep_module
from budeval.ansible.cluster import Cluster, ClusterError
from budeval.ansible.surroundings import verify
from budeval.ansible.sweep import sweep
from budeval.commons.errors import ClusterNotReady
from budeval.jobs.verification import judge_cluster


def raw_job(name):
    return {"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": {}, "status": {}}


def raw_pod(name, *, running=True):
    return {
        "metadata": {"name": name, "labels": {"batch.kubernetes.io/job-name": "job"}},
        "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}} if running else {}}]},
    }


@pytest.fixture
def server(tmp_path):
    """A server that answers by ``server.answer(path, query)`` -> (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            url = urlsplit(self.path)
            status, body = self.server.answer(url.path, {key: value[0] for key, value in parse_qs(url.query).items()})
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads = True
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        path = tmp_path / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "current-context": "x",
                    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                    "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{made.server_port}"}}],
                    "users": [{"name": "x", "user": {"token": "t"}}],
                }
            )
        )
        made.kubeconfig = str(path)
        yield made
        made.shutdown()


@pytest.fixture(autouse=True)
def _garbage_is_collected_again():
    import gc

    yield
    gc.enable()


def page(items, token=None):
    return 200, {"items": items, "metadata": {"continue": token} if token else {}}


def asked(server, answer):
    server.answer = answer
    return sweep(Cluster(server.kubeconfig), "development", "a=b")


def jobs_only(pages):
    """Jobs by continue token; no pods."""

    def answer(path, query):
        return pages(query.get("continue")) if path.endswith("/jobs") else page([])

    return answer


def test_pages_are_joined_and_counted(server):
    pages = {None: page([raw_job("a")], "1"), "1": page([raw_job("b")], "2"), "2": page([raw_job("c")])}
    told = asked(server, jobs_only(pages.get))
    assert [job["name"] for job in json.loads(told["content"])["jobs"]] == ["a", "b", "c"]
    assert (told["schema"], told["jobs"], told["pods"]) == (1, 3, 0)


def test_a_page_that_fails_fails_the_sweep(server):
    pages = {None: page([raw_job("a")], "1"), "1": (500, {"message": "etcdserver: leader changed"})}
    with pytest.raises(ClusterError, match="leader changed") as caught:
        asked(server, jobs_only(pages.get))
    assert caught.value.status == 500


def test_an_expired_token_begins_the_list_again(server):
    expired = [True]

    def pages(token):
        if token is None:
            return page([raw_job("a")], "1")
        return (410, {"message": "expired"}) if expired and expired.pop() else page([raw_job("b")])

    assert asked(server, jobs_only(pages))["jobs"] == 2


def test_a_token_that_always_expires_is_an_error(server):
    pages = {None: page([raw_job("a")], "1"), "1": (410, {"message": "expired"})}
    with pytest.raises(ClusterError) as caught:
        asked(server, jobs_only(pages.get))
    assert caught.value.status == 410


@pytest.mark.parametrize("body", ["<html>login</html>", "[]", '"x"'])
def test_an_answer_that_is_not_of_an_api_server_is_an_error(server, body):
    with pytest.raises(ClusterError, match="is this a Kubernetes API server"):
        asked(server, lambda *_: (200, body))


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("body", ["<html>login</html>", "[]", '"x"', "null", "{}"])
def test_a_cluster_that_is_none_is_told_as_such(server, status, body):
    server.answer = lambda *_: (status, body)
    answers = verify(Cluster(server.kubeconfig), "development", "budeval-data", [["", "pods", "list", ""]])
    with pytest.raises(ClusterNotReady, match="no Kubernetes API server"):
        judge_cluster(answers, "development", "budeval-data")


def test_only_so_much_of_an_answer_is_read(server, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_BYTES", 1000)
    with pytest.raises(ClusterError, match="larger than 1000 bytes"):
        asked(server, lambda *_: page([raw_job("x" * 1000)]))
    assert asked(server, jobs_only(lambda _: page([raw_job("a")])))["jobs"] == 1


def test_a_failing_log_is_not_a_failing_sweep(server):
    progress = json.dumps({"budeval": "progress", "phase": "inference", "done": 3, "total": 9})

    def answer(path, query):
        if path.endswith("/pods"):
            return page([raw_pod("good"), raw_pod("bad"), raw_pod("waiting", running=False)])
        if path.endswith("/good/log"):
            return 200, f"starting\n{progress}\n"
        return (502, "bad gateway") if path.endswith("/log") else page([raw_job("a")])

    pods = {pod["name"]: pod for pod in json.loads(asked(server, answer)["content"])["pods"]}
    assert pods["good"]["progress"] == {"phase": "inference", "done": 3, "total": 9}
    assert pods["bad"]["progress"] is None
    assert "progress" not in pods["waiting"]


def test_only_so_many_logs_are_read(server, monkeypatch):
    monkeypatch.setattr(sweep_module, "MAXIMUM_PROGRESS_PODS", 3)
    read = []

    def answer(path, query):
        if path.endswith("/pods"):
            return page([raw_pod(f"pod-{number}") for number in range(10)])
        if path.endswith("/log"):
            read.append(path)
            return 200, ""
        return page([])

    asked(server, answer)
    assert len(read) == 3


# ---------------------------------------------------------------- refusals


def ago(seconds):
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def waiting_job(name, *, spec=None, conditions=(), **status):
    kept = {"startTime": ago(60), "conditions": [*conditions], **status}
    return {**raw_job(name), "spec": spec or {}, "status": kept}


def refusal(job, message, *, first=50, last=10, uid=None):
    return {
        "metadata": {"creationTimestamp": ago(first)},
        "involvedObject": {"kind": "Job", "name": job, "uid": uid or f"uid-{job}"},
        "message": message,
        "firstTimestamp": ago(first),
        "lastTimestamp": ago(last),
    }


def refusals(server, jobs, events, pods=()):
    """Refusal of each Job, and how often events were listed; ``events`` are the pages or one answer for all."""
    asked_for = []

    def answer(path, query):
        if path.endswith("/events"):
            asked_for.append(query)
            return events(query.get("continue")) if callable(events) else page(events)
        return page(jobs if path.endswith("/jobs") else pods)

    told = json.loads(asked(server, answer)["content"])
    return {job["name"]: job["refusal"] for job in told["jobs"] if "refusal" in job}, asked_for


CONDITION = {"type": "Complete", "status": "True"}


@pytest.mark.parametrize(
    "job",
    [
        waiting_job("a", active=1),
        waiting_job("a", failed=1),
        waiting_job("a", startTime=ago(-3600)),
        waiting_job("a", spec={"suspend": True}),
        waiting_job("a", conditions=[CONDITION]),
        raw_job("a"),
    ],
    ids=["active", "between attempts", "just begun", "suspended", "ended", "not yet seen by its controller"],
)
def test_events_are_not_asked_for_as_long_as_every_job_has_what_it_should(server, job):
    assert refusals(server, [job], [refusal("a", "no")]) == ({}, [])


def test_events_are_not_asked_for_where_there_is_a_pod(server):
    pod = raw_pod("a-abcde", running=False)
    pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = "uid-a"
    assert refusals(server, [waiting_job("a")], [refusal("a", "no")], [pod]) == ({}, [])


def test_the_newest_refusal_of_each_job_is_brought_with_the_time_of_the_first(server):
    events = [
        refusal("a", "older", first=50, last=40),
        refusal("a", "newest", first=30, last=5),
        refusal("a", "another", first=20, last=20),
        refusal("b", "of b"),
        refusal("a", "of an older Job of this name", last=0, uid="uid-0"),
        refusal("c", "of a Job of somebody else"),
    ]
    found, asked_for = refusals(server, [waiting_job("a"), waiting_job("b"), waiting_job("d")], events)
    assert {name: each["message"] for name, each in found.items()} == {"a": "newest", "b": "of b"}
    assert found["a"]["first"] == events[0]["firstTimestamp"]
    assert [query["fieldSelector"] for query in asked_for] == ["involvedObject.kind=Job,reason=FailedCreate"]


@pytest.mark.parametrize("job", ["run-1", "r" * 63])
def test_a_refusal_reads_the_same_at_every_try(server, job):
    pod = f"{job}-"[:58]
    tries = [
        f'Error creating: pods "{pod}x7k2p" is forbidden: exceeded quota: q',
        f'(combined from similar events): Error creating: pods "{pod}zz9qd" is forbidden: exceeded quota: q',
    ]
    told = [refusals(server, [waiting_job(job)], [refusal(job, text)])[0][job]["message"] for text in tries]
    assert told == [f'pods "{job}" is forbidden: exceeded quota: q'] * 2


def test_an_old_refusal_is_over(server):
    assert refusals(server, [waiting_job("a")], [refusal("a", "no", first=3000, last=1000)])[0] == {}


@pytest.mark.parametrize("answer", [(403, {"message": "cannot list resource"}), (500, "down"), (410, "expired")])
def test_a_sweep_that_may_not_list_events_goes_on_without(server, answer):
    assert refusals(server, [waiting_job("a")], lambda _: answer)[0] == {}


def test_only_so_many_events_are_looked_at(server, monkeypatch):
    monkeypatch.setattr(sweep_module, "MAXIMUM_EVENTS", 3)
    events = [refusal("a", f"try {number}", last=30 - number) for number in range(2)]
    found, asked_for = refusals(server, [waiting_job("a")], lambda _: page(events, "more"))
    assert (found["a"]["message"], len(asked_for)) == ("try 1", 2)


def test_nobody_there_is_an_error_without_a_status(server):
    client = Cluster(server.kubeconfig)
    server.shutdown()
    server.server_close()
    with pytest.raises(ClusterError) as caught:
        sweep(client, "development", "a=b")
    assert caught.value.status is None

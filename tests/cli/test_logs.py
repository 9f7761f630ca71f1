import json
import signal

import pytest

from budeval.api import log_streams
from budeval.commons.errors import ClusterUnreachable
from budeval.commons.wire import WorkflowStatus
from budeval.jobs.names import job_name
from tests.cli.conftest import ended
from tests.client.service import complete, run_ids
from tests.client.test_calls import a_request
from tests.cluster import until
from tests.samples import EVAL_ID
from tests.scripted_logs import deployed


@pytest.fixture(autouse=True)
def cluster(scripted_logs):
    return scripted_logs


@pytest.fixture
def running(cluster, client, service):
    """An evaluation of two runs."""
    eval_id = client.start(a_request()).eval_id
    deployed(service, eval_id)
    return eval_id


def test_the_log_of_one_run_is_its_lines(pipe, service, running, cluster):
    cluster.pod("one", "two \x1b[31m", "three")
    run = run_ids(service, running)[0]
    done = pipe("logs", running, run)
    assert (done.code, done.out, done.err) == (0, "one\ntwo �[31m\nthree\n", "")
    assert pipe("logs", running, run, "--tail", 1).out == "three\n"
    assert pipe("logs", running, run, "--since", "1h").out.startswith("one\n")


def test_lines_of_several_runs_begin_with_the_run(pipe, service, running, cluster):
    cluster.pod("one")
    assert pipe("logs", running).out == "".join(f"[{run}] one\n" for run in run_ids(service, running))


def test_json_is_one_object_a_line(pipe, service, running, cluster):
    cluster.pod('say "hi"')
    lines = [json.loads(line) for line in pipe("logs", running, "--json").out.splitlines()]
    assert lines == [{"run_id": run, "line": 'say "hi"'} for run in run_ids(service, running)]


def test_a_run_without_a_log_does_not_hide_the_others(pipe, service, running, cluster, monkeypatch):
    first, second = run_ids(service, running)
    cluster.pod("one")
    read, there = cluster.read_pod_logs, job_name(running, second)
    monkeypatch.setattr(cluster, "read_pod_logs", lambda name, *a, **k: read(name, *a, **k) if name == there else [])
    done = pipe("logs", running)
    assert (done.code, done.out) == (0, f"[{second}] one\n")
    assert first in done.err


def test_no_log_at_all_is_an_error_with_its_reason(pipe, running):
    done = pipe("logs", running)
    assert (done.code, done.out) == (2, "")
    assert "no log yet" in done.err
    assert json.loads(pipe("logs", running, "--json").err.splitlines()[-1])["error"]["problem"]["status"] == 404


def test_follow_shows_all_runs_until_they_have_ended(start_in_pipe, service, running, cluster):
    pod = cluster.pod("one")
    process = start_in_pipe("logs", "-f", running)
    heard = [process.stdout.readline() for _ in range(2)]
    assert sorted(heard) == sorted(f"[{run}] one\n" for run in run_ids(service, running))
    pod.say("last")
    pod.ended = True
    complete(service, running)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert sorted(out.splitlines()) == sorted(f"[{run}] last" for run in run_ids(service, running))


@pytest.mark.parametrize("runs", [1, 2])
def test_ctrl_c_ends_it_without_a_word(start_in_pipe, service, running, cluster, runs):
    cluster.pod("one")
    process = start_in_pipe("logs", "-f", running, *([run_ids(service, running)[0]] if runs == 1 else []))
    for _ in range(runs):
        assert "one" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")


def test_ctrl_c_on_a_terminal(terminal, running, cluster):
    cluster.pod("\x1b[2Jred")
    child = terminal("logs", "-f", running)
    child.expect("red")
    child.sendintr()
    output, code = ended(child)
    assert code == 130
    assert "\x1b[2J" not in output


def test_it_ends_quietly_when_nobody_reads(start_in_pipe, service, running, cluster):
    cluster.pod(*["x" * 1000] * 1000)
    process = start_in_pipe("logs", "-f", running)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == ""


def test_a_stream_that_ends_too_early_is_no_end(pipe, service, running, cluster, monkeypatch):
    cluster.failing = ClusterUnreachable("nobody answers")
    monkeypatch.setattr(log_streams, "MAXIMUM_FAILURES", 1)
    done = pipe("logs", "-f", running, run_ids(service, running)[0])
    assert done.code == 3
    assert "does not answer" in done.out
    assert "before the run has ended" in done.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("logs", "no-uuid"), 2),
        (("logs", EVAL_ID), 2),
        (("logs", EVAL_ID, "--tail", "-1"), 2),
        (("logs", EVAL_ID, "run", "--since", "yesterday"), 2),
    ],
)
def test_what_is_wrong_is_refused(pipe, arguments, code):
    assert pipe(*arguments).code == code


def test_an_unknown_run_is_told_with_those_there_are(pipe, service, running):
    done = pipe("logs", running, "other")
    assert done.code == 2
    assert all(run in done.err for run in run_ids(service, running))


def test_a_cancelled_evaluation_has_its_log_still(pipe, service, running, cluster):
    service.record.finish(running, WorkflowStatus.TERMINATED)
    cluster.file = cluster.file.model_copy(update={"text": "2026-01-01T10:00:00Z kept\n"})
    assert pipe("logs", running, run_ids(service, running)[0]).out == "kept\n"
    until(lambda: cluster.asked[-1][0] == "file", 5)

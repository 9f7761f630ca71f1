"""Logs of real pods, which say what the test writes into a file on their volume."""

import time
import uuid

import pytest

from budeval.commons.errors import PlaybookFailed
from budeval.jobs.logs import LogPosition, advanced, parse_lines, unread
from budeval.jobs.names import job_name
from tests.cluster import until
from tests.playbooks.test_eval_playbooks import HOSTILE, objects, restricted

SCRIPT = """
/busybox tail -n +1 -F /workspace/say 2>/dev/null & while [ ! -e /workspace/stop ]; do /busybox sleep 0.2; done
/busybox sleep 1.5; [ ! -e /workspace/fail ]
"""


class Talker:
    """A run whose pod repeats what it is told."""

    def __init__(self, cluster, orchestrator, eval_id):
        self.eval_id, self.name = eval_id, job_name(eval_id, "run-1")
        self.admin = cluster.admin
        self.directory = cluster.volume / "results" / eval_id / self.name
        self.directory.mkdir(parents=True)
        made = objects(cluster, eval_id)
        (container,) = made.jobs[0]["spec"]["template"]["spec"]["containers"]
        container["command"] = ["/busybox", "sh", "-c", SCRIPT]
        orchestrator.deploy_eval_jobs(made)
        self.orchestrator = orchestrator

    def say(self, *lines):
        with (self.directory / "say").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def logs(self, **options):
        return self.orchestrator.read_pod_logs(self.name, **options)

    def texts(self):
        return [line.text for log in self.logs() for line in parse_lines(log.text or "")]


@pytest.fixture
def eval_id(orchestrator):
    made = str(uuid.uuid4())
    yield made
    orchestrator.delete_eval_jobs(made)


@pytest.fixture
def talker(cluster, orchestrator, eval_id):
    return Talker(cluster, orchestrator, eval_id)


def test_the_log_of_a_pod_comes_to_the_letter_with_its_times(talker, tmp_path):
    lines = [text.replace("MARK", str(tmp_path / "mark")).replace("\n", " ") for text in HOSTILE]
    lines += ["\x1b[31m", "", '{"budeval":"progress"}x', "x" * 40_000, "{{ 7 * 7 }} {% raw %} !unsafe"]
    talker.say(*lines)
    until(lambda: len(talker.texts()) == len(lines) - 1, 60)
    (log,) = talker.logs()
    assert (log.started, log.ended, log.cut) == (True, False, False)
    assert [line.text for line in parse_lines(log.text)] == [line for line in lines if "progress" not in line]
    assert all(line.at.startswith("20") for line in parse_lines(log.text))
    assert not (tmp_path / "mark").exists()


def test_a_log_is_read_on_where_it_was_read_before(talker):
    position, told, said = LogPosition(), [], []

    def look():
        nonlocal position
        for log in talker.logs(position=position):
            again = parse_lines(log.text or "", complete=log.ended)
            fresh = unread(position.last_second, again) if position.pod == log.name else again
            position = advanced(position, log.name, fresh)
            told.extend(line.text for line in fresh)
        return log.ended

    talker.say("begin")
    until(lambda: talker.texts() == ["begin"], 60)
    for turn in range(6):
        said += [f"{turn} {number}" for number in range(300)]
        talker.say(*said[-300:])
        time.sleep(0.4)
        look()
    (talker.directory / "stop").touch()
    until(look, 30)
    assert told == ["begin", *said]


def test_the_pod_that_came_after_the_one_that_was_read_is_read_too(talker):
    talker.say("first")
    until(lambda: talker.texts() == ["first"], 60)
    (log,) = talker.logs()
    position = advanced(LogPosition(), log.name, parse_lines(log.text))
    (talker.directory / "fail").touch()
    talker.say("first dies")
    time.sleep(1.5)
    (talker.directory / "stop").touch()
    until(lambda: len(talker.logs(position=position)) > 1, 60, 0.5)
    first, second = talker.logs(position=position)[:2]
    assert (first.name, first.ended) == (log.name, True)
    assert second.name != log.name
    assert parse_lines(first.text)[-1].text == "first dies"
    assert [log.name for log in talker.logs()] == [talker.logs(position=position)[-1].name]


def test_only_the_end_of_a_large_log_comes_and_begins_with_a_whole_line(talker):
    lines = [f"{number:05} {'x' * 90}" for number in range(5000)]
    talker.say(*lines)
    until(lambda: talker.texts()[-1:] == lines[-1:], 60)
    (log,) = talker.logs(limit=10_000)
    assert log.cut
    assert 9_000 < len(log.text) <= 10_000
    texts = [line.text for line in parse_lines(log.text)]
    assert texts == lines[-len(texts) :]


def test_a_pod_that_does_not_start_says_why(cluster, orchestrator, eval_id):
    orchestrator.deploy_eval_jobs(
        objects(cluster, eval_id, image="localhost/no-such-image:1", image_pull_policy="Never")
    )

    def waiting():
        logs = orchestrator.read_pod_logs(job_name(eval_id, "run-1"))
        return [log for log in logs if "waiting to start" in log.message]

    (log,) = until(waiting, 60)
    assert (log.started, log.ended, log.text) == (False, False, None)


def test_a_job_without_pods_has_no_log(orchestrator, eval_id):
    assert orchestrator.read_pod_logs(job_name(eval_id, "run-1")) == []


def test_who_may_not_read_logs_is_told_so(cluster, orchestrator, talker):
    talker.say("secret")
    until(lambda: talker.texts() == ["secret"], 60)

    def without_logs(role):
        role["rules"] = [rule for rule in role["rules"] if "pods/log" not in rule["resources"]]

    with pytest.raises(PlaybookFailed, match="403"):
        orchestrator.read_pod_logs(talker.name, restricted(cluster, without_logs))


def test_when_the_pod_is_gone_a_reader_brings_the_file(cluster, orchestrator, eval_id):
    name = job_name(eval_id, "run-1")
    directory = cluster.volume / "results" / eval_id / name
    directory.mkdir(parents=True)
    assert orchestrator.read_log_file(eval_id, name).text is None
    lines = [f"2026-01-01T10:00:00.000000Z {number} {{{{ 7 * 7 }}}} ü" for number in range(100_000)]
    (directory / "engine.log").write_text("\n".join(lines) + "\n")
    found = orchestrator.read_log_file(eval_id, name)
    assert found.cut
    assert len(found.text.encode()) > 4_000_000
    assert found.text.splitlines() == lines[-len(found.text.splitlines()) :]
    assert not [name for name in cluster.admin.names("Job") if "reader" in name]

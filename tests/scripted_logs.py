"""A cluster that has logs and nothing else, for services whose playbooks nobody runs."""

import threading
import time
from datetime import timedelta

import pytest

from budeval.api import log_streams
from budeval.commons.clock import utc_now
from budeval.commons.wire import Event, WorkflowStatus
from budeval.jobs.logs import LogFile, PodLog


class ScriptedPod:
    """A pod and its log."""

    def __init__(self, name="pod-1", *texts, started=True):
        self.name, self.started, self.ended = name, started, False
        self.created = f"{utc_now():%Y-%m-%dT%H:%M:%SZ}"
        self.message = ""
        self.lines = []
        self.say(*texts)

    def say(self, *texts, ago=0.0):
        for text in texts:
            moment = utc_now() - timedelta(seconds=ago)
            self.lines.append((f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z", text))

    def log(self, since):
        if not self.started:
            return PodLog(name=self.name, started=False, ended=False, message=self.message)
        lines = [line for line in self.lines if since is None or line[0] >= since.removesuffix("Z")]
        text = "".join(f"{at} {text}\n" for at, text in lines)
        return PodLog(name=self.name, started=True, ended=self.ended, text=text)


class ScriptedLogs:
    """What an orchestrator answers about logs, and what it was asked for."""

    def __init__(self):
        self.pods = []
        self.file = LogFile()
        self.asked = []
        self.kubeconfigs = set()
        self.failing = None
        self.seconds = 0.0
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def pod(self, *texts, **changes):
        made = ScriptedPod(f"pod-{len(self.pods) + 1}", *texts, **changes)
        self.pods.append(made)
        return made

    def read_pod_logs(self, job_name, kubeconfig=None, *, position=None, limit=0):  # noqa: ARG002 - as the orchestrator
        self._ask("pod", job_name, kubeconfig)
        known = [place for place, pod in enumerate(self.pods) if position and pod.name == position.pod]
        chosen = self.pods[known[0] :] if known else self.pods[-1:]
        if position and position.since and not position.pod:
            before = [place for place, pod in enumerate(self.pods) if pod.created <= position.since]
            chosen = self.pods[max(before, default=0) :]
        return [pod.log(position.since if known and not later else None) for later, pod in enumerate(chosen)]

    def read_log_file(self, eval_id, directory, kubeconfig=None, *, limit=0):  # noqa: ARG002 - as the orchestrator
        self._ask("file", directory, kubeconfig)
        return self.file

    def _ask(self, kind, name, kubeconfig):
        with self._lock:
            self.asked.append((kind, name))
            self.kubeconfigs.add(kubeconfig)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
        if self.failing is not None:
            raise self.failing


@pytest.fixture
def scripted_logs(monkeypatch):
    """The cluster of every service that is made after it, asked often."""
    scripted = ScriptedLogs()
    monkeypatch.setattr("budeval.main.AnsibleOrchestrator", lambda *_: scripted)
    monkeypatch.setattr(log_streams, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(log_streams, "LONGEST_POLL_SECONDS", 0.1)
    return scripted


def deployed(service, eval_id):
    """The evaluation's Jobs are there."""
    service.record.step(eval_id, Event.DEPLOY, WorkflowStatus.COMPLETED, "")

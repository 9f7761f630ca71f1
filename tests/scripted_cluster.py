"""Stands where a cluster would be: answers a preflight as a test wants, and remembers what it was asked.

Nothing of any evaluation is in it, so that everything can be removed.
"""

import json
import threading

from budeval.jobs.checks import ok
from budeval.jobs.preflight import Surroundings

READY = Surroundings(
    [ok(name, "good") for name in ("cluster", "namespace", "permissions", "volume")], usable=True, bound=True
)
GOOD_POD = {
    "name": "probe-x", "job": "probe", "job_uid": "u", "created": "2026-01-01T10:00:00Z", "deleted": None,
    "phase": "Succeeded", "reason": None, "message": None, "conditions": [],
    "containers": [{"running": False, "ready": False, "waiting": None, "terminated": {
        "reason": "Completed", "exit_code": 0, "signal": None, "message": ""}}],
}  # fmt: skip


def log(*lines):
    """What a probe prints."""
    return "\n".join(json.dumps({"budeval": "preflight", **line}) for line in lines)


class ScriptedCluster:
    """An orchestrator that is asked for preflights and removals alone; set its attributes to make it misbehave."""

    def __init__(self):
        self.around = READY
        self.endpoint = {"check": "endpoint", "reason": None, "seconds": 0.1}
        self.present = ["siqa_gen"]
        self.missing = ()
        """Data sets that cannot be loaded."""
        self.error = None
        self.trials = []
        self.kubeconfigs = []
        self.tried_with = []
        self.go_on = threading.Event()
        self.go_on.set()

    def inspect_cluster(self, kubeconfig=None):
        self.kubeconfigs.append(kubeconfig)
        return self.around

    def validate_evaluation(self, trial, kubeconfig=None):
        self.trials.append(trial)
        self.tried_with.append(kubeconfig)
        assert self.go_on.wait(20)
        if self.error is not None:
            raise self.error
        judged = [{"kind": each["kind"], "name": "x", "status": 201, "reason": None, "message": None, "warnings": []}
                  for each in trial.objects]  # fmt: skip
        return {"judged": judged, "probe": {"refused": None, "job": {}, "pods": [GOOD_POD], "log": self._log(trial)}}

    def remove_evaluation(self, eval_id, attempts):
        """Nothing was there."""

    def remove_results(self, eval_id):
        """Nothing was there."""

    def _log(self, trial):
        asked, lines = trial.questions, []
        names = asked.datasets
        if asked.inventory is not None:
            lines.append({"present": self.present})
            names = [name for name in names if name in self.present]
        if asked.endpoint is not None:
            lines.append(self.endpoint)
        return log(*lines, *(self._loaded(name) for name in names), {"ended": True})

    def _loaded(self, name):
        if name in self.missing:
            return {"dataset": name, "reason": "DatasetMissing", "message": "not there"}
        return {"dataset": name, "reason": None, "questions": 1954}

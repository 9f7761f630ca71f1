"""A cluster as files: what a test wants to happen there, and what was asked of it.

Files because they outlive the service: a test kills it with SIGKILL in the middle and starts it again. Scripts may be
changed while an evaluation runs.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from budeval.commons import errors
from budeval.jobs.models import (
    ClusterReport,
    DeletedObjects,
    DeployedJob,
    EvaluationObjects,
    JobState,
    JobStatus,
    Progress,
    ResultFile,
)
from budeval.jobs.names import workspace_name

NEVER = 1_000_000
START_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)


class World:
    """The side of the tests: scripts go in, calls come out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("runs", "jobs", "cluster"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def run(self, run_id: str, *, sweeps: int = 2, end: str = "Succeeded", **script: Any) -> None:
        """How the Job of a run behaves: it runs for ``sweeps`` sweeps, then comes to its ``end``.

        ``end``: ``Succeeded``, ``Failed``, ``Missing`` or ``Stuck``. Further keys: ``reason``, ``message``,
        ``questions``, ``answered``, ``scores``.
        """
        write_json(self.root / "runs" / f"{run_id}.json", {"sweeps": sweeps, "end": end, **script})

    def cluster(
        self,
        method: str,
        *,
        seconds: float = 0,
        error: str | None = None,
        times: int = NEVER,
        message: str = "scripted",
    ) -> None:
        """How a call behaves from now on: it takes ``seconds``, and fails with ``error`` the next ``times``."""
        script = {"seconds": seconds, "error": error, "left": times if error else 0, "message": message}
        write_json(self.root / "cluster" / f"{method}.json", script)

    def calm(self) -> None:
        """No call takes time or fails any more."""
        for path in (self.root / "cluster").iterdir():
            path.unlink()

    def calls(self, method: str, eval_id: str | None = None) -> list[dict[str, Any]]:
        """Calls of the service so far, oldest first."""
        path = self.root / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if call["method"] == method and eval_id in (None, call.get("eval_id"))]

    def jobs(self, eval_id: str) -> dict[str, dict[str, Any]]:
        """Jobs that were made for an evaluation, by run id: ``deleted`` says whether they are gone.

        Of a run with several attempts, the Job of the last one.
        """
        return {job["run_id"]: job for job in sorted(self.all_jobs(eval_id), key=lambda job: job["attempt"])}

    def all_jobs(self, eval_id: str) -> list[dict[str, Any]]:
        """Jobs of all attempts."""
        jobs = [read_json(path) for path in (self.root / "jobs").iterdir() if path.suffix == ".json"]
        return [job for job in jobs if job["eval_id"] == eval_id]


class ScriptedOrchestrator:
    """The side of the service: the methods of ``AnsibleOrchestrator``, answered from the files.

    ``stopping`` is asked while a call takes time, as a playbook is ended when the service stops.
    """

    def __init__(self, root: Path, stopping: Callable[[], bool]) -> None:
        self._world = World(root)
        self._root = root
        self._stopping = stopping
        self._lock = threading.Lock()

    def verify_cluster_connection(
        self, kubeconfig: str | None = None, *, cancelled: Callable[[], bool] | None = None
    ) -> ClusterReport:
        """See ``AnsibleOrchestrator``."""
        self._call("verify", kubeconfig, cancelled)
        return ClusterReport(server_version="v1.34.4", namespace="development", volume_claim="budeval-data")

    def deploy_eval_jobs(
        self,
        objects: EvaluationObjects,
        kubeconfig: str | None = None,
        *,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[DeployedJob]:
        """See ``AnsibleOrchestrator``."""
        self._call("deploy", kubeconfig, cancelled, eval_id=objects.eval_id, attempt=objects.attempt)
        self._delete(objects.eval_id, lambda job: job["attempt"] < objects.attempt)
        return [self._deploy(objects, name) for name in objects.job_names]

    def check_jobs_status(
        self, job_ids: Sequence[str], kubeconfig: str | None = None, **_options: Any
    ) -> dict[str, JobStatus]:
        """See ``AnsibleOrchestrator``."""
        self._call("sweep", kubeconfig, None, names=list(job_ids))
        with self._lock:
            return {name: self._status(name) for name in job_ids}

    def delete_eval_jobs(
        self,
        eval_id: str,
        kubeconfig: str | None = None,
        *,
        job_names: Sequence[str] | None = None,
        attempt: int = 1,
    ) -> DeletedObjects:
        """See ``AnsibleOrchestrator``."""
        self._call("delete", kubeconfig, None, eval_id=eval_id, names=None if job_names is None else list(job_names))
        return self._delete(
            eval_id, lambda job: job["attempt"] == attempt and (job_names is None or job["name"] in job_names)
        )

    def remove_evaluation(self, eval_id: str, attempts: int) -> DeletedObjects:
        """See ``AnsibleOrchestrator``."""
        self._call("remove_evaluation", None, None, eval_id=eval_id, attempts=attempts)
        return self._delete(eval_id, lambda _job: True)

    def remove_results(self, eval_id: str) -> None:
        """See ``AnsibleOrchestrator``."""
        self._call("remove_results", None, None, eval_id=eval_id)

    def read_results(
        self, eval_id: str, job_names: Sequence[str], kubeconfig: str | None = None
    ) -> dict[str, ResultFile]:
        """See ``AnsibleOrchestrator``."""
        self._call("read", kubeconfig, None, eval_id=eval_id, names=list(job_names))
        workspaces = {job["workspace"]: job for job in self._world.all_jobs(eval_id)}
        return {name: ResultFile(content=self._result(workspaces[name])) for name in job_names}

    # ------------------------------------------------------------------ parts

    def _call(self, method: str, kubeconfig: str | None, cancelled: Callable[[], bool] | None, **details: Any) -> None:
        digest = None if kubeconfig is None else hashlib.sha256(kubeconfig.encode()).hexdigest()
        call = {"method": method, "pid": os.getpid(), "at": time.time(), "kubeconfig": digest, **details}
        with self._lock, (self._root / "calls.jsonl").open("a") as file:
            file.write(json.dumps(call) + "\n")
        path = self._root / "cluster" / f"{method}.json"
        if path.exists():
            self._take_time(read_json(path)["seconds"], cancelled)
            self._fail(path)

    def _take_time(self, seconds: float, cancelled: Callable[[], bool] | None) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._stopping():
                raise errors.TemporaryError("the step runs again when the service is back")
            if cancelled is not None and cancelled():
                raise errors.PlaybookCancelled("the evaluation was cancelled while a playbook ran")
            time.sleep(0.05)

    def _fail(self, path: Path) -> None:
        with self._lock:
            script = read_json(path) if path.exists() else {"left": 0}
            if script["left"] <= 0:
                return
            write_json(path, {**script, "left": script["left"] - 1})
        kind: type[errors.BudEvalError] = getattr(errors, str(script["error"]))
        raise kind(str(script["message"]))

    def _job_path(self, name: str) -> Path:
        return self._root / "jobs" / f"{name}.json"

    def _deploy(self, objects: EvaluationObjects, name: str) -> DeployedJob:
        config = json.loads(objects.config_map["data"][f"{name}.json"])
        with self._lock:
            if not self._job_path(name).exists():
                job = {key: config[key] for key in ("eval_id", "run_id", "dataset_id")}
                workspace = workspace_name(job["eval_id"], job["run_id"])
                found = {"name": name, "sweeps": 0, "deleted": False, "attempt": objects.attempt, **job}
                write_json(self._job_path(name), {**found, "workspace": workspace})
        return DeployedJob(name=name, uid=f"uid-of-{name}")

    def _delete(self, eval_id: str, chosen: Callable[[dict[str, Any]], bool]) -> DeletedObjects:
        deleted = []
        with self._lock:
            for job in self._world.all_jobs(eval_id):
                if not job["deleted"] and chosen(job):
                    write_json(self._job_path(job["name"]), {**job, "deleted": True})
                    deleted.append(job["name"])
        return DeletedObjects(jobs=deleted)

    def _script(self, job: dict[str, Any]) -> dict[str, Any]:
        path = self._root / "runs" / f"{job['run_id']}.json"
        return read_json(path) if path.exists() else {"sweeps": 2, "end": "Succeeded"}

    def _status(self, name: str) -> JobStatus:
        path = self._job_path(name)
        job = read_json(path) if path.exists() else {"deleted": True}
        if job["deleted"]:
            return JobStatus(name=name, status=JobState.MISSING, phase="Missing")
        script = self._script(job)
        write_json(path, {**job, "sweeps": job["sweeps"] + 1})
        return _job_status(name, script, job["sweeps"])

    def _result(self, job: dict[str, Any]) -> bytes:
        script = self._script(job)
        questions = script.get("questions", 10)
        score = {"dataset": "siqa", "version": "18632c", "metric": "accuracy", "mode": "gen", "score": 35.42}
        document = {
            "schema": 1,
            **{key: job[key] for key in ("eval_id", "run_id", "dataset_id")},
            "scores": script.get("scores", [score]),
            "questions": {"asked": questions, "answered": script.get("answered", questions), "failed": 0},
            "started_at": "2026-01-01T10:00:00Z",
            "completed_at": "2026-01-01T10:15:30Z",
            "duration_seconds": 930.0,
        }
        return json.dumps(document).encode()


def _job_status(name: str, script: dict[str, Any], sweeps: int) -> JobStatus:
    questions = script.get("questions", 10)
    ended = sweeps >= script["sweeps"]
    common: dict[str, Any] = {"name": name, "uid": f"uid-of-{name}", "start_time": START_TIME.isoformat()}
    if not ended:
        done = min(questions * sweeps // max(script["sweeps"], 1), questions)
        progress = Progress(phase="inference", done=done, total=questions)
        return JobStatus(status=JobState.RUNNING, phase="Running", active=1, progress=progress, **common)
    end = (START_TIME + timedelta(minutes=15)).isoformat()
    match script["end"]:
        case "Succeeded":
            progress = Progress(phase="scoring", done=questions, total=questions)
            return JobStatus(
                status=JobState.SUCCEEDED, phase="Succeeded", progress=progress, completion_time=end, **common
            )
        case "Failed":
            return JobStatus(
                status=JobState.FAILED,
                phase="Failed",
                reason=script.get("reason", "EndpointUnauthorized"),
                message=script.get("message", "The endpoint refused the key."),
                resolution="Check api_key.",
                completion_time=end,
                **common,
            )
        case "Stuck":
            return JobStatus(
                status=JobState.PENDING,
                phase="Pending",
                reason="ImagePullBackOff",
                message="The image cannot be pulled.",
                fatal=True,
                **common,
            )
        case _:
            return JobStatus(name=name, status=JobState.MISSING, phase="Missing")


def read_json(path: Path) -> Any:
    """A whole file, since all are written by rename."""
    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    """Writes by rename: a reader, or a process started after a SIGKILL, finds the old or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_text(json.dumps(value))
    draft.rename(path)

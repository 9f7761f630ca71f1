"""One method per playbook: models go in, models come out, and errors say what a user can do."""

import hashlib
import json
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from budeval.ansible.runner import PlaybookRunner
from budeval.ansible.single_flight import SingleFlight
from budeval.commons.errors import (
    BudEvalError,
    ClusterNotReady,
    ClusterUnauthorized,
    ClusterUnreachable,
    DeploymentFailed,
    PlaybookCancelled,
    PlaybookFailed,
    PlaybookTimeout,
    TemporaryError,
)
from budeval.commons.redaction import printable, redactor
from budeval.commons.settings import Settings
from budeval.jobs import names
from budeval.jobs.logs import MAXIMUM_ANSWER_BYTES, LogFile, LogPosition, PodLog
from budeval.jobs.manifest import CONTAINER, build_reader_job
from budeval.jobs.models import (
    ClusterReport,
    DeletedObjects,
    DeployedJob,
    EvaluationObjects,
    JobStatus,
    JsonObject,
    ResultFile,
)
from budeval.jobs.overlay import PodTemplateOverlay
from budeval.jobs.permissions import PREFLIGHT_PERMISSIONS, REQUIRED_PERMISSIONS, Permission
from budeval.jobs.preflight import Surroundings, judge_surroundings, no_cluster
from budeval.jobs.probe import (
    LIMIT_BYTES,
    PENDING_SECONDS,
    PROBE_NAME,
    PROBE_SECONDS,
    PROBE_SELECTOR,
    Questions,
    Trial,
    build_probe,
    build_probe_secret,
)
from budeval.jobs.reader import MAXIMUM_LOG_BYTES, log_reader_command, parse_log, parse_log_file, reader_command
from budeval.jobs.remover import removal_error, remover_command
from budeval.jobs.status import job_status, missing
from budeval.jobs.verification import judge_cluster

SWEEP_SCHEMA = 1
DELETION_SECONDS = 20.0
"""For Jobs to vanish after they were deleted; without finalizers of others they do at once."""
PODS_SECONDS = 60.0
"""For pods to end too: they have 20 s to do so by themselves, and their node then takes its time."""
READER_SECONDS = 90.0
"""For a reader Job to be scheduled, to start and to end."""
LOG_READER_SECONDS = 30.0
"""The same where a person waits for it."""

Cancelled = Callable[[], bool]


def never_cancelled() -> bool:
    """For callers that nobody can cancel."""
    return False


class _Sweep(NamedTuple):
    """What one LIST of Jobs and one of pods showed."""

    jobs: dict[str, JsonObject]
    pods: dict[str, list[JsonObject]]


class _ShortJob(NamedTuple):
    """A sort of Job that works on the volume for seconds, and prints what came of it."""

    name: str
    seconds: float
    failure: str
    """Title of the error where it could not do its work."""
    removes: bool = False


_RESULTS_READER = _ShortJob(names.READER_NAME, READER_SECONDS, "Results could not be read")
_LOG_READER = _ShortJob(names.READER_NAME, LOG_READER_SECONDS, "The log could not be read")
_REMOVER = _ShortJob(names.REMOVER_NAME, READER_SECONDS, "Files could not be removed", removes=True)


class AnsibleOrchestrator:
    """What budeval asks of a cluster, each thing by one run of a playbook.

    ``kubeconfig`` is the text of a kubeconfig everywhere; None means the service's own cluster.
    """

    def __init__(self, settings: Settings, runner: PlaybookRunner) -> None:
        self._settings = settings
        self._runner = runner
        self._overlay = PodTemplateOverlay.from_settings(settings.pod_template_overlay)
        self._sweeps = SingleFlight[_Sweep](settings.sweep_ttl, settings.playbook_concurrency)

    def verify_cluster_connection(
        self, kubeconfig: str | None = None, *, cancelled: Cancelled = never_cancelled
    ) -> ClusterReport:
        """Check that evaluations can be run, and name everything that is in the way.

        Raises:
            ClusterUnreachable: nobody answers; may pass.
            ClusterUnauthorized: the credentials are refused.
            ClusterNotReady: the namespace, a permission or the volume claim is missing.
        """
        answers = self._ask_surroundings(REQUIRED_PERMISSIONS, kubeconfig, cancelled)
        return judge_cluster(answers, self._settings.namespace, self._settings.pvc_name)

    def inspect_cluster(self, kubeconfig: str | None = None) -> Surroundings:
        """The same for a preflight: everything is told, nothing is raised but what may pass.

        Raises:
            TemporaryError: the service is stopping.
        """
        permissions = (*REQUIRED_PERMISSIONS, *PREFLIGHT_PERMISSIONS)
        try:
            answers = self._ask_surroundings(permissions, kubeconfig)
        except (ClusterUnreachable, ClusterUnauthorized, ClusterNotReady, PlaybookFailed, PlaybookTimeout) as error:
            return no_cluster(str(error))
        return judge_surroundings(answers, self._settings.namespace, self._settings.pvc_name)

    def validate_evaluation(self, trial: Trial, kubeconfig: str | None = None) -> JsonObject:
        """Let the cluster judge objects without making them, and look from inside it by a short Job.

        Returns:
            ``judged``: the API server's answer to each object; ``probe``: what the probe saw, or None.

        Raises:
            ClusterUnreachable, PlaybookTimeout, PlaybookFailed: there is no answer. What the probe left is removed by
            Kubernetes, at the latest ``DEADLINE_SECONDS`` and ``TTL_SECONDS`` later.
        """
        request = {"objects": trial.objects, "probe": self._probe_request(trial) if trial.questions else None}
        with redactor.hiding(trial.api_key.get_secret_value() if trial.api_key else None):
            return self._runner.run(
                "validate_eval_k8s.yml",
                request,
                kubeconfig,
                timeout_seconds=self._settings.playbook_timeout,
                mostly_waits=True,
            )

    def deploy_eval_jobs(
        self, objects: EvaluationObjects, kubeconfig: str | None = None, *, cancelled: Cancelled = never_cancelled
    ) -> list[DeployedJob]:
        """Make all objects of an attempt, or none, once nothing of earlier ones is left. Doing it twice is harmless.

        Raises:
            DeploymentFailed: with Kubernetes' reason; what had been made is removed.
            PlaybookCancelled: what had been made is removed.
            ClusterUnreachable, PlaybookTimeout: some may have been made; doing it again completes them.
        """
        secret = [objects.secret] if objects.secret else []
        request = {
            "objects": [*secret, objects.config_map, *objects.jobs],
            "earlier": self._earlier(objects.eval_id, objects.attempt),
        }
        with redactor.hiding(objects.api_key.get_secret_value() if objects.api_key else None):
            try:
                answer = self._run("deploy_eval_job_k8s.yml", request, kubeconfig, cancelled)
            except PlaybookCancelled:
                self._clean_up(objects, kubeconfig)
                raise
            except PlaybookFailed as error:
                raise DeploymentFailed(f"{error.detail}{self._clean_up(objects, kubeconfig)}") from error
        jobs = [DeployedJob.model_validate(job) for job in answer["jobs"]]
        if sorted(job.name for job in jobs) != sorted(objects.job_names):
            raise PlaybookFailed(f"{len(objects.jobs)} Jobs were applied, the cluster told of {len(jobs)}")
        return jobs

    def delete_eval_jobs(
        self,
        eval_id: str,
        kubeconfig: str | None = None,
        *,
        job_names: Sequence[str] | None = None,
        attempt: int = 1,
    ) -> DeletedObjects:
        """Remove what an attempt has in the cluster, and wait until its Jobs are gone.

        Args:
            eval_id: the evaluation.
            kubeconfig: see the class.
            job_names: only these Jobs, while the evaluation goes on; None: everything.
            attempt: the attempt; what others have stays.
        """
        request = {
            "namespace": self._settings.namespace,
            "selector": names.attempt_selector(eval_id, attempt),
            "only": None if job_names is None else list(job_names),
            "named": _owned_objects(eval_id, [attempt]) if job_names is None else [],
            "timeout": DELETION_SECONDS,
            "pods": False,
        }
        return self._delete(request, kubeconfig)

    def remove_evaluation(self, eval_id: str, attempts: int) -> DeletedObjects:
        """Remove all that an evaluation of so many attempts has in the service's own cluster, its pods included."""
        request = {
            "namespace": self._settings.namespace,
            "selector": names.evaluation_selector(eval_id),
            "only": None,
            "named": _owned_objects(eval_id, range(1, attempts + 1)),
            "timeout": PODS_SECONDS,
            "pods": True,
        }
        return self._delete(request, None)

    def remove_results(self, eval_id: str) -> None:
        """Remove an evaluation's files from the volume of the service's own cluster by a short Job.

        Raises:
            TemporaryError: the Job could not do its work.
        """
        error = removal_error(self._run_short_job(_REMOVER, eval_id, remover_command(eval_id), None))
        if error is not None:
            raise TemporaryError(f"results/{eval_id}: {printable(error, 300)}", title="Files could not be removed")

    def check_jobs_status(
        self,
        job_ids: Sequence[str],
        kubeconfig: str | None = None,
        *,
        uids: Mapping[str, str] | None = None,
    ) -> dict[str, JobStatus]:
        """Status of each named Job. One LIST serves all callers that ask at about the same time.

        A Job that is not there, or has another uid than ``uids`` says, is Missing; each Missing comes from a
        LIST that began after this call did.

        Raises:
            ClusterUnreachable: there is no answer; never an empty one.
        """
        asked = time.monotonic()
        sweep, began = self._sweep(kubeconfig)
        if began < asked and any(name not in sweep.jobs for name in job_ids):
            sweep, _ = self._sweep(kubeconfig, not_before=asked)
        now = datetime.now(UTC)
        return {name: self._status(sweep, name, (uids or {}).get(name), now) for name in job_ids}

    def read_results(
        self, eval_id: str, job_names: Sequence[str], kubeconfig: str | None = None
    ) -> dict[str, ResultFile]:
        """The ``result.json`` of each named Job, as found on the volume by a short reader Job.

        Raises:
            TemporaryError: the reader could not do its work.
        """
        results: dict[str, ResultFile] = {}
        remaining = list(dict.fromkeys(job_names))
        while remaining:
            read, deferred = self._read(eval_id, remaining, kubeconfig)
            if len(deferred) == len(remaining):
                raise PlaybookFailed("the reader deferred every result")
            results.update(read)
            remaining = deferred
        return results

    def read_pod_logs(
        self,
        job_name: str,
        kubeconfig: str | None = None,
        *,
        position: LogPosition | None = None,
        limit: int = MAXIMUM_ANSWER_BYTES,
    ) -> list[PodLog]:
        """The log of the newest pod of a Job, or nothing where there is no pod.

        With a ``position`` it is read from there on, and the logs of pods that came after it are read too.
        ``limit``: bytes of each log, the newest ones.
        """
        begin = position or LogPosition()
        request = {
            "namespace": self._settings.namespace,
            "job": job_name,
            "container": CONTAINER,
            "read": begin.model_dump(include={"pod", "since"}),
            "limit_bytes": limit,
        }
        answer = self._run("read_logs_k8s.yml", request, kubeconfig)
        return [PodLog.model_validate(log) for log in json.loads(answer["content"])]

    def read_log_file(
        self, eval_id: str, directory: str, kubeconfig: str | None = None, *, limit: int = MAXIMUM_ANSWER_BYTES
    ) -> LogFile:
        """The newest bytes of ``engine.log`` in a run's working directory, read on the volume by a short reader Job.

        Raises:
            TemporaryError: the reader could not do its work.
        """
        log = self._run_short_job(_LOG_READER, eval_id, log_reader_command(directory, limit), kubeconfig)
        return parse_log_file(log, directory, limit)

    def _run(
        self,
        playbook: str,
        request: Mapping[str, Any],
        kubeconfig: str | None,
        cancelled: Cancelled = never_cancelled,
    ) -> dict[str, Any]:
        return self._runner.run(
            playbook,
            request,
            kubeconfig,
            timeout_seconds=self._settings.playbook_timeout,
            cancelled=cancelled,
        )

    def _delete(self, request: Mapping[str, Any], kubeconfig: str | None) -> DeletedObjects:
        removed = self._run("delete_eval_jobs_k8s.yml", request, kubeconfig)
        return DeletedObjects(
            jobs=removed["jobs"], secrets=removed.get("secrets", []), config_maps=removed.get("configmaps", [])
        )

    def _earlier(self, eval_id: str, attempt: int) -> dict[str, Any] | None:
        """What must be gone before an attempt begins; nothing for the first one."""
        if attempt == 1:
            return None
        return {
            "namespace": self._settings.namespace,
            "selector": names.evaluation_selector(eval_id),
            "only": None,
            "named": _owned_objects(eval_id, range(1, attempt)),
            "timeout": PODS_SECONDS,
            "before": attempt,
        }

    def _ask_surroundings(
        self, permissions: Sequence[Permission], kubeconfig: str | None, cancelled: Cancelled = never_cancelled
    ) -> dict[str, Any]:
        request = {
            "namespace": self._settings.namespace,
            "volume_claim": self._settings.pvc_name,
            "permissions": [list(permission) for permission in permissions],
        }
        return self._run("verify_cluster_connection_k8s.yml", request, kubeconfig, cancelled)

    def _probe_request(self, trial: Trial) -> dict[str, Any]:
        settings = self._settings
        name = f"{PROBE_NAME}-{secrets.token_hex(5)}"
        job = build_probe(
            name,
            trial.questions or Questions(),
            namespace=settings.namespace,
            image=settings.engine_image,
            image_pull_policy=settings.image_pull_policy,
            overlay=self._overlay,
            volume_claim=settings.pvc_name if trial.bound else None,
            has_api_key=trial.api_key is not None,
        )
        return {
            "job": job,
            "secret": build_probe_secret(name, settings.namespace, trial.api_key) if trial.api_key else None,
            "selector": PROBE_SELECTOR,
            "pending_seconds": PENDING_SECONDS,
            "seconds": PROBE_SECONDS,
            "limit_bytes": LIMIT_BYTES,
        }

    def _clean_up(self, objects: EvaluationObjects, kubeconfig: str | None) -> str:
        """Nothing where all is removed, else words on what was left. The first failure is the one to be told."""
        try:
            self.delete_eval_jobs(objects.eval_id, kubeconfig, attempt=objects.attempt)
        except BudEvalError as error:
            return f"; what had been made could not be removed: {error.detail}"
        return ""

    def _sweep(self, kubeconfig: str | None, not_before: float = float("-inf")) -> tuple[_Sweep, float]:
        cluster = hashlib.sha256(kubeconfig.encode()).hexdigest() if kubeconfig else None
        key = (cluster, self._settings.namespace)
        return self._sweeps.ask(key, lambda: self._ask_cluster(kubeconfig), not_before=not_before)

    def _ask_cluster(self, kubeconfig: str | None) -> _Sweep:
        request = {"namespace": self._settings.namespace, "selector": names.RUN_SELECTOR}
        return _parse_sweep(self._run("check_job_status_k8s.yml", request, kubeconfig))

    def _status(self, sweep: _Sweep, name: str, uid: str | None, now: datetime) -> JobStatus:
        job = sweep.jobs.get(name)
        if job is None or (uid is not None and job["uid"] != uid):
            return missing(name)
        return job_status(job, sweep.pods.get(name, []), now, self._settings.pending_grace)

    def _read(
        self, eval_id: str, job_names: Sequence[str], kubeconfig: str | None
    ) -> tuple[dict[str, ResultFile], list[str]]:
        return parse_log(
            self._run_short_job(_RESULTS_READER, eval_id, reader_command(job_names), kubeconfig), job_names
        )

    def _run_short_job(self, kind: _ShortJob, eval_id: str, command: Sequence[str], kubeconfig: str | None) -> str:
        """What the Job printed."""
        settings = self._settings
        name = f"{kind.name}-{secrets.token_hex(5)}"
        job = build_reader_job(
            name,
            eval_id,
            namespace=settings.namespace,
            volume_claim=settings.pvc_name,
            image=settings.engine_image,
            image_pull_policy=settings.image_pull_policy,
            command=command,
            overlay=self._overlay,
            deadline_seconds=int(2 * kind.seconds),
            removes=kind.removes,
        )
        request = {
            "job": job,
            "name": name,
            "namespace": settings.namespace,
            "selector": names.evaluation_selector(eval_id),
            "limit_bytes": MAXIMUM_LOG_BYTES,
            "timeout": kind.seconds,
        }
        answer = self._run("read_results_k8s.yml", request, kubeconfig)
        if answer["log"] is None:
            raise TemporaryError(_reader_reason(answer), title=kind.failure)
        return str(answer["log"])


def _owned_objects(eval_id: str, attempts: Iterable[int]) -> list[list[str]]:
    """Collection and name of what the Jobs of some attempts own."""
    return [
        owned
        for attempt in attempts
        for owned in (
            ["secrets", names.secret_name(eval_id, attempt)],
            ["configmaps", names.config_map_name(eval_id, attempt)],
        )
    ]


def _parse_sweep(answer: Mapping[str, Any]) -> _Sweep:
    if answer.get("schema") != SWEEP_SCHEMA:
        raise PlaybookFailed(f"the sweep's answer has schema {answer.get('schema')!r}, not {SWEEP_SCHEMA}")
    content = json.loads(answer["content"])
    if (len(content["jobs"]), len(content["pods"])) != (answer["jobs"], answer["pods"]):
        raise PlaybookFailed("the sweep's answer has other counts than it says")
    pods: dict[str, list[JsonObject]] = defaultdict(list)
    for pod in content["pods"]:
        pods[pod["job"]].append(pod)
    return _Sweep({job["name"]: job for job in content["jobs"]}, dict(pods))


def _reader_reason(answer: Mapping[str, Any]) -> str:
    status = job_status(answer["job"], answer["pods"], datetime.now(UTC))
    told = f"{status.reason}: {status.message}" if status.reason else status.message
    return f"the short Job is {status.status}. {told}".strip()

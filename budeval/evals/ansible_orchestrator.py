"""One method per playbook: models go in, models come out, and errors say what a user can do."""

import hashlib
import json
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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
from budeval.commons.redaction import redactor
from budeval.commons.settings import Settings
from budeval.jobs import names
from budeval.jobs.manifest import build_reader_job
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
from budeval.jobs.reader import MAXIMUM_LOG_BYTES, parse_log, reader_command
from budeval.jobs.status import job_status, missing
from budeval.jobs.verification import judge_cluster

SWEEP_SCHEMA = 1
DELETION_SECONDS = 20.0
"""For Jobs to vanish after they were deleted; without finalizers of others they do at once."""
READER_SECONDS = 90.0
"""For a reader Job to be scheduled, to start and to end."""

Cancelled = Callable[[], bool]


def never_cancelled() -> bool:
    """For callers that nobody can cancel."""
    return False


class _Sweep(NamedTuple):
    """What one LIST of Jobs and one of pods showed."""

    jobs: dict[str, JsonObject]
    pods: dict[str, list[JsonObject]]


class AnsibleOrchestrator:
    """What budeval asks of a cluster, each thing by one run of a playbook.

    ``kubeconfig`` is the text of a kubeconfig everywhere; None means the service's own cluster.
    """

    def __init__(self, settings: Settings, runner: PlaybookRunner) -> None:
        self._settings = settings
        self._runner = runner
        self._overlay = PodTemplateOverlay.model_validate(settings.pod_overlay())
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
        """Make all objects of an evaluation, or none. Doing it twice changes nothing.

        Raises:
            DeploymentFailed: with Kubernetes' reason; what had been made is removed.
            PlaybookCancelled: what had been made is removed.
            ClusterUnreachable, PlaybookTimeout: some may have been made; doing it again completes them.
        """
        secret = [objects.secret] if objects.secret else []
        request = {"objects": [*secret, objects.config_map, *objects.jobs]}
        with redactor.hiding(objects.api_key.get_secret_value() if objects.api_key else None):
            try:
                answer = self._run("deploy_eval_job_k8s.yml", request, kubeconfig, cancelled)
            except PlaybookCancelled:
                self._clean_up(objects.eval_id, kubeconfig)
                raise
            except PlaybookFailed as error:
                raise DeploymentFailed(f"{error.detail}{self._clean_up(objects.eval_id, kubeconfig)}") from error
        jobs = [DeployedJob.model_validate(job) for job in answer["jobs"]]
        if sorted(job.name for job in jobs) != sorted(objects.job_names):
            raise PlaybookFailed(f"{len(objects.jobs)} Jobs were applied, the cluster told of {len(jobs)}")
        return jobs

    def delete_eval_jobs(
        self, eval_id: str, kubeconfig: str | None = None, *, job_names: Sequence[str] | None = None
    ) -> DeletedObjects:
        """Remove what an evaluation has in the cluster, and wait until its Jobs are gone.

        Args:
            eval_id: the evaluation.
            kubeconfig: see the class.
            job_names: only these Jobs, while the evaluation goes on; None: everything.
        """
        everything = [["secrets", names.secret_name(eval_id)], ["configmaps", names.config_map_name(eval_id)]]
        request = {
            "namespace": self._settings.namespace,
            "selector": names.evaluation_selector(eval_id),
            "only": None if job_names is None else list(job_names),
            "named": everything if job_names is None else [],
            "timeout": DELETION_SECONDS,
        }
        removed = self._run("delete_eval_jobs_k8s.yml", request, kubeconfig)
        return DeletedObjects(
            jobs=removed["jobs"], secrets=removed.get("secrets", []), config_maps=removed.get("configmaps", [])
        )

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

    def _clean_up(self, eval_id: str, kubeconfig: str | None) -> str:
        """Nothing where all is removed, else words on what was left. The first failure is the one to be told."""
        try:
            self.delete_eval_jobs(eval_id, kubeconfig)
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
        settings = self._settings
        name = f"{names.READER_NAME}-{secrets.token_hex(5)}"
        job = build_reader_job(
            name,
            eval_id,
            namespace=settings.namespace,
            volume_claim=settings.pvc_name,
            image=settings.engine_image,
            image_pull_policy=settings.image_pull_policy,
            command=reader_command(job_names),
            overlay=self._overlay,
            deadline_seconds=int(2 * READER_SECONDS),
        )
        request = {
            "job": job,
            "name": name,
            "namespace": settings.namespace,
            "selector": names.evaluation_selector(eval_id),
            "limit_bytes": MAXIMUM_LOG_BYTES,
            "timeout": READER_SECONDS,
        }
        answer = self._run("read_results_k8s.yml", request, kubeconfig)
        if answer["log"] is None:
            raise TemporaryError(_reader_reason(answer), title="Results could not be read")
        return parse_log(answer["log"], job_names)


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
    return f"the reader Job is {status.status}. {told}".strip()

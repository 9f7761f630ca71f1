"""One method per playbook: models go in, models come out, and errors say what a user can do."""

from collections.abc import Callable, Mapping, Sequence

from budeval.ansible.runner import PlaybookRunner
from budeval.commons.settings import Settings
from budeval.jobs.models import ClusterReport, DeletedObjects, DeployedJob, EvaluationObjects, JobStatus, RunResult


class AnsibleOrchestrator:
    """What budeval asks of a cluster, each thing by one run of a playbook.

    ``kubeconfig`` is the text of a kubeconfig everywhere; None means the service's own cluster.
    """

    def __init__(self, settings: Settings, runner: PlaybookRunner) -> None:
        self._settings = settings
        self._runner = runner

    def verify_cluster_connection(
        self, kubeconfig: str | None = None, *, cancelled: Callable[[], bool] | None = None
    ) -> ClusterReport:
        """Check that evaluations can be run, and name everything that is in the way.

        Raises:
            ClusterUnreachable: nobody answers; may pass.
            ClusterUnauthorized: the credentials are refused.
            ClusterNotReady: the namespace, a permission or the volume claim is missing.
        """
        raise NotImplementedError

    def deploy_eval_jobs(
        self,
        objects: EvaluationObjects,
        kubeconfig: str | None = None,
        *,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[DeployedJob]:
        """Make all objects of an evaluation, or none. Doing it twice changes nothing.

        Raises:
            DeploymentFailed: with Kubernetes' reason; what had been made is removed.
        """
        raise NotImplementedError

    def delete_eval_jobs(self, eval_id: str, kubeconfig: str | None = None) -> DeletedObjects:
        """Remove everything an evaluation has in the cluster, and wait until its Jobs are gone."""
        raise NotImplementedError

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
        raise NotImplementedError

    def read_results(
        self, eval_id: str, job_names: Sequence[str], kubeconfig: str | None = None
    ) -> dict[str, RunResult]:
        """The ``result.json`` of each named Job, as found on the volume by a short reader Job."""
        raise NotImplementedError

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from budeval.commons.errors import PublishFailed, PublishUncertain, SidecarUnavailable
from budeval.commons.settings import Settings
from budeval.evals.activities import Activities
from budeval.evals.notifications import Notifier
from budeval.evals.results_processor import ResultsProcessor
from budeval.jobs.models import ClusterReport, DeletedObjects, DeployedJob, ResultFile
from budeval.jobs.names import job_name
from tests.samples import EVAL_ID, SECRETS, an_evaluation, job_names


class Broker:
    """Takes messages, and refuses those that ``refuses`` says."""

    def __init__(self) -> None:
        self.messages: list[SimpleNamespace] = []
        self.refuses: Callable[[str, dict], bool] = lambda _topic, _body: False
        self.away = False
        """It is not there."""
        self.silent = False
        """It takes what it gets, and its answer is lost."""

    def publish(self, topic, body, event_id) -> None:
        if self.refuses(topic, body):
            raise PublishFailed("the broker is away")
        self.messages.append(SimpleNamespace(topic=topic, body=body, event_id=event_id))
        if self.silent:
            raise PublishUncertain("no answer")

    def connect(self) -> None:
        if self.away:
            raise PublishFailed("daprd does not answer")

    @property
    def told(self) -> list[str]:
        """``event.STATUS`` of each message, in order."""
        payloads = [message.body["payload"] for message in self.messages]
        return [f"{payload['event']}.{payload['content']['status']}" for payload in payloads]


class ListeningWorkflows:
    """Stands where daprd would be: events that were raised to workflows."""

    def __init__(self):
        self.events = []
        self.away = False

    def raise_event(self, instance_id, event, data=None):
        if self.away:
            raise SidecarUnavailable("nobody answers")
        self.events.append((instance_id, event, data))


class Cluster:
    """Stands where the orchestrator would be: what it is asked for, and what it answers."""

    def __init__(self):
        self.calls = []
        self.kubeconfigs = set()
        self.statuses = {}
        self.files = {}
        self.error = None
        self.while_deploying = lambda: None

    def verify_cluster_connection(self, kubeconfig=None, **_options):
        self._note("verify", kubeconfig)
        warnings = ["it is nearly full"]
        return ClusterReport(server_version="v1.34.2", namespace="development", volume_claim="c", warnings=warnings)

    def deploy_eval_jobs(self, objects, kubeconfig=None, **_options):
        self._note("deploy", kubeconfig)
        self.objects = objects
        self.while_deploying()
        return [DeployedJob(name=name, uid=f"uid-of-{name}") for name in objects.job_names]

    def delete_eval_jobs(self, _eval_id, kubeconfig=None, *, job_names=None, attempt=1):
        self._note(("delete", job_names) if attempt == 1 else ("delete", job_names, attempt), kubeconfig)
        return DeletedObjects(jobs=list(job_names or [job_name(EVAL_ID, "run-a"), job_name(EVAL_ID, "run-b")]))

    def check_jobs_status(self, job_ids, kubeconfig=None, **_options):
        self._note(("check", tuple(job_ids)), kubeconfig)
        return {name: self.statuses[name] for name in job_ids if name in self.statuses}

    def read_results(self, _eval_id, job_names, kubeconfig=None):
        self._note("read", kubeconfig)
        return {name: ResultFile(content=self.files.get(name, b"")) for name in job_names}

    def _note(self, call, kubeconfig):
        if self.error is not None:
            raise self.error
        self.calls.append(call)
        self.kubeconfigs.add(kubeconfig)


@pytest.fixture
def listening_workflows():
    return ListeningWorkflows()


@pytest.fixture
def database_url(tmp_path):
    return f"sqlite:///{tmp_path}/record.sqlite"


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def notifier(outbox, broker):
    return Notifier(outbox, broker)


@pytest.fixture
def record_evaluation(record):
    """Puts an evaluation into the record, and answers it."""

    def put(**changes):
        evaluation = an_evaluation(**changes)
        assert record.create(evaluation, SECRETS, b"", job_names(evaluation), "tester")
        return evaluation

    return put


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def activities(record, notifier, cluster, listening_workflows):
    settings = Settings(pvc_name="claim")
    return Activities(settings, record, notifier, cluster, ResultsProcessor(cluster), listening_workflows)

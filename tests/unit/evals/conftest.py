from collections.abc import Callable
from types import SimpleNamespace

import pytest

from budeval.commons.errors import PublishFailed, PublishUncertain, SidecarUnavailable
from budeval.evals.notifications import Notifier
from tests.samples import SECRETS, an_evaluation, job_names


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

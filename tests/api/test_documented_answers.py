"""Every status code in the OpenAPI document is one that the service really gives, and the answer is as documented.

``PROVOKED`` has a line for each operation: who adds a route adds a line.
"""

import httpx
import pytest
from jsonschema import Draft202012Validator

from budeval.api.health import Readiness
from budeval.commons.errors import ClusterUnauthorized, TemporaryError
from budeval.commons.wire import WorkflowStatus
from budeval.evals.logs import LogText, RunLogs
from budeval.evals.runtime import Runtime
from budeval.jobs.logs import LogLine
from tests.api.conftest import MAXIMUM_BODY_BYTES
from tests.api.test_events import long_ago
from tests.api.test_history import OTHER_ID
from tests.api.test_notifications import in_doubt
from tests.samples import EVAL_ID, KUBECONFIG, a_request
from tests.scripted_cluster import ScriptedCluster
from tests.scripted_logs import deployed

RUN = "test-monitor-pattern-001"
NOBODY = 1
"""A port on which nobody answers."""
ASKED_FOR = ("/evals", "/evals/start", "/evals/validate")
JSON = {"Content-Type": "application/json"}


class Operation:
    """An operation of a service that has one evaluation."""

    def __init__(self, serve, name, **settings):
        self.cluster = ScriptedCluster()
        self.service = serve(orchestrator=self.cluster, DAPR_HTTP_PORT=NOBODY, **settings)
        self.name, self._serve = name, serve
        self.method, self.path = name.split()
        assert self.service.start(a_request()).status_code == 200

    def with_one_place(self):
        """The same of a service where no two evaluations may run, nor wait."""
        return Operation(self._serve, self.name, maximum_evaluations=1, when_full="refuse")

    def __call__(self, eval_id=EVAL_ID, **options):
        """Asks for it, with a good request unless ``options`` are given."""
        good = {"json": a_request()} if self.path in ASKED_FOR and self.method == "POST" else {}
        url = self.path.replace("{eval_id}", eval_id).replace("{run_id}", RUN)
        return self.service.client.request(self.method, url, **(options or good))


def well(ask):
    return ask()


def well_at_the_end(ask):
    """Where a stream goes on until there is one."""
    ask.service.record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    long_ago(ask.service)
    return ask()


def well_with_a_sidecar(ask):
    """As daprd answers; a real one is asked in tests/workflow."""
    metadata = httpx.Response(200, json={"components": [{"name": "pubsub-redis", "type": "pubsub.redis"}]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Readiness, "_get", lambda _readiness, _path: metadata)
        patch.setattr(Runtime, "ready", lambda _runtime: True)
        return ask()


def all_was_received(ask):
    well_at_the_end(ask)
    return ask(headers={"Last-Event-ID": "2"})


def no_text(ask):
    return ask(content=b"\xff", headers=JSON)


def too_large(ask):
    return ask(content=b" " * (MAXIMUM_BODY_BYTES + 1), headers=JSON)


def nothing_inside(ask):
    return ask(json={})


def no_uuid(ask):
    return ask(eval_id="1")


def no_limit(ask):
    return ask(params={"limit": 0})


def nobody_asked_for_it(ask):
    return ask(eval_id=OTHER_ID)


def taken(ask):
    return ask(json=a_request(source="somebody else"))


def no_such_type(ask):
    return ask(headers={"Accept": "image/png"})


def the_record_is_away(ask):
    with ask.service.database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE evaluations RENAME TO elsewhere")
    return ask()


def with_a_log(ask):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLogs, "read", lambda *_: LogText([LogLine("", "one")], False))
        return ask()


def all_of_the_log_was_received(ask):
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "complete"}
    return ask(params={"follow": "true"}, headers=headers)


def the_cluster_refuses(ask):
    def refuse(*_):
        raise ClusterUnauthorized("who are you")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLogs, "read", refuse)
        return ask()


def the_kubeconfig_is_erased(ask):
    assert ask.service.start(a_request(eval_id=OTHER_ID, kubeconfig=KUBECONFIG)).status_code == 200
    deployed(ask.service, OTHER_ID)
    ask.service.record.finish(OTHER_ID, WorkflowStatus.COMPLETED)
    return ask(eval_id=OTHER_ID)


def ended(ask):
    ask.service.record.finish(EVAL_ID, WorkflowStatus.FAILED)


def retried(ask):
    ended(ask)
    return ask(json={"api_key": "k"})


def with_results_in_doubt(ask):
    in_doubt(ask.service)
    return ask()


def no_place(ask):
    return ask.with_one_place()(json=a_request(eval_id=OTHER_ID))


def no_place_again(ask):
    narrow = ask.with_one_place()
    ended(narrow)
    assert narrow.service.start(a_request(eval_id=OTHER_ID)).status_code == 200
    return narrow(json={"api_key": "k"})


def deleted(ask):
    ended(ask)
    return ask()


def too_many_preflights(ask):
    ask.cluster.error = TemporaryError("the service is stopping")
    return ask()


def nobody_can_look(ask):
    ask.cluster.error = TemporaryError("the cluster is away")
    return ask()


STARTED = {400: no_text, 409: taken, 413: too_large, 422: nothing_inside, 429: no_place,
           503: the_record_is_away}  # fmt: skip
SHOWN = {200: well, 404: nobody_asked_for_it, 422: no_uuid, 503: the_record_is_away}
PROVOKED = {
    "POST /evals": {201: well, **STARTED},
    "POST /evals/start": {200: well, **STARTED},
    "GET /evals": {200: well, 422: no_limit, 503: the_record_is_away},
    "GET /evals/{eval_id}": SHOWN,
    "POST /evals/{eval_id}/cancel": SHOWN,
    "GET /evals/{eval_id}/results": {**SHOWN, 406: no_such_type},
    "GET /evals/{eval_id}/timeline": SHOWN,
    "GET /evals/{eval_id}/events": {**SHOWN, 200: well_at_the_end, 204: all_was_received},
    "GET /evals/{eval_id}/runs/{run_id}/logs": {
        **SHOWN,
        200: with_a_log,
        204: all_of_the_log_was_received,
        410: the_kubeconfig_is_erased,
        502: the_cluster_refuses,
    },
    "POST /evals/validate": {200: well, 400: no_text, 413: too_large, 422: nothing_inside, 503: too_many_preflights},
    "POST /evals/{eval_id}/notifications/resend": {**SHOWN, 200: with_results_in_doubt, 409: well},
    "POST /evals/{eval_id}/retry": {
        202: retried,
        404: nobody_asked_for_it,
        422: no_uuid,
        503: the_record_is_away,
        400: no_text,
        409: well,
        413: too_large,
        429: no_place_again,
    },
    "DELETE /evals/{eval_id}": {
        204: deleted,
        404: nobody_asked_for_it,
        409: well,
        422: no_uuid,
        503: the_record_is_away,
    },
    "GET /whoami": {200: well},
    "GET /engines": {200: well, 422: no_limit},
    "GET /datasets": {200: well, 422: no_limit},
    "POST /datasets/refresh": {200: well, 503: nobody_can_look},
    "GET /livez": {200: well},
    "GET /readyz": {200: well_with_a_sidecar, 503: well},
    "GET /metrics": {200: well, 503: the_record_is_away},
}


@pytest.fixture(scope="module")
def document(shared):
    return shared.client.get("/openapi.json").json()


def test_every_documented_answer_is_provoked_and_no_other(document):
    documented = {
        f"{method.upper()} {path}": {int(status) for status in operation["responses"]}
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert documented == {name: set(answers) for name, answers in PROVOKED.items()}


@pytest.mark.parametrize(
    ("name", "status"), [(name, status) for name, answers in PROVOKED.items() for status in answers]
)
def test_a_documented_answer_comes_as_documented(serve, document, name, status):
    operation = Operation(serve, name)
    response = PROVOKED[name][status](operation)
    assert response.status_code == status, response.text
    content = document["paths"][operation.path][operation.method.lower()]["responses"][str(status)].get("content", {})
    media_type = response.headers.get("content-type", "").partition(";")[0]
    assert media_type in (content or {""})
    if media_type.endswith("json"):
        schema = {**content[media_type]["schema"], "components": document["components"]}
        Draft202012Validator(schema).validate(response.json())

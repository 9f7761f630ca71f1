import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from budeval.commons.wire import WorkflowStatus
from tests.api.conftest import BOTH_DATABASES
from tests.samples import API_KEY, EVAL_ID, KUBECONFIG, TOKEN, a_request

DATABASES = BOTH_DATABASES

ANSWER = {
    "object": "workflow_metadata",
    "workflow_id": EVAL_ID,
    "workflow_name": "evaluate_model",
    "steps": [
        {"id": "verify_cluster_connection", "title": "Verifying Cluster Connection"},
        {"id": "preparing_eval_engine", "title": "Preparing Eval Engine"},
        {"id": "deploy_eval_job", "title": "Deploying Evaluation Jobs"},
        {"id": "monitor_eval_job_progress", "title": "Monitoring Evaluation Job Progress"},
    ],
    "status": "PENDING",
    "eta": 30,
}


def without_descriptions(answer):
    steps = [{key: value for key, value in step.items() if key != "description"} for step in answer["steps"]]
    return {**answer, "steps": steps}


def is_problem(response, status):
    """Whether a response is problem+json with a true status code; answers its body."""
    body = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert body["status"] == status
    assert body["instance"] == response.request.url.path
    return body


# ------------------------------------------------------------------ the guide's request


def test_the_guides_request_is_answered_as_the_contract_says(service):
    response = service.start(a_request())
    assert (response.status_code, response.headers["location"]) == (200, f"/evals/{EVAL_ID}")
    assert without_descriptions(response.json()) == ANSWER
    assert all(step["description"] for step in response.json()["steps"])


def test_the_guides_request_is_recorded_and_scheduled_once(service):
    service.start(a_request())
    evaluation = service.record.definition(EVAL_ID)
    assert evaluation.parameters == {"query_per_second": 50.0, "max_out_len": 2048, "max_seq_len": 4096}
    assert evaluation.monitor.model_dump() == {"poll_interval": 30, "max_checks": 240, "progress_every": 10}
    assert evaluation.has_api_key
    assert [item.model_dump() for item in service.workflows.scheduled] == [
        {
            "eval_id": EVAL_ID,
            "attempt": 1,
            "run_ids": ["test-monitor-pattern-001"],
            "poll_interval": 30,
            "max_checks": 240,
            "progress_every": 10,
        }
    ]


def test_the_key_is_sealed_and_nowhere_else(service):
    response = service.start(a_request(eval_model_info__api_key=API_KEY, kubeconfig=KUBECONFIG))
    shown = service.client.get(f"/evals/{EVAL_ID}")
    secrets = service.record.open_secrets(EVAL_ID)
    assert (secrets.api_key.get_secret_value(), secrets.kubeconfig_text) == (API_KEY, KUBECONFIG)
    elsewhere = [response.text, shown.text, service.record.definition(EVAL_ID).model_dump_json()]
    elsewhere += [item.model_dump_json() for item in service.workflows.scheduled]
    assert [text for text in elsewhere if API_KEY in text or TOKEN in text] == []


def test_the_same_request_again_gets_the_same_answer_and_starts_nothing(service):
    first, second = service.start(a_request()), service.start(a_request())
    assert (second.status_code, second.json(), second.headers["location"]) == (
        first.status_code,
        first.json(),
        first.headers["location"],
    )
    assert service.created().scheduled == [EVAL_ID]


@pytest.mark.parametrize(
    "changes",
    [
        {"eval_id": EVAL_ID.upper()},
        {"source_topic": ["budapp-notifications"]},
        {"traceid": "another", "time": "later"},
        {"eval_model_info__extra_args": {"max_seq_len": "4096", "query_per_second": "50", "max_out_len": "2048"}},
        {"kubeconfig": None, "notification_metadata": None},
    ],
    ids=["upper case id", "topic as a list", "another envelope", "another order", "what is left out as null"],
)
def test_the_same_request_in_other_words_is_the_same(service, changes):
    service.start(a_request())
    assert service.start(a_request(**changes)).status_code == 200
    assert service.created().evaluations == [EVAL_ID]


def test_the_order_of_keys_is_no_difference(service):
    service.start(a_request())
    turned = json.dumps(dict(reversed(a_request().items())))
    response = service.client.post("/evals/start", content=turned, headers={"content-type": "application/json"})
    assert response.status_code == 200
    assert service.created().evaluations == [EVAL_ID]


def test_of_equal_requests_at_once_one_starts_and_all_get_its_answer(service):
    with ThreadPoolExecutor(8) as clients:
        responses = list(clients.map(lambda _: service.start(a_request()), range(16)))
    assert {response.status_code for response in responses} == {200}
    assert [response.json() for response in responses] == [responses[0].json()] * 16
    assert (service.created().evaluations, service.created().scheduled) == ([EVAL_ID], [EVAL_ID])


def test_of_different_requests_under_one_id_at_once_one_starts_and_the_others_are_conflicts(service):
    with ThreadPoolExecutor(8) as clients:
        responses = list(clients.map(lambda source: service.start(a_request(source=str(source))), range(16)))
    assert sorted(response.status_code for response in responses) == [200] + [409] * 15
    assert service.created().evaluations == [EVAL_ID]


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "somebody"},
        {"eval_model_info__api_key": "another-key"},
        {"eval_model_info__extra_args": {}},
        {"kubeconfig": KUBECONFIG},
        {"eval_datasets": [{"dataset_id": "piqa_gen", "run_id": "test-monitor-pattern-001"}]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_request_under_a_taken_id_is_a_conflict(service, changes):
    service.start(a_request())
    before = service.record.definition(EVAL_ID)
    problem = is_problem(service.start(a_request(**changes)), 409)
    assert "another request" in problem["detail"]
    assert service.record.definition(EVAL_ID) == before
    assert service.created().scheduled == [EVAL_ID]


def test_a_request_after_its_end_is_a_conflict(service):
    service.start(a_request())
    service.record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    assert "has ended" in is_problem(service.start(a_request()), 409)["detail"]


def test_a_request_is_kept_while_the_sidecar_is_away(service):
    service.workflows.away = True
    assert service.start(a_request()).status_code == 200
    assert (service.created().evaluations, service.created().scheduled) == ([EVAL_ID], [])
    service.workflows.away = False
    assert service.start(a_request()).status_code == 200
    assert service.created().scheduled == [EVAL_ID]


# ------------------------------------------------------------------ what may be left out or given


@pytest.mark.parametrize("kubeconfig", ["", None, "  \n"])
def test_no_kubeconfig_means_the_services_own_cluster(service, kubeconfig):
    assert service.start(a_request(kubeconfig=kubeconfig)).status_code == 200
    assert service.record.open_secrets(EVAL_ID).kubeconfig is None


@pytest.mark.parametrize("kubeconfig", [KUBECONFIG, json.dumps(yaml.safe_load(KUBECONFIG))], ids=["YAML", "JSON"])
def test_a_kubeconfig_is_kept_as_it_was_given(service, kubeconfig):
    assert service.start(a_request(kubeconfig=kubeconfig)).status_code == 200
    assert service.record.open_secrets(EVAL_ID).kubeconfig_text == kubeconfig


def test_what_is_optional_may_be_missing(service):
    request = a_request(experiment_id=None, eval_model_info__api_key="")
    del request["eval_configs"], request["engine"], request["eval_model_info"]["extra_args"]
    assert service.start(request).status_code == 200
    evaluation = service.record.definition(EVAL_ID)
    assert (evaluation.experiment_id, evaluation.engine, evaluation.parameters) == (None, "opencompass", {})
    assert not evaluation.has_api_key


def test_the_envelope_is_ignored(service):
    envelope = {
        "specversion": "1.0", "id": "1", "datacontenttype": "application/json", "topic": "t", "pubsubname": "p",
        "type": "x", "time": "now", "data": {"eval_id": "other"}, "debug": True, "traceid": "1", "traceparent": "2",
        "tracestate": "",
    }  # fmt: skip
    assert service.start({**a_request(), **envelope}).status_code == 200
    assert service.created().scheduled == [EVAL_ID]


def test_settings_of_one_evaluation_override_the_defaults(service):
    configs = [
        {"config_name": "poll_interval", "config_value": "5"},
        {"config_name": "max_checks", "config_value": 12},
        {"config_name": "progress_every", "config_value": 1},
        {"config_name": "max_questions", "config_value": "24"},
    ]
    assert service.start(a_request(eval_configs=configs)).status_code == 200
    evaluation = service.record.definition(EVAL_ID)
    assert evaluation.monitor.model_dump() == {"poll_interval": 5, "max_checks": 12, "progress_every": 1}
    assert evaluation.max_questions == 24


def test_whom_to_notify_and_how_is_kept(service):
    metadata = {
        "name": "n", "workflow_id": "w", "subscriber_ids": "s", "category": "c", "notification_type": "t",
        "actor": "a", "topic_keys": ["k"],
    }  # fmt: skip
    request = a_request(source_topic=["one", "two", "one"], notification_metadata=metadata)
    assert service.start(request).status_code == 200
    evaluation = service.record.definition(EVAL_ID)
    assert evaluation.source_topics == ["one", "two"]
    assert evaluation.notification.model_dump() == metadata


def test_two_hundred_runs_are_taken(service):
    datasets = [{"dataset_id": "siqa_gen", "run_id": f"run-{number}"} for number in range(200)]
    assert service.start(a_request(eval_datasets=datasets)).status_code == 200
    assert len(service.record.view(EVAL_ID).runs) == 200

import logging
import threading

import httpx
import pytest

from budeval.commons.errors import PlaybookTimeout, TemporaryError
from budeval.jobs.preflight import no_cluster
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, KUBECONFIG, TOKEN, a_request
from tests.scripted_cluster import ScriptedCluster

KEY = "sk-BudLiteLLMMasterKey_123"
IDS = ["request", "cluster", "namespace", "permissions", "volume", "manifests", "scheduling", "image",
       "dataset:siqa_gen", "endpoint"]  # fmt: skip
REFUSED = {"check": "endpoint", "reason": "EndpointUnauthorized", "message": f"Incorrect key {KEY}"}


@pytest.fixture
def cluster():
    return ScriptedCluster()


@pytest.fixture
def service(serve, cluster, monkeypatch):
    """A service whose cluster is scripted."""
    monkeypatch.setattr("budeval.main.AnsibleOrchestrator", lambda *_: cluster)
    made = serve(dataset_refresh=0)
    yield made
    cluster.go_on.set()


def validate(service, body=None, **options):
    return service.client.post("/evals/validate", json=a_request() if body is None else body, **options)


def checks(response):
    assert response.status_code == 200, response.text
    return {check["id"]: check for check in response.json()["checks"]}


def test_every_check_is_told_in_order_and_nothing_is_created(service, cluster):
    answer = validate(service).json()
    assert (answer["ok"], [check["id"] for check in answer["checks"]]) == (True, IDS)
    assert {check["status"] for check in answer["checks"]} == {"ok"}
    assert (service.created().evaluations, service.created().scheduled) == ([], [])


def test_what_is_tried_out_are_the_objects_of_this_request(service, cluster):
    validate(service)
    (trial,) = cluster.trials
    assert [each["kind"] for each in trial.objects] == ["Secret", "ConfigMap", "Job", "Pod"]
    assert all(EVAL_ID in str(each) for each in trial.objects)
    assert trial.questions.endpoint.model_dump() == {"model": "gpt-oss-20b", "endpoint": "http://127.0.0.1:13200/v1"}
    assert trial.api_key.get_secret_value() == KEY


def test_ids_may_be_left_out(service):
    body = a_request(eval_datasets=[{"dataset_id": "siqa_gen"}])
    del body["eval_id"]
    assert validate(service, body).json()["ok"]


def test_a_failed_check_says_what_to_do_and_to_which_field(service, cluster):
    cluster.endpoint = REFUSED
    found = checks(validate(service))["endpoint"]
    assert (found["status"], found["field"]) == ("failed", "eval_model_info.api_key")
    assert "api_key" in found["resolution"]
    assert validate(service).json()["ok"] is False


def test_the_key_is_masked_in_what_an_endpoint_says(service, cluster, caplog):
    caplog.set_level(logging.DEBUG)
    cluster.endpoint = REFUSED
    response = validate(service)
    assert "Incorrect key [redacted]" in response.text
    assert KEY not in response.text + caplog.text


def test_the_kubeconfig_of_the_request_is_used(service, cluster):
    validate(service, a_request(kubeconfig=KUBECONFIG))
    validate(service, a_request(kubeconfig=""))
    assert cluster.kubeconfigs == cluster.tried_with == [KUBECONFIG, None]


def test_all_problems_of_the_request_are_told_beside_the_cluster(service, cluster):
    body = a_request(
        eval_datasets=[{"dataset_id": "siqa_genn", "run_id": "a"}, {"dataset_id": "ARC_c_ppl", "run_id": "b"}],
        eval_model_info__extra_args={"speed": 1},
    )
    answer = validate(service, body).json()
    failed = [check for check in answer["checks"] if check["status"] == "failed"]
    assert {check["id"] for check in failed} == {"request"}
    assert {check["field"] for check in failed} == {
        "eval_datasets.0.dataset_id", "eval_datasets.1.dataset_id", "eval_model_info.extra_args.speed"
    }  # fmt: skip
    statuses = {check["id"]: check["status"] for check in answer["checks"]}
    assert (statuses["cluster"], statuses["endpoint"], answer["ok"]) == ("ok", "skipped", False)
    assert cluster.trials == []


def test_a_kubeconfig_that_cannot_be_used_is_not_used(service, cluster):
    found = checks(validate(service, a_request(kubeconfig=f"token: {TOKEN}")))
    assert found["request"]["field"] == "kubeconfig"
    assert found["cluster"]["status"] == "skipped"
    assert cluster.kubeconfigs == []


@pytest.mark.parametrize("body", [{}, [], "x", {**a_request(), "surprise": 1}])
def test_what_is_no_request_is_refused(service, cluster, body):
    is_problem(validate(service, body), 422)
    assert cluster.kubeconfigs == []


def test_a_cluster_that_does_not_answer_is_a_failed_check(service, cluster):
    cluster.around = no_cluster("refused")
    answer = validate(service).json()
    assert [check["id"] for check in answer["checks"] if check["status"] == "failed"] == ["cluster"]
    assert [check["id"] for check in answer["checks"]] == IDS
    assert cluster.trials == []


def test_a_cluster_that_falls_silent_is_a_failed_check(service, cluster):
    cluster.error = PlaybookTimeout("ended after 120 s")
    assert checks(validate(service))["manifests"]["status"] == "failed"


def test_a_service_that_stops_says_so(service, cluster):
    cluster.error = TemporaryError("the service is stopping")
    is_problem(validate(service), 503)


def test_only_a_few_are_made_at_once(service, cluster):
    cluster.go_on.clear()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(validate(service))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(cluster.trials) < 2:
        threading.Event().wait(0.01)
    problem = is_problem(validate(service), 503)
    assert problem["title"] == "Too many preflights"
    cluster.go_on.set()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert validate(service).status_code == 200


def test_a_client_that_goes_away_does_no_harm(service, cluster):
    cluster.go_on.clear()
    with pytest.raises(httpx.TimeoutException):
        validate(service, timeout=0.3)
    cluster.go_on.set()
    assert validate(service).status_code == 200


# ---------------------------------------------------------------- start


def start(service, path="/evals/start", body=None, **query):
    return service.client.post(path, json=body or a_request(), params={"validate": "true", **query})


@pytest.mark.parametrize(("path", "code"), [("/evals/start", 200), ("/evals", 201)])
def test_what_can_run_is_started(service, cluster, path, code):
    response = start(service, path)
    assert response.status_code == code, response.text
    assert service.created().scheduled == [EVAL_ID]
    assert len(cluster.trials) == 1


@pytest.mark.parametrize("path", ["/evals/start", "/evals"])
def test_what_could_not_run_is_not_started_and_says_why(service, cluster, path):
    cluster.missing, cluster.endpoint = ["siqa_gen"], REFUSED
    problem = is_problem(start(service, path), 422)
    assert [error["field"] for error in problem["errors"]] == ["dataset:siqa_gen", "endpoint"]
    assert [check["id"] for check in problem["checks"]] == IDS
    assert KEY not in str(problem)
    assert (service.created().evaluations, service.created().scheduled) == ([], [])


def test_a_warning_is_no_reason_to_refuse(service, cluster):
    cluster.endpoint = {"check": "endpoint", "reason": "EndpointRateLimited", "message": "slow down"}
    assert start(service).status_code == 200


def test_a_repetition_is_not_looked_at_again(service, cluster):
    first = start(service)
    cluster.endpoint = REFUSED
    assert start(service).json() == first.json()
    assert len(cluster.trials) == 1


def test_without_the_wish_nothing_is_looked_at(service, cluster):
    assert service.start(a_request()).status_code == 200
    assert start(service, body=a_request(eval_id="444e4567-e89b-12d3-a456-426614174021"), validate="false").is_success
    assert cluster.kubeconfigs == []


def test_a_wish_that_is_none_is_refused_by_name(service):
    assert is_problem(start(service, validate="perhaps"), 422)["errors"][0]["field"] == "validate"


# ---------------------------------------------------------------- data sets


def datasets(service, **query):
    response = service.client.get("/datasets", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_before_the_first_look_it_is_not_known_what_is_there(service, cluster):
    page = datasets(service, search="siqa_gen")
    assert (page["checked_at"], page["items"][0]["present"], page["items"][0]["questions"]) == (None, None, None)
    assert page["items"][0]["metrics"] == ["accuracy"]
    assert datasets(service, present="true")["items"] == datasets(service, present="false")["items"] == []
    assert cluster.trials == []


def refresh(service):
    response = service.client.post("/datasets/refresh")
    assert response.status_code == 200
    assert response.json()["checked_at"] is not None


def test_reading_the_list_never_has_the_volume_looked_at_on_demand(service, cluster):
    problem = is_problem(service.client.get("/datasets", params={"refresh": "true"}), 422)
    assert [error["field"] for error in problem["errors"]] == ["refresh"]
    assert cluster.trials == []


def test_a_look_tells_what_is_there(service, cluster):
    refresh(service)
    page = datasets(service, present="true")
    assert [(item["dataset_id"], item["questions"]) for item in page["items"]] == [("siqa_gen", 1954)]
    assert page["checked_at"] is not None
    assert all(not item["present"] for item in datasets(service, present="false")["items"])
    assert len(cluster.trials) == 1


def test_a_look_that_fails_says_why_and_keeps_what_was_known(service, cluster):
    refresh(service)
    cluster.error = PlaybookTimeout("ended after 120 s")
    is_problem(service.client.post("/datasets/refresh"), 503)
    assert datasets(service, present="true")["items"][0]["dataset_id"] == "siqa_gen"

import re
from uuid import UUID

import pytest

from tests.api.test_refusals import refused
from tests.api.test_start import is_problem
from tests.samples import API_KEY, EVAL_ID, a_request

RUN_ID = re.compile(r"(siqa_gen|piqa_gen)-[0-9a-f]{8}")


def without_ids(*datasets, **changes):
    request = a_request(eval_datasets=[{"dataset_id": name} for name in datasets or ("siqa_gen",)], **changes)
    del request["eval_id"]
    return request


def create(service, request):
    return service.client.post("/evals", json=request)


def test_ids_are_made_and_told(service):
    response = create(service, without_ids("siqa_gen", "piqa_gen", "siqa_gen"))
    answer = response.json()
    assert (response.status_code, response.headers["location"]) == (201, f"/evals/{answer['workflow_id']}")
    assert UUID(answer["workflow_id"]).version == 4
    assert len(set(answer["run_ids"])) == 3
    assert all(RUN_ID.fullmatch(run_id) for run_id in answer["run_ids"])
    assert answer["steps"][0]["id"] == "verify_cluster_connection"
    shown = service.client.get(response.headers["location"]).json()
    assert [run["run_id"] for run in shown["runs"]] == answer["run_ids"]
    assert service.created().scheduled == [answer["workflow_id"]]


def test_two_requests_without_an_id_are_two_evaluations(service):
    first, second = (create(service, without_ids()).json() for _ in range(2))
    assert len({first["workflow_id"], second["workflow_id"]}) == 2


def test_the_same_request_with_an_id_is_one_evaluation(service):
    request = {**without_ids("siqa_gen", "siqa_gen"), "eval_id": EVAL_ID}
    first, second = create(service, request), create(service, request)
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert service.created().evaluations == [EVAL_ID]
    problem = is_problem(create(service, {**request, "source": "another"}), 409)
    assert "another request" in problem["detail"]


def test_ids_that_are_given_are_kept(service):
    assert create(service, a_request()).json()["run_ids"] == ["test-monitor-pattern-001"]
    assert service.start(a_request()).status_code == 200


def test_a_made_id_is_none_that_was_given(service):
    made = create(service, {**without_ids(), "eval_id": EVAL_ID}).json()["run_ids"][0]
    datasets = [{"dataset_id": "siqa_gen"}, {"dataset_id": "siqa_gen", "run_id": made}]
    other = service.client.post("/evals", json={**without_ids(), "eval_id": EVAL_ID, "eval_datasets": datasets})
    is_problem(other, 409)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("eval_datasets", {"eval_datasets": []}),
        ("eval_datasets", {"eval_datasets": [{"dataset_id": "siqa_gen", "run_id": "a"}] * 2}),
        ("eval_datasets.0.dataset_id", {"eval_datasets": [{"dataset_id": "siqa"}]}),
        ("eval_datasets.0.dataset_id", {"eval_datasets": [{"dataset_id": "x" * 256}]}),
        ("eval_id", {"eval_id": "1"}),
        ("surprise", {"surprise": 1}),
        ("traceid", {"traceid": "only pub/sub adds one"}),
        ("engine", {"engine": API_KEY}),
    ],
)
def test_what_cannot_be_run_is_refused_by_field_and_not_created(refusing, field, changes):
    problem = is_problem(create(refusing, {**without_ids(), **changes}), 422)
    assert field in [error["field"] for error in problem["errors"]]


def test_the_ids_are_still_required_where_they_make_a_start_safe(refusing):
    assert {"eval_id", "eval_datasets.0.run_id"} <= refused(refusing, without_ids()).keys()

"""What a client sees when not everything can run at once."""

import pytest

from tests.api.test_start import ANSWER, is_problem, without_descriptions
from tests.api.test_subscription import deliver
from tests.samples import EVAL_ID, a_request


def id_of(number):
    return f"{number:08}-e89b-12d3-a456-426614174020"


def request_of(number, runs=1):
    datasets = [{"dataset_id": "siqa_gen", "run_id": f"run-{position}"} for position in range(runs)]
    return a_request(eval_id=id_of(number), eval_datasets=datasets)


def show(service, number):
    return service.client.get(f"/evals/{id_of(number)}").json()


def cancel(service, number):
    return service.client.post(f"/evals/{id_of(number)}/cancel")


@pytest.fixture
def narrow(serve):
    """A service with one place for evaluations, ten for Jobs, and two in the queue."""
    return serve(maximum_evaluations=1, maximum_jobs=10, maximum_waiting=2)


@pytest.fixture
def full(narrow):
    """Its place and its queue are taken."""
    for number in (1, 2, 3):
        assert narrow.start(request_of(number)).status_code == 200
    return narrow


def test_an_evaluation_without_a_place_is_accepted_and_not_scheduled(narrow):
    narrow.start(request_of(1))
    response = narrow.start(request_of(2))
    assert response.status_code == 200
    assert without_descriptions(response.json()) == {**ANSWER, "workflow_id": id_of(2)}
    assert response.headers["location"] == f"/evals/{id_of(2)}"
    assert narrow.created().scheduled == [id_of(1)]


def test_the_same_request_again_has_the_same_answer_while_it_waits_and_when_all_is_full(full):
    first = full.start(request_of(3))
    again = full.start(request_of(3))
    assert (again.status_code, again.json()) == (200, first.json())
    assert full.created().scheduled == [id_of(1)]


def test_who_waits_is_shown_with_its_place_and_what_it_waits_for(full):
    assert (show(full, 1)["queue"], show(full, 1)["status"]) == (None, "PENDING")
    assert show(full, 3)["status"] == "PENDING"
    assert show(full, 3)["queue"] == {"position": 2, "waiting_for": "evaluations", "limit": 1, "scope": "all"}


def test_who_waits_for_jobs_is_told_so(serve):
    service = serve(maximum_jobs=3)
    service.start(request_of(1, runs=2))
    service.start(request_of(2, runs=2))
    assert show(service, 2)["queue"] == {"position": 1, "waiting_for": "jobs", "limit": 3, "scope": "all"}


def test_the_timeline_tells_of_the_waiting_once(full):
    entries = full.client.get(f"/evals/{id_of(3)}/timeline").json()["items"]
    assert [(entry["kind"], entry["title"], entry["reason"]) for entry in entries] == [
        ("created", "Evaluation requested", None),
        ("queue", "Waiting for a place", "evaluations"),
    ]
    assert entries[1]["message"] == "Place 2 in the queue: at most 1 evaluations at once in all"


def test_lists_tell_who_waits_and_can_be_asked_for_them(full):
    def listed(query):
        items = full.client.get(f"/evals{query}").json()["items"]
        return {item["eval_id"]: item["queued"] for item in items}

    assert listed("") == {id_of(1): False, id_of(2): True, id_of(3): True}
    assert listed("?queued=true") == {id_of(2): True, id_of(3): True}
    assert listed("?queued=false&status=PENDING") == {id_of(1): False}
    is_problem(full.client.get("/evals?queued=perhaps"), 422)


@pytest.mark.parametrize("path", ["/evals/start", "/evals"])
def test_a_full_queue_refuses_and_says_when_to_ask_again(full, path):
    response = full.client.post(path, json=request_of(4))
    body = is_problem(response, 429)
    assert response.headers["retry-after"] == "30"
    assert body["title"] == "Too many evaluations"
    assert "at most 2 evaluations may wait in all" in body["detail"]
    assert full.client.get(f"/evals/{id_of(4)}").status_code == 404
    assert len(full.created().evaluations) == 3


def test_a_service_without_a_queue_refuses_at_once(serve):
    service = serve(maximum_evaluations=1, when_full="refuse")
    service.start(request_of(1))
    response = service.start(request_of(2))
    assert "at most 1 evaluations at once in all" in is_problem(response, 429)["detail"]
    assert response.headers["retry-after"] == "30"
    assert service.created().evaluations == [id_of(1)]


def test_more_jobs_than_there_may_ever_be_are_no_matter_of_waiting(narrow):
    (error,) = is_problem(narrow.start(request_of(1, runs=11)), 422)["errors"]
    assert error["field"] == "eval_datasets"
    assert "11 Jobs" in error["message"]
    assert "at most 10 jobs" in error["message"]
    assert narrow.created().evaluations == []


def test_a_request_by_pubsub_stays_with_the_broker_while_all_is_full(full):
    assert deliver(full, a_request()) == "RETRY"
    assert EVAL_ID not in full.created().evaluations
    cancel(full, 3)
    assert deliver(full, a_request()) == "SUCCESS"


def test_a_waiting_one_that_is_cancelled_has_ended_in_the_answer(full):
    response = cancel(full, 2)
    shown = response.json()
    assert (response.status_code, shown["status"], shown["cancelled_by"], shown["queue"]) == (
        200, "TERMINATED", "api", None,
    )  # fmt: skip
    assert (shown["error"]["reason"], shown["runs"][0]["error"]["reason"]) == ("Cancelled", "Cancelled")
    assert full.workflows.events == []
    assert show(full, 3)["queue"]["position"] == 1
    is_problem(full.start(request_of(2)), 409)
    assert cancel(full, 2).json() == shown


def test_metrics_count_places_and_the_queue(full):
    text = full.client.get("/metrics").text
    assert "budeval_evaluations_running 1.0" in text
    assert "budeval_evaluations_running_jobs 1.0" in text
    assert "budeval_evaluations_queued 2.0" in text


def test_everybody_is_let_in_by_default(service):
    for number in range(5):
        service.start(request_of(number, runs=50))
    assert len(service.created().scheduled) == 5

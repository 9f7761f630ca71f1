"""Requests that daprd brings from a topic."""

import json
import logging

import pytest

from tests.api.test_start import is_problem
from tests.samples import API_KEY, EVAL_ID, a_request

PATH = "/events/evaluations"
TOKEN = "canary-of-a-sidecar-token"


def deliver(service, message, **headers):
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    response = service.client.post(PATH, content=content, headers={"content-type": "application/json", **headers})
    assert response.status_code == 200
    return response.json()["status"]


WRAPPED = {
    "the envelope itself": lambda: {**a_request(), "specversion": "1.0", "id": "1", "topic": "requests", "type": "x"},
    "under data": lambda: {"specversion": "1.0", "id": "1", "data": a_request()},
    "as a text under data": lambda: {"specversion": "1.0", "id": "1", "data": json.dumps(a_request())},
    "bare": a_request,
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_a_request_is_run_however_it_is_wrapped(service, wrapped):
    assert deliver(service, wrapped()) == "SUCCESS"
    assert (service.created().evaluations, service.created().scheduled) == ([EVAL_ID], [EVAL_ID])


def test_a_repetition_is_a_success_and_starts_nothing(service):
    assert [deliver(service, a_request()) for _ in range(2)] == ["SUCCESS", "SUCCESS"]
    assert service.created().scheduled == [EVAL_ID]


BAD = [
    b"",
    b"{",
    b"\xff",
    b"[" * 50_000,
    b"null",
    b"1",
    {},
    {"data": "no JSON"},
    {"data": None},
    {"data": [1]},
    a_request(engine="unknown"),
    a_request(eval_model_info__surprise=API_KEY),
    a_request(kubeconfig=API_KEY),
]


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_run_is_dropped_to_the_dead_letters(refusing, message):
    assert deliver(refusing, message) == "DROP"


def test_why_a_request_was_dropped_is_in_the_log(refusing, caplog):
    caplog.set_level(logging.ERROR)
    deliver(refusing, a_request(engine="unknown"))
    assert "unknown engine" in caplog.text


def test_another_request_under_a_taken_id_is_dropped(service):
    deliver(service, a_request())
    assert deliver(service, a_request(source="another")) == "DROP"


@pytest.mark.parametrize(("topic", "subscriptions"), [(None, 0), ("eval-requests", 1)])
def test_the_sidecar_learns_what_to_subscribe_to(serve, topic, subscriptions):
    told = serve(request_topic=topic).client.get("/dapr/subscribe").json()
    assert len(told) == subscriptions
    if told:
        assert told[0] == {
            "pubsubname": "pubsub-redis",
            "topic": "eval-requests",
            "route": PATH,
            "deadLetterTopic": "eval-requests-dead-letter",
        }


# ------------------------------------------------------------------ the sidecar's token

CALLS = [
    ("GET", "/dapr/subscribe", None, 401),
    ("POST", PATH, None, 401),
    ("POST", f"{PATH}/", None, 401),
    ("GET", "/dapr/subscribe", "wrong", 401),
    ("GET", "/dapr/subscribe", "", 401),
    ("GET", "/dapr/subscribe", TOKEN, 200),
    ("GET", "/livez", None, 200),
    ("GET", "/livez", "wrong", 401),
    ("GET", "/livez", TOKEN, 200),
]


@pytest.fixture(scope="module")
def guarded(serve):
    return serve(APP_API_TOKEN=TOKEN)


@pytest.mark.parametrize(("method", "path", "token", "status"), CALLS)
def test_only_the_sidecar_may_deliver(guarded, method, path, token, status):
    headers = {} if token is None else {"dapr-api-token": token}
    response = guarded.client.request(method, path, headers=headers, json={})
    if status == 401:
        assert "canary" not in str(is_problem(response, 401))
    assert response.status_code == status


def test_calls_of_the_sidecar_are_not_part_of_the_documented_api(shared):
    paths = shared.client.get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path.startswith(("/dapr", "/events"))]

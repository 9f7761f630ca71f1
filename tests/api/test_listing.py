import base64
import json

import pytest

from budeval.commons.wire import WorkflowStatus
from tests.api.conftest import BOTH_DATABASES
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, a_request

DATABASES = BOTH_DATABASES

EXPERIMENT = "123e4567-e89b-12d3-a456-426614174000"
NUMBERS = range(7)


def id_of(number):
    return f"{number:08}{EVAL_ID[8:]}"


@pytest.fixture(scope="module")
def many(serve):
    """A service with seven evaluations, made one after the other, of two models; the first has failed."""
    service = serve()
    for number in NUMBERS:
        request = a_request(
            eval_id=id_of(number), eval_model_info__model_name=f"m{number % 2}", source=f"s{number % 3}"
        )
        assert service.start(request).status_code == 200
    service.record.finish(id_of(0), WorkflowStatus.FAILED)
    return service


def ask(service, **parameters):
    response = service.client.get("/evals", params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def numbers(page):
    return [int(item["eval_id"][:8]) for item in page["items"]]


def test_the_list_of_an_empty_record_is_empty(shared):
    assert ask(shared) == {"items": [], "next_cursor": None}


def test_evaluations_are_listed_with_how_they_stand_the_newest_first(many):
    page = ask(many)
    assert (numbers(page), page["next_cursor"]) == (list(reversed(NUMBERS)), None)
    item = page["items"][-1]
    assert {key: value for key, value in item.items() if not key.endswith("_at")} == {
        "eval_id": id_of(0), "experiment_id": EXPERIMENT, "status": "FAILED", "queued": False, "model_name": "m0",
        "engine": "opencompass", "attempt": 1, "source": "s0", "requested_by": "api", "datasets": ["siqa_gen"],
        "runs_total": 1, "runs_succeeded": 0, "runs_failed": 1, "eta_minutes": 0, "error": None,
    }  # fmt: skip
    assert item["created_at"].endswith("Z")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"status": "FAILED"}, [0]),
        ({"model": "m1"}, [5, 3, 1]),
        ({"source": "s0", "sort": "created_at"}, [0, 3, 6]),
        ({"requested_by": "api", "source": "s2", "sort": "created_at"}, [2, 5]),
        ({"requested_by": "somebody"}, []),
        ({"dataset": "piqa_gen"}, []),
        ({"experiment_id": EXPERIMENT.upper(), "limit": 1}, [6]),
        ({"created_before": "2001-01-01T00:00:00Z"}, []),
        ({"created_after": "2001-01-01T00:00:00+02:00"}, list(reversed(NUMBERS))),
        ({"sort": "model"}, [0, 2, 4, 6, 1, 3, 5]),
        ({"sort": "ended_at", "limit": 2}, [0, 1]),
        ({"model": "' OR 1=1; --"}, []),
        ({"model": "実験 🧪"}, []),
    ],
)
def test_filters_and_sort_of_the_query(many, parameters, expected):
    assert numbers(ask(many, **parameters)) == expected


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "ended_at", "-ended_at", "model", "-model"])
def test_following_the_cursor_gives_every_evaluation_once(many, sort):
    whole, page = [], ask(many, sort=sort, limit=2)
    while page["next_cursor"]:
        whole += numbers(page)
        page = ask(many, sort=sort, limit=2, cursor=page["next_cursor"])
    assert whole + numbers(page) == numbers(ask(many, sort=sort))


def encoded(key):
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


NO_CURSORS = [
    "", "x", "%00", "....", encoded(None), encoded([]), encoded([1, 2]), encoded({"a": 1}), encoded(["m1", id_of(1)]),
    encoded(["2026-01-01T00:00:00Z", "1"]), encoded(["2026-01-01T00:00:00", id_of(1)]),
    encoded(["0001-01-01T00:00:00+23:00", id_of(1)]), "[" * 5000, "x" * 7000, "ü",
]  # fmt: skip


@pytest.mark.parametrize("cursor", NO_CURSORS)
def test_what_is_no_cursor_is_refused_by_name(shared, cursor):
    problem = is_problem(shared.client.get("/evals", params={"cursor": cursor}), 422)
    assert [error["field"] for error in problem["errors"]] == ["cursor"]


def test_a_cursor_of_another_sort_is_refused(many):
    cursor = ask(many, sort="model", limit=1)["next_cursor"]
    problem = is_problem(many.client.get("/evals", params={"cursor": cursor}), 422)
    assert problem["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"), ("limit", "201"), ("limit", "many"), ("status", "DONE"), ("sort", "eval_id"), ("model", ""),
        ("model", "a\x00b"), ("source", "x" * 257), ("experiment_id", "1"), ("created_after", "yesterday"),
        ("created_after", "1735689600"), ("created_after", "2026-01-01T00:00:00"), ("modle", "m1"),
        ("created_before", "0001-01-01T00:00:00+12:00"), ("created_before", "9999-12-31T23:59:59-12:00"),
    ],
)  # fmt: skip
def test_a_parameter_that_is_wrong_is_refused_by_name(shared, name, value):
    problem = is_problem(shared.client.get("/evals", params={name: value}), 422)
    assert [error["field"] for error in problem["errors"]] == [name]

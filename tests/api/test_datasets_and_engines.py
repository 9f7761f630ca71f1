import pytest
from jsonschema import Draft202012Validator

from budeval.engines import ENGINES
from tests.api.test_start import is_problem


def ask(service, path="/datasets", **parameters):
    response = service.client.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def everything(service, **parameters):
    page = ask(service, limit=200, **parameters)
    items = page["items"]
    while page["next_cursor"]:
        page = ask(service, limit=200, cursor=page["next_cursor"], **parameters)
        items += page["items"]
    return items


def test_engines_are_told_with_the_parameters_they_take(shared):
    page = ask(shared, "/engines")
    engine = page["items"][0]
    assert (page["next_cursor"], engine["name"], engine["version"]) == (None, "opencompass", "0.5.4")
    assert 0 < engine["usable_datasets"] < engine["datasets"]
    Draft202012Validator.check_schema(engine["parameters"])
    assert "query_per_second" in engine["parameters"]["properties"]


def test_every_data_set_is_listed_once_by_name(shared):
    names = [item["dataset_id"] for item in everything(shared)]
    assert names == sorted(set(names))
    assert len(names) == ask(shared, "/engines")["items"][0]["datasets"]


def test_a_data_set_says_whether_it_can_be_run(shared):
    item = ask(shared, search="siqa_gen", usable="true")["items"][0]
    assert item == {
        "dataset_id": "siqa_gen", "engine": "opencompass", "kind": "gen", "usable": True, "whole": False,
        "metrics": ["accuracy"], "present": None, "questions": None,
    }  # fmt: skip


def may_be_named(dataset_id):
    try:
        ENGINES["opencompass"].check_dataset(dataset_id)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("usable", [True, False])
def test_usable_are_those_that_a_request_may_name(shared, usable):
    found = everything(shared, usable=usable)
    assert found
    assert {may_be_named(item["dataset_id"]) for item in found} == {usable}


def test_a_search_finds_all_words_in_any_case(shared):
    names = [item["dataset_id"] for item in everything(shared, search="GEN Siqa")]
    assert "siqa_gen" in names
    assert all("siqa" in name.lower() and "gen" in name.lower() for name in names)
    assert everything(shared, search="{{ 7*7 }}") == []


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/datasets", "engine", "unknown"), ("/datasets", "usable", "perhaps"), ("/datasets", "cursor", "WyJhIl0"),
        ("/datasets", "limit", "0"), ("/datasets", "kind", "gen"), ("/engines", "cursor", "x"),
    ],
)  # fmt: skip
def test_a_parameter_that_is_wrong_is_refused_by_name(shared, path, name, value):
    problem = is_problem(shared.client.get(path, params={name: value}), 422)
    assert [error["field"] for error in problem["errors"]] == [name]

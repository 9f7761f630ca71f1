"""What the engine accepts as its configuration, and what it says when it does not."""

import json
from pathlib import Path
from typing import Any

import pytest
from budeval_engine import run_config
from budeval_engine.outcome import EngineError, Reason


def document(**changes: Any) -> dict[str, Any]:
    """A valid configuration with some fields changed."""
    valid: dict[str, Any] = {
        "schema": 1,
        "eval_id": "0d6b8bd6-0f0e-4c4e-9f4e-6f2f6d1a7d1e",
        "run_id": "run-1",
        "dataset_id": "siqa_gen",
        "model": {"name": "gpt-oss-20b", "endpoint": "http://127.0.0.1:13200/v1"},
        "parameters": {"query_per_second": 50.0, "batch_size": 8},
        "max_questions": None,
    }
    return {**valid, **changes}


def model(**changes: Any) -> dict[str, Any]:
    return {"model": {"name": "m", "endpoint": "http://127.0.0.1/v1", **changes}}


def test_reads_every_field() -> None:
    config = run_config.parse(document(max_questions=24))
    assert config.dataset_id == "siqa_gen"
    assert config.endpoint == "http://127.0.0.1:13200/v1"
    assert (config.parameters.query_per_second, config.parameters.batch_size) == (50.0, 8)
    assert config.max_questions == 24


def test_parameters_left_out_have_defaults() -> None:
    config = run_config.parse(document(parameters={}))
    assert config.parameters == run_config.Parameters()


def test_a_slash_at_the_end_of_the_endpoint_makes_no_difference() -> None:
    assert run_config.parse(document(**model(endpoint="http://127.0.0.1/v1/"))).endpoint == "http://127.0.0.1/v1"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema": 2}, "schema"),
        ({"surprise": 1}, "surprise"),
        ({"eval_id": ""}, "eval_id"),
        ({"eval_id": 5}, "eval_id"),
        ({"run_id": "a\nb"}, "run_id"),
        ({"run_id": "x" * 3000}, "run_id"),
        ({"model": []}, "model"),
        ({"model": {"name": "m", "endpoint": "http://h/v1", "api_key": "k"}}, "api_key"),
        (model(name="a\x00b"), "model.name"),
        (model(endpoint="ftp://host/v1"), "model.endpoint"),
        (model(endpoint="file:///etc/passwd"), "model.endpoint"),
        (model(endpoint="http://"), "model.endpoint"),
        (model(endpoint="http://user:secret@host/v1"), "credentials"),
        (model(endpoint="http://host/v1?api-version=1"), "query"),
        (model(endpoint="http://host/v1#x"), "fragment"),
        (model(endpoint="http://ho st/v1"), "model.endpoint"),
        (model(endpoint="http://host:99999/v1"), "model.endpoint"),
        (model(endpoint="http://[::1/v1"), "model.endpoint"),
        ({"parameters": {"top_p": 1}}, "top_p"),
        ({"parameters": {"batch_size": "8"}}, "parameters.batch_size"),
        ({"parameters": {"batch_size": 8.5}}, "parameters.batch_size"),
        ({"parameters": {"batch_size": True}}, "parameters.batch_size"),
        ({"parameters": {"batch_size": 0}}, "parameters.batch_size"),
        ({"parameters": {"temperature": float("nan")}}, "parameters.temperature"),
        ({"parameters": {"temperature": -1}}, "parameters.temperature"),
        ({"parameters": {"timeout": float("inf")}}, "parameters.timeout"),
        ({"max_questions": 0}, "max_questions"),
        ({"max_questions": "5"}, "max_questions"),
        ({"max_questions": False}, "max_questions"),
    ],
)
def test_names_the_field_that_is_wrong(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(EngineError) as caught:
        run_config.parse(document(**changes))
    assert caught.value.reason is Reason.INVALID_CONFIGURATION
    assert caught.value.permanent
    assert named in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        "../siqa_gen",
        "siqa_*",
        "siqa gen",
        "{{ lookup('pipe', 'id') }}",
        "/etc/passwd",
        "siqa_gen/../../x",
        "sïqa",
        "-x",
        "a" * 300,
    ],
)
def test_a_name_that_no_data_set_can_have_is_an_unknown_data_set(name: str) -> None:
    with pytest.raises(EngineError) as caught:
        run_config.parse(document(dataset_id=name))
    assert caught.value.reason is Reason.DATASET_UNKNOWN
    assert caught.value.exit_code == 10


@pytest.mark.parametrize("name", ["{{ $OPENAI_API_KEY: }}", "'; import os #", '"', "模型/ü", "../../etc", "a\\b"])
def test_hostile_model_names_are_data(name: str) -> None:
    assert run_config.parse(document(**model(name=name))).model_name == name


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        run_config.load(path)
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="can't be read"):
        run_config.load(tmp_path / "run.json")


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document(eval_id="x" * 300_000)))
    with pytest.raises(EngineError, match="larger than"):
        run_config.load(path)

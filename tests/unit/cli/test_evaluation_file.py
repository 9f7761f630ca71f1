from pathlib import Path

import jsonschema
import pytest
import yaml

from budeval.cli.errors import UsageProblem
from budeval.cli.evaluation_file import checked_evaluation, evaluation_schema, read_mapping

EXAMPLE = """\
model:
  name: small-model
  endpoint: http://127.0.0.1:13200/v1
  api_key_env: MODEL_KEY
  parameters: {max_out_len: 64, query_per_second: 50}
datasets:
  - siqa_gen
  - {id: piqa_gen, run_id: mine}
max_questions: 24
"""


def written(tmp_path, text):
    path = tmp_path / "evaluation.yaml"
    path.write_text(text)
    return path


def test_an_example_is_read(tmp_path):
    evaluation = checked_evaluation(read_mapping(written(tmp_path, EXAMPLE)))
    assert evaluation.model.parameters == {"max_out_len": 64, "query_per_second": 50}
    assert (evaluation.datasets[0], evaluation.datasets[1].run_id) == ("siqa_gen", "mine")
    assert evaluation.configs() == {"max_questions": 24}


def test_the_schema_is_one_and_accepts_the_example():
    schema = evaluation_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(EXAMPLE), schema)


@pytest.mark.parametrize(
    "change", [{"datasets": []}, {"data_sets": ["siqa_gen"]}, {"max_questions": 0}, {"model": {"name": "only"}}]
)
def test_schema_and_command_refuse_the_same(change):
    data = {**yaml.safe_load(EXAMPLE), **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, evaluation_schema())
    with pytest.raises(UsageProblem):
        checked_evaluation(data)


def test_every_field_is_explained_to_editors():
    schema = evaluation_schema()
    sections = [schema, *schema["$defs"].values()]
    bare = [name for section in sections for name, value in section["properties"].items()
            if not value.get("description") and "$ref" not in value]  # fmt: skip
    assert bare == []


def test_a_key_in_the_file_is_refused_and_not_told():
    data = yaml.safe_load(EXAMPLE)
    data["model"]["api_key"] = "canary-of-a-key"
    with pytest.raises(UsageProblem, match=r"model\.api_key") as refused:
        checked_evaluation(data)
    assert "canary" not in str(refused.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(UsageProblem) as refused:
        checked_evaluation({"model": {"name": "m", "endpoint": "ftp://x"}, "datasets": [], "speed": 1})
    assert all(name in str(refused.value) for name in ("model.endpoint", "datasets", "speed"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a list", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: [", "no YAML"),
        ("model: {name: a}\nmodel: {name: b}\n", "given twice"),
        ("a: !!python/object/apply:os.system [true]", "no YAML"),
        ("x" * 1_100_000, "larger than"),
    ],
)
def test_what_is_no_evaluation_is_refused(tmp_path, text, told):
    with pytest.raises(UsageProblem, match=told):
        read_mapping(written(tmp_path, text))


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(UsageProblem, match="cannot be read"):
        read_mapping(Path("/nowhere/evaluation.yaml"))

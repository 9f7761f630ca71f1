"""``evaluation.yaml``: an evaluation as a file that can be kept in a repository. It names secrets, and has none."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from budeval.cli.errors import UsageProblem

MAXIMUM_FILE_BYTES = 1_048_576
Name = Annotated[str, Field(min_length=1, max_length=256)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True,
                              protected_namespaces=())  # fmt: skip


class ModelSection(_Section):
    """The model under evaluation."""

    name: Name
    """Name under which the endpoint serves the model."""
    endpoint: Annotated[str, Field(pattern=r"^https?://", max_length=2048)]
    """Base of an OpenAI-compatible API, e.g. https://host/v1, reached from inside the cluster."""
    api_key_env: Name | None = None
    """Environment variable with the endpoint's key."""
    api_key_file: Name | None = None
    """File with the endpoint's key, relative to this file."""
    parameters: dict[str, str | int | float] = Field(default_factory=dict)
    """Parameters of the engine: query_per_second, max_out_len, max_seq_len, batch_size, temperature, timeout, retry."""


class DatasetEntry(_Section):
    """A data set with a run id of your own."""

    id: Name
    """A data set; `budeval datasets` lists them."""
    run_id: Name | None = None
    """Made where it is left out."""


class EvaluationFile(_Section):
    """An evaluation for `budeval start -f`."""

    model_config = ConfigDict(title="budeval evaluation")

    model: ModelSection
    datasets: Annotated[list[Name | DatasetEntry], Field(min_length=1, max_length=200)]
    """Data sets; `budeval datasets` lists them."""
    engine: Name = "opencompass"
    """The evaluation engine; `budeval engines` lists them."""
    max_questions: Annotated[int, Field(ge=1)] | None = None
    """Questions asked of each data set, at most."""
    poll_interval: Annotated[int, Field(ge=1, le=3600)] | None = None
    """Seconds between two looks at the Jobs."""
    max_checks: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Looks at the Jobs before the evaluation is timed out."""
    progress_every: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """A progress notification at least every so many looks."""
    experiment_id: Name | None = None
    """UUID of the experiment that the evaluation belongs to."""
    kubeconfig_file: Name | None = None
    """kubeconfig of another cluster than the service's own, relative to this file."""
    source: Name = "budeval-cli"
    """Who asks; told to subscribers."""
    topics: Annotated[list[Name], Field(min_length=1, max_length=10)] = ["budeval-notifications"]
    """Pub/sub topics to be notified."""

    def configs(self) -> dict[str, str | int | float]:
        """The settings of this evaluation that are given."""
        names = ("max_questions", "poll_interval", "max_checks", "progress_every")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def evaluation_schema() -> dict[str, Any]:
    """The file's JSON schema, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **EvaluationFile.model_json_schema()}


def read_mapping(path: Path) -> dict[str, Any]:
    """The file's content, not yet checked; ``-`` is standard input. Raises :class:`UsageProblem`."""
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
            content = file.read(MAXIMUM_FILE_BYTES + 1)
        if len(content) > MAXIMUM_FILE_BYTES:
            raise UsageProblem(f"{path} is larger than {MAXIMUM_FILE_BYTES} bytes")
        data = yaml.load(content, Loader=_UniqueKeys)  # noqa: S506 - a safe loader, which refuses a key given twice
    except OSError as error:
        raise UsageProblem(f"{path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageProblem(f"{path} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise UsageProblem(f"{path} must be a mapping with model and datasets; budeval schema shows all of it")
    return data


def checked_evaluation(data: dict[str, Any]) -> EvaluationFile:
    """Raises :class:`UsageProblem` that names every problem."""
    try:
        return EvaluationFile.model_validate(data)
    except ValidationError as error:
        raise UsageProblem("; ".join(_told(item) for item in error.errors(include_url=False))) from error


def _told(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"] if part not in ("constrained-str", "DatasetEntry"))
    return f"{path or 'file'}: {item['msg']}"


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [json.dumps(self.construct_object(key, deep=True), default=str) for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"given twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)

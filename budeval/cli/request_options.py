"""The options by which an evaluation is described, the same for every command that takes one."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from uuid import UUID

import typer

from budeval.cli.errors import UsageProblem
from budeval.cli.evaluation_file import EvaluationFile, checked_evaluation, read_mapping
from budeval.cli.options import ApiKeyFile, ApiKeyPrompt, ApiKeyVariable, DatasetCompletion, PollIntervalOption
from budeval.cli.secret_input import secret_from
from budeval.client import DatasetRun, EvaluationRequest


def with_request_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command, whose arguments begin with a context and a request, the options that describe the request."""
    of_request = inspect.signature(request_from_options).parameters
    context, _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def called(context: typer.Context, **given: Any) -> None:
        request = request_from_options(**{name: given.pop(name) for name in of_request})
        command(context, request, **given)

    called.__signature__ = inspect.Signature([context, *of_request.values(), *own])  # type: ignore[attr-defined]
    hints = {
        **get_type_hints(request_from_options, include_extras=True),
        **get_type_hints(command, include_extras=True),
    }
    called.__annotations__ = {name: hint for name, hint in hints.items() if name not in ("request", "return")}
    return called


def request_from_options(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="evaluation.yaml, or - for standard input; options win over it.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Name under which the endpoint serves it.")] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", "-e", help="Base URL of its OpenAI-compatible API.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", "-d", help="A data set; can be repeated.", autocompletion=DatasetCompletion),
    ] = None,
    questions: Annotated[int | None, typer.Option("--questions", "-n", help="Of each data set, at most.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Of the engine; repeatable.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="The engine.", show_default=False)] = None,
    experiment: Annotated[UUID | None, typer.Option(help="Experiment it belongs to.")] = None,
    poll_interval: PollIntervalOption = None,
    source: Annotated[str | None, typer.Option(help="Who asks; told to subscribers.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="Pub/sub topic to be notified; repeatable.")] = None,
    eval_id: Annotated[UUID | None, typer.Option(help="An id of your own: starting twice runs once.")] = None,
    api_key_env: ApiKeyVariable = None,
    api_key_file: ApiKeyFile = None,
    api_key_prompt: ApiKeyPrompt = False,
    kubeconfig_file: Annotated[Path | None, typer.Option(help="kubeconfig of another cluster.")] = None,
) -> EvaluationRequest:
    """What is asked for by options and a file, of which the options win."""
    base = file.parent if file and str(file) != "-" else Path()
    changes = {
        "datasets": dataset or None,
        "engine": engine,
        "experiment_id": str(experiment) if experiment else None,
        "max_questions": questions,
        "poll_interval": poll_interval,
        "source": source,
        "topics": topic or None,
    }
    data = read_mapping(file) if file else {}
    asked = checked_evaluation(_merged(data, changes, {"name": model, "endpoint": endpoint}, parameter or []))
    key = secret_from("API key", variable=api_key_env, file=api_key_file, prompt=api_key_prompt)
    if key is None:
        key = secret_from("API key", variable=asked.model.api_key_env, file=_beside(base, asked.model.api_key_file))
    kubeconfig = secret_from("kubeconfig", file=kubeconfig_file or _beside(base, asked.kubeconfig_file))
    return _request(asked, str(eval_id) if eval_id else None, key, kubeconfig)


def _merged(
    data: dict[str, Any], changes: dict[str, Any], section: dict[str, Any], parameters: list[str]
) -> dict[str, Any]:
    model = data.get("model", {})
    if isinstance(model, dict):
        model = {**model, **{name: value for name, value in section.items() if value is not None}}
        given = dict(_split(parameter) for parameter in parameters)
        if given:
            old = model.get("parameters")
            model["parameters"] = {**(old if isinstance(old, dict) else {}), **given}
    return {**data, "model": model, **{name: value for name, value in changes.items() if value is not None}}


def _split(parameter: str) -> tuple[str, str]:
    name, equals, value = parameter.partition("=")
    if not name or not equals:
        raise UsageProblem(f"--parameter {parameter!r}: give NAME=VALUE")
    return name, value


def _beside(base: Path, name: str | None) -> Path | None:
    return None if name is None else base / Path(name).expanduser()


def _request(asked: EvaluationFile, eval_id: str | None, key: str | None, kubeconfig: str | None) -> EvaluationRequest:
    entries = [DatasetRun(dataset_id=entry) if isinstance(entry, str)
               else DatasetRun(dataset_id=entry.id, run_id=entry.run_id) for entry in asked.datasets]  # fmt: skip
    return EvaluationRequest.model_validate(
        {
            "eval_id": eval_id,
            "experiment_id": asked.experiment_id,
            "model_name": asked.model.name,
            "endpoint": asked.model.endpoint,
            "api_key": key or "",
            "parameters": asked.model.parameters,
            "datasets": entries,
            "configs": asked.configs(),
            "engine": asked.engine,
            "kubeconfig": kubeconfig,
            "source": asked.source,
            "topics": asked.topics,
        }
    )

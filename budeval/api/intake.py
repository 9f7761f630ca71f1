"""From a request body to an evaluation: the checks that need to know engines and settings.

All problems are collected and told at once, and nothing is created before there are none.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from budeval.ansible.kubeconfig import InvalidKubeconfig, parse_kubeconfig
from budeval.api.schemas import EvalConfig, StartEvaluationRequest
from budeval.commons.errors import FieldProblem, InvalidEvaluation
from budeval.commons.sealing import EvaluationSecrets
from budeval.commons.settings import MonitorSettings
from budeval.engines import Engine, get_engine
from budeval.engines.base import InvalidParameters, UnknownDataset, UnknownEngine
from budeval.evals.models import Evaluation, ModelInfo, NotificationMetadata, Run

MAXIMUM_QUESTIONS = 10_000_000
CONFIG_NAMES = (*MonitorSettings.model_fields, "max_questions")
"""Names that ``eval_configs`` may have."""


class Intake:
    """A checked request: what to run, what to keep secret, and its canonical body to recognise a repetition."""

    def __init__(self, request: StartEvaluationRequest, defaults: MonitorSettings) -> None:
        """Raises :class:`InvalidEvaluation` with every problem."""
        self._problems: list[FieldProblem] = []
        engine = self._engine(request)
        kubeconfig = self._kubeconfig(request)
        self.secrets = EvaluationSecrets.model_validate(
            {"api_key": request.eval_model_info.api_key.get_secret_value(), "kubeconfig": kubeconfig}
        )
        overrides = parse_configs(request.eval_configs, defaults, self._problems)
        if engine and "max_questions" in overrides:
            self._whole_datasets(engine, request)
        parameters = self._parameters(engine, request) if engine else {}
        if self._problems:
            raise InvalidEvaluation(self._problems)
        self.evaluation = _evaluation(request, parameters, overrides, defaults)
        self.body = canonical_body(request)

    def _engine(self, request: StartEvaluationRequest) -> Engine | None:
        try:
            engine = get_engine(request.engine)
        except UnknownEngine as error:
            self._problem("engine", error, error.known)
            return None
        self._datasets(engine, request)
        return engine

    def _datasets(self, engine: Engine, request: StartEvaluationRequest) -> None:
        listed = False
        for position, run in enumerate(request.eval_datasets):
            field = f"eval_datasets.{position}.dataset_id"
            try:
                engine.check_dataset(run.dataset_id)
            except UnknownDataset as error:
                # A thousand names, so only once.
                self._problem(field, error, None if listed else error.known)
                listed = True
            except ValueError as error:
                self._problem(field, error)

    def _whole_datasets(self, engine: Engine, request: StartEvaluationRequest) -> None:
        for name in dict.fromkeys(run.dataset_id for run in request.eval_datasets):
            if engine.is_scored_whole(name):
                message = f"max_questions: data set {name!r} can only be scored as a whole; leave max_questions out"
                self._problems.append(FieldProblem("eval_configs", message))

    def _parameters(self, engine: Engine, request: StartEvaluationRequest) -> dict[str, Any]:
        try:
            return engine.parse_parameters(dict(request.eval_model_info.extra_args))
        except InvalidParameters as error:
            self._problems += [
                replace(problem, field=f"eval_model_info.extra_args.{problem.field}") for problem in error.problems
            ]
            return {}

    def _kubeconfig(self, request: StartEvaluationRequest) -> str | None:
        text = request.kubeconfig.get_secret_value() if request.kubeconfig else ""
        if not text.strip():
            return None
        try:
            parse_kubeconfig(text)
        except InvalidKubeconfig as error:
            self._problem("kubeconfig", error)
        return text

    def _problem(self, field: str, error: Exception, allowed: list[str] | None = None) -> None:
        self._problems.append(FieldProblem(field, str(error), allowed))


def parse_configs(
    configs: list[EvalConfig],
    defaults: MonitorSettings,
    problems: list[FieldProblem],
    fixed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, int]:
    """The values of ``eval_configs`` by name; what is wrong with them is added to ``problems``.

    ``fixed``: names that may not be given here, and why.
    """
    names = [name for name in CONFIG_NAMES if name not in fixed]
    values: dict[str, int] = {}
    for position, config in enumerate(configs):
        field, name = f"eval_configs.{position}", config.config_name
        if name in fixed:
            problems.append(FieldProblem(f"{field}.config_name", f"{name} {fixed[name]}", names))
        elif name not in names:
            message = f"unknown name {name[:80]!r}; known: {', '.join(names)}"
            problems.append(FieldProblem(f"{field}.config_name", message, names))
        elif name in values:
            problems.append(FieldProblem(f"{field}.config_name", f"{name} is given twice"))
        else:
            try:
                values[name] = _config_check(name, config, defaults)()
            except ValidationError as error:
                message = f"{name}: {error.errors(include_url=False)[0]['msg']}"
                problems.append(FieldProblem(f"{field}.config_value", message))
    return values


def canonical_body(request: StartEvaluationRequest) -> bytes:
    """The request without its envelope, secrets in clear: only ever hashed with a salt."""
    plain = request.model_dump(mode="json")
    plain["eval_model_info"]["api_key"] = request.eval_model_info.api_key.get_secret_value()
    plain["kubeconfig"] = request.kubeconfig.get_secret_value() if request.kubeconfig else None
    return json.dumps(plain, sort_keys=True, ensure_ascii=False).encode()


def _config_check(name: str, config: EvalConfig, defaults: MonitorSettings) -> Callable[[], int]:
    if name == "max_questions":
        return lambda: _QUESTIONS.validate_python(config.config_value)
    return lambda: int(
        getattr(MonitorSettings.model_validate({**defaults.model_dump(), name: config.config_value}), name)
    )


_QUESTIONS: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1, le=MAXIMUM_QUESTIONS)])


def _evaluation(
    request: StartEvaluationRequest,
    parameters: dict[str, Any],
    overrides: dict[str, int],
    defaults: MonitorSettings,
) -> Evaluation:
    max_questions = overrides.pop("max_questions", None)
    metadata = request.notification_metadata.model_dump(exclude_none=True) if request.notification_metadata else {}
    return Evaluation(
        eval_id=str(request.eval_id),
        experiment_id=str(request.experiment_id) if request.experiment_id else None,
        model=ModelInfo(model_name=request.eval_model_info.model_name, endpoint=request.eval_model_info.endpoint),
        runs=[Run(run_id=run.run_id, dataset_id=run.dataset_id) for run in request.eval_datasets],
        engine=request.engine,
        parameters=parameters,
        max_questions=max_questions,
        monitor=MonitorSettings.model_validate({**defaults.model_dump(), **overrides}),
        source=request.source,
        source_topics=list(dict.fromkeys(request.source_topic)),
        notification=NotificationMetadata.model_validate(metadata),
        has_api_key=bool(request.eval_model_info.api_key.get_secret_value()),
        has_kubeconfig=bool(request.kubeconfig and request.kubeconfig.get_secret_value().strip()),
    )

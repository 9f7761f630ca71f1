"""OpenCompass as the service sees it: its data sets, its parameters and the configuration of a run."""

import json
from functools import cache
from importlib import resources
from typing import Any

from budeval.engines.base import DatasetInfo, UnknownDataset
from budeval.engines.opencompass.parameters import Parameters, parse_parameters
from budeval.evals.models import Evaluation, Run

CONFIG_SCHEMA = 1
"""Version of the configuration file; the entry point in the engine image refuses another."""

_UNUSABLE = {
    "judge": "needs a judge model, which budeval does not offer yet",
    "ppl": "needs token probabilities, which a chat API does not give",
}


@cache
def _document() -> dict[str, Any]:
    text = resources.files(__package__ or "").joinpath("datasets.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def _catalogue() -> dict[str, dict[str, Any]]:
    datasets: dict[str, dict[str, Any]] = _document()["datasets"]
    return datasets


@cache
def dataset_kinds() -> dict[str, str]:
    """Every data set that the engine image knows, with its kind: ``gen``, ``judge`` or ``ppl``."""
    return {name: entry["kind"] for name, entry in _catalogue().items()}


@cache
def _usable() -> list[str]:
    return sorted(name for name, entry in _catalogue().items() if _why_unusable(entry) is None)


def _why_unusable(entry: dict[str, Any]) -> str | None:
    """Why no run of this data set can have true scores; None: it can."""
    lacks: list[str] = entry.get("lacks", [])
    if lacks:
        return f"is scored with Python packages that the engine image lacks: {', '.join(lacks)}"
    return _UNUSABLE.get(entry["kind"])


class OpenCompass:
    """See :class:`budeval.engines.base.Engine`."""

    name = "opencompass"

    @property
    def version(self) -> str:
        """OpenCompass' own."""
        return str(_document()["opencompass"])

    def datasets(self) -> list[DatasetInfo]:
        """By name."""
        return [
            DatasetInfo(
                dataset_id=name,
                engine=self.name,
                kind=entry["kind"],
                usable=_why_unusable(entry) is None,
                whole=self.is_scored_whole(name),
                metrics=entry.get("metrics", []),
            )
            for name, entry in sorted(_catalogue().items())
        ]

    def data_paths(self) -> dict[str, list[str]]:
        """From OpenCompass' own configurations."""
        usable = {name: _catalogue()[name] for name in _usable()}
        return {name: entry["paths"] for name, entry in usable.items() if "paths" in entry}

    def parameters_schema(self) -> dict[str, Any]:
        """Of :class:`Parameters`."""
        return Parameters.model_json_schema()

    def check_dataset(self, dataset_id: str) -> None:
        """Raises ``UnknownDataset``, or ``ValueError`` when no run of the data set can have true scores."""
        entry = _catalogue().get(dataset_id)
        if entry is None:
            raise UnknownDataset(dataset_id, _usable())
        why = _why_unusable(entry)
        if why is not None:
            raise ValueError(f"data set {dataset_id!r} {why}; choose one that generates and scores")

    def is_scored_whole(self, dataset_id: str) -> bool:
        """Whether the scorer fails when questions are left out."""
        return bool(_catalogue().get(dataset_id, {}).get("whole", False))

    def parse_parameters(self, extra_args: dict[str, Any]) -> dict[str, Any]:
        """Raises ``InvalidParameters``."""
        return parse_parameters(extra_args)

    def run_config(self, evaluation: Evaluation, run: Run) -> dict[str, Any]:
        """The file that the entry point in the image reads."""
        return {
            "schema": CONFIG_SCHEMA,
            "eval_id": evaluation.eval_id,
            "run_id": run.run_id,
            "dataset_id": run.dataset_id,
            "model": {"name": evaluation.model.model_name, "endpoint": evaluation.model.endpoint},
            "parameters": evaluation.parameters,
            "max_questions": evaluation.max_questions,
        }

"""The data sets that the installed OpenCompass knows, and what each needs to be evaluated.

A data set is named by a file below OpenCompass' `configs/datasets`. Names are matched exactly: OpenCompass' own
matching knows wildcards and ignores case.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from budeval_engine.outcome import EngineError, Reason

_JUDGE = re.compile(r"judge|LLMEvaluator|LMEvaluator|LLM_as|llm_eval", re.IGNORECASE)
# Evaluators that look for an answer to every question of the original set.
_WHOLE_ONLY = re.compile(r"HumanEval(Plus)?Evaluator|MBPP(Plus|Sanitized)?PassKEvaluator")


class Kind(StrEnum):
    """What evaluating a data set takes."""

    GENERATE = "gen"
    """Text generation, scored offline: works with any chat API."""
    JUDGE = "judge"
    """A second model that judges the answers."""
    LOGITS = "ppl"
    """Probabilities of given texts, which a chat API does not tell."""


def configs_directory() -> Path:
    """Return the folder of the installed OpenCompass' data set configurations, without importing OpenCompass."""
    specification = importlib.util.find_spec("opencompass")
    locations = specification.submodule_search_locations if specification else None
    if not locations:
        raise EngineError(Reason.ENGINE_FAILED, "OpenCompass is not installed.", permanent=True)
    return Path(locations[0]) / "configs" / "datasets"


def config_files(directory: Path) -> dict[str, Path]:
    """Return the configuration file of each name. Of several with one name the first by path, case ignored, counts."""
    files: dict[str, Path] = {}
    for path in sorted(directory.rglob("*.py"), key=lambda path: str(path).casefold()):
        if path.stem != "__init__":
            files.setdefault(path.stem, path)
    return files


def find(dataset_id: str, directory: Path) -> Path:
    """Return the configuration file named `dataset_id`; raises EngineError DatasetUnknown."""
    path = config_files(directory).get(dataset_id)
    if path is None:
        raise EngineError(Reason.DATASET_UNKNOWN, f"OpenCompass has no data set configuration {dataset_id!r}.")
    return path


def load(path: Path) -> list[Any]:
    """Return the data sets that the configuration file defines; none when it only serves others."""
    from mmengine.config import Config  # type: ignore[import-not-found]

    config = Config.fromfile(str(path), format_python_code=False)
    found: list[Any] = []
    for key in config:
        if key.endswith("_datasets") and isinstance(config[key], list):
            found += [dataset for dataset in config[key] if _is_dataset(dataset)]
    return found


def kind_of(datasets: Sequence[Any]) -> Kind:
    """Return what evaluating all of `datasets` takes: the most demanding of them decides."""
    if any(not _generates(dataset) for dataset in datasets):
        return Kind.LOGITS
    if any(_JUDGE.search(name) for dataset in datasets for name in _names(dataset.get("eval_cfg", {}))):
        return Kind.JUDGE
    return Kind.GENERATE


def is_scored_whole(dataset: Mapping[str, Any]) -> bool:
    """Tell whether the scorer of a data set fails when questions are left out."""
    return any(_WHOLE_ONLY.search(name) for name in _names(dataset.get("eval_cfg", {})))


def limit(datasets: Sequence[Any], max_questions: int) -> None:
    """Keep the first `max_questions` questions of each data set.

    Raises EngineError InvalidConfiguration for one that can only be scored as a whole.
    """
    for dataset in datasets:
        if is_scored_whole(dataset):
            raise EngineError(
                Reason.INVALID_CONFIGURATION,
                f"{dataset['abbr']} can only be scored as a whole: leave max_questions out.",
            )
        reader = dataset["reader_cfg"]
        given = reader.get("test_range")
        if given is None or isinstance(given, str):
            reader["test_range"] = f"{given or ''}[:{max_questions}]"
        else:  # a number is a random sample of that size
            reader["test_range"] = f"[:{max_questions}]" if given < 1 else min(given, max_questions)


def _is_dataset(candidate: object) -> bool:
    return isinstance(candidate, Mapping) and {"type", "reader_cfg", "infer_cfg"} <= set(candidate)


def _generates(dataset: Mapping[str, Any]) -> bool:
    inferencer = dataset["infer_cfg"].get("inferencer", {}).get("type", "")
    name = inferencer if isinstance(inferencer, str) else getattr(inferencer, "__name__", str(inferencer))
    return not re.search(r"PPL|CLP|LLInferencer|SWCELoss|PPLOnly", name)


def _names(value: object) -> Iterator[str]:
    """Yield every key and every type named anywhere inside a configuration."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            if key == "type":
                yield item if isinstance(item, str) else getattr(item, "__name__", "")
            yield from _names(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _names(item)

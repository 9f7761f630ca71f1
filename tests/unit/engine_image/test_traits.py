"""What is read out of the code of scorers; real ones are in tests/engine."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from budeval_engine import traits


class ReturnsADictionary:
    def score(self, wrong: bool) -> dict[str, Any]:
        if wrong:
            return {"error": "lengths differ"}
        return {"accuracy": 1.0, "details": []}


class BuildsItUp:
    def score(self) -> dict[str, Any]:
        other = {"no": 1}
        result: dict[str, Any] = {}
        result["f1"] = len(other)
        result["recall"] = 1
        return result


class CallsDict:
    def score(self) -> dict[str, Any]:
        return dict(bleu=1.0, details=[])  # noqa: C408 - as some scorers do


class NamesThemAtRunTime:
    def score(self) -> dict[str, Any]:
        return {f"pass@{k}": 1 for k in (1, 2)}


@pytest.mark.parametrize(
    ("evaluator", "names"),
    [
        (ReturnsADictionary, ["accuracy"]),
        (BuildsItUp, ["f1", "recall"]),
        (CallsDict, ["bleu"]),
        (NamesThemAtRunTime, []),
        ("AccEvaluator", ["accuracy"]),
        ("SomethingElse", []),
        (None, []),
        ({"type": {"type": ReturnsADictionary}}, ["accuracy"]),
    ],
)
def test_the_names_of_scores_are_read_from_the_code(evaluator: Any, names: list[str]) -> None:
    assert traits.metrics([{"eval_cfg": {"evaluator": evaluator}}]) == names


def test_the_parts_of_a_data_set_share_their_names() -> None:
    parts = [{"eval_cfg": {"evaluator": {"type": kind}}} for kind in (ReturnsADictionary, CallsDict)]
    assert traits.metrics(parts) == ["accuracy", "bleu"]
    assert traits.metrics([{}]) == []


SWALLOWED = """
try:
    import no_such_package
except ImportError:
    no_such_package = None
"""
TOLD = """
try:
    import no_such_package
except ImportError:
    raise ImportError("install it")
"""
AT_HAND = """
try:
    import json
except ImportError:
    json = None
"""


def evaluator(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, **files: str) -> list[dict[str, Any]]:
    """A data set that is scored by a class of the package `name`, made of `files`."""
    package = folder / name
    package.mkdir()
    for file, code in {"__init__": "", "scorer": "from .helper import *", "helper": "", **files}.items():
        (package / f"{file}.py").write_text(f"{code}\n")
    (package / "scorer.py").write_text((package / "scorer.py").read_text() + "class Evaluator:\n    pass\n")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    kind = importlib.import_module(f"{name}.scorer").Evaluator
    return [{"eval_cfg": {"evaluator": {"type": kind}}}]


@pytest.mark.parametrize(
    ("files", "lacking"),
    [
        ({"scorer": SWALLOWED}, ["no_such_package"]),
        ({"helper": SWALLOWED}, ["no_such_package"]),
        ({"helper": f"def check():\n{SWALLOWED}".replace("\n", "\n    ")}, ["no_such_package"]),
        ({"scorer": AT_HAND}, []),
        ({"helper": f"def check():\n{TOLD}".replace("\n", "\n    ")}, []),
        ({"stranger": SWALLOWED}, []),
    ],
)
def test_a_package_that_a_scorer_silently_does_without_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], lacking: list[str], request: Any
) -> None:
    name = f"scored_{abs(hash(request.node.name))}"
    assert traits.lacking(evaluator(tmp_path, name, monkeypatch, **files)) == lacking


def test_data_of_nltk_that_a_scorer_reads_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def check(nltk, text): return nltk.pos_tag(nltk.word_tokenize(text)), nltk.corpus.stopwords"
    datasets = evaluator(tmp_path, "scored_with_nltk", monkeypatch, helper=code)
    paths = ["corpora/stopwords", "taggers/averaged_perceptron_tagger_eng", "tokenizers/punkt_tab"]
    assert traits.scorer_paths(datasets) == [f"nltk_data/{path}" for path in paths]

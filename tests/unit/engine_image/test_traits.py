"""What is read out of the code of scorers; real ones are in tests/engine."""

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

"""The truth check: complete output is believed, everything else is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from budeval_engine.outcome import EngineError, Reason
from budeval_engine.results import Score, count_answers, read_scores

HEADER = "dataset,version,metric,mode,model"


class Output:
    """An output directory of OpenCompass, complete until something is taken away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.summary(f"{HEADER}\nsiqa,18632c,accuracy,gen,45.83\n")
        self.results("siqa", {"accuracy": 45.833333, "details": {}})
        self.predictions("siqa", ["A", "B", "C"])

    def summary(self, text: str, name: str = "summary_20260101_000000.csv") -> None:
        self._write(f"summary/{name}", text)

    def results(self, dataset: str, result: object) -> None:
        self._write(f"results/model/{dataset}.json", json.dumps(result))

    def predictions(self, dataset: str, answers: list[Any]) -> None:
        entries = {str(number): {"prediction": answer} for number, answer in enumerate(answers)}
        self._write(f"predictions/model/{dataset}.json", json.dumps(entries))

    def _write(self, relative: str, text: str) -> None:
        path = self.path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path)


def test_complete_output_is_its_scores(output: Output) -> None:
    assert read_scores(output.path, {"siqa": 3}) == [Score("siqa", "18632c", "accuracy", "gen", 45.83)]


def test_the_newest_summary_counts(output: Output) -> None:
    output.summary(f"{HEADER}\nsiqa,18632c,accuracy,gen,-\n", "summary_20250101_000000.csv")
    assert read_scores(output.path, {"siqa": 3})[0].score == 45.83


def test_several_metrics_and_an_average_keep_their_order(output: Output) -> None:
    rows = ["a,1,score,gen,1.00", "a,1,strict,gen,2.00", "b,1,score,gen,3.00", "both,-,naive_average,gen,2.00"]
    output.summary("\n".join([HEADER, *rows]) + "\n")
    output.results("a", {"score": 1, "strict": 2.004})
    output.results("b", {"score": 3.0})
    assert [score.metric for score in read_scores(output.path, {"a": 1, "b": 1})] == [
        "score",
        "strict",
        "score",
        "naive_average",
    ]


def test_commas_in_names_are_found_again(output: Output) -> None:
    output.summary(f"{HEADER}\na b,1,x y,gen,1.00\n")
    output.results("a,b", {"x,y": 1.0})
    assert read_scores(output.path, {"a,b": 1})[0].dataset == "a b"


Damage = Callable[[Output], None]

DAMAGES: list[tuple[str, Damage]] = [
    ("no-score", lambda output: output.summary(f"{HEADER}\nsiqa,18632c,accuracy,gen,-\n")),
    ("not-a-number", lambda output: output.summary(f"{HEADER}\nsiqa,18632c,accuracy,gen,nan\n")),
    ("infinite", lambda output: output.summary(f"{HEADER}\nsiqa,18632c,accuracy,gen,inf\n")),
    ("no-row", lambda output: output.summary(f"{HEADER}\n")),
    ("another-row", lambda output: output.summary(f"{HEADER}\npiqa,1,accuracy,gen,1.00\n")),
    ("other-columns", lambda output: output.summary("dataset,version\nsiqa,1\n")),
    ("no-summary", lambda output: (output.path / "summary/summary_20260101_000000.csv").unlink()),
    ("no-results", lambda output: (output.path / "results/model/siqa.json").unlink()),
    ("other-number", lambda output: output.results("siqa", {"accuracy": 12.0})),
    ("text-for-number", lambda output: output.results("siqa", {"accuracy": "45.83"})),
    ("results-of-another-kind", lambda output: output.results("siqa", [])),
]


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in DAMAGES])
def test_output_with_something_missing_is_no_result(output: Output, damage: Damage) -> None:
    damage(output)
    with pytest.raises(EngineError) as caught:
        read_scores(output.path, {"siqa": 3})
    assert caught.value.reason is Reason.RESULTS_INCOMPLETE
    assert not caught.value.permanent


def test_what_the_scorer_said_is_passed_on(output: Output) -> None:
    output.summary(f"{HEADER}\n")
    output.results("siqa", {"error": "predictions and references have different length"})
    with pytest.raises(EngineError, match="different length"):
        read_scores(output.path, {"siqa": 3})


@pytest.mark.parametrize(
    ("answers", "meant_empty", "answered"),
    [
        (["A", "B", "C"], 0, 3),
        (["A", "B"], 0, 2),
        ([], 0, 0),
        (["A", "", "C"], 0, 2),
        (["A", " \n", None], 0, 1),
        (["A", "", "C"], 1, 3),
        (["A", "", ""], 1, 2),
        (["A", ["B", ""], "C"], 0, 2),
        ([["A"], ["B", "C"], []], 0, 2),
        (["A", "B", "C", "D"], 0, 3),
    ],
)
def test_every_answer_is_counted(output: Output, answers: list[Any], meant_empty: int, answered: int) -> None:
    output.predictions("siqa", answers)
    counts = count_answers(output.path, {"siqa": 3}, meant_empty)
    assert counts.as_json() == {"asked": 3, "answered": answered, "failed": 3 - answered}


def test_a_part_without_predictions_is_not_answered(output: Output) -> None:
    assert count_answers(output.path, {"siqa": 3, "piqa": 2}, 0).as_json() == {"asked": 5, "answered": 3, "failed": 2}

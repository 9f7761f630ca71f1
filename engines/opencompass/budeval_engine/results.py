"""The truth check: what OpenCompass left behind, believed only where it is complete.

OpenCompass ends with exit status 0 and a `-` for a score when the endpoint was down, the key wrong or the data missing.
So every part of the data set must have as many predictions as questions, none empty without reason, and every cell of
its summary must be a finite number that its own result file confirms.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from budeval_engine.layout import MODEL_COLUMN
from budeval_engine.outcome import EngineError, Reason


@dataclass(frozen=True)
class Score:
    """One row of OpenCompass' summary."""

    dataset: str
    version: str
    metric: str
    mode: str
    score: float

    def as_json(self) -> dict[str, Any]:
        """Return the row as it stands in result.json."""
        return asdict(self)


@dataclass(frozen=True)
class Counts:
    """What became of the questions."""

    asked: int
    answered: int

    def as_json(self) -> dict[str, int]:
        """Return the counts as they stand in result.json."""
        return {"asked": self.asked, "answered": self.answered, "failed": self.asked - self.answered}


def count_answers(output: Path, questions: Mapping[str, int], meant_empty: int) -> Counts:
    """Count predictions below `output` against the `questions` of each part.

    `meant_empty` answers may be empty, since the model itself said nothing.
    """
    answered = 0
    empty = 0
    for dataset, expected in questions.items():
        predictions = _predictions(output / "predictions" / MODEL_COLUMN / f"{dataset}.json")
        answered += min(expected, len(predictions))
        empty += sum(1 for text in predictions if _is_empty(text))
    return Counts(asked=sum(questions.values()), answered=max(0, answered - max(0, empty - meant_empty)))


def read_scores(output: Path, questions: Mapping[str, int]) -> list[Score]:
    """Return the rows of the newest summary, in its order.

    Raises EngineError ResultsIncomplete, saying what is missing.
    """
    scores = list(_rows(_newest_summary(output)))
    unscored = sorted({_cell(dataset) for dataset in questions} - {score.dataset for score in scores})
    if unscored:
        raise _incomplete(f"There is no score for {', '.join(unscored)}{_reasons(output, questions)}.")
    for dataset in questions:
        _confirm(output, dataset, [score for score in scores if score.dataset == _cell(dataset)])
    return scores


def _predictions(path: Path) -> list[object]:
    if not path.exists():
        return []
    document = json.loads(path.read_text(encoding="utf-8"))
    return [entry.get("prediction") for entry in document.values()]


def _is_empty(prediction: object) -> bool:
    """Tell whether an answer, or one turn of a conversation, holds nothing."""
    if isinstance(prediction, list):
        return not prediction or any(_is_empty(turn) for turn in prediction)
    return prediction is None or (isinstance(prediction, str) and not prediction.strip())


def _newest_summary(output: Path) -> Path:
    summaries = sorted((output / "summary").glob("summary_*.csv"))
    if not summaries:
        raise _incomplete("OpenCompass wrote no summary.")
    return summaries[-1]


def _rows(summary: Path) -> Iterator[Score]:
    """Yield the rows; OpenCompass writes no quotes and has commas replaced."""
    header, *lines = summary.read_text(encoding="utf-8").splitlines()
    if header.split(",") != ["dataset", "version", "metric", "mode", MODEL_COLUMN]:
        raise _incomplete(f"The summary has the unexpected columns {header!r}.")
    for line in lines:
        dataset, version, metric, mode, cell = line.split(",")
        yield Score(dataset, version, metric, mode, _finite(cell, f"{dataset} ({metric})"))


def _finite(cell: str, name: str) -> float:
    try:
        score = float(cell)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise _incomplete(f"The score of {name} is {cell!r}, not a number.")
    return score


def _confirm(output: Path, dataset: str, scores: Iterable[Score]) -> None:
    """Check the rows of one part against its result file, which has all decimals."""
    result = _result(output, dataset)
    for score in scores:
        exact = next((value for metric, value in result.items() if _cell(metric) == score.metric), None)
        if not isinstance(exact, (int, float)) or not math.isclose(exact, score.score, abs_tol=0.006):
            raise _incomplete(f"The summary has {score.score} for {dataset} ({score.metric}), the results {exact!r}.")


def _result(output: Path, dataset: str) -> Mapping[str, Any]:
    path = output / "results" / MODEL_COLUMN / f"{dataset}.json"
    if not path.exists():
        raise _incomplete(f"OpenCompass wrote no results for {dataset}.")
    document = json.loads(path.read_text(encoding="utf-8"))
    return document if isinstance(document, dict) else {}


def _reasons(output: Path, questions: Mapping[str, int]) -> str:
    """Return what the result files say about why, in brackets."""
    errors = [str(_result(output, dataset).get("error", "")) for dataset in questions]
    told = "; ".join(sorted({error for error in errors if error}))
    return f" ({told[:300]})" if told else ""


def _cell(name: str) -> str:
    return name.replace(",", " ")


def _incomplete(message: str) -> EngineError:
    return EngineError(Reason.RESULTS_INCOMPLETE, message)

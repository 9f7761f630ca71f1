"""The language of ``budeval gate``: ``dataset.metric OP number``, joined by ``and``."""

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from budeval.client import Evaluation

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
MAXIMUM_LENGTH = 10_000
_NAME = r'(?:"[^"]*"|[\w.@+/:%-]+)'
_TERM = re.compile(
    rf"\s*(?P<subject>{_NAME}(?:\.{_NAME})?)\s*(?P<operator>>=|<=|==|!=|>|<)\s*"
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?=\s|$)\s*"
)
_AND = re.compile(r"and\b", re.IGNORECASE)
_QUOTED = re.compile(
    r'"(?P<dataset>[^"]*)"\.(?:"(?P<quoted>[^"]*)"|(?P<plain>[^"]+))$|(?P<start>[^"]+)\."(?P<end>[^"]*)"$'
)


class InvalidExpression(ValueError):
    """The text is no gate."""


@dataclass(frozen=True)
class Condition:
    """One comparison."""

    dataset: str
    metric: str
    operator: str
    number: float

    def __str__(self) -> str:
        return f"{self.dataset}.{self.metric} {self.operator} {self.number:g}"


@dataclass(frozen=True)
class Verdict:
    """A condition against the scores it speaks of."""

    condition: Condition
    scores: tuple[float, ...]

    @property
    def met(self) -> bool:
        """Whether there is a score, and every one of them fits."""
        compare = OPERATORS[self.condition.operator]
        return bool(self.scores) and all(compare(score, self.condition.number) for score in self.scores)


def parse_gate(text: str) -> list[Condition]:
    """The conditions of an expression; raises :class:`InvalidExpression` that shows where it is wrong."""
    if len(text) > MAXIMUM_LENGTH:
        raise InvalidExpression(f"the expression is longer than {MAXIMUM_LENGTH} characters")
    conditions, position = [], 0
    while True:
        term = _TERM.match(text, position)
        if term is None:
            raise InvalidExpression(_pointing(text, position, "expected dataset.metric OP number"))
        conditions.append(_condition(term, text))
        if term.end() == len(text):
            return conditions
        joined = _AND.match(text, term.end())
        if joined is None:
            raise InvalidExpression(_pointing(text, term.end(), "expected 'and' or the end"))
        position = joined.end()


def judge(conditions: Iterable[Condition], evaluation: Evaluation) -> list[Verdict]:
    """Each condition against the scores of an evaluation."""
    return [Verdict(condition, tuple(_scores(condition, evaluation))) for condition in conditions]


def known_subjects(evaluation: Evaluation) -> list[str]:
    """What can be asked about an evaluation."""
    return sorted({f"{score.dataset}.{score.metric}" for run in evaluation.runs for score in run.scores})


def _scores(condition: Condition, evaluation: Evaluation) -> list[float]:
    return [
        score.score
        for run in evaluation.runs
        for score in run.scores
        if condition.dataset in (score.dataset, run.dataset_id) and condition.metric == score.metric
    ]


def _condition(term: re.Match[str], text: str) -> Condition:
    dataset, metric = _subject(term["subject"])
    number = float(term["number"])
    if not dataset or not metric:
        raise InvalidExpression(_pointing(text, term.start("subject"), "expected dataset.metric"))
    if not math.isfinite(number):
        raise InvalidExpression(_pointing(text, term.start("number"), "the number is too large"))
    return Condition(dataset, metric, term["operator"], number)


def _subject(text: str) -> tuple[str, str]:
    quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        # Names of data sets have dots more often than those of metrics.
        dataset, _, metric = text.rpartition(".")
        return ("", "") if '"' in text else (dataset, metric)
    if quoted["dataset"] is not None:
        return quoted["dataset"], quoted["quoted"] or quoted["plain"] or ""
    return quoted["start"], quoted["end"]


def _pointing(text: str, position: int, message: str) -> str:
    while position < len(text) and text[position].isspace():
        position += 1
    rest = text[position : position + 20]
    return f"{message}, at {rest!r}" if rest else f"{message}, at the end"

"""What can be said about a data set without its files: where they lie, and which scores come out."""

import ast
import functools
import inspect
import posixpath
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Keys of a scorer's answer that hold no score.
_NO_SCORES = frozenset(
    {"answer", "correct", "detail", "details", "error", "extra", "outputs", "pred", "prompt", "ref", "references",
     "success", "task", "type"}
)  # fmt: skip
# Scorers that name their scores elsewhere than in their own code.
_KNOWN = {
    "AccEvaluator": ["accuracy"],
    "BleuEvaluator": ["score"],
    "HumanEvalEvaluator": ["humaneval_pass@1"],
    "HumanEvalPlusEvaluator": ["humaneval_plus_pass@1"],
    "RougeEvaluator": ["rouge1", "rouge2", "rougeL", "rougeLsum"],
}


def data_paths(datasets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the files and folders that the data sets are read from, relative to the root of the data.

    Empty where one of them does not say, or lies outside.
    """
    from opencompass.utils.datasets_info import DATASETS_MAPPING  # type: ignore[import-not-found]

    found: set[str] = set()
    for dataset in datasets:
        given = dataset.get("path")
        if not isinstance(given, str) or not given:
            return []
        path = posixpath.normpath(DATASETS_MAPPING.get(given, {}).get("local") or given)
        if path.startswith(("/", "..")) or not path.startswith("data/"):
            return []
        found.add(path)
    return sorted(found)


def metrics(datasets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the scores, as far as the scorers' code tells them."""
    found: set[str] = set()
    for dataset in datasets:
        evaluator = dataset.get("eval_cfg", {}).get("evaluator")
        while isinstance(evaluator, Mapping):
            evaluator = evaluator.get("type")
        found |= set(_metrics_of(evaluator))
    return sorted(found)


@functools.cache  # reading a class's source takes long, and many data sets share a scorer
def _metrics_of(evaluator: object) -> list[str]:
    name = evaluator if isinstance(evaluator, str) else getattr(evaluator, "__name__", "")
    if name in _KNOWN or not inspect.isclass(evaluator):
        return _KNOWN.get(name, [])
    score = getattr(evaluator, "score", None)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(score)))  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError):
        return []
    return sorted(set(_returned_keys(tree)) - _NO_SCORES)


def _returned_keys(tree: ast.AST) -> Iterator[str]:
    """Yield the constant keys of every mapping that is returned, by itself or by its name."""
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
    names = {value.id for value in returned if isinstance(value, ast.Name)}
    for value in returned:
        yield from _keys(value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id in names:
                    yield from _keys(node.value)
                elif _is_item_of(target, names):
                    yield from _texts([target.slice])  # type: ignore[attr-defined]


def _keys(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Dict):
        yield from _texts(value.keys)
    elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
        yield from (keyword.arg for keyword in value.keywords if keyword.arg)


def _texts(nodes: Sequence[ast.expr | None]) -> Iterator[str]:
    yield from (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_item_of(target: ast.expr, names: set[str]) -> bool:
    return isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and target.value.id in names

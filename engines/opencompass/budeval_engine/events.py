"""What the child tells the supervisor, as JSON lines over an inherited pipe.

{"event": "questions", "datasets": {"siqa": 48}}   after the data was read, before anything is asked
{"event": "phase", "phase": "scoring"}
{"event": "done", "done": 12}                      answered so far
{"event": "failure", "reason": ..., "message": ..., "permanent": true}
{"event": "asked", "empty": 0, "failed": 0, "first_failure": ""}
{"event": "data", "sha256": "..."}
"""

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from budeval_engine.asking import Tally
from budeval_engine.outcome import EngineError, Reason

DESCRIPTOR = "BUDEVAL_EVENTS"
"""The environment variable with the number of the pipe's file descriptor."""


class EventWriter:
    """The child's end of the pipe. Thread-safe."""

    def __init__(self, descriptor: int) -> None:
        """Write to the open file `descriptor`, and keep it from the child's own children."""
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def questions(self, datasets: Mapping[str, int]) -> None:
        """Tell how many questions each part of the data set has."""
        self._write({"event": "questions", "datasets": dict(datasets)})

    def data(self, sha256: str) -> None:
        """Tell the checksum of the data that was read."""
        self._write({"event": "data", "sha256": sha256})

    def phase(self, phase: str) -> None:
        """Tell that `phase` begins."""
        self._write({"event": "phase", "phase": phase})

    def done(self, done: int) -> None:
        """Tell how many questions are answered."""
        self._write({"event": "done", "done": done})

    def asked(self, tally: Tally) -> None:
        """Tell what became of the questions."""
        self._write(
            {
                "event": "asked",
                "empty": tally.empty,
                "failed": tally.failed,
                "first_failure": tally.first_failure,
            }
        )

    def failure(self, error: EngineError) -> None:
        """Tell why the child ends."""
        self._write(
            {
                "event": "failure",
                "reason": error.reason.value,
                "message": error.message,
                "permanent": error.permanent,
            }
        )

    def _write(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            os.write(self._descriptor, json.dumps(event).encode() + b"\n")


@dataclass
class ChildState:
    """What the supervisor knows of the child, from its events."""

    phase: str = "preparing"
    done: int = 0
    questions: dict[str, int] | None = None
    data_sha256: str = ""
    tally: Tally = field(default_factory=Tally)
    failure: EngineError | None = None

    @property
    def total(self) -> int:
        """Questions of the run; 0 while not known."""
        return sum((self.questions or {}).values())

    def apply(self, line: str) -> None:
        """Take in one line; one that is no event is ignored, as code under evaluation may write there too."""
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            self._take(json.loads(line))

    def _take(self, event: object) -> None:
        match event:
            case {"event": "questions", "datasets": dict(datasets)}:
                self.questions = {str(name): int(count) for name, count in datasets.items()}
            case {"event": "data", "sha256": str(digest)}:
                self.data_sha256 = digest
            case {"event": "phase", "phase": str(phase)}:
                self.phase = phase
            case {"event": "done", "done": int(done)}:
                # A question of several turns is several answers, and the questions are what is counted.
                self.done = max(self.done, min(done, self.total))
            case {"event": "asked", "empty": int(empty), "failed": int(failed), "first_failure": str(first)}:
                self.tally = Tally(empty=empty, failed=failed, first_failure=first)
            case {"event": "failure", "reason": str(reason), "message": str(message), "permanent": bool(permanent)}:
                if reason in set(Reason):
                    self.failure = EngineError(Reason(reason), message, permanent=permanent)

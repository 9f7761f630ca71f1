"""A look before an evaluation begins: does the endpoint answer, and which data sets can be read?

`python -m budeval_engine.preflight QUESTIONS` takes one JSON object and prints one JSON object a line, each as soon as
it is known. It ends by itself in time, with the exit code 0 whatever it found. QUESTIONS has

* `schema` (1) and `seconds`: the time there is;
* `endpoint`: `{"model", "endpoint"}` to ask for one token with the key in OPENAI_API_KEY, or null;
* `datasets`: names of data sets to load, as a run would, and to count the questions of;
* `inventory`: null, or the paths below the data that each of many data sets is read from: those are named whose paths
  are all there, and of `datasets` only these are loaded.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from budeval_engine import catalogue, data_access
from budeval_engine.endpoint import EndpointClient, QuestionRefused
from budeval_engine.evaluation import count_questions, refuse_wrong_scores
from budeval_engine.layout import Layout
from budeval_engine.logbook import masked
from budeval_engine.outcome import EngineError, Reason
from budeval_engine.supervisor import OFFLINE

SCHEMA = 1
MARK = "preflight"
_LONGEST_MESSAGE = 500
_ENDPOINT_SECONDS = 20.0
# The rest of the time is for the last words.
_LAST_WORDS_SECONDS = 1.0


class Report:
    """Prints findings, the key masked; thread-safe."""

    def __init__(self, key: str, stream: TextIO) -> None:
        """Print to `stream`."""
        self._key = key
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, **finding: Any) -> None:
        """Print one line."""
        for name in ("message", "reason"):
            if isinstance(finding.get(name), str):
                finding[name] = masked(finding[name], self._key)[:_LONGEST_MESSAGE]
        with self._lock:
            self._stream.write(json.dumps({"budeval": MARK, **finding}) + "\n")
            self._stream.flush()


def main() -> int:
    """Look, and print what is seen."""
    signal.signal(signal.SIGTERM, _end)
    key = os.environ.pop("OPENAI_API_KEY", "")
    report = Report(key, _own_stream())
    questions = json.loads(sys.argv[1])
    if questions.get("schema") != SCHEMA:
        report.tell(ended=False, message=f"this engine image knows schema {SCHEMA} of the preflight only")
        return 0
    os.environ.update(OFFLINE)
    budget = float(questions["seconds"]) - _LAST_WORDS_SECONDS
    asking = threading.Thread(target=_ask, args=(questions.get("endpoint"), key, report), daemon=True)
    asking.start()
    alarm = threading.Timer(budget, _time_is_up, [report, asking, budget])
    alarm.daemon = True
    alarm.start()
    _look_at_datasets(questions, report)
    # The endpoint may dribble for ever; then the alarm is what ends this.
    asking.join()
    alarm.cancel()
    report.tell(ended=True)
    return 0


def ask_endpoint(endpoint: str, model: str, key: str, report: Report) -> None:
    """Ask for one token, and tell what came of it."""
    began = time.monotonic()
    try:
        client = EndpointClient(endpoint.rstrip("/"), model, key, timeout=_ENDPOINT_SECONDS, retries=0)
        try:
            client.complete(client.request([{"role": "user", "content": "Hello"}], max_tokens=1, temperature=0.0))
        finally:
            client.close()
    except EngineError as error:
        report.tell(check="endpoint", reason=error.reason.value, message=error.message)
    except QuestionRefused as refusal:
        report.tell(check="endpoint", reason="QuestionRefused", message=str(refusal))
    else:
        report.tell(check="endpoint", reason=None, seconds=round(time.monotonic() - began, 2))


def look_at_dataset(name: str, files: Mapping[str, Path], report: Report) -> None:
    """Load a data set as a run would, and tell how many questions it has, or why it cannot be loaded."""
    try:
        if name not in files:
            raise EngineError(Reason.DATASET_UNKNOWN, f"OpenCompass has no data set configuration {name!r}.")
        datasets = catalogue.load(files[name])
        refuse_wrong_scores(name, datasets)
        counts = count_questions(datasets)
    except EngineError as error:
        report.tell(dataset=name, reason=error.reason.value, message=error.message)
    except Exception as error:  # noqa: BLE001  (outermost boundary: a loader can raise anything)
        report.tell(dataset=name, reason=Reason.ENGINE_FAILED.value, message=f"{type(error).__name__}: {error}")
    else:
        report.tell(dataset=name, reason=None, questions=sum(counts.values()))


def present(inventory: Mapping[str, list[str]], root: Path) -> list[str]:
    """Return the data sets whose paths are all there and not empty."""
    seen = {path: _has_content(root / path) for paths in inventory.values() for path in paths}
    return [name for name, paths in inventory.items() if paths and all(seen[path] for path in paths)]


def _has_content(path: Path) -> bool:
    try:
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except OSError:
        return False


def _look_at_datasets(questions: Mapping[str, Any], report: Report) -> None:
    names = list(questions.get("datasets") or [])
    inventory = questions.get("inventory")
    if inventory is not None:
        there = present(inventory, Layout.from_environment().data)
        report.tell(present=there)
        names = [name for name in names if name in set(there)]
    if not names:
        return
    data_access.refuse_downloads()
    files = catalogue.config_files(catalogue.configs_directory())
    for name in names:
        look_at_dataset(name, files, report)


def _ask(subject: Mapping[str, str] | None, key: str, report: Report) -> None:
    if subject is not None:
        ask_endpoint(subject["endpoint"], subject["model"], key, report)


def _own_stream() -> TextIO:
    """Return standard output for this program alone: what loaders print goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _time_is_up(report: Report, asking: threading.Thread, seconds: float) -> None:
    if asking.is_alive():
        message = f"The endpoint did not answer within {seconds:g} s."
        report.tell(check="endpoint", reason=Reason.ENDPOINT_UNREACHABLE.value, message=message)
    report.tell(ended=False)
    os._exit(0)


def _end(_number: int, _frame: object) -> None:
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

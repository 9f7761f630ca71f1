"""The container's first process: check, ask once, run the child, believe only what is complete, say how it ended."""

import hashlib
import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from budeval_engine import __version__, results, run_config
from budeval_engine.child import Child, evaluation_command
from budeval_engine.endpoint import EndpointClient, QuestionRefused
from budeval_engine.events import ChildState
from budeval_engine.layout import Layout
from budeval_engine.logbook import Logbook, masked
from budeval_engine.outcome import EXIT_COMPLETED, EngineError, Reason
from budeval_engine.progress import Progress
from budeval_engine.run_config import RunConfig
from budeval_engine.secrecy import hide_process
from budeval_engine.traits import NLTK_DIRECTORY

KEY_VARIABLE = "OPENAI_API_KEY"
_LARGEST_TERMINATION_MESSAGE = 4096
_LONGEST_MESSAGE = 1000
# A probe that takes longer than this is a slow model, which the first question will find out as well.
_PROBE_SECONDS = 60.0
OFFLINE = {
    # Nothing but the endpoint is reachable, and nothing may try.
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_CHILD_SETTINGS = {
    **OFFLINE,
    "TQDM_DISABLE": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass
class Ending:
    """What the termination message tells."""

    reason: Reason
    message: str
    permanent: bool
    exit_code: int
    state: ChildState = field(default_factory=ChildState)
    result_sha256: str | None = None


def main() -> int:
    """Run the mounted configuration and return the container's exit code."""
    hide_process()
    layout = Layout.from_environment()
    key = os.environ.get(KEY_VARIABLE, "")
    try:
        with Logbook(layout.log, key) as logbook:
            ending = _run(layout, key, logbook)
            logbook.line(f"{ending.reason}: {ending.message}")
    except OSError as error:
        ending = _failed(EngineError(Reason.ENGINE_FAILED, f"The workspace can't be used: {error}."), ChildState())
    _write_termination_message(layout.termination_log, ending, key)
    return ending.exit_code


def _run(layout: Layout, key: str, logbook: Logbook) -> Ending:
    """Run until the end, whatever it is."""
    state = ChildState()
    progress = Progress(logbook.progress)
    # The first process of a container ignores every signal that it has no handler for.
    signal.signal(signal.SIGTERM, _stop)
    try:
        progress.tell("preparing", 0, 0)
        config = run_config.load(layout.configuration)
        digest = _result_of_earlier_attempt(layout, config)
        if digest is not None:
            return _completed("The result of an earlier attempt is complete.", state, digest)
        started_at = _first_start(layout.started)
        probe(config, key)
        # OpenCompass leaves things in its working directory that must not outlive the pod (sizes of data sets, say).
        environment = {**os.environ, **_CHILD_SETTINGS, "NLTK_DATA": str(layout.data / NLTK_DIRECTORY)}
        environment.pop(KEY_VARIABLE, None)
        child = Child(evaluation_command(), environment, str(layout.scratch), key)
        state = child.state
        child.forward_signals()
        child.follow(logbook, progress)
        digest = _write_result(layout, config, state, started_at)
    except EngineError as error:
        return _failed(error, state)
    except Exception as error:  # noqa: BLE001  (outermost boundary: the Job must be told)
        return _failed(EngineError(Reason.ENGINE_FAILED, f"{type(error).__name__}: {error}"), state)
    return _completed(f"All {state.total} questions are answered and scored.", state, digest)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise EngineError(Reason.ENGINE_FAILED, "The run was stopped by SIGTERM before it began.")


def probe(config: RunConfig, key: str) -> None:
    """Ask the endpoint for one token, before the seconds that OpenCompass takes to start; raises EngineError."""
    timeout = min(config.parameters.timeout, _PROBE_SECONDS)
    client = EndpointClient(config.endpoint, config.model_name, key, timeout=timeout, retries=config.parameters.retry)
    try:
        client.complete(client.request([{"role": "user", "content": "Hello"}], max_tokens=1, temperature=0.0))
    except QuestionRefused:
        pass  # it answers: whether it answers questions is for the questions to find out
    finally:
        client.close()


def _completed(message: str, state: ChildState, digest: str) -> Ending:
    return Ending(
        Reason.COMPLETED, message, permanent=True, exit_code=EXIT_COMPLETED, state=state, result_sha256=digest
    )


def _failed(error: EngineError, state: ChildState) -> Ending:
    return Ending(error.reason, error.message, error.permanent, error.exit_code, state)


def _first_start(path: Path) -> datetime:
    """Return when the first attempt began, writing it down when this is the first."""
    try:
        return datetime.fromisoformat(json.loads(path.read_text())["started_at"])
    except (OSError, ValueError, KeyError, TypeError):
        now = datetime.now(UTC)
        _write(path, json.dumps({"started_at": now.isoformat()}))
        return now


def _result_of_earlier_attempt(layout: Layout, config: RunConfig) -> str | None:
    """Return the checksum of a complete result of this very run; None when there is none."""
    try:
        content = layout.result.read_bytes()
        document = json.loads(content)
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or not config.identity.items() <= document.items():
        return None
    return _seal(layout.result, content)


def _write_result(layout: Layout, config: RunConfig, state: ChildState, started_at: datetime) -> str:
    """Check the outcome and write result.json; return its checksum. Raises EngineError ResultsIncomplete."""
    questions = state.questions or {}
    counts = results.count_answers(layout.opencompass, questions, state.tally.empty)
    if not questions or counts.answered < counts.asked:
        raise EngineError(
            Reason.RESULTS_INCOMPLETE, f"{counts.asked - counts.answered} of {counts.asked} questions got no answer."
        )
    scores = results.read_scores(layout.opencompass, questions)
    completed_at = datetime.now(UTC)
    document = {
        "schema": 1,
        **config.identity,
        "scores": [score.as_json() for score in scores],
        "questions": counts.as_json(),
        "versions": {"opencompass": importlib.metadata.version("opencompass"), "engine": __version__},
        "data_sha256": state.data_sha256,
        "started_at": _utc(started_at),
        "completed_at": _utc(completed_at),
        "duration_seconds": round((completed_at - started_at).total_seconds(), 3),
    }
    content = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    _write(layout.result, content)
    return _seal(layout.result, content.encode())


def _seal(path: Path, content: bytes) -> str:
    """Write the checksum of `content` beside `path` and return it."""
    digest = hashlib.sha256(content).hexdigest()
    _write(path.with_name(path.name + ".sha256"), digest + "\n")
    return digest


def _write(path: Path, content: str) -> None:
    """Write by rename: nobody ever reads half a file."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name outlives the node, too
    finally:
        os.close(folder)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def termination_message(ending: Ending, key: str) -> str:
    """Return the JSON for Kubernetes, within its 4096 bytes and without the key."""
    message = masked(ending.message, key)[:_LONGEST_MESSAGE]
    while True:
        document: Mapping[str, Any] = {
            "schema": 1,
            "reason": ending.reason.value,
            "message": message,
            "permanent": ending.permanent,
            "done": ending.state.done,
            "total": ending.state.total,
            "result_sha256": ending.result_sha256,
        }
        text = json.dumps(document)
        if len(text) <= _LARGEST_TERMINATION_MESSAGE:
            return text
        message = message[: len(message) // 2]


def _write_termination_message(path: Path, ending: Ending, key: str) -> None:
    text = termination_message(ending, key)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"{path} can't be written ({error.strerror}): {text}\n")

"""The mounted configuration: what to run, read and checked before anything is done.

The values come from users. They are only ever passed on as data (JSON fields, HTTP bodies), never as code, paths or
arguments; what is checked here is that they are usable, with the field named when they are not.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from budeval_engine.outcome import EngineError, Reason

SCHEMA = 1
_MAX_TEXT = 2048
_MAX_FILE = 256 * 1024
_DATASET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,199}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TOP_LEVEL = frozenset({"schema", "eval_id", "run_id", "dataset_id", "model", "parameters", "max_questions"})


def _number(default: float, lowest: float, highest: float) -> Any:
    return field(default=default, metadata={"lowest": lowest, "highest": highest})


@dataclass(frozen=True)
class Parameters:
    """How to ask. Bounds are those of sense, not of any endpoint."""

    query_per_second: float = _number(10.0, 0.001, 10_000)
    """Questions sent per second at most."""
    max_out_len: int = _number(2048, 1, 1_000_000)
    """Tokens of an answer, unless the data set's own configuration says otherwise."""
    max_seq_len: int = _number(16_384, 1, 10_000_000)
    """Tokens of question and answer together."""
    batch_size: int = _number(8, 1, 1024)
    """Questions asked at the same time."""
    temperature: float = _number(0.0, 0.0, 2.0)
    """Zero asks for the likeliest answer."""
    timeout: float = _number(120, 1, 86_400)
    """Seconds to wait for one answer."""
    retry: int = _number(3, 0, 100)
    """Further attempts at a question when the endpoint is busy or does not answer."""


@dataclass(frozen=True)
class RunConfig:
    """One run: one data set put to one model."""

    eval_id: str
    run_id: str
    dataset_id: str
    model_name: str
    endpoint: str
    parameters: Parameters = field(default_factory=Parameters)
    max_questions: int | None = None

    @property
    def identity(self) -> dict[str, str]:
        """The fields that a result repeats, to say which run it belongs to."""
        return {"eval_id": self.eval_id, "run_id": self.run_id, "dataset_id": self.dataset_id}


def load(path: Path) -> RunConfig:
    """Read the configuration at `path`.

    Raises EngineError: InvalidConfiguration with the field named, or DatasetUnknown for a name no data set can have.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _invalid(f"The configuration {path} can't be read: {error.strerror}.") from error
    if len(raw) > _MAX_FILE:
        raise _invalid(f"The configuration is larger than {_MAX_FILE} bytes.")
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise _invalid(f"The configuration is not JSON: {error}.") from error
    return parse(document)


def parse(document: object) -> RunConfig:
    """Check a decoded configuration; see `load` for the errors."""
    top = _mapping(document, "configuration")
    _refuse_unknown(top, _TOP_LEVEL, "configuration")
    if top.get("schema") != SCHEMA:
        raise _invalid(f"schema must be {SCHEMA}, not {top.get('schema')!r}.")
    model = _mapping(top.get("model"), "model")
    _refuse_unknown(model, frozenset({"name", "endpoint"}), "model")
    return RunConfig(
        eval_id=_text(top.get("eval_id"), "eval_id"),
        run_id=_text(top.get("run_id"), "run_id"),
        dataset_id=_dataset_id(top.get("dataset_id")),
        model_name=_text(model.get("name"), "model.name"),
        endpoint=_endpoint(model.get("endpoint")),
        parameters=_parameters(top.get("parameters", {})),
        max_questions=_max_questions(top.get("max_questions")),
    )


def _invalid(message: str) -> EngineError:
    return EngineError(Reason.INVALID_CONFIGURATION, message)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(f"{name} must be an object.")
    return value


def _refuse_unknown(value: Mapping[str, Any], known: frozenset[str], name: str) -> None:
    unknown = sorted(set(value) - known)
    if unknown:
        raise _invalid(f"{name} has unknown fields {unknown}; known are {sorted(known)}.")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _invalid(f"{name} must be a text that is not empty.")
    if len(value) > _MAX_TEXT:
        raise _invalid(f"{name} is longer than {_MAX_TEXT} characters.")
    if _CONTROL.search(value):
        raise _invalid(f"{name} has control characters.")
    return value


def _dataset_id(value: object) -> str:
    name = _text(value, "dataset_id")
    if not _DATASET_ID.fullmatch(name):
        raise EngineError(Reason.DATASET_UNKNOWN, f"dataset_id {name[:200]!r} is not a name that a data set can have.")
    return name


def _endpoint(value: object) -> str:
    text = _text(value, "model.endpoint")
    try:
        url = urlsplit(text)
        usable = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError as error:
        raise _invalid(f"model.endpoint is not a URL: {error}.") from error
    if not usable or any(character.isspace() for character in text):
        raise _invalid("model.endpoint must be an http or https URL with a host.")
    if "@" in url.netloc:
        raise _invalid("model.endpoint must not carry credentials.")
    if url.query or url.fragment:
        raise _invalid("model.endpoint must not have a query or fragment.")
    return text.rstrip("/")


def _parameters(value: object) -> Parameters:
    given = _mapping(value, "parameters")
    known = {item.name: item for item in fields(Parameters)}
    _refuse_unknown(given, frozenset(known), "parameters")
    checked: dict[str, Any] = {}
    for name, number in given.items():
        whole = known[name].type is int
        checked[name] = _bounded(number, f"parameters.{name}", whole=whole, **known[name].metadata)
    return Parameters(**checked)


def _max_questions(value: object) -> int | None:
    return None if value is None else int(_bounded(value, "max_questions", whole=True, lowest=1, highest=10_000_000))


def _bounded(value: object, name: str, *, whole: bool, lowest: float, highest: float) -> float:
    """Return `value` as a number within bounds; booleans, texts, NaN and fractions of a whole number are refused."""
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise _invalid(f"{name} must be {kind}.")
    if not lowest <= value <= highest:
        raise _invalid(f"{name} must be {kind} from {lowest:g} to {highest:g}, not {value!r}.")
    return value

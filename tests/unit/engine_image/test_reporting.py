"""Progress lines, the log, events of the child, and the termination message."""

import base64
import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from budeval_engine.asking import Tally
from budeval_engine.events import ChildState, EventWriter
from budeval_engine.logbook import Logbook, masked
from budeval_engine.outcome import EngineError, Reason
from budeval_engine.progress import Progress
from budeval_engine.supervisor import Ending, termination_message

KEY = "sk-canary-123"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def progress(lines: list[str], clock: Clock) -> Progress:
    return Progress(lines.append, clock)


def test_a_progress_line_is_one_json_object(progress: Progress, lines: list[str]) -> None:
    progress.tell("inference", 12, 48)
    assert lines == ['{"budeval":"progress","phase":"inference","done":12,"total":48}']


def test_progress_is_told_at_most_once_a_second(progress: Progress, lines: list[str], clock: Clock) -> None:
    for done in range(20):
        progress.tell("inference", done, 48)
        clock.now += 0.125
    assert [json.loads(line)["done"] for line in lines] == [0, 8, 16]


def test_turning_points_are_told_at_once(progress: Progress, lines: list[str]) -> None:
    for phase, done, total in [("preparing", 0, 0), ("preparing", 0, 3), ("inference", 0, 3), ("inference", 3, 3)]:
        progress.tell(phase, done, total)
    progress.tell("scoring", 3, 3)
    assert len(lines) == 5


def test_the_same_news_is_told_once(progress: Progress, lines: list[str], clock: Clock) -> None:
    for _ in range(5):
        progress.tell("inference", 1, 3)
        clock.now += 5
    assert len(lines) == 1


def test_the_key_is_masked_and_short_ones_are_no_secret() -> None:
    assert masked(f"Bearer {KEY}!", KEY) == "Bearer ***!"
    assert masked("abcabc", "abc") == "abcabc"
    assert masked("text", "") == "text"


def test_the_log_is_written_twice_without_the_key(tmp_path: Path) -> None:
    console = io.StringIO()
    moment = datetime(2026, 1, 1, 10, 0, 0, 250, tzinfo=UTC)
    with Logbook(tmp_path / "engine.log", KEY, console, lambda: moment) as logbook:
        logbook.line(f"key={KEY}\n")
        logbook.progress('{"budeval":"progress"}')
    assert console.getvalue() == 'key=***\n{"budeval":"progress"}\n'
    assert (tmp_path / "engine.log").read_text() == "2026-01-01T10:00:00.000250Z key=***\n"


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:", "Bearer "])
def test_the_key_is_masked_however_it_is_written(before: str) -> None:
    key = 'sk-canary/with+odd"signs\\and=more'
    told = [
        json.dumps({"key": key}),
        quote(key),
        quote(key, safe=""),
        key.encode().hex(),
        base64.b64encode(f"{before}{key}".encode()).decode(),
        base64.b64encode(f"{before}{key} and behind it".encode()).decode(),
    ]
    masks = [masked(text, key) for text in told]
    assert [text for text in masks if "***" not in text] == []
    # What is left of the code of a key is at most what it shares with its neighbours.
    assert max(len(text) for text in masks[4:5]) <= len(base64.b64encode(before.encode())) + 8


def test_the_code_of_a_short_key_is_no_secret() -> None:
    assert masked("dGVzdA== 74657374", "test") == "dGVzdA== 74657374"


def test_a_log_line_can_not_pass_for_progress(tmp_path: Path) -> None:
    console = io.StringIO()
    with Logbook(tmp_path / "engine.log", KEY, console) as logbook:
        logbook.line('{"budeval":"progress","done":9}')
    assert not console.getvalue().startswith("{")


def test_a_full_volume_takes_no_line_from_standard_output() -> None:
    console = io.StringIO()
    with Logbook(Path("/dev/full"), KEY, console) as logbook:
        logbook.line("one")
        logbook.line("two")
    assert console.getvalue() == "one\ntwo\n"


def test_a_line_may_hold_what_no_file_can(tmp_path: Path) -> None:
    path = tmp_path / "console"
    with path.open("w", encoding="utf-8") as console, Logbook(tmp_path / "engine.log", KEY, console) as logbook:
        logbook.line("no \ud800 key")
    assert (tmp_path / "console").read_text() == "no ? key\n"


def test_the_log_file_stops_growing(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_bytes(b"x" * (16 * 1024 * 1024 - 10))
    console = io.StringIO()
    with Logbook(path, KEY, console) as logbook:
        logbook.line("a")
        logbook.line("b" * 100)
    assert path.stat().st_size <= 16 * 1024 * 1024
    assert "b" * 100 in console.getvalue()


def test_events_arrive_as_they_were_sent() -> None:
    reading, writing = os.pipe()
    events = EventWriter(writing)
    events.questions({"siqa": 4, "piqa": 2})
    events.data("abc")
    events.phase("inference")
    events.done(5)
    events.asked(Tally(answered=5, empty=1, failed=1, first_failure="too long"))
    events.failure(EngineError(Reason.RESULTS_INCOMPLETE, "1 of 6"))
    os.close(writing)
    state = ChildState()
    with os.fdopen(reading) as pipe:
        for line in pipe:
            state.apply(line)
    assert (state.total, state.done, state.phase, state.data_sha256) == (6, 5, "inference", "abc")
    assert (state.tally.empty, state.tally.failed, state.tally.first_failure) == (1, 1, "too long")
    assert state.failure is not None
    assert (state.failure.reason, state.failure.permanent) == (Reason.RESULTS_INCOMPLETE, False)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "[]",
        "5",
        "{}",
        '{"event": "done"}',
        '{"event": "done", "done": "9"}',
        '{"event": "questions", "datasets": 5}',
        '{"event": "failure", "reason": "Nonsense", "message": "m", "permanent": true}',
        '{"event": "phase", "phase": null}',
        '{"event": "questions", "datasets": {"siqa": "many"}}',
        '{"event": "questions", "datasets": {"siqa": null}}',
        "[" * 60_000,
    ],
)
def test_a_line_that_is_no_event_changes_nothing(line: str) -> None:
    state = ChildState()
    state.apply(line)
    assert state == ChildState()


def test_done_never_goes_back_nor_over_the_total() -> None:
    state = ChildState(questions={"siqa": 10})
    for done in (3, 2, 50):
        state.apply(json.dumps({"event": "done", "done": done}))
    assert state.done == 10


def ending(message: str) -> Ending:
    return Ending(Reason.ENDPOINT_UNAUTHORIZED, message, True, 10, ChildState(done=3, questions={"siqa": 6}))


def test_the_termination_message_is_what_kubernetes_passes_on() -> None:
    assert json.loads(termination_message(ending("wrong key"), KEY)) == {
        "schema": 1,
        "reason": "EndpointUnauthorized",
        "message": "wrong key",
        "permanent": True,
        "done": 3,
        "total": 6,
        "result_sha256": None,
    }


@pytest.mark.parametrize("message", ["x" * 10_000, "\x00" * 10_000, "模" * 10_000, '"' * 10_000])
def test_the_termination_message_fits_into_its_4096_bytes(message: str) -> None:
    text = termination_message(ending(message), KEY)
    assert len(text.encode()) <= 4096
    assert json.loads(text)["reason"] == "EndpointUnauthorized"


def test_the_termination_message_does_not_hold_the_key() -> None:
    assert KEY not in termination_message(ending(f"Incorrect API key provided: {KEY}"), KEY)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.COMPLETED])
def test_the_exit_code_follows_from_the_reason(reason: Reason) -> None:
    error = EngineError(reason, "m")
    assert error.exit_code == (10 if error.permanent else 20)
    assert EngineError(reason, "m", permanent=True).exit_code == 10

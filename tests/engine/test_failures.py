"""Runs that end badly: each cause is told apart, at once or in mid-run, and a retry goes on where it stopped."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.engine.endpoint_double import Asked, Behaviour, EndpointDouble, Reply, answer, error
from tests.engine.running import KEY, Engine, children, files_with, wait_until

UNAUTHORIZED = error(401, f"Incorrect API key provided: {KEY}")
MODEL_MISSING = error(404, "The model `test-model` does not exist")
RATE_LIMITED = error(429, "Rate limit reached")
BROKEN = error(503, "upstream is down")
CUT_OFF = Reply(status=None)
ELSEWHERE = Reply(307, headers={"Location": "http://127.0.0.1:1/v1/chat/completions"})

CAUSES = [
    pytest.param(UNAUTHORIZED, "EndpointUnauthorized", 10, id="unauthorized"),
    pytest.param(MODEL_MISSING, "ModelNotFound", 10, id="model-missing"),
    pytest.param(RATE_LIMITED, "EndpointRateLimited", 20, id="rate-limited"),
    pytest.param(CUT_OFF, "EndpointUnreachable", 20, id="cut-off"),
    pytest.param(Reply(body="<html>sign in</html>"), "EndpointUnreachable", 20, id="html"),
    pytest.param(ELSEWHERE, "InvalidConfiguration", 10, id="redirect"),
    pytest.param(error(401, f"lone \ud800 {KEY}"), "EndpointUnauthorized", 10, id="hostile-words"),
]


def after(questions: int, reply: Reply) -> Behaviour:
    """Answer so many questions, then no more."""
    return lambda asked: answer("A") if asked.number <= questions else reply


@pytest.mark.parametrize(("reply", "reason", "exit_code"), CAUSES)
def test_an_endpoint_that_can_not_be_used_is_told_before_any_question(
    engine: Engine, double: EndpointDouble, reply: Reply, reason: str, exit_code: int
) -> None:
    double.behave = lambda _: reply
    ended = engine.run(double.url)
    assert (ended.reason, ended.exit_code) == (reason, exit_code)
    assert ended.termination["permanent"] is (exit_code == 10)
    assert double.questions == []
    assert files_with(KEY, engine.home) == []
    assert KEY not in ended.stdout


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1"])
def test_an_endpoint_that_is_not_there_is_unreachable(engine: Engine, endpoint: str) -> None:
    ended = engine.run(endpoint)
    assert (ended.reason, ended.exit_code) == ("EndpointUnreachable", 20)


@pytest.mark.parametrize(("reply", "reason", "exit_code"), CAUSES)
def test_an_endpoint_that_fails_in_mid_run_is_told_just_so(
    engine: Engine, double: EndpointDouble, reply: Reply, reason: str, exit_code: int
) -> None:
    double.behave = after(3, reply)
    ended = engine.run(double.url)
    assert (ended.reason, ended.exit_code) == (reason, exit_code), ended.stdout
    assert (ended.termination["done"], ended.termination["total"]) == (3, 6)
    assert not (engine.workspace / "result.json").exists()
    assert files_with(KEY, engine.home) == []


def test_a_retry_asks_only_what_is_missing(engine: Engine, double: EndpointDouble) -> None:
    double.behave = after(7, BROKEN)
    first = engine.run(double.url, max_questions=20, parameters={"batch_size": 4})
    assert (first.reason, first.exit_code) == ("EndpointUnreachable", 20), first.stdout
    assert first.termination["done"] == 7
    double.behave = lambda _: answer("A")
    second = engine.run(double.url, max_questions=20, parameters={"batch_size": 4})
    assert (second.reason, second.exit_code) == ("Completed", 0), second.stdout
    # What is known counts as done: 13 were asked.
    assert ("inference", 20, 20) in second.progress
    assert len(double.answered) == 20 + 1  # and the probe
    assert {count for text, count in double.answered.items() if text != "Hello"} == {1}


def test_a_question_without_an_answer_makes_the_run_incomplete_and_is_asked_again(
    engine: Engine, double: EndpointDouble
) -> None:
    nothing = answer("", tokens=None)
    double.behave = lambda asked: nothing if asked.number in {2, 5} else answer("A")
    first = engine.run(double.url)
    assert (first.reason, first.exit_code) == ("ResultsIncomplete", 20), first.stdout
    assert "2 of 6 questions" in first.termination["message"]
    assert not (engine.workspace / "result.json").exists()
    unanswered = {asked.text for asked in double.questions if asked.number in {2, 5}}
    double.behave = lambda _: answer("A")
    second = engine.run(double.url)
    assert (second.reason, second.exit_code) == ("Completed", 0), second.stdout
    assert {asked.text for asked in double.questions[6:]} == unanswered
    assert len(double.questions) == 8


def test_an_endpoint_that_answers_no_question_at_all_is_no_score_of_zero(
    engine: Engine, double: EndpointDouble
) -> None:
    double.behave = lambda asked: answer("A") if not asked.number else error(400, "context length exceeded")
    ended = engine.run(double.url)
    assert (ended.reason, ended.exit_code) == ("ResultsIncomplete", 20)
    assert "context length exceeded" in ended.termination["message"]


def test_questions_longer_than_max_seq_len_make_the_run_incomplete(engine: Engine, double: EndpointDouble) -> None:
    ended = engine.run(double.url, parameters={"max_seq_len": 100})
    assert ended.reason == "ResultsIncomplete", ended.stdout
    assert "max_seq_len" in ended.termination["message"]
    assert double.questions == []


class Held:
    """A behaviour that holds back one answer until it is let go."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reached = threading.Event()
        self.release = threading.Event()

    def __call__(self, asked: Asked) -> Reply:
        if asked.number == self.number:
            self.reached.set()
            self.release.wait(60)
        return answer("A")


def test_a_child_killed_for_its_memory_is_told_as_such_and_resumed(engine: Engine, double: EndpointDouble) -> None:
    held = Held(number=4)
    double.behave = held
    with engine.running(double.url) as process:
        wait_until(held.reached.is_set)
        (child,) = children(process.pid)
        os.kill(child, signal.SIGKILL)
        held.release.set()
        output, _ = process.communicate(timeout=60)
    ended = engine.ended(process.returncode, output)
    assert (ended.reason, ended.exit_code) == ("OutOfMemory", 20)
    assert ended.termination["done"] == 3
    second = engine.run(double.url)
    assert second.reason == "Completed"
    assert len(double.questions) == 4 + 3


def test_a_kill_of_everything_in_mid_write_costs_no_answer(engine: Engine, double: EndpointDouble) -> None:
    held = Held(number=4)
    double.behave = held
    with engine.running(double.url) as process:
        wait_until(held.reached.is_set)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=15)
    held.release.set()
    with (engine.workspace / "answers.jsonl").open("a") as journal:
        journal.write('{"question": "0123456789abcdef", "number": 1, "ans')
    before = [asked.text for asked in double.questions]
    second = engine.run(double.url)
    assert second.reason == "Completed", second.stdout
    # The one in flight was asked and not answered.
    assert double.questions[4].text == before[3]
    assert len(double.questions) == 4 + 3


def test_the_key_is_not_where_code_that_the_model_wrote_could_read_it(engine: Engine, double: EndpointDouble) -> None:
    held = Held(number=2)
    double.behave = held
    with engine.running(double.url) as process:
        wait_until(held.reached.is_set)
        (child,) = children(process.pid)
        environment = Path(f"/proc/{child}/environ").read_bytes()
        held.release.set()
        process.communicate(timeout=60)
    assert b"COMPASS_DATA_CACHE" in environment
    assert KEY.encode() not in environment


def test_leftovers_in_the_place_of_output_are_not_followed(engine: Engine, double: EndpointDouble) -> None:
    elsewhere = engine.home / "elsewhere"
    elsewhere.mkdir()
    (engine.workspace / "opencompass").mkdir(parents=True)
    (engine.workspace / "opencompass" / "run").symlink_to(elsewhere)
    ended = engine.run(double.url)
    assert (ended.reason, ended.exit_code) == ("EngineFailed", 20)
    assert list(elsewhere.iterdir()) == []


def test_sigterm_ends_the_run_soon_and_keeps_the_answers(engine: Engine, double: EndpointDouble) -> None:
    held = Held(number=4)
    double.behave = held
    with engine.running(double.url) as process:
        wait_until(held.reached.is_set)
        (child,) = children(process.pid)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=15)
        held.release.set()
    ended = engine.ended(process.returncode, output)
    assert (ended.reason, ended.exit_code) == ("EngineFailed", 20)
    assert "SIGTERM" in ended.termination["message"]
    assert not Path(f"/proc/{child}").exists()
    assert len((engine.workspace / "answers.jsonl").read_text().splitlines()) == 3


def test_sigterm_is_heard_before_the_first_question_too(engine: Engine, double: EndpointDouble) -> None:
    held = Held(number=0)
    double.behave = held
    with engine.running(double.url) as process:
        wait_until(held.reached.is_set)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=15)
        held.release.set()
    assert (engine.ended(process.returncode, output).reason, process.returncode) == ("EngineFailed", 20)


def test_data_that_is_not_on_the_volume_is_told_and_not_downloaded(engine: Engine, double: EndpointDouble) -> None:
    empty = Engine(engine.python, engine.home, engine.home / "empty", engine.tokenizer)
    empty.data.mkdir()
    ended = empty.run(double.url)
    assert (ended.reason, ended.exit_code) == ("DatasetMissing", 10), ended.stdout
    assert "siqa" in ended.termination["message"]
    assert double.questions == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"dataset_id": "SIQA_gen"}, "DatasetUnknown", id="letter-case"),
        pytest.param({"dataset_id": "siqa_ppl"}, "InvalidConfiguration", id="needs-probabilities"),
        pytest.param({"dataset_id": "aime2024_llmjudge_gen"}, "InvalidConfiguration", id="needs-a-judge"),
        pytest.param({"dataset_id": "humaneval_gen"}, "InvalidConfiguration", id="cut-where-it-can-not-be"),
        pytest.param({"dataset_id": "livecodebench_gen"}, "InvalidConfiguration", id="would-be-scored-wrongly"),
        pytest.param({"dataset_id": "IFBench_gen"}, "DatasetMissing", id="would-be-scored-wrongly-without-more-data"),
    ],
)
def test_what_can_not_be_evaluated_is_refused(
    engine: Engine, double: EndpointDouble, changes: dict[str, Any], reason: str
) -> None:
    ended = engine.run(double.url, **changes)
    assert (ended.reason, ended.exit_code) == (reason, 10), ended.stdout
    assert double.questions == []


@pytest.mark.parametrize("dataset_id", ["siqa_*", "../siqa_gen", "{{ lookup('pipe','id') }}"])
def test_wildcards_and_paths_are_no_names(engine: Engine, double: EndpointDouble, dataset_id: str) -> None:
    ended = engine.run(double.url, dataset_id=dataset_id)
    assert (ended.reason, ended.exit_code) == ("DatasetUnknown", 10)
    assert double.requests == []

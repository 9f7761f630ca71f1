"""Questions and answers: what is asked, what is kept, what is counted."""

import resource
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from budeval_engine.asking import Asking, Tally
from budeval_engine.endpoint import Completion, EndpointClient, QuestionRefused
from budeval_engine.journal import Journal
from budeval_engine.outcome import EngineError, Reason

Answer = Callable[[str], Completion]


class ScriptedClient(EndpointClient):
    """Answers by a function of the question, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("http://host", "m", "", timeout=1, retries=0)
        self.close()
        self.answer = answer
        self.asked: list[str] = []

    def complete(self, request: Mapping[str, Any], *, give_up: Callable[[], bool] = bool) -> Completion:  # noqa: ARG002
        question = request["messages"][0]["content"]
        self.asked.append(question)
        return self.answer(question)


def said(text: str) -> Completion:
    return Completion(text=text, generated=True)


class Attempt:
    """One attempt over a journal that outlives it."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.client = ScriptedClient(answer)
        self.journal = Journal(path)
        self.tally = Tally()
        self.asking = Asking(self.client, self.journal, lambda: None, self.tally)

    def ask(self, question: str, temperature: float = 0.0) -> str:
        return self.asking.answer([{"role": "user", "content": question}], max_tokens=9, temperature=temperature)


Start = Callable[[Answer], Attempt]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Begin an attempt; all of a test go over one journal."""
    with ExitStack() as stack:

        def begin(answer: Answer) -> Attempt:
            attempt = Attempt(path, answer)
            stack.callback(attempt.journal.close)
            return attempt

        yield begin


def test_a_question_answered_in_one_attempt_is_not_asked_in_the_next(start: Start) -> None:
    first = start(lambda question: said(question.upper()))
    assert [first.ask("a"), first.ask("b")] == ["A", "B"]
    second = start(lambda _: said("again"))
    assert [second.ask("a"), second.ask("b"), second.ask("c")] == ["A", "B", "again"]
    assert second.client.asked == ["c"]
    assert second.tally.answered == 3


def test_the_same_question_put_twice_is_asked_twice_and_each_answer_kept(start: Start) -> None:
    replies = iter("12")
    first = start(lambda _: said(next(replies)))
    assert [first.ask("a"), first.ask("a")] == ["1", "2"]
    second = start(lambda _: said("3"))
    assert [second.ask("a"), second.ask("a"), second.ask("a")] == ["1", "2", "3"]


def test_another_setting_is_another_question(start: Start) -> None:
    start(lambda _: said("cold")).ask("a", temperature=0.0)
    assert start(lambda _: said("warm")).ask("a", temperature=1.0) == "warm"


@pytest.mark.parametrize("torn", ['{"question": "x", "num', "null", "[]", '{"question": "x"}', "\x00\x00"])
def test_a_torn_line_is_passed_over(start: Start, path: Path, torn: str) -> None:
    start(lambda _: said("A")).ask("a")
    with path.open("a") as file:
        file.write(torn)
    second = start(lambda _: said("B"))
    assert [second.ask("a"), second.ask("b")] == ["A", "B"]
    third = start(lambda _: said("C"))
    assert [third.ask("a"), third.ask("b")] == ["A", "B"]
    assert third.client.asked == []


def test_a_refused_question_is_counted_and_asked_again_in_the_next_attempt(start: Start) -> None:
    def refuse_b(question: str) -> Completion:
        if question == "b":
            raise QuestionRefused("too long")
        return said(question)

    first = start(refuse_b)
    assert [first.ask(question) for question in "abc"] == ["a", "", "c"]
    assert (first.tally.answered, first.tally.failed, first.tally.first_failure) == (2, 1, "too long")
    second = start(said)
    assert [second.ask(question) for question in "abc"] == ["a", "b", "c"]
    assert second.client.asked == ["b"]


def test_an_empty_answer_that_nothing_explains_is_a_failure(start: Start) -> None:
    attempt = start(lambda _: Completion(text="", generated=False))
    assert attempt.ask("a") == ""
    assert attempt.tally.failed == 1
    assert len(attempt.journal) == 0


def test_an_empty_answer_that_the_model_meant_is_kept_and_counted(start: Start) -> None:
    start(lambda _: said("")).ask("a")
    again = start(lambda _: said("not asked"))
    assert again.ask("a") == ""
    assert (again.tally.answered, again.tally.empty, again.tally.failed) == (1, 1, 0)


def test_an_unusable_endpoint_ends_the_asking_for_all(start: Start) -> None:
    def refuse(_: str) -> Completion:
        raise EngineError(Reason.ENDPOINT_UNAUTHORIZED, "wrong key")

    attempt = start(refuse)
    for question in "abc":
        with pytest.raises(EngineError, match="wrong key"):
            attempt.ask(question)
    assert attempt.client.asked == ["a"]


def test_ten_refusals_without_an_answer_end_the_asking(start: Start) -> None:
    def refuse(_: str) -> Completion:
        raise QuestionRefused("max_tokens is too large")

    attempt = start(refuse)
    with pytest.raises(EngineError, match="max_tokens is too large"):
        for number in range(100):
            attempt.ask(str(number))
    assert len(attempt.client.asked) == 10


@contextmanager
def files_that_may_not_grow(limit: int) -> Iterator[None]:
    """A limit of this process, which a write meets just as it meets the end of a volume."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_answer_that_can_not_be_kept_ends_the_asking_and_costs_no_other(start: Start, path: Path) -> None:
    first = start(said)
    first.ask("a")
    with files_that_may_not_grow(path.stat().st_size + 20), pytest.raises(EngineError) as caught:
        first.ask("b")
    assert (caught.value.reason, caught.value.permanent) == (Reason.ENGINE_FAILED, False)
    assert "can't be kept" in caught.value.message
    with pytest.raises(EngineError):
        first.ask("c")
    assert first.client.asked == ["a", "b"]
    second = start(said)
    assert [second.ask(question) for question in "abc"] == ["a", "b", "c"]
    assert second.client.asked == ["b", "c"]


def test_threads_lose_and_repeat_nothing(start: Start) -> None:
    reports: list[int] = []
    first = start(said)
    first.asking.report = reports.append
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(first.ask, map(str, range(500))))
    assert sorted(reports) == list(range(1, 501))
    second = start(said)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(second.ask, map(str, range(500)))) == [str(number) for number in range(500)]
    assert second.client.asked == []


def test_the_rate_is_kept_for_what_is_asked_only(start: Start) -> None:
    waited: list[int] = []
    start(said).ask("a")
    attempt = start(said)
    attempt.asking = Asking(attempt.client, attempt.journal, lambda: waited.append(1), attempt.tally)
    attempt.ask("a")
    attempt.ask("b")
    assert waited == [1]

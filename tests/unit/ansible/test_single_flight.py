import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from budeval.ansible.single_flight import SingleFlight


class Question:
    """Counts how often it is asked; waits until it may be answered."""

    def __init__(self, answer="answer"):
        self.asked = 0
        self.answerable = threading.Event()
        self.answerable.set()
        self.answer = answer

    def __call__(self):
        self.asked += 1
        assert self.answerable.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_all_who_ask_while_it_is_asked_share_one_answer():
    flights, question = SingleFlight(60, 2), Question()
    question.answerable.clear()
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(flights.ask, "key", question) for _ in range(20)]
        time.sleep(0.2)
        question.answerable.set()
        assert {future.result()[0] for future in waiting} == {"answer"}
    assert question.asked == 1


def test_an_answer_serves_until_its_time_is_over():
    flights, question = SingleFlight(0.2, 2), Question()
    flights.ask("key", question)
    flights.ask("key", question)
    assert question.asked == 1
    time.sleep(0.25)
    flights.ask("key", question)
    assert question.asked == 2


def test_other_keys_are_other_questions():
    flights, question = SingleFlight(60, 2), Question()
    flights.ask("a", question)
    flights.ask("b", question)
    assert question.asked == 2


def test_an_error_is_told_to_all_and_not_kept():
    flights, question = SingleFlight(60, 2), Question(OSError("no answer"))
    for asked in (1, 2):
        with pytest.raises(OSError, match="no answer"):
            flights.ask("key", question)
        assert question.asked == asked


def test_an_answer_to_an_earlier_question_will_not_do_where_a_later_one_is_needed():
    flights, question = SingleFlight(60, 2), Question()
    _, began = flights.ask("key", question)
    _, again = flights.ask("key", question, not_before=time.monotonic())
    assert question.asked == 2
    assert again > began


def test_who_needs_a_later_question_waits_for_the_running_one_and_then_shares():
    flights, question = SingleFlight(60, 2), Question()
    question.answerable.clear()
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(flights.ask, "key", question)
        while not question.asked:
            time.sleep(0.01)
        moment = time.monotonic()
        later = [pool.submit(flights.ask, "key", question, not_before=moment) for _ in range(8)]
        time.sleep(0.1)
        question.answerable.set()
        assert first.result()[1] < moment
        assert all(future.result()[1] >= moment for future in later)
    assert question.asked == 2

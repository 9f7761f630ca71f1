import threading
import time

import pytest

from budeval.access.throttle import BoundedMemory, Throttle


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1_000_000.0

    monkeypatch.setattr(time, "time", lambda: Clock.now)
    return Clock


def test_so_many_in_a_window_that_moves(clock):
    throttle = Throttle("3/minute")
    answers = []
    for clock.now in (1_000_000.0, 1_000_020.0, 1_000_040.0, 1_000_041.0, 1_000_059.0, 1_000_060.5, 1_000_061.0):
        answers.append(throttle.take("a"))
    assert answers == [0, 0, 0, 19, 1, 0, 19]


def test_waiting_as_told_is_enough(clock):
    throttle = Throttle("5/10second")
    for _ in range(100):
        while wait := throttle.take("a"):
            clock.now += wait
        clock.now += 0.1
    assert throttle.take("b") == 0


def test_each_has_a_window_of_its_own(clock):
    throttle = Throttle("1/hour")
    assert [throttle.take(key) for key in "abab"] == [0, 0, 3600, 3600]


def test_no_limit():
    throttle = Throttle(None)
    assert [throttle.take("a") for _ in range(1000)] == [0] * 1000


def test_what_is_kept_is_bounded_however_many_ask_and_however_often(clock):
    throttle = Throttle("10/minute", maximum_keys=100)
    for number in range(5000):
        throttle.take(f"key-{number}")
        throttle.take("busy")
    storage = throttle._limiter.storage
    assert len(storage.events) == 100
    assert max(len(events) for events in storage.events.values()) == 10
    assert (len(storage.locks), len(storage.expirations), len(storage.storage)) == (0, 0, 0)
    assert throttle.take("busy") > 0


def test_no_thread_is_started_to_look_after_it():
    before = threading.active_count()
    throttle = Throttle("10/minute")
    for _ in range(50):
        throttle.take("a")
    time.sleep(0.05)
    assert threading.active_count() <= before


@pytest.mark.parametrize("amount", [3, 4])
def test_more_than_there_will_ever_be_is_refused(amount):
    assert BoundedMemory().acquire_entry("a", 3, 60, amount) is (amount == 3)

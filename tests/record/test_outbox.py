from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from budeval.record import outbox as outbox_module
from budeval.record.outbox import CLAIM_SECONDS, OutgoingMessage
from tests.samples import EVAL_ID, SECRETS, an_evaluation, job_names, write_down

OTHER_ID = "555e4567-e89b-12d3-a456-426614174021"


def message(event_id="one", topic="topic", **changes):
    values = {"event": "eta", "status": "RUNNING", "message": "30", "body": {"text": "ü", "nothing": None}}
    return OutgoingMessage(event_id=event_id, topic=topic, **{**values, **changes})


def drain(outbox, eval_id=EVAL_ID):
    """Publishes everything; answers what, in order."""
    told = []
    while (claimed := outbox.claim_next(eval_id)) is not None:
        told.append((claimed.event_id, claimed.topic))
        outbox.published(claimed.id)
    return told


@pytest.fixture
def later(monkeypatch):
    """Moves the outbox's clock forward by so many seconds."""
    now = outbox_module.utc_now

    def move(seconds):
        monkeypatch.setattr(outbox_module, "utc_now", lambda: now() + timedelta(seconds=seconds))

    return move


@pytest.fixture(autouse=True)
def _in_the_record(evaluation):
    """Messages belong to an evaluation."""


def test_messages_come_out_in_the_order_they_went_in(outbox):
    write_down(outbox, [message("one", "a"), message("one", "b")])
    write_down(outbox, [message("two", "a"), message("two", "b")])
    assert drain(outbox) == [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")]
    assert drain(outbox) == []


def test_a_message_comes_out_as_it_went_in(outbox):
    write_down(outbox, [message()])
    claimed = outbox.claim_next(EVAL_ID)
    assert claimed.model_dump(exclude={"id", "uncertain"}) == message().model_dump()
    assert not claimed.uncertain


def test_a_message_is_written_down_once_per_topic_whatever_its_second_text(outbox):
    write_down(outbox, [message()])
    write_down(outbox, [message(body={"another": "body"}), message(topic="elsewhere")])
    assert outbox.claim_next(EVAL_ID).body == message().body
    with outbox._database.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM events")).scalar_one() == 2


def test_a_message_that_was_published_is_not_written_down_again(outbox):
    write_down(outbox, [message()])
    drain(outbox)
    write_down(outbox, [message()])
    assert drain(outbox) == []


def test_nothing_to_add_is_fine(outbox):
    write_down(outbox, [])
    assert (outbox.claim_next(EVAL_ID), outbox.waiting()) == (None, [])


def test_a_claimed_message_holds_back_those_behind_it(outbox):
    write_down(outbox, [message("one"), message("two")])
    first = outbox.claim_next(EVAL_ID)
    assert outbox.claim_next(EVAL_ID) is None
    outbox.published(first.id)
    assert outbox.claim_next(EVAL_ID).event_id == "two"


def test_a_message_that_the_broker_refused_is_the_next_one_again(outbox):
    write_down(outbox, [message("one"), message("two")])
    first = outbox.claim_next(EVAL_ID)
    outbox.release(first.id)
    again = outbox.claim_next(EVAL_ID)
    assert (again.event_id, again.uncertain) == ("one", False)


def test_a_claim_of_somebody_who_died_grows_old(outbox, later):
    write_down(outbox, [message()])
    outbox.claim_next(EVAL_ID)
    assert (outbox.claim_next(EVAL_ID), outbox.waiting()) == (None, [])
    later(CLAIM_SECONDS + 1)
    assert outbox.waiting() == [EVAL_ID]
    assert outbox.claim_next(EVAL_ID).uncertain


def test_evaluations_wait_for_themselves_alone_and_the_oldest_comes_first(outbox, record):
    other = an_evaluation(OTHER_ID)
    record.create(other, SECRETS, b"", job_names(other), "tester")
    write_down(outbox, [message("one")], OTHER_ID)
    write_down(outbox, [message("one")])
    outbox.claim_next(OTHER_ID)
    assert drain(outbox) == [("one", "topic")]
    assert outbox.waiting() == []
    write_down(outbox, [message("two")])
    assert outbox.waiting() == [EVAL_ID]


def test_two_who_publish_at_once_tell_each_message_once_and_in_order(outbox):
    expected = [f"{number:03}" for number in range(60)]
    for event_id in expected:
        write_down(outbox, [message(event_id)])
    told = []

    def flush():
        while len(told) < len(expected):
            claimed = outbox.claim_next(EVAL_ID)
            if claimed is not None:
                told.append(claimed.event_id)
                outbox.published(claimed.id)

    with ThreadPoolExecutor(4) as pool:
        for flusher in [pool.submit(flush) for _ in range(4)]:
            flusher.result(timeout=60)
    assert told == expected

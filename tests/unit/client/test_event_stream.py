import pytest

from budeval.client.sse import MAXIMUM_LINE_BYTES, EventParser, MalformedStream

STREAM = (
    "retry: 2000\n\n: a comment\n\nid: 1\nevent: step\ndata: one\n\n"
    "id: 2\ndata: two\r\ndata: lines\r\n\r\ndata:\u2028stays\x0b\r\rid: 3\n\nid: 4\ndata: incomplete\n"
).encode()
EVENTS = [("1", "step", "one"), ("2", "message", "two\nlines"), ("2", "message", "\u2028stays\x0b")]


def parsed(parser, chunks):
    return [(event.id, event.event, event.data) for event in parser.parse(chunks)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_reads_the_same_however_it_is_cut(size):
    parser = EventParser()
    assert parsed(parser, [STREAM[at : at + size] for at in range(0, len(STREAM), size)]) == EVENTS
    assert parser.retry_seconds == 2


def test_the_last_id_counts_once_its_event_is_complete():
    parser = EventParser()
    parsed(parser, [STREAM])
    assert parser.last_event_id == "3"


def test_a_new_connection_forgets_what_was_incomplete():
    parser = EventParser("7")
    assert parsed(parser, [b"id: 8\ndata: half"]) == []
    assert parsed(parser, [b" a line\n\ndata: whole\n\n"]) == [("7", "message", "whole")]


def test_a_line_without_end_is_given_up():
    with pytest.raises(MalformedStream):
        parsed(EventParser(), [b"x" * MAXIMUM_LINE_BYTES, b"x"])

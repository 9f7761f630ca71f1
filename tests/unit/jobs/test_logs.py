import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from budeval.jobs.logs import (
    MARK_PATTERN,
    SEAM_LINES,
    LogLine,
    LogPosition,
    advanced,
    behind_mark,
    behind_seam,
    last_lines,
    mark_of,
    parse_duration,
    parse_lines,
    printable_text,
    second_of,
    select,
    stamped,
    unread,
)
from budeval.jobs.reader import log_reader_command, parse_log_file


def at(second, fraction=0, text=""):
    """A line of a pod's log."""
    return LogLine(f"2026-01-01T10:00:{second:02}.{fraction:09}Z", text or f"{second}.{fraction}")


A, B, C, D = at(1), at(1, 5), at(2), at(2, 7)


# ---------------------------------------------------------------- joining what is read again and again

JOINED = {
    "nothing was read": ([], [A, B], [A, B]),
    "nothing is new": ([C, D], [C, D], []),
    "there is nothing at all": ([], [], []),
    "lines were added in the same second": ([C], [C, D], [D]),
    "lines were added later": ([A, B], [A, B, C, D], [C, D]),
    "the same words at another time": ([at(1, 1, "x")], [at(1, 1, "x"), at(1, 2, "x")], [at(1, 2, "x")]),
    "the same words at the same time": ([at(1, 1, "x")], [at(1, 1, "x"), at(1, 1, "x")], [at(1, 1, "x")]),
    "two of three that are all the same": ([A, A], [A, A, A], [A]),
    "the first of that second were cut off": ([A, B], [B, C], [C]),
    "a new file began with a later second": ([A, B], [C, D], [C, D]),
    "a new file is empty": ([A, B], [], []),
}


@pytest.mark.parametrize(("read", "again", "new"), JOINED.values(), ids=JOINED)
def test_what_is_new_is_told_once(read, again, new):
    assert unread(read, again) == new


@pytest.mark.parametrize("size", range(1, 8))
def test_a_log_that_is_read_in_pieces_is_the_log(size):
    log = [at(second, fraction, "same") for second in range(5) for fraction in range(4)]
    position, told = LogPosition(), []
    for end in range(size, len(log) + size, size):
        there = log[:end]
        since = position.since
        again = [line for line in there if since is None or line.at >= since.removesuffix("Z")]
        fresh = unread(position.last_second, again)
        told += fresh
        position = advanced(position, "pod", fresh)
    assert told == log


def test_a_position_is_as_exact_as_a_second():
    position = advanced(LogPosition(), "pod", [A, B, C, D])
    assert (position.since, position.last_second) == ("2026-01-01T10:00:02Z", (C, D))
    assert position.last_texts == tuple(line.text for line in (A, B, C, D))


def test_a_node_may_live_in_any_time_zone():
    lines = [LogLine("2026-01-01T12:00:02.000000001+02:00", "a"), LogLine("2026-01-01T12:00:02.5+02:00", "b")]
    position = advanced(LogPosition(), "pod", lines)
    assert (position.since, position.last_second) == ("2026-01-01T10:00:02Z", tuple(lines))


def test_lines_of_two_streams_may_come_in_another_order_than_their_times():
    position = advanced(LogPosition(), "pod", [C, A, B])
    assert (position.since, position.last_second) == ("2026-01-01T10:00:02Z", (C,))


def test_a_new_pod_begins_a_new_log():
    position = advanced(advanced(LogPosition(), "first", [C, D]), "second", [A])
    assert (position.pod, position.since, position.last_second) == ("second", "2026-01-01T10:00:01Z", (A,))
    assert len(position.last_texts) == 3


def test_nothing_new_changes_no_position():
    position = advanced(LogPosition(), "pod", [A, B])
    assert advanced(position, "pod", []) == position


# ---------------------------------------------------------------- from the pod to the file

TEXTS = [LogLine("", text) for text in ("a", "b", "c", "b", "d")]
SEAMS = {
    "nothing was read": ([], TEXTS, True),
    "all was read": (["a", "b", "c", "b", "d"], [], True),
    "the end is missing": (["a", "b", "c"], TEXTS[3:], True),
    "one line is enough": (["c"], TEXTS[3:], True),
    "the last place counts": (["b"], TEXTS[4:], True),
    "an indent on standard output": (["a", "  b"], TEXTS[2:], True),
    "another log": (["x"], [], False),
    "more was read than is there": (["x", "a", "b"], [], False),
}


@pytest.mark.parametrize(("read", "behind", "found"), SEAMS.values(), ids=SEAMS)
def test_the_file_goes_on_where_the_pod_ended(read, behind, found):
    assert behind_seam(read, TEXTS) == (behind, found)


def test_few_lines_are_kept_to_find_the_place():
    position = advanced(LogPosition(), "pod", [at(1, number) for number in range(1000)])
    assert len(position.last_texts) == SEAM_LINES


# ---------------------------------------------------------------- lines


def test_times_are_taken_off_and_progress_is_left_out():
    text = (
        '2026-01-01T10:00:01.5Z one\n2026-01-01T10:00:02Z {"budeval":"progress","done":1}\n2026-01-01T10:00:03Z \nold\n'
    )
    assert parse_lines(text) == [
        LogLine("2026-01-01T10:00:01.5Z", "one"),
        LogLine("2026-01-01T10:00:03Z", ""),
        LogLine("", "old"),
    ]


@pytest.mark.parametrize(("complete", "texts"), [(True, ["one", "tw"]), (False, ["one"])])
def test_a_line_that_is_being_written_waits(complete, texts):
    assert [line.text for line in parse_lines("one\ntw", complete=complete)] == texts


def test_only_a_line_feed_ends_a_line():
    assert [line.text for line in parse_lines("a\x0bb\x85c\u2028d\re\n")] == ["a\x0bb\x85c\u2028d\re"]


def test_lines_can_be_written_again():
    assert parse_lines(stamped([A, LogLine("", "old"), B])) == [A, LogLine("", "old"), B]


LINES = [LogLine("", "head"), at(1), LogLine("", "more"), at(5), at(9)]
MOMENT = datetime(2026, 1, 1, 10, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "tail", "chosen"),
    [
        (None, None, LINES),
        (None, 2, LINES[3:]),
        (None, 0, []),
        (None, 100, LINES),
        (MOMENT, None, LINES[3:]),
        (MOMENT, 1, LINES[4:]),
        (MOMENT - timedelta(seconds=3), None, LINES[3:]),
        (MOMENT - timedelta(days=1), None, LINES[1:]),
        (MOMENT + timedelta(days=1), None, []),
    ],
)
def test_lines_are_chosen_by_time_and_number(since, tail, chosen):
    assert select(LINES, since, tail) == chosen


def test_a_log_without_times_cannot_be_cut_by_time():
    lines = [LogLine("", "a"), LogLine("", "b")]
    assert select(lines, MOMENT, 1) == lines[1:]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("1h0m1s", 3601), ("0s", 0), ("100000h", 360_000_000)],
)
def test_a_time_span_is_written_as_for_kubectl(text, seconds):
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "m", "s10", "-5m", "5 m", "1.5h", "1m1h", "5M", "\u0665m\n", "10m\n", "9999999999s", "1d"]
)
def test_what_is_no_time_span_is_refused(text):
    with pytest.raises(ValueError, match="such as 90s"):
        parse_duration(text)


def test_a_terminal_finds_nothing_to_obey():
    hostile = "\x1b[31mred\x1b[0m\r\x07\x9b2J\u202egnp.\u2028\u2066x\x00\ttab\nnext ü 実 👩‍💻"
    clean = printable_text(hostile)
    assert clean.isprintable() is False  # the line feed and the tab
    assert not set(clean) & set("\x1b\r\x07\x9b\u202e\u2028\u2066\x00")
    assert clean.endswith("x�\ttab\nnext ü 実 👩‍💻")


@pytest.mark.parametrize(
    ("content", "text", "cut"),
    [
        (b"ab\ncd\n", "ab\ncd\n", False),
        (b"xab\ncd\n", "cd\n", True),
        (b"one\nab\ncd\n", "cd\n", True),
        (b"nolinefeed", "", True),
        (b"\xff\n", "\ufffd\n", False),
    ],
)
def test_what_is_too_large_loses_its_beginning_and_no_half_line_stays(content, text, cut):
    assert last_lines(content, 6) == (text, cut)


# ---------------------------------------------------------------- the reader Job


def read(directory, name, limit=100):
    command = log_reader_command(name, limit)
    command[command.index("/results")] = str(directory)
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, timeout=30, check=True)
    return parse_log_file(done.stdout, name, limit)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "run-a").mkdir()
    return tmp_path


def test_the_reader_brings_a_log_to_the_byte(directory):
    (directory / "run-a" / "engine.log").write_text("one\ntwo ü\n")
    found = read(directory, "run-a")
    assert (found.text, found.cut) == ("one\ntwo ü\n", False)


@pytest.mark.parametrize(("size", "cut"), [(99, False), (100, False), (101, True), (5_000_000, True)])
def test_the_reader_brings_the_end_of_a_large_log(directory, size, cut):
    (directory / "run-a" / "engine.log").write_bytes((b"x" * 9 + b"\n") * (size // 10) + b"y" * (size % 10))
    found = read(directory, "run-a")
    assert found.cut == cut
    assert (size - size % 10 if not cut else 80) <= len(found.text) <= 100


def test_no_log_is_told_apart_from_one_that_cannot_be_read(directory):
    assert (read(directory, "run-a").text, read(directory, "run-a").message) == (None, "")
    (directory / "run-a" / "engine.log").symlink_to("/etc/passwd")
    found = read(directory, "run-a")
    assert found.text is None
    assert found.message.startswith("engine.log cannot be read")


@pytest.mark.parametrize("name", ["..", "a/b", "", "-x", "A"])
def test_a_directory_that_is_no_name_of_a_job_is_refused(name):
    with pytest.raises(ValueError, match="no name of a Job"):
        log_reader_command(name)


@pytest.mark.parametrize("printed", ["", "{", '{"run": "run-a"}', '{"run": "run-a", "content_base64": 5}'])
def test_a_reader_that_prints_nonsense_brings_nothing(printed):
    found = parse_log_file(printed, "run-a")
    assert found.text is None
    assert found.message


# ---------------------------------------------------------------- going on behind a line


MARKED = {
    "the line itself": ([A, B, C, D], B, [C, D]),
    "the last line": ([A, B], B, []),
    "of equal words the one at the same time": (
        [at(1, 0, "x"), at(2, 0, "x"), at(3, 0, "x")],
        at(2, 0, "x"),
        [at(3, 0, "x")],
    ),
    "of equal words at one time the last": ([at(1, 0, "x"), at(1, 0, "x"), B], at(1, 0, "x"), [B]),
    "the file has it a little earlier": (
        [at(1, 0, "x"), at(1, 10**6, "y")],
        at(1, 2 * 10**6, "x"),
        [at(1, 10**6, "y")],
    ),
    "the file has it a little later": ([at(1, 5 * 10**6, "x"), at(2, 0, "y")], at(1, 0, "x"), [at(2, 0, "y")]),
    "progress is indented in the pod": ([at(1, 0, '{"budeval": 1}'), C], at(1, 0, '  {"budeval": 1}'), [C]),
    "it is gone, and what is later counts": ([A, at(2, 7000)], at(2, 5000), [at(2, 7000)]),
    "it is gone, and so is all that is later": ([A, B], C, []),
    "equal words long ago are another line": ([at(1, 0, "x"), at(40, 0, "y")], at(30, 0, "x"), [at(40, 0, "y")]),
    "lines without a time stay with those before": ([A, LogLine("", "more"), C], A, [LogLine("", "more"), C]),
    "nothing is there": ([], A, []),
}


@pytest.mark.parametrize(("lines", "marked", "rest"), MARKED.values(), ids=MARKED)
def test_a_reader_goes_on_behind_the_line_that_it_has(lines, marked, rest):
    assert lines[behind_mark(lines, mark_of(marked)) :] == rest


def test_a_mark_has_a_time_and_no_word_of_the_line():
    mark = mark_of(LogLine("2026-01-01T12:00:02.123456789+02:00", "canary"))
    assert mark.startswith("2026-01-01T10:00:02.123456Z/")
    assert re.match(MARK_PATTERN, mark)
    assert (second_of(mark), second_of("")) == ("2026-01-01T10:00:02Z", None)


@pytest.mark.parametrize("stamp", ["", "yesterday", "2026-01-01T10:00:00", "0001-01-01T00:00:00+23:59"])
def test_a_line_without_a_usable_time_has_no_mark(stamp):
    assert mark_of(LogLine(stamp, "x")) == ""


def test_a_mark_that_is_no_time_says_nothing():
    assert behind_mark([A, B], f"2026-99-99T99:99:99.000000Z/{'0' * 16}") == 0

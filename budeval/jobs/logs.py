"""The engine's log as lines with their times: selected, and joined with what was read before. Pure.

A line of a pod's log begins with the time at which the node got it, a line of ``engine.log`` with the time at which the
engine wrote it. The content is a stranger's.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from budeval.jobs.models import Frozen

LOG_FILE = "engine.log"
"""What the engine leaves in the working directory of its run."""

MAXIMUM_ANSWER_BYTES = 4 * 1024 * 1024
"""Bytes of one answer: the newest ones of a log."""

PROGRESS_MARK = '{"budeval":'
"""How a line of progress begins, and by the engine's doing no other. They are for the monitor, and not in the file."""

SEAM_LINES = 20
"""So many lines in a row tell where in the file a pod's log ended."""

SAME_LINE_SECONDS = 5.0
"""The node and the engine write one line down at times that differ by less; neither is always the first."""

MARK_PATTERN = r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z/[0-9a-f]{16}$"
"""What marks look like."""

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) ?")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DURATION = re.compile(r"(?=\d)(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s)?")


class LogLine(NamedTuple):
    """One line, and its time as it was written down; empty: none was."""

    at: str
    text: str


class PodLog(Frozen):
    """What could be read of the log of one pod."""

    name: str
    started: bool
    ended: bool
    """Nothing will be added any more."""
    text: str | None = None
    """None: it cannot be had."""
    message: str = ""
    """Why it cannot be had."""
    cut: bool = False
    """What came before was left out."""


class LogFile(Frozen):
    """What was read of ``engine.log``."""

    text: str | None = None
    """None: there is none."""
    message: str = ""
    """Why it cannot be read; empty: there is no such file."""
    cut: bool = False


class LogPosition(Frozen):
    """How far a log was read."""

    pod: str | None = None
    """The pod that was read last."""
    since: str | None = None
    """The second of the last line, which is as exact as a log can be asked for."""
    last_second: tuple[LogLine, ...] = ()
    """Lines that were read and will be in an answer to ``since`` again."""
    last_texts: tuple[str, ...] = ()
    """The last lines that were read, to be found again in the file."""


def parse_duration(text: str) -> timedelta:
    """A time span as kubectl's ``--since`` takes it: ``90s``, ``10m``, ``1h30m``. Raises ``ValueError``."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("must be a time span such as 90s, 10m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def log_file(content: bytes, limit: int) -> LogFile:
    """The last ``limit`` bytes of a file, of which at least one more was read where there are more."""
    text, cut = last_lines(content, limit)
    return LogFile(text=text, cut=cut)


def last_lines(content: bytes, limit: int) -> tuple[str, bool]:
    """The whole lines in the last ``limit`` bytes, and whether that is not all."""
    if len(content) <= limit:
        return content.decode(errors="replace"), False
    # Half a line could be the second half of a secret.
    return content[-limit:].partition(b"\n")[2].decode(errors="replace"), True


def parse_lines(text: str, *, complete: bool = True) -> list[LogLine]:
    """Lines of a log, without those of progress.

    ``complete``: the log has ended. Otherwise its last line without a line feed is still being written, and left out.
    """
    *lines, rest = text.split("\n")
    if rest and complete:
        lines.append(rest)
    return [line for line in map(_parse_line, lines) if not line.text.startswith(PROGRESS_MARK)]


def _parse_line(line: str) -> LogLine:
    match = _STAMP.match(line)
    return LogLine("", line) if match is None else LogLine(match[1], line[match.end() :])


def stamped(lines: Sequence[LogLine]) -> str:
    """The reverse of :func:`parse_lines`."""
    return "".join(f"{at} {text}\n" if at else f"{text}\n" for at, text in lines)


def select(lines: Sequence[LogLine], since: datetime | None, tail: int | None) -> list[LogLine]:
    """Lines not older than ``since``, of these the last ``tail``. One without a time is as old as the one before."""
    chosen = list(lines if since is None else lines[_first_since(lines, since) :])
    return chosen if tail is None else chosen[max(0, len(chosen) - tail) :]


def _first_since(lines: Sequence[LogLine], since: datetime) -> int:
    for position, line in enumerate(lines):
        moment = _moment(line.at)
        if moment is not None and moment >= since:
            return position
    # A log in which no line has a time cannot be cut by it.
    return len(lines) if any(line.at for line in lines) else 0


def printable_text(text: str) -> str:
    """Foreign text without characters that a terminal would obey; line feeds and tabs stay."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def unread(read: Sequence[LogLine], again: Sequence[LogLine]) -> list[LogLine]:
    """What is new in ``again``, which was asked for from the second on whose lines ``read`` holds.

    A log only grows, so that ``again`` begins with ``read``; where the node has begun a new file meanwhile, what was
    read last is looked for, and where that is gone too, everything is new.
    """
    if list(again[: len(read)]) == list(read):
        return list(again[len(read) :])
    for position in range(len(again) - 1, -1, -1):
        if again[position] == read[-1]:
            return list(again[position + 1 :])
    return list(again)


def advanced(position: LogPosition, pod: str, fresh: Sequence[LogLine]) -> LogPosition:
    """The position behind ``fresh`` lines of a pod."""
    known = position.last_second if position.pod == pod else ()
    seconds = [(_whole_second(line.at), line) for line in (*known, *fresh)]
    since = max((second for second, _ in seconds), default="")
    return LogPosition(
        pod=pod,
        since=since or None,
        last_second=tuple(line for second, line in seconds if second == since),
        last_texts=(*position.last_texts, *(line.text for line in fresh))[-SEAM_LINES:],
    )


def behind_seam(last_texts: Sequence[str], lines: Sequence[LogLine]) -> tuple[list[LogLine], bool]:
    """Lines of the file behind those that were read from a pod; whether the place was found.

    Where it was not, all lines are answered if nothing was read, else none.
    """
    seam = [_plain(text) for text in last_texts]
    if not seam:
        return list(lines), True
    texts = [_plain(line.text) for line in lines]
    for end in range(len(texts), len(seam) - 1, -1):
        if texts[end - len(seam) : end] == seam:
            return list(lines[end:]), True
    return [], False


def mark_of(line: LogLine) -> str:
    """What a reader remembers of the last line that it has: its time, and a digest of its text. Empty: it has none."""
    moment = _moment(line.at)
    if moment is None or moment.year < 2000:
        return ""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}/{_digest(line)}"


def second_of(mark: str) -> str | None:
    """The second of the line that is marked, as :class:`LogPosition` has it."""
    return _whole_second(mark.partition("/")[0]) or None


def behind_mark(lines: Sequence[LogLine], mark: str) -> int:
    """Position of the first line behind the one that is marked, in whichever place the log is read now.

    Of those with the same text it is the nearest in time; where none is near, what is later than the mark is behind it.
    """
    at, _, digest = mark.partition("/")
    marked = _moment(at)
    if marked is None:
        return 0
    moments = [_moment(line.at) for line in lines]
    near = [
        (abs((moment - marked).total_seconds()), -position)
        for position, (line, moment) in enumerate(zip(lines, moments, strict=True))
        if moment is not None and _digest(line) == digest
    ]
    if near and min(near)[0] <= SAME_LINE_SECONDS:
        return 1 - min(near)[1]
    later = (position for position, moment in enumerate(moments) if moment is not None and moment > marked)
    return next(later, len(lines))


def _digest(line: LogLine) -> str:
    return hashlib.sha256(_plain(line.text).encode()).hexdigest()[:16]


def _plain(text: str) -> str:
    # On standard output, a line that looks like progress is indented.
    return text.strip()


def _whole_second(stamp: str) -> str:
    moment = _moment(stamp)
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(stamp: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None

"""Progress: what is worked on, how far it is and how long it has taken, in lines that fit."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from dev.console import Line

WIDTH = 80
LONG = "containerd runc containernetworking-plugins and another twenty packages with long names " * 2


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "build.log"


def test_a_line_says_what_how_far_and_how_long(log: Path) -> None:
    current = Line("build dapr")
    current.note, current.log = "daprd (1 of 3)", log
    log.write_text("go: downloading example.com/one v1\ngo: downloading example.com/two v2\n\n")

    shown = current.render("...")

    assert shown.startswith("  build dapr ")
    assert " s  daprd (1 of 3)  go: downloading example.com/two v2" in shown


def test_steps_are_counted_in_the_log(log: Path) -> None:
    current = Line("install")
    current.log, current.step, current.steps = log, "Collecting", 3
    log.write_text("Collecting one\n  Downloading one\nCollecting two\n")

    assert " s  2 of 3  Collecting two" in current.render("...")


def test_what_is_done_does_not_show_the_log(log: Path) -> None:
    current = Line("build dapr")
    current.log = log
    log.write_text("the last line\n")

    assert current.render("ready").endswith(" s")


def test_a_log_that_is_not_there_yet_or_empty_says_nothing(log: Path) -> None:
    current = Line("build dapr")
    current.log = log
    assert current.render("...").endswith(" s")
    log.write_text("\n")
    assert current.render("...").endswith(" s")


def test_a_log_cannot_command_the_terminal(log: Path) -> None:
    current = Line("build dapr")
    current.log = log
    log.write_bytes(b"10%\r\x1b[2J\x1b]0;title\x07 20%\xff\n")

    assert current.render("...").isprintable()


def test_a_line_is_cut_where_the_terminal_ends() -> None:
    """A line that is redrawn must not wrap: only its last part would be cleared."""
    program = f"with console.line('install {LONG}') as line: line.note = {LONG!r}; time.sleep(0.5)"

    drawn = drawn_by(program)

    assert len(drawn) > 2
    assert all(len(part) < WIDTH for part in drawn[:-1]), drawn
    assert "ready" in drawn[-1]
    assert LONG.strip() not in "".join(drawn)


def test_of_two_lines_at_once_a_terminal_shows_the_one_that_began_last() -> None:
    program = """
with console.line("first"):
    time.sleep(0.3)
    with console.line("second"):
        time.sleep(0.5)
    time.sleep(0.3)
"""

    names = [part.split()[0] for part in drawn_by(program)]

    # The tick under way when the second begins may still be the first's.
    assert names[0] == names[-1] == "first"
    assert names.count("second") > 2
    both = names[names.index("second") : len(names) - names[::-1].index("second")]
    assert both.count("first") <= 1


def drawn_by(program: str) -> list[str]:
    """Everything a program draws on a terminal, line over line."""
    begin = "import time; from dev import console; console.REDRAW_SECONDS = 0.05\n"
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, WIDTH))
    command = [sys.executable, "-c", begin + program]
    with subprocess.Popen(command, stdout=follower, stderr=follower, cwd=Path.cwd()) as process:
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 4096):
                shown += chunk
        except OSError:
            pass  # the other end is closed
    os.close(leader)
    assert process.returncode == 0, shown
    return [part for part in shown.decode().replace("\033[2K", "").replace("\n", "\r").split("\r") if part]

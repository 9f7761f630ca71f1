"""How a command of the stack ends: in words, and tidy."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dev.command_line import exit_code
from dev.errors import StackError


@pytest.fixture(autouse=True)
def signals() -> object:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def fail(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StackError("the reason"), 1, "error: the reason"),
        (OSError(28, "No space left on device", "/state/env"), 1, "No space left on device: '/state/env'"),
        (PermissionError(13, "Permission denied", "/state"), 1, "Permission denied: '/state'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_goes_wrong_is_told_in_words(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(lambda: fail(error)) == code
    assert words in capsys.readouterr().err


def test_a_killed_command_tidies_up(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from dev.command_line import exit_code\n"
        "def action():\n"
        "    try:\n"
        "        Path(sys.argv[1]).touch(); time.sleep(60)\n"
        "    finally:\n"
        "        Path(sys.argv[1]).unlink()\n"
        "sys.exit(exit_code(action))"
    )
    file = tmp_path / "there"
    with subprocess.Popen([sys.executable, "-c", program, file], cwd=Path.cwd()) as process:
        while not file.exists():
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGTERM)

    assert process.returncode == 130
    assert not file.exists()

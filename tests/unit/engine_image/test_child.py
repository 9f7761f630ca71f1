"""The child process: its output, its events, and what its end means. The children here are a few lines of Python."""

import io
import os
import sys
from pathlib import Path

import pytest
from budeval_engine.child import Child
from budeval_engine.events import ChildState
from budeval_engine.logbook import Logbook
from budeval_engine.outcome import EngineError, Reason
from budeval_engine.progress import Progress

FAIL = """
send('{"event": "failure", "reason": "ModelNotFound", "message": "m", "permanent": true}')
sys.exit(1)
"""
SEND = "import os, sys; send = lambda line: os.write(int(os.environ['BUDEVAL_EVENTS']), line.encode() + b'\\n')\n"


def follow(code: str, folder: Path) -> tuple[ChildState, str]:
    """Run `code` as a child to its end; return what was learned and said."""
    console = io.StringIO()
    child = Child([sys.executable, "-c", SEND + code], dict(os.environ), str(folder))
    with Logbook(folder / "engine.log", "", console) as logbook:
        child.follow(logbook, Progress(logbook.progress))
    return child.state, console.getvalue()


def test_output_becomes_log_and_events_become_state(tmp_path: Path) -> None:
    code = """
send('{"event": "questions", "datasets": {"siqa": 2}}')
print("one\\rtwo"); print("error", file=sys.stderr)
send('{"event": "done", "done": 2}')
"""
    state, said = follow(code, tmp_path)
    assert (state.done, state.total) == (2, 2)
    assert {"one", "two", "error"} <= set(said.splitlines())


def test_everything_said_right_before_the_end_is_kept(tmp_path: Path) -> None:
    _, said = follow("print('x' * 100_000); print('last')", tmp_path)
    assert "last" in said.splitlines()


def test_a_key_across_the_cut_of_an_endless_line_is_not_shown_in_part(tmp_path: Path) -> None:
    code = "[os.write(1, piece.encode()) for piece in ('x' * 65_530, 'sk-canary', '-of-a-key', 'y' * 70_000)]"
    _, said = follow(code + "; print(); print('last')", tmp_path)
    assert "canary" not in said
    assert "of-a-key" not in said
    assert "last" in said.splitlines()


@pytest.mark.parametrize(
    ("code", "reason", "permanent"),
    [
        ("os.kill(os.getpid(), 9)", Reason.OUT_OF_MEMORY, False),
        ("os.kill(os.getpid(), 11)", Reason.ENGINE_FAILED, False),
        ("sys.exit(3)", Reason.ENGINE_FAILED, False),
        (FAIL, Reason.MODEL_NOT_FOUND, True),
    ],
)
def test_the_end_of_the_child_tells_the_reason(tmp_path: Path, code: str, reason: Reason, permanent: bool) -> None:
    with pytest.raises(EngineError) as caught:
        follow(code, tmp_path)
    assert (caught.value.reason, caught.value.permanent) == (reason, permanent)


def test_a_grandchild_that_keeps_the_output_open_does_not_hold_the_run(tmp_path: Path) -> None:
    state, _ = follow("import subprocess; subprocess.Popen(['sleep', '3'])", tmp_path)
    assert state.failure is None

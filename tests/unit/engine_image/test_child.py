"""The child process: its output, its events, and what its end means. The children here are a few lines of Python."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from budeval_engine import child as child_module
from budeval_engine.child import Child
from budeval_engine.events import ChildState
from budeval_engine.logbook import Logbook
from budeval_engine.outcome import EngineError, Reason
from budeval_engine.progress import Progress

ENGINE = Path(child_module.__file__).parents[1]

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


def test_a_grandchild_that_never_stops_talking_does_not_hold_the_run(tmp_path: Path) -> None:
    code = "import subprocess; print(subprocess.Popen(['timeout', '20', 'yes', 'x' * 1000]).pid, flush=True)"
    _, said = follow(code, tmp_path)
    talker = next(int(line) for line in said.splitlines() if line.isdigit())
    assert Path(f"/proc/{talker}").exists()
    os.kill(talker, signal.SIGKILL)


def test_the_secret_comes_on_the_input_and_not_in_the_environment(tmp_path: Path) -> None:
    console = io.StringIO()
    code = "print(sys.stdin.read() == 'sk-canary', b'sk-canary' in open('/proc/self/environ', 'rb').read())"
    child = Child([sys.executable, "-c", SEND + code], dict(os.environ), str(tmp_path), "sk-canary")
    with Logbook(tmp_path / "engine.log", "", console) as logbook:
        child.follow(logbook, Progress(logbook.progress))
    assert "True False" in console.getvalue().splitlines()


def test_a_child_that_is_told_to_stop_and_does_not_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_SECONDS_TO_STOP", 0.1)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(30)"
    )
    child = Child([sys.executable, "-c", SEND + code], dict(os.environ), str(tmp_path))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    child.forward_signals()

    class Telling(io.StringIO):
        def write(self, text: str) -> int:
            if "deaf" in text:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().write(text)

    try:
        with Logbook(tmp_path / "engine.log", "", Telling()) as logbook, pytest.raises(EngineError) as caught:
            child.follow(logbook, Progress(logbook.progress))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (caught.value.reason, caught.value.exit_code) == (Reason.ENGINE_FAILED, 20)
    assert "SIGTERM" in caught.value.message


def test_a_hidden_process_can_not_be_looked_into() -> None:
    code = "import ctypes, budeval_engine.secrecy as it; it.hide_process(); print(ctypes.CDLL(None).prctl(3))"
    environment = {**os.environ, "PYTHONPATH": str(ENGINE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"

"""Running the evaluation as a child process: its log, its events, its end."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from types import FrameType

from budeval_engine.events import DESCRIPTOR, ChildState
from budeval_engine.logbook import Logbook
from budeval_engine.outcome import EngineError, Reason
from budeval_engine.progress import Progress

# Kubernetes gives 30 seconds after SIGTERM; what the child still does with them is write the line it is at.
_SECONDS_TO_STOP = 10.0
_POLL_SECONDS = 0.2
_CHUNK = 65_536
# A pipe holds as much as one chunk, and the first may have been begun before the end.
_LAST_CHUNKS = 2


class Child:
    """The child process of one attempt."""

    def __init__(self, command: list[str], environment: Mapping[str, str], cwd: str, secret: str = "") -> None:
        """Start `command`; it gets the environment, a pipe for events, and `secret` on its standard input alone."""
        self.state = ChildState()
        self._events, child_end = os.pipe()
        self._process = subprocess.Popen(
            command,
            env={**environment, DESCRIPTOR: str(child_end)},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(child_end,),
        )
        os.close(child_end)
        self._hand_over(secret)
        self._stopped_by = 0
        self._stop_at = float("inf")

    def _hand_over(self, secret: str) -> None:
        """Write `secret`, which fits into the pipe, and end the input."""
        assert self._process.stdin is not None  # noqa: S101  (for the type checker: it is a pipe)
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(secret.encode())

    def forward_signals(self) -> None:
        """Hand SIGTERM and SIGINT on to the child, which is killed when it has not ended 10 seconds later."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        self._stopped_by = number
        self._stop_at = time.monotonic() + _SECONDS_TO_STOP
        self._process.send_signal(signal.SIGTERM)

    def follow(self, logbook: Logbook, progress: Progress) -> None:
        """Copy log and events until the child ends; raises EngineError unless it ended well."""
        output = self._process.stdout
        assert output is not None  # noqa: S101  (for the type checker: it is a pipe)
        with output, os.fdopen(self._events, "rb", buffering=0) as events, selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ, (_Lines(), logbook.line))
            selector.register(events, selectors.EVENT_READ, (_Lines(), self.state.apply))
            while self._process.poll() is None:
                self._copy(selector, _POLL_SECONDS)
                progress.tell(self.state.phase, self.state.done, self.state.total)
                if time.monotonic() > self._stop_at:
                    self._process.kill()
            # A process that the child left behind may go on talking: what the child itself said is in the pipes by now.
            for _ in range(_LAST_CHUNKS):
                if not self._copy(selector, 0.0):
                    break
        progress.tell(self.state.phase, self.state.done, self.state.total)
        self._raise_unless_complete(self._process.returncode)

    @staticmethod
    def _copy(selector: selectors.BaseSelector, seconds: float) -> bool:
        """Wait for output and pass it on; tell whether there was any."""
        some = False
        for key, _ in selector.select(seconds):
            chunk = os.read(key.fd, _CHUNK)
            if not chunk:
                selector.unregister(key.fileobj)
            some = some or bool(chunk)
            lines, take = key.data
            for line in lines.add(chunk):
                take(line)
        if not some and not selector.get_map():
            time.sleep(seconds)
        return some

    def _raise_unless_complete(self, status: int) -> None:
        if self._stopped_by:
            name = signal.Signals(self._stopped_by).name
            raise EngineError(Reason.ENGINE_FAILED, f"The run was stopped by {name}; answers so far are kept.")
        if self.state.failure is not None:
            raise self.state.failure
        if status == -signal.SIGKILL:
            raise EngineError(
                Reason.OUT_OF_MEMORY,
                "OpenCompass was killed, as the kernel does when a container needs more memory than its limit. "
                "Answers so far are kept; raise the memory limit if it happens again.",
            )
        if status != 0:
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            raise EngineError(Reason.ENGINE_FAILED, f"OpenCompass ended {how} and said no reason; see engine.log.")


class _Lines:
    """Cuts a stream of bytes into lines, and keeps the beginning alone of one that is longer than 64 KiB."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, chunk: bytes) -> list[str]:
        *lines, self._rest = (self._rest + chunk.replace(b"\r", b"\n")).split(b"\n")
        # The rest of a long line as a line of its own could begin in the middle of a key, which nobody would recognise.
        self._rest = self._rest[: _CHUNK + 1]
        return [line.decode("utf-8", "replace") for line in lines if line.strip()]


def evaluation_command() -> list[str]:
    """Return the command of the evaluation; nothing about the run is in it."""
    return [sys.executable, "-m", "budeval_engine.evaluation"]

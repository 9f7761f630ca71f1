"""Running other programs: always bounded, and a failure carries the command and the end of its output."""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.errors import StackError

SHOWN_LOG_LINES = 40


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> str:
    """Run a command and return its standard output.

    Args:
        timeout: seconds after which the command is killed.

    Raises:
        StackError: it failed, was not found, or took too long.
    """
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=timeout, env=env, cwd=cwd, input=stdin, check=False
        )
    except FileNotFoundError as error:
        raise StackError(f"The program {arguments[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise StackError(f"No end after {timeout:.0f} s: {shlex.join(arguments)}") from error
    if done.returncode != 0:
        raise StackError(failure(arguments, done.returncode, done.stderr or done.stdout))
    return done.stdout


def run_logged(
    command: Sequence[str | Path],
    log: Path,
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a long command with its output going to a file.

    Raises:
        StackError: it failed or took too long; the message has the command, the log's path and its end.
    """
    arguments = [str(part) for part in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("w") as output:
            done = subprocess.run(
                arguments,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=timeout,
                env=env,
                cwd=cwd,
                check=False,
            )
    except FileNotFoundError as error:
        raise StackError(f"The program {arguments[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise StackError(f"No end after {timeout:.0f} s: {shlex.join(arguments)}\nLog: {log}") from error
    if done.returncode != 0:
        raise StackError(f"{failure(arguments, done.returncode, log.read_text(errors='replace'))}\nLog: {log}")


def failure(command: Sequence[str], returncode: int, output: str) -> str:
    """The message for a failed command: what ran, its exit code, the end of what it said."""
    tail = "\n".join(output.strip().splitlines()[-SHOWN_LOG_LINES:])
    return f"Exit code {returncode} from: {shlex.join(command)}\n{tail}"

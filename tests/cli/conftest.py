import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pexpect
import pytest

from budeval.client import Client
from tests.api.conftest import serve, service, shared
from tests.client.service import url_of

__all__ = ["serve", "service", "shared"]

SECONDS = 30
COLUMNS = 160


@pytest.fixture
def environment(service, tmp_path):
    """What the command finds: a service, and a home of its own."""
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    return {
        **inherited,
        "HOME": str(tmp_path),
        "TERM": "xterm-256color",
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "error",
        "BUDEVAL_SERVER": url_of(service),
        "OUR_KEY": "sk-canary-of-a-key",
    }


@pytest.fixture
def client(service):
    with Client(url_of(service)) as client:
        yield client


@pytest.fixture
def pipe(environment):
    """Runs a command in a pipe."""

    def run(*arguments, given="", **changes):
        command = [sys.executable, "-m", "budeval.cli", *map(str, arguments)]
        done = subprocess.run(
            command,
            check=False,
            input=given,
            env={**environment, **changes},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return SimpleNamespace(
            code=done.returncode, out=done.stdout, err=done.stderr, json=lambda: json.loads(done.stdout)
        )

    return run


@pytest.fixture
def start_in_pipe(environment):
    """Starts a command in a pipe."""
    running = []

    def start(*arguments):
        command = [sys.executable, "-m", "budeval.cli", *map(str, arguments)]
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate(timeout=SECONDS)


@pytest.fixture
def terminal(environment):
    """Starts a command in a pseudo-terminal."""
    running = []

    def start(*arguments, **changes):
        command = ["-m", "budeval.cli", *map(str, arguments)]
        child = pexpect.spawn(
            sys.executable,
            command,
            env={**environment, **changes},
            encoding="utf-8",
            timeout=SECONDS,
            dimensions=(50, COLUMNS),
        )
        running.append(child)
        return child

    yield start
    for child in running:
        child.close(force=True)


def ended(child):
    """Output and exit code of a command in a pseudo-terminal that is about to end."""
    child.expect(pexpect.EOF)
    child.close()
    assert "Traceback" not in child.before
    return child.before, child.exitstatus

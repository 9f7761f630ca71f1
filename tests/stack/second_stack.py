"""A second stack beside the one in use, driven by its command line."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("redis", "dapr", "api", "node")


@dataclass(frozen=True)
class SecondStack:
    """A stack driven as a user does: by its command line."""

    state: Path
    port_base: int

    @property
    def environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if name != "KUBECONFIG" and "BUDEVAL" not in name
        }
        cache = {name: os.environ[name] for name in ("BUDEVAL_CACHE",) if name in os.environ}
        own = {"BUDEVAL_STATE_DIR": str(self.state), "BUDEVAL_PORT_BASE": str(self.port_base), "BUDEVAL_DAPR": "own"}
        return {**inherited, **cache, **own}

    def dev(self, *arguments: str, timeout: float = 240, **extra: str) -> str:
        command = [sys.executable, "-m", "dev", *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **extra},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def up(self) -> str:
        return self.dev("up", *GROUPS)

    def status(self) -> dict[str, dict[str, Any]]:
        return {line["name"]: line for line in json.loads(self.dev("status", "--json"))}

    def started(self) -> dict[str, dict[str, Any]]:
        return {name: line for name, line in self.status().items() if name not in {"model", "daprd", "budeval"}}

    def kubectl(
        self, *arguments: str, stdin: str | None = None, kubeconfig: str = "admin"
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl from the PATH that `up` wrote for shells."""
        command = [
            "bash", "-c", f'. {self.state}/env && exec kubectl "$@"', "bash",
            f"--kubeconfig={self.state}/kubernetes/{kubeconfig}.kubeconfig", *arguments,
        ]  # fmt: skip
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, input=stdin, timeout=60, check=False
        )


def eventually(what: str, holds: Callable[[], bool], timeout: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.2)

"""Running the engine as the container does, outside of one."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "sk-canary-5b0d1e7f"
ENGINE = Path(__file__).resolve().parents[2] / "engines" / "opencompass"
TIMEOUT_SECONDS = 200.0


@dataclass(frozen=True)
class Ended:
    """What an attempt left behind."""

    exit_code: int
    stdout: str
    termination: Mapping[str, Any]

    @property
    def reason(self) -> str:
        return str(self.termination["reason"])

    @property
    def progress(self) -> list[tuple[str, int, int]]:
        """The progress lines."""
        lines = [json.loads(line) for line in self.stdout.splitlines() if line.startswith('{"budeval":')]
        assert all(line.pop("budeval") == "progress" for line in lines)
        return [(line["phase"], line["done"], line["total"]) for line in lines]


@dataclass(frozen=True)
class Engine:
    """The engine with one workspace: every `run` is one more attempt at the same run."""

    python: Path
    home: Path
    data: Path
    tokenizer: Path

    @property
    def workspace(self) -> Path:
        return self.home / "workspace"

    @property
    def result(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.workspace / "result.json").read_text())
        return document

    def run(self, endpoint: str, **changes: Any) -> Ended:
        """Run one attempt to its end."""
        with self.running(endpoint, **changes) as process:
            output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        return self.ended(process.returncode, output)

    def ended(self, exit_code: int, output: str) -> Ended:
        return Ended(exit_code, output, json.loads((self.home / "termination").read_text()))

    @contextmanager
    def running(self, endpoint: str, **changes: Any) -> Iterator[subprocess.Popen[str]]:
        """Start one attempt and make sure that it is over in the end."""
        self.workspace.mkdir(exist_ok=True)
        scratch = self.home / "tmp"
        scratch.mkdir(exist_ok=True)
        configuration = self.home / "run.json"
        configuration.write_text(json.dumps(run_configuration(endpoint, **changes)))
        (self.home / "termination").unlink(missing_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "PYTHONPATH": f"{ENGINE}:{ENGINE / 'torch_stand_in'}",
            "OPENAI_API_KEY": KEY,
            "COMPASS_DATA_CACHE": str(self.data),
            "BUDEVAL_RUN_CONFIG": str(configuration),
            "BUDEVAL_WORKSPACE": str(self.workspace),
            "BUDEVAL_TOKENIZER": str(self.tokenizer),
            "BUDEVAL_TERMINATION_LOG": str(self.home / "termination"),
        }
        command = [str(self.python), "-m", "budeval_engine"]
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def run_configuration(endpoint: str, **changes: Any) -> dict[str, Any]:
    """The mounted file: six questions of Social IQa, one at a time, with some fields changed."""
    model = {"name": changes.pop("model", "test-model"), "endpoint": endpoint}
    parameters = {"query_per_second": 1000, "max_out_len": 16, "batch_size": 1, "retry": 0, "timeout": 20}
    return {
        "schema": 1,
        "eval_id": "11111111-1111-4111-8111-111111111111",
        "run_id": "22222222-2222-4222-8222-222222222222",
        "dataset_id": "siqa_gen",
        "model": model,
        "parameters": {**parameters, **changes.pop("parameters", {})},
        "max_questions": 6,
        **changes,
    }


def children(pid: int) -> list[int]:
    """The processes that `pid` started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_lines() -> list[str]:
    """The arguments of every process of this machine."""
    lines: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_text(errors="replace"))
    return lines


def wait_until(condition: Any, seconds: float = 120.0) -> None:
    """Wait for `condition()`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def files_with(text: str, folder: Path) -> list[Path]:
    """The files below `folder` that hold `text`."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]

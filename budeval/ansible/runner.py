"""Runs playbooks: the only door to ansible-runner.

Each run has a directory of its own on a tmpfs, mode 0700, with the request and the kubeconfig as files of mode 0600; it
is gone when the run has ended, however it ended. Nothing a user chose reaches Ansible as a variable, which would be
a template that runs on this host: the only variables are two paths made here. The processes get an environment of
allow-listed names, since any process of the same user can read it.

ansible-runner starts the playbook by ``subprocess`` instead of its default, a pseudo terminal: forking a process
full of threads (gRPC's among them) to get a terminal can deadlock the child, and nothing here needs a terminal.
"""

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ansible_runner
import psutil
import structlog
import yaml
from ansible_runner.interface import init_runner
from pydantic import BaseModel

from budeval.ansible.failures import TaskFailure, playbook_error
from budeval.ansible.kubeconfig import InvalidKubeconfig, in_cluster_kubeconfig, parse_kubeconfig, secrets_of
from budeval.commons.errors import ClusterNotReady, PlaybookCancelled, PlaybookFailed, PlaybookTimeout, TemporaryError
from budeval.commons.redaction import redactor
from budeval.commons.settings import Settings, StartRefused, setting

PACKAGE = Path(__file__).resolve().parent
PLAYBOOKS = PACKAGE / "playbooks"
COLLECTION = Path(sysconfig.get_path("purelib"), "ansible_collections", "kubernetes", "core")
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

STATISTIC = "budeval"
"""Name under which a playbook hands over its answer."""

POLL_SECONDS = 0.1
"""Between two looks at whether a run is done, cancelled or late."""

_MARKER = "AWX_ISOLATED_DATA_DIR"
"""Set by ansible-runner to a path inside the run's directory, and inherited by all that a playbook starts. Workers of
ansible-core call setsid, so that neither a process group nor a parent id finds them all."""

_KEPT_VARIABLES = ("HOME", "TZ", "AWX_ISOLATED_DATA_DIR", "ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_STDOUT_CALLBACK")
_MAXIMUM_EVENT_CHARACTERS = 50_000_000
"""ansible-runner replaces a larger result by an empty one without a word; its default of 700,000 is about 300 Jobs."""

logger = structlog.get_logger(__name__)


class _Output:
    """What the events of one run say; nothing of it is kept by ansible-runner."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = None
        self.failures: list[TaskFailure] = []
        self.tail: list[str] = []

    def take(self, event: dict[str, Any]) -> bool:
        """Event handler of ansible-runner. False: no file is written."""
        data = event.get("event_data") or {}
        match event.get("event"):
            case "playbook_on_stats":
                self.answer = (data.get("artifact_data") or {}).get(STATISTIC)
            case "runner_on_failed" | "runner_on_unreachable":
                self.failures.append(_failure(data))
            case "verbose":
                self.tail = [*self.tail, str(event.get("stdout", ""))][-5:]
        return False


class PlaybookRunner:
    """Runs playbooks, a few at once."""

    def __init__(self, settings: Settings) -> None:
        """Make the directory of the runs, and clear what an earlier process that was killed left behind.

        Raises:
            StartRefused: Ansible or the kubeconfig cannot be used, or the directory is not this user's alone.
        """
        _check_installation()
        self._kubeconfig = settings.kubeconfig
        if self._kubeconfig is not None:
            with setting("BUDEVAL_KUBECONFIG", self._kubeconfig):
                _check_kubeconfig(self._kubeconfig)
        with setting("BUDEVAL_PLAYBOOK_RUN_DIR"):
            self._directory = _private_directory(settings.playbook_run_dir)
        self._slots = threading.BoundedSemaphore(settings.playbook_concurrency)
        self._stopping = threading.Event()
        _clear_leftovers(self._directory)

    def run(
        self,
        playbook: str,
        request: BaseModel | Mapping[str, Any],
        kubeconfig: str | None,
        *,
        timeout_seconds: float,
        cancelled: Callable[[], bool] = lambda: False,
        mostly_waits: bool = False,
    ) -> dict[str, Any]:
        """Run a playbook and bring back what it set as the statistic ``budeval``.

        Args:
            playbook: file name under ``playbooks/``.
            request: what the playbook finds in the file ``request_file``.
            kubeconfig: text of a kubeconfig; None means the service's own cluster.
            timeout_seconds: seconds for the run itself, not for waiting until a place is free.
            cancelled: asked about ten times a second; its exceptions end the run too.
            mostly_waits: it takes no place from those that keep evaluations going; the caller bounds their number.

        Raises:
            ClusterUnreachable, ClusterUnauthorized, PlaybookFailed: see ``failures.playbook_error``. The last one also
                where ``kubeconfig`` cannot be used: a later version may take less than the one that took it.
            PlaybookTimeout, PlaybookCancelled: no process of the run is left.
            TemporaryError: the service is stopping.
        """
        parsed = _parsed(kubeconfig) if kubeconfig else None
        secrets = secrets_of(parsed) if parsed else []
        place = contextlib.nullcontext() if mostly_waits else self._slot(cancelled)
        with place, self._run_directory() as directory, redactor.hiding(*secrets):
            files = {
                "request_file": _write(directory / "request.json", _json(request)),
                "kubeconfig_file": self._kubeconfig_file(directory, parsed),
            }
            output = self._supervise(_prepared(playbook, directory, files), directory, timeout_seconds, cancelled)
            return _answer(playbook, *output)

    def terminate_all(self) -> None:
        """End every playbook that runs, at once, and refuse new ones."""
        self._stopping.set()
        _kill_processes(f"{self._directory}/{_owner()}-")

    @contextlib.contextmanager
    def _slot(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        while not self._slots.acquire(timeout=POLL_SECONDS):
            self._check(cancelled)
        try:
            self._check(cancelled)
            yield
        finally:
            self._slots.release()

    @contextlib.contextmanager
    def _run_directory(self) -> Iterator[Path]:
        # Made again where something that tidies temporary files took it away.
        directory = Path(tempfile.mkdtemp(prefix=f"{_owner()}-", dir=_private_directory(self._directory)))
        try:
            yield directory
        finally:
            _kill_processes(str(directory))
            shutil.rmtree(directory, ignore_errors=True)

    def _kubeconfig_file(self, directory: Path, parsed: dict[str, Any] | None) -> str:
        if parsed is not None:
            return _write(directory / "kubeconfig", _json(parsed))
        if self._kubeconfig is not None:
            return str(self._kubeconfig.resolve())
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ClusterNotReady("no cluster is known: set BUDEVAL_KUBECONFIG, or run the service in a pod")
        return _write(directory / "kubeconfig", _json(in_cluster_kubeconfig(host, port, str(SERVICE_ACCOUNT))))

    def _supervise(
        self, prepared: ansible_runner.Runner, directory: Path, timeout_seconds: float, cancelled: Callable[[], bool]
    ) -> tuple[ansible_runner.Runner, _Output]:
        output = _Output()
        prepared.event_handler = output.take
        deadline = time.monotonic() + timeout_seconds
        with ThreadPoolExecutor(1, thread_name_prefix="playbook") as pool:
            future = pool.submit(prepared.run)
            try:
                self._watch(future, deadline, timeout_seconds, cancelled)
            finally:
                while not future.done():
                    _kill_processes(str(directory))
                    time.sleep(POLL_SECONDS)
        future.result()
        return prepared, output

    def _watch(
        self, future: Future[Any], deadline: float, timeout_seconds: float, cancelled: Callable[[], bool]
    ) -> None:
        while not _done(future):
            self._check(cancelled)
            if time.monotonic() > deadline:
                raise PlaybookTimeout(f"the playbook was ended after {timeout_seconds:g} s")
        if self._stopping.is_set():
            # It may have been killed; whether it was is not worth finding out, the step runs again.
            self._check(cancelled)

    def _check(self, cancelled: Callable[[], bool]) -> None:
        if self._stopping.is_set():
            raise TemporaryError("the step runs again when the service is back", title="Service is stopping")
        if cancelled():
            raise PlaybookCancelled("the evaluation was cancelled while a playbook ran")


def _parsed(kubeconfig: str) -> dict[str, Any]:
    try:
        return parse_kubeconfig(kubeconfig)
    except InvalidKubeconfig as error:
        raise PlaybookFailed(str(error)) from error


def _prepared(playbook: str, directory: Path, files: dict[str, str]) -> ansible_runner.Runner:
    runner = init_runner(
        private_data_dir=str(directory),
        playbook=str(PLAYBOOKS / playbook),
        inventory=f"localhost ansible_connection=local ansible_python_interpreter={sys.executable}",
        extravars=files,
        settings={"suppress_output_file": True},
        quiet=True,
        cancel_callback=lambda: False,
    )
    runner.runner_mode = "subprocess"
    runner.config.input_fd = subprocess.DEVNULL
    runner.config.cwd = str(directory)
    runner.config.env = _environment(runner.config.env, directory)
    runner.config.command = [_program(), *runner.config.command[1:]]
    return runner


def _program() -> str:
    # Beside the interpreter, whatever PATH the service was started with.
    return str(Path(sys.executable).parent / "ansible-playbook")


def _environment(env: Mapping[str, str], directory: Path) -> dict[str, str]:
    temporary = str(directory / "tmp")
    Path(temporary).mkdir(mode=0o700)
    return {
        **{name: env[name] for name in _KEPT_VARIABLES if name in env},
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(PACKAGE.parent.parent),
        "PYTHONNOUSERSITE": "1",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": temporary,
        "ANSIBLE_CONFIG": str(PACKAGE / "ansible.cfg"),
        "ANSIBLE_HOME": str(directory / "ansible"),
        "ANSIBLE_LOCAL_TEMP": temporary,
        "ANSIBLE_REMOTE_TEMP": temporary,
        "ANSIBLE_NOCOLOR": "1",
        "MAX_EVENT_RES": str(_MAXIMUM_EVENT_CHARACTERS),
    }


def _answer(playbook: str, run: ansible_runner.Runner, output: _Output) -> dict[str, Any]:
    if run.rc != 0 or output.failures:
        raise playbook_error(playbook, output.failures, output.tail)
    if not isinstance(output.answer, dict):
        raise PlaybookFailed(f"{playbook}: it ended well but gave no answer")
    return output.answer


def _failure(data: dict[str, Any]) -> TaskFailure:
    result = data.get("res") or {}
    return TaskFailure(str(data.get("task")), str(result.get("msg") or ""), result.get("cluster_error"))


def _check_installation() -> None:
    missing = [str(path) for path in (Path(_program()), PLAYBOOKS, COLLECTION) if not path.exists()]
    if missing:
        advice = "install the packages of requirements-service.lock into the interpreter's own environment"
        raise StartRefused(f"no playbook could run without {' and '.join(missing)}; {advice}")


def _check_kubeconfig(path: Path) -> None:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        # The parser's message quotes the text, which has secrets in it.
        document = None
    if not isinstance(document, dict) or not document.get("current-context"):
        raise ValueError("is no kubeconfig with a current-context")


def _private_directory(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ValueError(f"{path} must be a directory of this user alone (mode 0700): secrets lie there during a run")
    return path.resolve()


def _owner(pid: int | None = None) -> str:
    """A process (None: this one), told apart from a later one with the same id.

    By the clock ticks since boot at its start, which unlike a time of day never change.
    """
    number = pid or os.getpid()
    state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    return f"{number}.{state.rpartition(')')[2].split()[19]}"


def _clear_leftovers(directory: Path) -> None:
    living = set(_living())
    for entry in directory.iterdir():
        if entry.name.rpartition("-")[0] not in living:
            logger.warning("clearing what a killed process left", directory=entry.name)
            _kill_processes(str(entry))
            shutil.rmtree(entry, ignore_errors=True)


def _kill_processes(directory: str) -> None:
    """Kill all processes of the runs whose directory begins so, also those started meanwhile."""
    while found := [process for process in psutil.process_iter() if _belongs(process, directory)]:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=POLL_SECONDS)


def _living() -> Iterator[str]:
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            yield _owner(pid)


def _belongs(process: psutil.Process, directory: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARKER, "").startswith(directory)
    except (psutil.Error, OSError):
        return False


def _done(future: Future[Any]) -> bool:
    with contextlib.suppress(TimeoutError):
        future.exception(timeout=POLL_SECONDS)
    return future.done()


def _write(path: Path, text: str) -> str:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return str(path)


def _json(value: BaseModel | Mapping[str, Any]) -> str:
    return value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value)

"""Processes are kept by supervisord: its configuration is generated here, and it is spoken to over its socket."""

import os
import pwd
import resource
import shlex
import subprocess
import sys
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport

from dev import files, probes
from dev.errors import NotReady, StackError
from dev.settings import Settings

# Every process of a stack carries this variable with the stack's folder, so that none can be left behind unnoticed.
MARKER = "BUDEVAL_STACK"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_TIMEOUT_SECONDS = 15.0
# supervisord's own code for the time between being told to stop and its end.
SHUTDOWN_STATE = -1
WANTED_OPEN_FILES = 32768
SHOWN_LOG_LINES = 15


@dataclass(frozen=True)
class Program:
    """One process: what runs, in which environment, and how it is stopped."""

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    stop_seconds: int = 10
    stop_group: bool = False
    """Send the last SIGKILL to the whole process group."""


@dataclass(frozen=True)
class ProcessState:
    """What supervisord knows about a process."""

    name: str
    state: str
    pid: int | None
    uptime: int | None
    """Seconds since its last start."""
    detail: str


def render_configuration(settings: Settings, programs: Sequence[Program]) -> str:
    """supervisord's configuration file; deterministic, so that an unchanged stack has an unchanged file."""
    home = settings.state / "supervisor"
    head = [
        "[unix_http_server]",
        f"file={settings.supervisor_socket}",
        "chmod=0600",
        "[supervisord]",
        f"logfile={settings.logs / 'supervisord.log'}",
        "logfile_maxbytes=5MB",
        "logfile_backups=1",
        f"pidfile={home / 'supervisord.pid'}",
        f"directory={settings.root}",
        f"user={pwd.getpwuid(os.getuid()).pw_name}",
        f"childlogdir={settings.logs}",
        f"minfds={_open_files()}",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    text = "\n".join([*head, *(_section(settings, program) for program in programs), ""])
    # supervisord would expand it, in paths too.
    return text.replace("%", "%%")


def _open_files() -> int:
    """How many files each process may have open: the API server and containerd need thousands."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(WANTED_OPEN_FILES, hard - 1)


def _section(settings: Settings, program: Program) -> str:
    environment = {MARKER: str(settings.state), **program.environment}
    lines = [
        f"[program:{program.name}]",
        f"command={shlex.join(str(part) for part in program.command)}",
        f"environment={','.join(f'{name}={_quote(value)}' for name, value in environment.items())}",
        f"directory={program.directory or settings.root}",
        # Started one after the other by `up`, each when those before it are ready.
        "autostart=false",
        "autorestart=true",
        "startsecs=1",
        # A part whose neighbour is down ends at once; it must still be trying when the neighbour is back.
        "startretries=60",
        f"stopwaitsecs={program.stop_seconds}",
        f"killasgroup={str(program.stop_group).lower()}",
        "redirect_stderr=true",
        # This one is expanded twice.
        f"stdout_logfile={settings.logs / program.name}.log".replace("%", "%%"),
        "stdout_logfile_maxbytes=20MB",
        "stdout_logfile_backups=1",
    ]
    return "\n".join(lines)


def _quote(value: str) -> str:
    if '"' in value or "\n" in value:
        raise StackError("A value in the environment of a supervised program has a quote or a line break")
    return f'"{value}"'


class Supervisor:
    """A running supervisord, or the means to start it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._configuration = settings.state / "supervisor" / "supervisord.conf"
        self._transport = SupervisorTransport(None, None, f"unix://{settings.supervisor_socket}")
        self._rpc = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=self._transport)

    def is_running(self) -> bool:
        """Whether supervisord answers on its socket."""
        return probes.passes(probes.unix(self._settings.supervisor_socket))

    def apply(self, programs: Sequence[Program]) -> None:
        """Have supervisord run with exactly these programs; those whose definition changed are stopped."""
        text = render_configuration(self._settings, programs)
        changed = files.write(self._configuration, text, files.SECRET_MODE)
        if self._is_ending():
            self._wait_for_end()
        if not self.is_running():
            self._launch()
        elif changed:
            self._reload()

    def _launch(self) -> None:
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": SYSTEM_PATH,
            "HOME": os.environ.get("HOME", "/"),
            "LC_ALL": "C.UTF-8",
            MARKER: str(self._settings.state),
        }
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=START_TIMEOUT_SECONDS
        )
        if done.returncode != 0:
            raise StackError(f"supervisord does not start: {done.stdout}{done.stderr}")
        probes.wait_until(probes.unix(self._settings.supervisor_socket), START_TIMEOUT_SECONDS, "supervisord")

    def _reload(self) -> None:
        added, changed, removed = self._call("supervisor.reloadConfig")[0]
        for name in [*changed, *removed]:
            self._call("supervisor.stopProcessGroup", name)
            self._call("supervisor.removeProcessGroup", name)
        for name in [*added, *changed]:
            self._call("supervisor.addProcessGroup", name)

    def states(self) -> dict[str, ProcessState]:
        """All programs by name."""
        return {str(info["name"]): _state(info) for info in self._call("supervisor.getAllProcessInfo")}

    def start(self, name: str) -> None:
        """Start a program unless it runs; returns at once."""
        try:
            self._call("supervisor.startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise StackError(f"{name} does not start: {fault.faultString}") from fault

    def stop(self, name: str) -> None:
        """Stop a program and wait for its end; nothing happens where it does not run."""
        try:
            self._call("supervisor.stopProcess", name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in {Faults.NOT_RUNNING, Faults.BAD_NAME}:
                raise StackError(f"{name} does not stop: {fault.faultString}") from fault

    def ensure_alive(self, name: str) -> None:
        """Raise StackError where a program has ended as soon as it was started, or was given up."""
        state = self.states()[name]
        if state.state in {"FATAL", "BACKOFF"}:
            raise StackError(f"{name} keeps ending ({state.detail})")

    def log_end(self, name: str) -> str:
        """What a program said last, and where the rest is."""
        log = self._settings.logs / f"{name}.log"
        return "\n".join([f"Log: {log}", *files.read(log).splitlines()[-SHOWN_LOG_LINES:]])

    def shutdown(self) -> None:
        """Stop everything and supervisord itself."""
        self._call("supervisor.shutdown")
        self._wait_for_end()

    def _is_ending(self) -> bool:
        try:
            return self.is_running() and self._call("supervisor.getState")["statecode"] == SHUTDOWN_STATE
        except StackError:
            return True

    def _wait_for_end(self) -> None:
        def gone() -> None:
            if self.is_running():
                raise NotReady("it still answers")

        probes.wait_until(gone, 60, "The end of supervisord")

    def _call(self, method: str, *arguments: object) -> Any:
        call: Any = self._rpc
        for part in method.split("."):
            call = getattr(call, part)
        try:
            return call(*arguments)
        except (OSError, HTTPException) as error:
            raise StackError(f"supervisord does not answer on {self._settings.supervisor_socket}: {error}") from error
        finally:
            # Kept, it would be found closed by the other side after a pause.
            self._transport.close()


def _state(info: Mapping[str, object]) -> ProcessState:
    running = info["statename"] == "RUNNING"
    return ProcessState(
        name=str(info["name"]),
        state=str(info["statename"]),
        pid=int(str(info["pid"])) or None,
        uptime=int(str(info["now"])) - int(str(info["start"])) if running else None,
        detail=str(info["spawnerr"] or info["description"]),
    )

"""A Docker engine for tests: Debian's dockerd with namespaces, folders and a cgroup of its own."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from dev.packages import ensure_packages
from dev.settings import Settings
from tests.stack.second_stack import ROOT, eventually

DOCKER_PACKAGES = ("docker.io",)
CGROUPS = Path("/sys/fs/cgroup")
NO_NETWORK = ("--bridge=none",)
# Adopts orphans and buries them, as the first process of a machine does.
FIRST_PROCESS = "ip link set lo up; echo ready; sleep infinity & wait"


@dataclass(frozen=True)
class Enclosure:
    """Namespaces of mounts and processes, and of the network where wanted: all in them goes with the first process."""

    pid: int
    """Of the first process, as seen from outside."""

    def command(self, *words: str | Path) -> list[str]:
        """What runs a command inside, from the checkout's folder."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--"]
        return [*enter, "env", f"--chdir={ROOT}", *(str(word) for word in words)]


@contextmanager
def enclosure(*, own_network: bool) -> Iterator[Enclosure]:
    """An enclosure with nothing in it; a network of its own has only 127.0.0.1."""
    options = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *(["--net"] if own_network else [])]
    # Killed by the kernel should the tests die without a word.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", *options, "bash", "-c", FIRST_PROCESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield Enclosure(psutil.Process(process.pid).children()[0].pid)
        finally:
            process.kill()


@dataclass(frozen=True)
class DockerEngine:
    """A running dockerd and the way to it."""

    enclosure: Enclosure
    folder: Path
    """Its socket and its log are here."""

    @property
    def environment(self) -> dict[str, str]:
        """The caller's own, with this engine for every docker client, and Debian's client before any other."""
        own = {"DOCKER_HOST": f"unix://{self.folder}/docker.sock", "DOCKER_CONFIG": str(self.folder / "client")}
        return {**os.environ, **own, "PATH": f"/usr/bin:{os.environ['PATH']}"}

    def run(
        self, *arguments: str | Path, timeout: float = 120, stdin: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """`docker ARGUMENTS`, whatever its exit code."""
        return subprocess.run(
            ["docker", *map(str, arguments)],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout,
            check=False,
        )

    def docker(self, *arguments: str | Path, timeout: float = 120, stdin: str | None = None, **variables: str) -> str:
        """What `docker ARGUMENTS` printed; it has to succeed."""
        done = self.run(*arguments, timeout=timeout, stdin=stdin, **variables)
        assert done.returncode == 0, (
            f"docker {' '.join(map(str, arguments))}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
        return done.stdout.strip()


@contextmanager
def docker_engine(settings: Settings, around: Enclosure, data: Path, *options: str) -> Iterator[DockerEngine]:
    """A dockerd whose images are in `data`; it stores nothing elsewhere and changes no network outside of `around`."""
    ensure_packages(settings, DOCKER_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="budeval-docker-") as name:
        folder, cgroup = Path(name), Path(name).name
        engine = DockerEngine(around, folder)
        command = around.command(
            "dockerd", f"--host=unix://{folder}/docker.sock", f"--data-root={data}", f"--exec-root={folder}/exec",
            f"--pidfile={folder}/dockerd.pid", "--storage-driver=overlay2", "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--cgroup-parent=/{cgroup}", "--iptables=false", "--ip6tables=false", "--ip-forward=false", *options,
        )  # fmt: skip
        log = folder / "dockerd.log"
        with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
            try:
                eventually(
                    "dockerd answers", lambda: process.poll() is not None or engine.run("info").returncode == 0, 60
                )
                assert process.poll() is None, f"dockerd ended:\n{log.read_text()[-4000:]}"
                yield engine
            finally:
                stop(engine, process)
        remove_cgroups(cgroup)


def stop(engine: DockerEngine, process: subprocess.Popen[bytes]) -> None:
    """End all containers and dockerd itself."""
    if containers := engine.run("ps", "--all", "--quiet").stdout.split():
        engine.run("rm", "--force", "--volumes", *containers)
    signal_inside(process, signal.SIGTERM)
    process.wait(timeout=60)


def signal_inside(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to what `Enclosure.command` started: `nsenter` itself stays outside and would not pass it on."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children():
            child.send_signal(number)


def remove_cgroups(name: str, timeout: float = 10) -> None:
    """Remove the engine's cgroup from every hierarchy, with what still runs in it: a build that was cut off."""
    deadline = time.monotonic() + timeout
    while folders := sorted(CGROUPS.glob(f"**/{name}"), key=lambda path: len(path.parts)):
        for inner in [Path(inner) for folder in folders for inner, _, _ in os.walk(folder, topdown=False)]:
            with suppress(OSError):
                for pid in (inner / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                inner.rmdir()
        time.sleep(0.05)
        assert time.monotonic() < deadline, f"cgroups stay: {folders}"


def run_inside(
    around: Enclosure, *words: str | Path, environment: Mapping[str, str], timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command in the enclosure; whatever its exit code."""
    command = around.command(*words)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)

"""Removing what a node leaves in the kernel: containers, mounts, cgroups, shims."""

import os
import re
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from dev.errors import StackError
from dev.settings import Settings
from dev.shell import run
from dev.supervision import MARKER

CGROUP_MOUNT = Path("/sys/fs/cgroup")
# How the kernel writes blanks and backslashes of a path.
OCTAL = re.compile(r"\\([0-7]{3})")
LOG_LINKS = Path("/var/log/containers")
KILL_TIMEOUT_SECONDS = 10.0
CTR_TIMEOUT_SECONDS = 20.0


def cgroup_folders(settings: Settings) -> list[Path]:
    """The stack's own cgroup: one folder with cgroup v2, one for each controller with v1."""
    name = settings.cgroup.lstrip("/")
    if (CGROUP_MOUNT / "cgroup.controllers").exists():
        return [CGROUP_MOUNT / name]
    hierarchies = [folder for folder in CGROUP_MOUNT.iterdir() if (folder / "cgroup.procs").exists()]
    # cpu and cpuacct are often two names of one hierarchy.
    return [folder / name for folder in sorted({folder.resolve() for folder in hierarchies})]


def create_cgroups(settings: Settings) -> None:
    """Make the cgroup the kubelet puts its pods under."""
    for folder in cgroup_folders(settings):
        folder.mkdir(exist_ok=True)


def kill_pods(settings: Settings) -> None:
    """Kill every process that runs in a pod of this node, including those forked meanwhile."""
    deadline = time.monotonic() + KILL_TIMEOUT_SECONDS
    while pids := _pod_processes(settings):
        for pid in pids:
            _kill(pid)
        if time.monotonic() > deadline:
            raise StackError(f"Processes of pods do not end: {sorted(pids)}")
        time.sleep(0.05)


def _pod_processes(settings: Settings) -> set[int]:
    pids: set[int] = set()
    for folder in cgroup_folders(settings):
        for listing in folder.rglob("cgroup.procs"):
            try:
                pids.update(int(text) for text in listing.read_text().split())
            except FileNotFoundError:
                continue  # removed between the listing and the reading
    return {pid for pid in pids if not _is_zombie(pid)}


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def delete_containers(settings: Settings) -> None:
    """Have containerd forget its containers: shims end, root file systems are unmounted, images stay.

    containerd clears up after the killed processes at the same time, so what was listed may be gone when its turn
    comes: list again until nothing is left. What still is after that is removed by the steps that follow.
    """
    deadline = time.monotonic() + KILL_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        tasks, containers = _names(settings, "tasks"), _names(settings, "containers")
        if not tasks and not containers:
            return
        for kind, names, options in (("tasks", tasks, ["--force"]), ("containers", containers, [])):
            if names:
                with suppress(StackError):
                    _ctr(settings, kind, "delete", *options, *names)


def _names(settings: Settings, kind: str) -> list[str]:
    return _ctr(settings, kind, "list", "-q").split()


def _ctr(settings: Settings, *arguments: str) -> str:
    command = ["ctr", "--address", str(settings.containerd_socket), "--namespace", "k8s.io", *arguments]
    return run(command, timeout=CTR_TIMEOUT_SECONDS)


def remove_log_links(settings: Settings) -> None:
    """Remove the links to container logs that the kubelet keeps in a folder it has no option for."""
    for link in LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(settings.logs):
            link.unlink(missing_ok=True)


def unmount_all(settings: Settings) -> None:
    """Unmount everything below the stack's folder, the innermost first."""
    for target in reversed(mounts_below(settings.state)):
        run(["umount", "--lazy", target], timeout=CTR_TIMEOUT_SECONDS)


def mounts_below(folder: Path) -> list[str]:
    """Mount points below a folder, in the order they were mounted."""
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    targets = [OCTAL.sub(lambda found: chr(int(found[1], 8)), row.split(" ")[4]) for row in rows]
    return [target for target in targets if Path(target).is_relative_to(folder) and Path(target) != folder]


def remove_cgroups(settings: Settings) -> None:
    """Remove the stack's cgroups, the innermost first; the kernel refuses while a process is inside."""
    deadline = time.monotonic() + KILL_TIMEOUT_SECONDS
    while folders := [folder for folder in cgroup_folders(settings) if folder.exists()]:
        for folder in folders:
            _remove_tree(folder)
        if time.monotonic() > deadline:
            raise StackError(f"Cgroups cannot be removed: {' '.join(map(str, folders))}")


def _remove_tree(folder: Path) -> None:
    inner = [Path(parent) for parent, _, _ in os.walk(folder, topdown=False)]
    for path in inner:
        try:
            path.rmdir()
        except OSError:
            time.sleep(0.05)  # its last process has just ended; the caller tries again


def leftovers(settings: Settings) -> list[psutil.Process]:
    """Processes that carry this stack's marker: all that it ever started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == str(settings.state) and process.pid != os.getpid():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def kill_leftovers(settings: Settings) -> None:
    """End what supervisord no longer knew about, for instance after it was killed itself."""
    processes = leftovers(settings)
    for process in processes:
        _kill(process.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=KILL_TIMEOUT_SECONDS)
    for process in alive:
        _kill(process.pid)
    psutil.wait_procs(alive, timeout=KILL_TIMEOUT_SECONDS)


def _kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def remove_files(paths: Iterable[Path]) -> None:
    """Remove sockets and the like that a killed process left."""
    for path in paths:
        path.unlink(missing_ok=True)

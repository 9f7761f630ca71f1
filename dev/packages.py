"""Debian packages the stack needs, installed only where they are missing."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev import files
from dev.console import line
from dev.errors import StackError
from dev.locks import locked
from dev.settings import Settings
from dev.shell import run, run_logged

NODE_PACKAGES = ("etcd-server", "containerd", "runc", "containernetworking-plugins")
REDIS_PACKAGES = ("redis-server",)
IMAGE_PACKAGES = ("buildah", "mmdebstrap", "busybox-static")
MODEL_PACKAGES = ("libgomp1",)
# What the commands in the README and in the guide are written with.
CLIENT_PACKAGES = ("curl",)

POLICY = Path("/usr/sbin/policy-rc.d")
UNITS = Path("/etc/systemd/system")
POLICY_TEXT = "#!/bin/sh\n# For as long as budeval's local stack installs packages.\nexit 101\n"
INTERRUPTED = Path("/var/lib/dpkg/updates")
"""Where dpkg keeps what it is at; empty unless it was killed, or works right now."""
INSTALL_TIMEOUT_SECONDS = 1800.0
LOCK_WAIT = "DPkg::Lock::Timeout=300"


def missing_packages(wanted: Sequence[str]) -> list[str]:
    """Those of the wanted packages that dpkg does not know as installed."""
    if shutil.which("dpkg-query") is None:
        raise StackError(
            f"This is no Debian system (no dpkg-query). Install what these packages hold: {' '.join(wanted)}"
        )
    format_ = "-f=${Package} ${db:Status-Status}\n"
    listing = run(["sh", "-c", 'dpkg-query -W "$@" 2>/dev/null || true', "sh", format_, *wanted], timeout=30)
    installed = {
        name for name, _, status in (row.partition(" ") for row in listing.splitlines()) if status == "installed"
    }
    return [name for name in wanted if name not in installed]


def ensure_packages(settings: Settings, wanted: Sequence[str]) -> None:
    """Install what is missing, without letting any package start or enable a service.

    Raises:
        StackError: packages are missing and this is not root, or apt-get failed.
    """
    if not missing_packages(wanted):
        return
    with locked(settings.cache / "packages.lock", "installation"):
        if missing := missing_packages(wanted):
            _install(settings, missing)


def _install(settings: Settings, missing: Sequence[str]) -> None:
    if os.getuid() != 0:
        raise StackError(f"Packages are missing; install them as root: apt-get install {' '.join(missing)}")
    commands = [
        ["apt-get", "-q", "-o", LOCK_WAIT, "update"],
        ["apt-get", "-q", "-y", "-o", LOCK_WAIT, "install", "--no-install-recommends", *missing],
    ]
    if any(INTERRUPTED.glob("*")):
        # apt-get does nothing before this.
        commands.insert(0, ["dpkg", "--configure", "-a"])
    with line(f"install {' '.join(missing)}") as progress, _no_services():
        for number, command in enumerate(commands, 1):
            progress.log = settings.logs / f"packages-{number}.log"
            run_logged(
                command,
                progress.log,
                timeout=INSTALL_TIMEOUT_SECONDS,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep package scripts from starting daemons, now and at the next boot: the stack starts its own."""
    before = _enabled_units()
    # One of our own is what a killed run left.
    own_policy = files.read(POLICY) in {"", POLICY_TEXT}
    if own_policy:
        files.write(POLICY, POLICY_TEXT, 0o755)
    try:
        yield
    finally:
        if own_policy:
            POLICY.unlink(missing_ok=True)
        if fresh := sorted(_enabled_units() - before):
            run(["systemctl", "disable", *fresh], timeout=60)


def _enabled_units() -> set[str]:
    """What starts at boot: services, and sockets that start one as soon as somebody connects."""
    return {unit.name for kind in ("multi-user", "sockets") for unit in UNITS.glob(f"{kind}.target.wants/*.*")}

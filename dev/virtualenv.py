"""Python environments, each with exactly what a lock pins: the project's, and those of parts that can't share it.

`python -m dev.virtualenv STAMP` makes the project's. It runs before anything is installed: this module and what it
imports need nothing but Python.
"""

import re
import shutil
import sys
from pathlib import Path

from dev.command_line import exit_code
from dev.console import Line, line
from dev.errors import StackError
from dev.files import digest
from dev.locks import locked
from dev.settings import Settings, load_settings
from dev.shell import run, run_logged

# Two minutes on two idle cores; slow networks and busy machines get the rest.
INSTALL_TIMEOUT_SECONDS = 3600.0
VENV_TIMEOUT_SECONDS = 120.0
PINNED = re.compile(r"^\S+==", re.MULTILINE)


def ensure_virtualenv(settings: Settings, name: str, lock: Path) -> Path:
    """Return the Python of an environment that has exactly what `lock` pins, making it when it is not in the cache.

    Raises:
        StackError: pip failed; the message has its log.
    """
    home = settings.cache / "virtualenvs"
    folder = home / f"{name}-{digest(sys.version, lock)[:16]}"
    python = folder / "bin" / "python"
    with locked(home / f"{name}.lock", f"install of {name}"):
        complete = folder / "complete"
        if not complete.exists():
            with line(f"install {name}") as progress:
                _install(settings, name, folder, lock, progress)
            complete.touch()
    return python


def _install(settings: Settings, name: str, folder: Path, lock: Path, progress: Line) -> None:
    """Make the environment in its final place: its scripts hold the path."""
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", folder], timeout=VENV_TIMEOUT_SECONDS)
    # Not what these packages say that they need: the lock has what is used of it.
    _install_exactly(settings, name, folder, lock, progress, "--no-deps")


def ensure_project(settings: Settings, stamp: Path) -> None:
    """Have the project's own environment hold what its lock pins, and the checkout itself.

    Args:
        stamp: a file in the environment, made when it is complete; its name tells one lock from another.

    Raises:
        StackError: pip failed; the message has the command and its log.
    """
    folder = stamp.parent
    with locked(settings.state / "virtualenv.lock", "installation"):
        if stamp.exists():
            return
        with line("install Python packages") as progress:
            if not _has_pip(folder):
                run([sys.executable, "-m", "venv", "--clear", folder], timeout=VENV_TIMEOUT_SECONDS)
            _install_exactly(settings, "packages", folder, settings.root / "requirements.lock", progress)
            command = [*_pip(folder), "--no-deps", "-e", settings.root]
            run_logged(command, settings.logs / "pip-checkout.log", timeout=INSTALL_TIMEOUT_SECONDS)
            for old in folder.glob("installed-*"):
                old.unlink()
            stamp.touch()


def _has_pip(folder: Path) -> bool:
    """False too for an environment whose making was interrupted, or whose Python has gone."""
    try:
        run([folder / "bin" / "python", "-m", "pip", "--version"], timeout=VENV_TIMEOUT_SECONDS)
    except StackError:
        return False
    return True


def _install_exactly(settings: Settings, name: str, folder: Path, lock: Path, progress: Line, *options: str) -> None:
    progress.log = settings.logs / f"pip-{name}.log"
    progress.step, progress.steps = "Collecting ", len(PINNED.findall(lock.read_text()))
    command = [*_pip(folder), *options, "--require-hashes", "--progress-bar", "off", "-r", lock]
    run_logged(command, progress.log, timeout=INSTALL_TIMEOUT_SECONDS)


def _pip(folder: Path) -> list[str | Path]:
    return [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]


def main() -> int:
    """Make the project's environment; the stamp is the only argument."""
    ensure_project(load_settings(), Path(sys.argv[1]).absolute())
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))

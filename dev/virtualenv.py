"""Python environments of their own for parts that can't share the project's, made once from a lock and cached."""

import fcntl
import shutil
import sys
from pathlib import Path

from dev.console import line
from dev.files import digest
from dev.settings import Settings
from dev.shell import run, run_logged

INSTALL_TIMEOUT_SECONDS = 1200.0


def ensure_virtualenv(settings: Settings, name: str, lock: Path) -> Path:
    """Return the Python of an environment that has exactly what `lock` pins, making it when it is not in the cache.

    Raises:
        StackError: pip failed; the message has its log.
    """
    home = settings.cache / "virtualenvs"
    folder = home / f"{name}-{digest(sys.version, lock)[:16]}"
    python = folder / "bin" / "python"
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        complete = folder / "complete"
        if not complete.exists():
            with line(f"install {name}"):
                _install(settings, name, folder, lock)
            complete.touch()
    return python


def _install(settings: Settings, name: str, folder: Path, lock: Path) -> None:
    """Make the environment in its final place: its scripts hold the path."""
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", folder], timeout=120)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    log = settings.logs / f"pip-{name}.log"
    run_logged([*pip, "--no-deps", "--require-hashes", "-r", str(lock)], log, timeout=INSTALL_TIMEOUT_SECONDS)

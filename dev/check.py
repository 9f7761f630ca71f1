"""`make check`: everything that can be said about the code without running it."""

import importlib.metadata
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dev import console
from dev.errors import StackError
from dev.settings import load_settings
from dev.shell import run

TIMEOUT_SECONDS = 600.0
# Installed beside `dapr`, which has the same modules inside, it silently overwrites them with older ones.
UNWANTED_DISTRIBUTION = "dapr-ext-workflow"


def checks(root: Path) -> dict[str, Callable[[], None]]:
    """All checks by name; each raises StackError with what it found."""
    playbooks = root / "budeval" / "ansible" / "playbooks"
    return {
        "ruff": _command(root, "ruff", "check", "."),
        "ruff format": _command(root, "ruff", "format", "--check", "."),
        "mypy": _command(root, "mypy"),
        "import contracts": _command(root, "lint-imports"),
        "ansible-lint": _command(root, "ansible-lint", "--offline", "--strict", playbooks),
        "yamllint": _command(root, "yamllint", "--strict", "."),
        f"no {UNWANTED_DISTRIBUTION}": refuse_unwanted_distribution,
    }


def refuse_unwanted_distribution() -> None:
    """Raise StackError where the old workflow package is installed."""
    if any(found.name == UNWANTED_DISTRIBUTION for found in importlib.metadata.distributions()):
        raise StackError(
            f"{UNWANTED_DISTRIBUTION} overwrites modules of dapr 1.19: pip uninstall {UNWANTED_DISTRIBUTION}"
        )


def _command(root: Path, program: str, *arguments: str | Path) -> Callable[[], None]:
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "NO_COLOR": "1",
        # ansible-lint starts ansible by name, which finds the playbooks' own modules through these.
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(root / "budeval" / "ansible" / "ansible.cfg"),
        "PYTHONPATH": str(root),
    }

    def check() -> None:
        run([scripts / program, *arguments], timeout=TIMEOUT_SECONDS, cwd=root, env=environment)

    return check


def main() -> int:
    """Run all checks, show one line each, and then what the failed ones said."""
    found: list[str] = []

    def attempt(item: tuple[str, Callable[[], None]]) -> None:
        name, check = item
        try:
            with console.line(name) as current:
                current.state = "passed"
                check()
        except StackError as error:
            found.append(str(error))

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(attempt, checks(load_settings().root).items()))
    print("".join(f"\n{text}\n" for text in found), end="")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

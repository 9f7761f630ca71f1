"""`make check`: everything that can be said about the code and the manifests without running an evaluation."""

import importlib.metadata
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from budeval.jobs.manifest import build_evaluation
from budeval.jobs.models import JobSpecInput
from dev import console
from dev.command_line import exit_code
from dev.errors import StackError
from dev.kubernetes.cluster import local_manifests
from dev.settings import Settings, load_settings
from dev.shell import run
from dev.stack import Stack

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
        # A cache of its own: two mypy that make the same one at once break each other.
        "mypy engine": _command(
            root,
            "mypy",
            "--strict",
            "--cache-dir=.mypy_cache/engine",
            root / "engines" / "opencompass" / "budeval_engine",
        ),
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


def validate_manifests(stack: Stack) -> None:
    """Let a real API server judge every manifest, and the objects of a run, without making anything.

    Raises StackError with the server's own words.
    """
    if not stack.settings.use_existing_cluster:
        stack.up(("api",))
    with console.line("manifests (dry run)") as current:
        documents = [*manifest_documents(stack.settings), *run_documents(stack.settings.namespace)]
        stack.cluster.dry_run(documents)
        current.note = f"{len(documents)} objects"


def manifest_documents(settings: Settings) -> list[Any]:
    """Every object under manifests/, the volume with this checkout's path."""
    service = sorted((settings.root / "manifests" / "service").glob("*.yaml"))
    documents = [found for path in service for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]
    return [*local_manifests(settings), *documents]


def run_documents(namespace: str) -> list[Any]:
    """What the service makes for an evaluation of one run."""
    run_input = JobSpecInput(
        eval_id="00000000-0000-4000-8000-000000000000",
        run_id="check",
        engine_config={},
        image="localhost/check",
        namespace=namespace,
        volume_claim="budeval-data",
        has_api_key=True,
    )
    objects = build_evaluation([run_input], SecretStr("no-key"))
    return [objects.secret, objects.config_map, *objects.jobs]


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
    settings = load_settings()
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
        list(pool.map(attempt, checks(settings.root).items()))
    try:
        validate_manifests(Stack(settings))
    except StackError as error:
        found.append(str(error))
    print("".join(f"\n{text}\n" for text in found), end="")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""The project's environment is made by a bare Python, once, and again where it is not whole."""

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dev import virtualenv
from dev.errors import StackError
from dev.settings import Settings
from dev.virtualenv import ensure_project


@pytest.fixture
def checkout(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "requirements.lock").touch()
    return dataclasses.replace(settings, root=tmp_path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pip was asked to install."""
    asked: list[list[str]] = []

    def pip(command: Sequence[str | Path], log: Path, *, timeout: float) -> None:
        asked.append([str(part) for part in command[command.index("install") + 1 :]])

    monkeypatch.setattr(virtualenv, "run_logged", pip)
    return asked


@pytest.fixture
def whole(checkout: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that is there already; making one takes seconds."""
    (checkout.root / ".venv").mkdir()
    monkeypatch.setattr(virtualenv, "_has_pip", lambda _: True)
    return checkout.root / ".venv"


def test_it_needs_nothing_but_python(settings: Settings) -> None:
    program = f"import sys; sys.path.insert(0, {str(settings.root)!r}); import dev.virtualenv"

    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, timeout=60)


def test_the_lock_and_the_checkout_are_installed_once(
    checkout: Settings, installed: list[list[str]], whole: Path
) -> None:
    stamp = whole / "installed-1"

    ensure_project(checkout, stamp)
    ensure_project(checkout, stamp)

    lock, own = installed
    assert "--require-hashes" in lock
    assert lock[-2:] == ["-r", str(checkout.root / "requirements.lock")]
    assert own[-2:] == ["-e", str(checkout.root)]
    assert stamp.exists()


def test_another_lock_is_installed_into_the_same_environment(
    checkout: Settings, installed: list[list[str]], whole: Path
) -> None:
    ensure_project(checkout, whole / "installed-1")
    (whole / "kept").touch()

    ensure_project(checkout, whole / "installed-2")

    assert len(installed) == 4
    assert [path.name for path in whole.glob("installed-*")] == ["installed-2"]
    assert (whole / "kept").exists()


def test_an_environment_that_is_not_whole_is_made_anew(checkout: Settings, installed: list[list[str]]) -> None:
    """As after an interruption between its Python and its pip."""
    home = checkout.root / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)

    ensure_project(checkout, home / "installed-1")

    assert virtualenv._has_pip(home)


def test_a_failure_leaves_no_stamp(checkout: Settings, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(*_: object, **__: object) -> None:
        raise StackError("no network")

    monkeypatch.setattr(virtualenv, "run_logged", pip)
    with pytest.raises(StackError, match="no network"):
        ensure_project(checkout, whole / "installed-1")

    assert not list(whole.glob("installed-*"))

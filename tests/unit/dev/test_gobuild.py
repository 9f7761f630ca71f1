"""Go programs are built once for each version of what they are made from."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from dev import gobuild
from dev.errors import StackError
from dev.gobuild import DAPR, DAPR_CLI, KUBERNETES, binary_directory, ensure_programs
from dev.settings import Settings


@pytest.fixture
def checkout(settings: Settings, tmp_path: Path) -> Settings:
    shutil.copytree(settings.root / "dev" / "go", tmp_path / "dev" / "go")
    return dataclasses.replace(settings, root=tmp_path)


def test_two_checkouts_of_the_same_version_share_a_build(settings: Settings, checkout: Settings) -> None:
    assert binary_directory(settings, DAPR) == binary_directory(checkout, DAPR)


@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_another_pin_is_another_build(checkout: Settings, file: str) -> None:
    before = binary_directory(checkout, DAPR)

    with (checkout.root / "dev" / "go" / "dapr" / file).open("a") as pins:
        pins.write("\n")

    assert binary_directory(checkout, DAPR) != before


def test_other_flags_are_another_build(checkout: Settings) -> None:
    untagged = dataclasses.replace(DAPR, tags="")

    assert binary_directory(checkout, untagged) != binary_directory(checkout, DAPR)


def test_what_is_in_the_cache_needs_no_compiler(checkout: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    binary_directory(checkout, DAPR).mkdir(parents=True)
    monkeypatch.setenv("PATH", "")

    assert ensure_programs(checkout, DAPR) == binary_directory(checkout, DAPR)


def test_a_missing_compiler_is_named(checkout: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(StackError, match="Go is not installed"):
        ensure_programs(checkout, DAPR)


def test_a_failed_build_says_command_and_log_and_leaves_no_half_result(
    checkout: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "bin" / "go"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\necho 'undefined: thing' >&2\nexit 2\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:/bin:/usr/bin")

    with pytest.raises(StackError, match=r"(?s)Exit code 2 from: go build .*undefined: thing.*build-dapr\.log"):
        ensure_programs(checkout, DAPR_CLI)

    assert not binary_directory(checkout, DAPR_CLI).exists()


@pytest.mark.parametrize("module", [DAPR, DAPR_CLI, KUBERNETES], ids=lambda module: module.name)
def test_every_program_is_a_tool_of_its_module(settings: Settings, module: gobuild.GoModule) -> None:
    pins = (settings.root / "dev" / "go" / module.name / "go.mod").read_text()

    assert all(package in pins for package in module.packages)

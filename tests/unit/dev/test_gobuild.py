"""Go programs are built once for each version of what they are made from."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from dev import gobuild
from dev.errors import StackError
from dev.gobuild import DAPR, DAPR_CLI, KUBERNETES, Correction, GoModule, binary_directory, ensure_programs
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


CORRECTION = Correction("example.com/dep", "server.go", theirs='":80"', ours='"127.0.0.1:80"')


@pytest.fixture
def corrected(checkout: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GoModule:
    """A module whose required one lies in a folder, and a compiler that shows what it would read instead."""
    (tmp_path / "dep").mkdir()
    (tmp_path / "dep" / "server.go").write_text('listen(":80")\n')
    compiler = tmp_path / "bin" / "go"
    compiler.parent.mkdir()
    compiler.write_text(
        f"""#!/bin/sh
if [ "$1" = mod ]; then echo '{{"Dir": "{tmp_path}/dep"}}'; exit; fi
while [ "$1" != -o ]; do shift; done; target=$2
while [ "$1" != -modfile ]; do shift; done
cat "$(sed -n 's,^replace example.com/dep => ,,p' "$2")/server.go" > "$target"
"""
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:/bin:/usr/bin")
    return dataclasses.replace(DAPR_CLI, corrections=(CORRECTION,))


def test_a_correction_is_what_the_compiler_reads(checkout: Settings, corrected: GoModule, tmp_path: Path) -> None:
    built = ensure_programs(checkout, corrected) / "dapr"

    assert built.read_text() == 'listen("127.0.0.1:80")\n'
    assert (tmp_path / "dep" / "server.go").read_text() == 'listen(":80")\n'
    assert binary_directory(checkout, corrected) != binary_directory(checkout, DAPR_CLI)


def test_a_correction_of_what_is_not_there_is_refused(checkout: Settings, corrected: GoModule, tmp_path: Path) -> None:
    (tmp_path / "dep" / "server.go").write_text("listen()\n")

    with pytest.raises(StackError, match=r"server\.go of example\.com/dep has not"):
        ensure_programs(checkout, corrected)


@pytest.mark.parametrize("module", [DAPR, DAPR_CLI, KUBERNETES], ids=lambda module: module.name)
def test_every_program_is_a_tool_of_its_module(settings: Settings, module: gobuild.GoModule) -> None:
    pins = (settings.root / "dev" / "go" / module.name / "go.mod").read_text()

    assert all(package in pins for package in module.packages)

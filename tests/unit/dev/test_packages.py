"""Debian packages are installed where they are missing, and nothing of the installation stays behind."""

import os
from pathlib import Path

import pytest

from dev import packages
from dev.errors import StackError
from dev.settings import Settings

RECORDER = '#!/bin/sh\necho "$(basename "$0") $*" >> "{said}"\ncat "{policy}" >> "{seen}" 2>&1\nexit {code}\n'


class Machine:
    """Programs that only write down how they are called, on a machine without any package."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "bin"
        self.policy, self.interrupted = folder / "policy-rc.d", folder / "updates"
        self._said, self._seen = folder / "said", folder / "seen"
        self.interrupted.mkdir()
        self.program("dpkg")
        self.program("apt-get")
        self._write("dpkg-query", "#!/bin/sh\n")

    def program(self, name: str, code: int = 0) -> None:
        text = RECORDER.format(said=self._said, policy=self.policy, seen=self._seen, code=code)
        self._write(name, text)

    def _write(self, name: str, text: str) -> None:
        self.programs.mkdir(exist_ok=True)
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    @property
    def said(self) -> list[str]:
        return self._said.read_text().splitlines()

    @property
    def policy_meanwhile(self) -> str:
        return self._seen.read_text()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{made.programs}:/usr/bin:/bin")
    monkeypatch.setattr(packages, "POLICY", made.policy)
    monkeypatch.setattr(packages, "INTERRUPTED", made.interrupted)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    return made


def test_what_is_missing_is_installed_without_starting_a_service(settings: Settings, machine: Machine) -> None:
    packages.ensure_packages(settings, ["redis-server", "curl"])

    update, install = machine.said
    assert update.startswith("apt-get ") and update.endswith(" update")
    assert install.endswith("--no-install-recommends redis-server curl")
    assert "exit 101" in machine.policy_meanwhile
    assert not machine.policy.exists()


def test_an_interrupted_installation_is_finished_first(settings: Settings, machine: Machine) -> None:
    (machine.interrupted / "0001").touch()

    packages.ensure_packages(settings, ["curl"])

    assert machine.said[0] == "dpkg --configure -a"


def test_a_policy_that_a_killed_run_left_goes_away(settings: Settings, machine: Machine) -> None:
    machine.policy.write_text(packages.POLICY_TEXT)

    packages.ensure_packages(settings, ["curl"])

    assert not machine.policy.exists()


def test_a_policy_of_somebody_else_stays(settings: Settings, machine: Machine) -> None:
    machine.policy.write_text("#!/bin/sh\nexit 0\n")

    packages.ensure_packages(settings, ["curl"])

    assert machine.policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_a_failure_says_the_command_and_its_log_and_leaves_no_policy(settings: Settings, machine: Machine) -> None:
    machine.program("apt-get", code=100)

    with pytest.raises(StackError, match=r"(?s)Exit code 100 from: apt-get .*update.*Log: .*packages-1\.log"):
        packages.ensure_packages(settings, ["curl"])

    assert not machine.policy.exists()


def test_somebody_else_than_root_is_told_what_to_install(
    settings: Settings, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)

    with pytest.raises(StackError, match="as root: apt-get install redis-server curl"):
        packages.ensure_packages(settings, ["redis-server", "curl"])

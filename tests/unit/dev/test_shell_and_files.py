"""The small tools under the stack: bounded commands, whole files, honest probes."""

import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from dev import files, probes
from dev.errors import NotReady, StackError
from dev.kubernetes.teardown import mounts_below
from dev.shell import run, run_logged


def test_a_failed_command_is_shown_with_its_end() -> None:
    with pytest.raises(StackError, match=r"(?s)Exit code 3 from: sh -c .*the reason"):
        run(["sh", "-c", "echo the reason >&2; exit 3"], timeout=10)


def test_a_command_that_hangs_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(StackError, match="No end after"):
        run(["sleep", "60"], timeout=0.2)
    assert time.monotonic() - started < 5


def test_a_missing_program_is_named() -> None:
    with pytest.raises(StackError, match="no-such-program is not installed"):
        run(["no-such-program"], timeout=1)


def test_a_failed_build_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "build.log"
    with pytest.raises(StackError, match=f"(?s)broken.*Log: {log}"):
        run_logged(["sh", "-c", "echo broken; exit 1"], log, timeout=10)


def test_a_file_is_written_once_and_its_mode_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"

    assert files.write(path, "one", files.SECRET_MODE)
    assert not files.write(path, "one", files.SECRET_MODE)
    assert files.write(path, "two", files.SECRET_MODE)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_digests_tell_lists_apart_that_join_to_the_same_text() -> None:
    assert files.digest("ab", "c") != files.digest("a", "bc")


def test_waiting_ends_with_what_was_seen_last() -> None:
    def never() -> None:
        raise NotReady("the door is closed")

    with pytest.raises(StackError, match="The house is not ready after 0 s: the door is closed"):
        probes.wait_until(never, 0.2, "The house")


def test_waiting_ends_at_once_when_it_is_hopeless() -> None:
    def never() -> None:
        raise NotReady("closed")

    def dead() -> None:
        raise StackError("it keeps ending")

    with pytest.raises(StackError, match="it keeps ending"):
        probes.wait_until(never, 60, "The house", alive=dead)


def test_a_closed_port_is_not_ready() -> None:
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with pytest.raises(NotReady, match=f"port {port}"):
        probes.tcp(port)()


def test_mounts_are_those_inside_a_folder_and_not_beside_it() -> None:
    assert "/proc" not in mounts_below(Path("/proc"))
    assert "/dev/shm" in mounts_below(Path("/dev"))
    assert mounts_below(Path("/de")) == []


def test_mounts_with_unusual_names_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    row = r"36 35 98:0 / /home/jürgen/my\040stack/run\134s rw shared:1 - tmpfs tmpfs rw"
    monkeypatch.setattr(Path, "read_text", lambda _: f"{row}\n")

    assert mounts_below(Path("/home/jürgen/my stack")) == ["/home/jürgen/my stack/run\\s"]

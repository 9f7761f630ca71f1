"""Our Dapr, or the one `dapr init` has left."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dev import runtime
from dev.settings import Settings


def listen() -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


@pytest.fixture
def initialised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder as after `dapr init`, with everything answering."""
    daprd = tmp_path / ".dapr" / "bin" / "daprd"
    daprd.parent.mkdir(parents=True)
    daprd.write_text('#!/bin/sh\necho daprd "$@"\n')
    daprd.chmod(0o755)
    with closing(listen()) as placement, closing(listen()) as scheduler, closing(listen()) as redis:
        for name, server in (("PLACEMENT", placement), ("SCHEDULER", scheduler), ("REDIS", redis)):
            monkeypatch.setattr(runtime, f"INIT_{name}_PORT", server.getsockname()[1])
        threading.Thread(target=_answer_ping, args=(redis,), daemon=True).start()
        yield tmp_path


def _answer_ping(server: socket.socket) -> None:
    try:
        while True:
            client, _ = server.accept()
            with client:
                client.recv(64)
                client.sendall(b"+PONG\r\n")
    except OSError:
        return  # the test is over


def test_a_complete_dapr_init_is_used(initialised: Path) -> None:
    found = runtime.find_initialised(initialised)

    assert found is not None
    assert (found.daprd, found.ours) == (initialised / ".dapr" / "bin" / "daprd", False)


def test_a_home_without_daprd_is_not_enough(initialised: Path) -> None:
    (initialised / ".dapr" / "bin" / "daprd").unlink()

    assert runtime.find_initialised(initialised) is None


@pytest.mark.parametrize("part", ["PLACEMENT", "SCHEDULER", "REDIS"])
def test_a_dapr_init_with_a_part_missing_is_not_used(
    initialised: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(listen()) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setattr(runtime, f"INIT_{part}_PORT", port)

    assert runtime.find_initialised(initialised) is None


def test_the_cli_finds_a_daprd_that_listens_on_loopback_only(settings: Settings, initialised: Path) -> None:
    ours = runtime.Runtime(initialised / ".dapr" / "bin" / "daprd", 13005, 13010, 13637, ours=True)
    home = runtime.arrange_for_cli(settings, ours)

    said = subprocess.run([home / ".dapr" / "bin" / "daprd", "--app-id", "budeval"], capture_output=True, text=True,
                          check=True).stdout  # fmt: skip

    assert said.split() == [
        "daprd", "--app-id", "budeval",
        "--metrics-listen-address=127.0.0.1", "--dapr-internal-grpc-listen-address=127.0.0.1",
    ]  # fmt: skip


def test_the_cli_is_led_to_the_companions_of_dapr_init(settings: Settings, initialised: Path) -> None:
    found = runtime.find_initialised(initialised)
    assert found is not None
    wrapper = runtime.arrange_for_cli(settings, found) / ".dapr" / "bin" / "daprd"

    assert f"--placement-host-address=127.0.0.1:{found.placement_port}" in wrapper.read_text()
    assert f"--scheduler-host-address=127.0.0.1:{found.scheduler_port}" in wrapper.read_text()


def test_app_yaml_names_the_ports_of_the_stack(settings: Settings) -> None:
    text = (settings.root / "app.yaml").read_text()
    ports = settings.ports

    for port in (ports.service, ports.daprd_http, ports.daprd_grpc, ports.daprd_internal, ports.daprd_metrics,
                 ports.placement, ports.scheduler):  # fmt: skip
        assert str(port) in text


def test_no_part_depends_on_what_localhost_means_here(settings: Settings) -> None:
    """Where it is ::1 alone, ports would be opened there."""
    programs = [runtime.placement(settings, Path("/bin")), runtime.scheduler(settings, Path("/bin"))]

    assert "localhost" not in " ".join(str(word) for program in programs for word in program.command)

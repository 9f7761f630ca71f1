"""Our Dapr, or the one `dapr init` has left."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dev import runtime
from dev.runtime import Runtime, choose_runtime
from dev.settings import Settings


def listen() -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


BUILD = Path("/build")


def program(home: Path, name: str) -> Path:
    """Lays a program out where `dapr init` puts it."""
    path = home / ".dapr" / "bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho {name} "$@"\n')
    path.chmod(0o755)
    return path


def silence(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers any more where `dapr init` puts this part."""
    with closing(listen()) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setattr(runtime, f"INIT_{part}_PORT", port)


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("PLACEMENT", "SCHEDULER", "REDIS"):
        silence(part, monkeypatch)


@pytest.fixture
def initialised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder as after `dapr init`, with everything answering."""
    program(tmp_path, "daprd")
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


def test_a_complete_dapr_init_is_used_and_nothing_built_or_started(settings: Settings, initialised: Path) -> None:
    found = choose_runtime(settings, initialised, BUILD)

    assert found.daprd == initialised / ".dapr" / "bin" / "daprd"
    assert (found.built, found.starts_companions, found.starts_redis) == (False, False, False)
    assert found.redis_port == runtime.INIT_REDIS_PORT


def test_redis_is_ours_where_dapr_init_has_none(
    settings: Settings, initialised: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence("REDIS", monkeypatch)

    found = choose_runtime(settings, initialised, BUILD)

    assert (found.placement_port, found.scheduler_port) == (runtime.INIT_PLACEMENT_PORT, runtime.INIT_SCHEDULER_PORT)
    assert (found.built, found.starts_companions, found.starts_redis) == (False, False, True)
    assert found.redis_port == settings.ports.redis


@pytest.mark.usefixtures("nothing_runs")
def test_the_programs_of_a_slim_dapr_init_are_started_on_our_ports(settings: Settings, tmp_path: Path) -> None:
    for name in ("daprd", "placement", "scheduler"):
        program(tmp_path, name)

    found = choose_runtime(settings, tmp_path, BUILD)

    assert (found.built, found.starts_companions, found.starts_redis) == (False, True, True)
    assert found.binaries == tmp_path / ".dapr" / "bin"
    assert (found.placement_port, found.scheduler_port) == (settings.ports.placement, settings.ports.scheduler)


def test_a_home_without_daprd_is_not_enough(settings: Settings, initialised: Path) -> None:
    (initialised / ".dapr" / "bin" / "daprd").unlink()

    assert choose_runtime(settings, initialised, BUILD) == everything_ours(settings)


@pytest.mark.parametrize("part", ["PLACEMENT", "SCHEDULER"])
def test_daprd_alone_is_not_mixed_with_companions_of_ours(
    settings: Settings, initialised: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence(part, monkeypatch)

    assert choose_runtime(settings, initialised, BUILD) == everything_ours(settings)


def test_our_own_is_used_where_it_is_asked_for(settings: Settings, initialised: Path) -> None:
    asked = replace(settings, own_dapr=True)

    assert choose_runtime(asked, initialised, BUILD) == everything_ours(settings)


def everything_ours(settings: Settings) -> Runtime:
    return Runtime(BUILD, settings.ports.placement, settings.ports.scheduler, settings.ports.redis)


def test_the_cli_finds_a_daprd_that_listens_on_loopback_only(settings: Settings, initialised: Path) -> None:
    ours = Runtime(initialised / ".dapr" / "bin", 13005, 13010, 13637)
    home = runtime.arrange_for_cli(settings, ours)

    said = subprocess.run([home / ".dapr" / "bin" / "daprd", "--app-id", "budeval"], capture_output=True, text=True,
                          check=True).stdout  # fmt: skip

    assert said.split() == [
        "daprd", "--app-id", "budeval",
        "--metrics-listen-address=127.0.0.1", "--dapr-internal-grpc-listen-address=127.0.0.1",
    ]  # fmt: skip


def test_the_cli_is_led_to_the_companions_of_dapr_init(settings: Settings, initialised: Path) -> None:
    found = choose_runtime(settings, initialised, BUILD)
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

"""The Dapr runtime: ours, or the one `dapr init` has put on this machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dev import files, probes
from dev.settings import Settings
from dev.supervision import Program

APP_ID = "budeval"
# What daprd would otherwise open on all interfaces.
LOOPBACK: Mapping[str, object] = {
    "metrics-listen-address": probes.HOST,
    "dapr-internal-grpc-listen-address": probes.HOST,
}
# Where `dapr init` puts its parts.
INIT_PLACEMENT_PORT, INIT_SCHEDULER_PORT, INIT_REDIS_PORT = 50005, 50006, 6379


@dataclass(frozen=True)
class Runtime:
    """Where daprd is and which ports its companions have."""

    daprd: Path
    placement_port: int
    scheduler_port: int
    redis_port: int
    ours: bool
    """False: placement, scheduler and Redis are somebody else's and are neither started nor stopped."""


def find_initialised(home: Path) -> Runtime | None:
    """The runtime of `dapr init`, where it is complete and running."""
    daprd = home / ".dapr" / "bin" / "daprd"
    if not os.access(daprd, os.X_OK):
        return None
    answering = (probes.tcp(INIT_PLACEMENT_PORT), probes.tcp(INIT_SCHEDULER_PORT), probes.redis(INIT_REDIS_PORT))
    if not all(probes.passes(probe) for probe in answering):
        return None
    return Runtime(daprd, INIT_PLACEMENT_PORT, INIT_SCHEDULER_PORT, INIT_REDIS_PORT, ours=False)


def own_runtime(settings: Settings, binaries: Path) -> Runtime:
    """The runtime the stack starts itself."""
    ports = settings.ports
    return Runtime(binaries / "daprd", ports.placement, ports.scheduler, ports.redis, ours=True)


def placement(settings: Settings, binaries: Path) -> Program:
    """The placement service: which daprd hosts which workflow."""
    ports = settings.ports
    options = {
        "port": ports.placement,
        "healthz-port": ports.placement_health,
        "metrics-port": ports.placement_metrics,
        "listen-address": probes.HOST,
        "healthz-listen-address": probes.HOST,
        "metrics-listen-address": probes.HOST,
        "initial-cluster": f"dapr-placement-0={probes.HOST}:{ports.placement_raft}",
    }
    return Program("placement", [binaries / "placement", *_arguments(options)])


def scheduler(settings: Settings, binaries: Path) -> Program:
    """The scheduler service: timers and reminders of workflows, in an etcd of its own."""
    ports, folder = settings.ports, settings.state / "dapr" / "scheduler"
    (folder / "tls").mkdir(parents=True, exist_ok=True)
    options = {
        "port": ports.scheduler,
        "healthz-port": ports.scheduler_health,
        "metrics-port": ports.scheduler_metrics,
        "listen-address": probes.HOST,
        "healthz-listen-address": probes.HOST,
        "metrics-listen-address": probes.HOST,
        "etcd-data-dir": folder / "etcd",
        "etcd-client-listen-address": probes.HOST,
        "etcd-client-port": ports.scheduler_etcd_client,
        "etcd-initial-cluster": f"dapr-scheduler-server-0=http://{probes.HOST}:{ports.scheduler_etcd_peer}",
        "identity-directory-write": folder / "tls",
        "override-broadcast-host-port": f"{probes.HOST}:{ports.scheduler}",
    }
    return Program("dapr-scheduler", [binaries / "scheduler", *_arguments(options)])


def sidecar(settings: Settings, runtime: Runtime, environment: dict[str, str]) -> Program:
    """daprd of the service; started by `make demo`, not by `up`."""
    ports = settings.ports
    options = {
        "app-id": APP_ID,
        "app-port": ports.service,
        "app-protocol": "http",
        "dapr-http-port": ports.daprd_http,
        "dapr-grpc-port": ports.daprd_grpc,
        "dapr-internal-grpc-port": ports.daprd_internal,
        "dapr-listen-addresses": probes.HOST,
        "metrics-port": ports.daprd_metrics,
        "resources-path": settings.root / "components",
        "config": settings.root / "components" / "config" / "budeval.yaml",
        "log-as-json": "true",
        **LOOPBACK,
        **_companions(runtime),
    }
    return Program("daprd", [runtime.daprd, *_arguments(options)], environment, stop_seconds=20)


def arrange_for_cli(settings: Settings, runtime: Runtime) -> Path:
    """Lay daprd out where the Dapr CLI looks for it; return the value for DAPR_RUNTIME_PATH.

    It is a wrapper, because app.yaml cannot say all: the CLI has no option for the listen addresses of metrics and of
    the internal API, and the file names the ports of our own placement and scheduler. Of an option given twice, daprd
    takes the last.
    """
    home = settings.state / "dapr"
    options = dict(LOOPBACK)
    if not runtime.ours or not settings.default_ports:
        options |= _companions(runtime)
    script = f'#!/bin/sh\nexec "{runtime.daprd}" "$@" {" ".join(_arguments(options))}\n'
    files.write(home / ".dapr" / "bin" / "daprd", script, 0o755)
    return home


def _companions(runtime: Runtime) -> dict[str, object]:
    return {
        "placement-host-address": f"{probes.HOST}:{runtime.placement_port}",
        "scheduler-host-address": f"{probes.HOST}:{runtime.scheduler_port}",
    }


def _arguments(options: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]

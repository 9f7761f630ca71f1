"""The Dapr runtime: ours, or the one `dapr init` has put on this machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    """Where Dapr's programs are, which ports its companions have, and which of all that is the stack's own."""

    binaries: Path
    """Folder with daprd, and with placement and scheduler where they are started."""
    placement_port: int
    scheduler_port: int
    redis_port: int
    built: bool = True
    """False: the programs are those of `dapr init`, and none is built."""
    starts_companions: bool = True
    """False: placement and scheduler are somebody else's and are neither started nor stopped."""
    starts_redis: bool = True
    """The same for Redis."""

    @property
    def daprd(self) -> Path:
        return self.binaries / "daprd"


def choose_runtime(settings: Settings, home: Path, build: Path) -> Runtime:
    """The runtime with as much of `dapr init` in it as is there.

    With Docker, `dapr init` leaves daprd and running containers: all are used, and Redis too where it runs (an
    installation from a bundle has none). `dapr init --slim` leaves three programs and starts none: the stack does. What
    is left when the containers are gone, daprd alone, is not mixed with companions of another version.

    Args:
        home: where `.dapr` is looked for.
        build: folder of the stack's own build.
    """
    ports, theirs = settings.ports, home / ".dapr" / "bin"
    own = Runtime(build, ports.placement, ports.scheduler, ports.redis)
    if settings.own_dapr or not _has(theirs, "daprd"):
        return own
    if all(probes.passes(probes.tcp(port)) for port in (INIT_PLACEMENT_PORT, INIT_SCHEDULER_PORT)):
        running = replace(
            own,
            binaries=theirs,
            built=False,
            placement_port=INIT_PLACEMENT_PORT,
            scheduler_port=INIT_SCHEDULER_PORT,
            starts_companions=False,
        )
        has_redis = probes.passes(probes.redis(INIT_REDIS_PORT))
        return replace(running, redis_port=INIT_REDIS_PORT, starts_redis=False) if has_redis else running
    return replace(own, binaries=theirs, built=False) if _has(theirs, "placement", "scheduler") else own


def _has(folder: Path, *programs: str) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in programs)


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
    if not runtime.starts_companions or not settings.default_ports:
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

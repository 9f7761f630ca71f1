"""Real processes for tests: redis-server, placement, scheduler, daprd, the service and a subscriber.

Each part is started, killed and started again by its own pid. Ports are fixed, on 127.0.0.1 and below the ephemeral
range, so that a part that comes back is found where it was. No part outlives the test session, not even one that was
killed: the kernel ends each with the process that started it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.fernet import Fernet

from dev.gobuild import DAPR, GoModule, ensure_programs
from dev.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
APP_ID, SUBSCRIBER_ID = "budeval-under-test", "budapp-under-test"
"""Not the names of the local stack: the Dapr CLI finds any daprd of this machine by its app id alone."""
TOPIC, SECOND_TOPIC, REQUEST_TOPIC = "budapp-notifications", "other-notifications", "budeval-requests"
DEAD_LETTERS = f"{REQUEST_TOPIC}-dead-letter"
SIDECAR_CONFIG = ROOT / "components" / "config" / "budeval.yaml"
LOOPBACK = {
    "dapr-listen-addresses": HOST,
    "dapr-internal-grpc-listen-address": HOST,
    "metrics-listen-address": HOST,
}
POLL_SECONDS = 0.05
START_SECONDS = 30.0


def program(module: GoModule, name: str) -> Path:
    """A program of the stack's own build, which ``make up`` leaves out where `dapr init` has put its own."""
    return ensure_programs(load_settings(), module) / name


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Polls until ``condition`` is true and answers its value. Raises ``TimeoutError`` naming ``what``."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(POLL_SECONDS)


def listening(port: int) -> bool:
    """Whether somebody accepts connections on a port of 127.0.0.1."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((HOST, port)) == 0


def answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET is answered with a 2xx status."""
    try:
        return httpx.get(url, headers=headers, timeout=2).is_success
    except httpx.HTTPError:
        return False


class Part:
    """One process that can be killed and started again; its output goes to one log file for all of its lives."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        self.environment = dict(environment or {})
        self._ready = ready
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the living process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        """Starts it, and by default waits until it is ready."""
        identity = ["--reuid", self._user, "--regid", self._user, "--clear-groups"] if self._user else []
        # The kernel kills the part should this process die without a word.
        wrapper = ["setpriv", "--pdeathsig", "KILL", *identity, "--"]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*wrapper, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **self.environment},
                cwd=ROOT if self._user is None else "/",
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Waits until it is ready; its death ends the waiting."""
        wait_for(lambda: self._ready() or not self.running, seconds, f"{self.name} is ready (see {self.log})")
        if not self.running:
            raise RuntimeError(f"{self.name} ended at its start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)

    def stop(self, seconds: float = 20) -> float:
        """SIGTERM; answers the seconds it took. Raises ``TimeoutExpired`` when it takes longer than ``seconds``."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=seconds)
        return time.monotonic() - began


@dataclass(frozen=True)
class Ports:
    """Every port of one set of parts."""

    base: int

    def __getattr__(self, name: str) -> int:
        try:
            return self.base + _OFFSETS[name]
        except KeyError:
            raise AttributeError(name) from None


_OFFSETS = {
    "placement": 5, "placement_health": 6, "placement_metrics": 7, "placement_raft": 8,
    "scheduler": 10, "scheduler_health": 11, "scheduler_metrics": 12, "scheduler_etcd": 13, "scheduler_peer": 14,
    "service": 99, "subscriber": 98, "nobody": 97,
    "daprd_http": 500, "daprd_grpc": 501, "daprd_internal": 502, "daprd_metrics": 503,
    "subscriber_http": 510, "subscriber_grpc": 511, "subscriber_internal": 512, "subscriber_metrics": 513,
    "redis": 637, "redis_tls": 638, "postgresql": 432,
}  # fmt: skip


def arguments(options: Mapping[str, object]) -> list[str | Path]:
    """Options of a program in the form ``--name=value``."""
    return [f"--{name}={value}" for name, value in options.items()]


def component(name: str, kind: str, version: str = "v1", **metadata: str) -> dict[str, Any]:
    """A Dapr component as data."""
    return {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {
            "type": kind,
            "version": version,
            "metadata": [{"name": key, "value": value} for key, value in metadata.items()],
        },
    }


def write_components(directory: Path, *components: Mapping[str, Any]) -> Path:
    """Writes a resources directory for daprd."""
    directory.mkdir(parents=True, exist_ok=True)
    for item in components:
        (directory / f"{item['metadata']['name']}.yaml").write_text(yaml.safe_dump(dict(item)))
    return directory


class DaprParts:
    """Factories of the Dapr programs and Redis, all below one directory and above one port."""

    def __init__(self, directory: Path, base: int, app_id: str = APP_ID, subscriber_id: str = SUBSCRIBER_ID) -> None:
        self.app_id, self.subscriber_id = app_id, subscriber_id
        self.directory = directory
        self.ports = Ports(base)
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    def redis(self, options: Mapping[str, object] | None = None) -> Part:
        """Redis that has on disk what it acknowledged."""
        ports, folder = self.ports, self.directory / "redis"
        folder.mkdir(exist_ok=True)
        every: dict[str, object] = {
            "port": ports.redis,
            "bind": HOST,
            "dir": folder,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            **(options or {}),
        }
        words = [word for name, value in every.items() for word in (f"--{name}", str(value))]
        # It takes connections while it still loads its file; with TLS only a TLS client could ask.
        ready = partial(listening if "tls-port" in every else redis_answers, ports.redis)
        return self._part("redis", ["redis-server", *words], ready)

    def placement(self) -> Part:
        """The placement service."""
        ports = self.ports
        options = {
            "port": ports.placement,
            "healthz-port": ports.placement_health,
            "metrics-port": ports.placement_metrics,
            "listen-address": HOST,
            "healthz-listen-address": HOST,
            "metrics-listen-address": HOST,
            "initial-cluster": f"dapr-placement-0={HOST}:{ports.placement_raft}",
        }
        command = [program(DAPR, "placement"), *arguments(options)]
        return self._part("placement", command, lambda: answers(f"http://{HOST}:{ports.placement_health}/healthz"))

    def scheduler(self) -> Part:
        """The scheduler service with its own etcd."""
        ports, folder = self.ports, self.directory / "scheduler"
        (folder / "tls").mkdir(parents=True, exist_ok=True)
        options = {
            "port": ports.scheduler,
            "healthz-port": ports.scheduler_health,
            "metrics-port": ports.scheduler_metrics,
            "listen-address": HOST,
            "healthz-listen-address": HOST,
            "metrics-listen-address": HOST,
            "etcd-data-dir": folder / "etcd",
            "etcd-client-port": ports.scheduler_etcd,
            "etcd-initial-cluster": f"dapr-scheduler-server-0=http://localhost:{ports.scheduler_peer}",
            "identity-directory-write": folder / "tls",
            "override-broadcast-host-port": f"{HOST}:{ports.scheduler}",
        }
        command = [program(DAPR, "scheduler"), *arguments(options)]
        return self._part("scheduler", command, lambda: answers(f"http://{HOST}:{ports.scheduler_health}/healthz"))

    def daprd(self, resources: Path, environment: Mapping[str, str] | None = None) -> Part:
        """The sidecar of the service; ready when it takes calls, whether or not the service is there."""
        ports = self.ports
        options = {
            "app-id": self.app_id,
            "config": SIDECAR_CONFIG,
            "app-port": ports.service,
            "app-protocol": "http",
            "dapr-http-port": ports.daprd_http,
            "dapr-grpc-port": ports.daprd_grpc,
            "dapr-internal-grpc-port": ports.daprd_internal,
            "metrics-port": ports.daprd_metrics,
            **LOOPBACK,
            "resources-path": resources,
            "placement-host-address": f"{HOST}:{ports.placement}",
            "scheduler-host-address": f"{HOST}:{ports.scheduler}",
        }
        url = f"http://{HOST}:{ports.daprd_http}/v1.0/healthz/outbound"
        part = self._part("daprd", [program(DAPR, "daprd"), *arguments(options)], lambda: False, environment)
        part._ready = lambda: answers(url, _token_header(part.environment.get("DAPR_API_TOKEN")))
        return part

    def subscriber(self) -> Part:
        """The application that records what it receives."""
        ports, folder = self.ports, self.directory / "subscriber"
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tests.workflow.subscriber", str(ports.subscriber), str(self.deliveries)]
        return self._part(
            "subscriber", [*command, TOPIC, SECOND_TOPIC, DEAD_LETTERS], lambda: listening(ports.subscriber)
        )

    @property
    def deliveries(self) -> Path:
        """Where the subscriber records; one JSON object a line."""
        return self.directory / "subscriber" / "deliveries.jsonl"

    def subscriber_daprd(self, resources: Path) -> Part:
        """The sidecar of the subscriber."""
        ports = self.ports
        options = {
            "app-id": self.subscriber_id,
            "config": SIDECAR_CONFIG,
            "app-port": ports.subscriber,
            "app-protocol": "http",
            "dapr-http-port": ports.subscriber_http,
            "dapr-grpc-port": ports.subscriber_grpc,
            "dapr-internal-grpc-port": ports.subscriber_internal,
            "metrics-port": ports.subscriber_metrics,
            **LOOPBACK,
            "resources-path": resources,
            # No actors here: without these two it needs neither placement nor scheduler.
            "placement-host-address": "",
            "scheduler-host-address": "",
        }
        command = [program(DAPR, "daprd"), *arguments(options)]
        url = f"http://{HOST}:{ports.subscriber_http}/v1.0/healthz"
        return self._part("subscriber-daprd", command, lambda: answers(url))

    def service(self, world: Path, environment: Mapping[str, str]) -> Part:
        """The service as a real process, with a scripted orchestrator at the border to the cluster."""
        ports = self.ports
        variables = {
            "BUDEVAL_PORT": str(ports.service),
            "BUDEVAL_ACCESS": "off",
            "BUDEVAL_RATE_LIMIT": "none",
            "BUDEVAL_DATABASE_URL": f"sqlite:///{self.directory / 'record.sqlite'}",
            "BUDEVAL_SEALING_KEYS": Fernet.generate_key().decode(),
            "BUDEVAL_PLAYBOOK_RUN_DIR": f"/dev/shm/budeval-tests-{ports.base}",
            "DAPR_HTTP_PORT": str(ports.daprd_http),
            "DAPR_GRPC_PORT": str(ports.daprd_grpc),
            **environment,
        }
        command = [sys.executable, "-m", "tests.workflow.scripted_service", str(world)]
        return self._part("service", command, lambda: answers(f"http://{HOST}:{ports.service}/livez"), variables)

    def _part(
        self,
        name: str,
        command: Sequence[str | Path],
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> Part:
        return Part(name, command, self.logs / f"{name}.log", ready, environment)


def _token_header(token: str | None) -> dict[str, str]:
    return {"dapr-api-token": token} if token else {}


def redis_answers(port: int) -> bool:
    """Whether a Redis without TLS answers PING; it may still be loading its file."""
    try:
        with socket.create_connection((HOST, port), 1) as client:
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def read_deliveries(path: Path) -> Iterator[dict[str, Any]]:
    """What the subscriber has recorded so far."""
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line)

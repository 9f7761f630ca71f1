"""The stack as a whole: what it consists of, in which order it comes up, and how it goes away."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from dev import console, environment, files, gobuild, images, model, packages, probes, redis, runtime
from dev.datasets import installation as datasets
from dev.errors import StackError
from dev.kubernetes import images as node_images
from dev.kubernetes import teardown
from dev.kubernetes.cluster import Cluster, cluster_manifests, local_manifests
from dev.kubernetes.node import Node
from dev.locks import locked
from dev.probes import Probe
from dev.runtime import Runtime
from dev.settings import Settings
from dev.supervision import ProcessState, Program, Supervisor

READY_TIMEOUT_SECONDS = 120.0
# A part may need a second start while its neighbour still lets go of a port; later ends are failures.
GRACE_SECONDS = 8.0
IDLE_STATES = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})
# The pause image is part of every pod; the engine's is large and only needed to run evaluations.
IMAGE_GROUPS = {"pause": "node", "engine": "engine"}
GROUPS = ("redis", "dapr", "api", "node", "engine", "data", "model")


@dataclass(frozen=True)
class Part:
    """A supervised process of the stack and how to tell that it is ready."""

    name: str
    program: Callable[[], Program]
    """Called only where the part's group is installed."""
    ready: Probe
    group: str


@dataclass(frozen=True)
class PartStatus:
    """A line of `status`."""

    name: str
    state: str
    """ready, starting, or what supervisord calls it."""
    pid: int | None
    uptime: int | None
    detail: str


class Stack:
    """Every part of the local stack, brought up and taken down by name."""

    def __init__(self, settings: Settings, overrides: Mapping[str, str] | None = None) -> None:
        self.settings = settings
        self.supervisor = Supervisor(settings)
        self._overrides = os.environ if overrides is None else overrides

    @cached_property
    def runtime(self) -> Runtime:
        """The Dapr runtime in use."""
        build = gobuild.binary_directory(self.settings, gobuild.DAPR)
        return runtime.choose_runtime(self.settings, Path.home(), build)

    @cached_property
    def node(self) -> Node:
        return Node(self.settings, gobuild.binary_directory(self.settings, gobuild.KUBERNETES))

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster in use, as its administrator."""
        kubectl = gobuild.binary_directory(self.settings, gobuild.KUBERNETES) / "kubectl"
        kubeconfig = None if self.settings.use_existing_cluster else self.settings.admin_kubeconfig
        return Cluster(self.settings, kubectl, kubeconfig)

    @property
    def _starts_cluster(self) -> bool:
        return not self.settings.use_existing_cluster

    def parts(self) -> list[Part]:
        """Every process `up` starts, in the order of their dependencies."""
        return [*self._messaging_parts(), *self._cluster_parts(), *self._model_parts()]

    def _messaging_parts(self) -> list[Part]:
        settings, ports, chosen = self.settings, self.settings.ports, self.runtime
        programs = chosen.binaries
        companions = [
            Part("placement", lambda: runtime.placement(settings, programs), _health(ports.placement_health), "dapr"),
            Part(
                "dapr-scheduler", lambda: runtime.scheduler(settings, programs), _health(ports.scheduler_health), "dapr"
            ),
        ]
        broker = Part("redis", lambda: redis.program(settings), probes.redis(ports.redis), "redis")
        return [*([broker] if chosen.starts_redis else []), *(companions if chosen.starts_companions else [])]

    def _cluster_parts(self) -> list[Part]:
        if not self._starts_cluster:
            return []
        node = self.node
        return [
            Part("etcd", node.etcd, node.etcd_ready(), "api"),
            Part("kube-apiserver", node.apiserver, node.apiserver_ready(), "api"),
            Part("kube-controller-manager", node.controller_manager, node.controller_manager_ready(), "api"),
            Part("kube-scheduler", node.scheduler, node.scheduler_ready(), "node"),
            Part("containerd", node.containerd, node.containerd_ready(), "node"),
            Part("kubelet", node.kubelet, node.kubelet_ready(), "node"),
        ]

    def _model_parts(self) -> list[Part]:
        settings = self.settings
        return [Part("model", lambda: _model_program(settings), _health(settings.ports.model, "/health"), "model")]

    def services(self) -> list[Program]:
        """The service and its sidecar: known to the supervisor, started by `python -m dev service start`."""
        sidecar = runtime.sidecar(
            self.settings, self.runtime, environment.sidecar_environment(self.settings, self.runtime)
        )
        values = environment.service_environment(self.settings, self._overrides)
        python = self.settings.root / ".venv" / "bin" / "python"
        service = Program(
            "budeval",
            [python, "-m", "budeval"],
            {**values, "PATH": f"{python.parent}:{os.defpath}"},
            stop_seconds=15,
            stop_group=True,
        )
        return [service, sidecar]

    def up(self, groups: Sequence[str]) -> None:
        """Bring the chosen groups up; running it again changes nothing.

        Raises:
            StackError: something is missing or does not get ready; the message says what and where its log is.
        """
        # What cannot succeed ends before the builds, which take minutes.
        if self.settings.use_existing_cluster:
            self.cluster.require_kubeconfig()
        elif "node" in groups:
            require_root()
        self._install(groups)
        if self.settings.use_existing_cluster:
            self.cluster.require_service_kubeconfig()
        with self._alone():
            self._bring_up(groups)

    def _alone(self) -> AbstractContextManager[None]:
        """One command at a time changes what runs."""
        return locked(self.settings.state / "lock", "command of this stack")

    def _bring_up(self, groups: Sequence[str]) -> None:
        self._prepare(groups)
        if not self.supervisor.is_running():
            # What a killed supervisor left would hold the ports.
            teardown.kill_leftovers(self.settings)
        self.supervisor.apply(self._programs(groups))
        for part in self.parts():
            if part.group in groups:
                self._start(part)
                self._after(part)
        if "engine" in self._images(groups):
            self._import("engine")
        if "data" in groups and self._starts_cluster:
            datasets.install(self.settings.data / "datasets")
        self._write_environment()

    def _programs(self, groups: Sequence[str]) -> list[Program]:
        """What is to be known to the supervisor: what is asked for now, and what it knows already."""
        known = self.supervisor.states() if self.supervisor.is_running() else {}
        chosen = [part for part in self.parts() if part.group in groups or part.name in known]
        return [*(part.program() for part in chosen), *self.services()]

    def _install(self, groups: Sequence[str]) -> None:
        wanted: list[str] = [*packages.CLIENT_PACKAGES]
        if "redis" in groups and self.runtime.starts_redis:
            wanted += packages.REDIS_PACKAGES
        if {"api", "node"} & set(groups) and self._starts_cluster:
            wanted += packages.NODE_PACKAGES
        packages.ensure_packages(self.settings, wanted)
        # Two at once: one downloads while the other compiles.
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(lambda build: build(), self._builds(groups)))

    def _builds(self, groups: Sequence[str]) -> list[Callable[[], object]]:
        """What makes the programs, images and environments that are not in the cache, each by itself."""
        modules = [gobuild.KUBERNETES] if "api" in groups else []
        if "dapr" in groups and self.runtime.built:
            modules += [gobuild.DAPR, gobuild.DAPR_CLI]
        builds: list[Callable[[], object]] = [
            *(partial(gobuild.ensure_programs, self.settings, module) for module in modules),
            *(partial(images.ensure_image, self.settings, image) for image in self._images(groups)),
        ]
        if "model" in groups:
            builds.append(partial(model.ensure_model_venv, self.settings))
        return builds

    def _images(self, groups: Sequence[str]) -> list[str]:
        """Names of the images the node is to have."""
        if not self._starts_cluster:
            return []
        return [image for image, group in IMAGE_GROUPS.items() if group in groups]

    def _prepare(self, groups: Sequence[str]) -> None:
        """Write what the programs read at their start."""
        if not self._starts_cluster:
            return
        if self.node.write_files():
            files.write(self.settings.kubernetes / "applied", "")
        if "node" in groups:
            teardown.create_cgroups(self.settings)

    def _start(self, part: Part) -> None:
        with console.line(part.name) as current:

            def alive() -> None:
                if current.elapsed() > GRACE_SECONDS:
                    self.supervisor.ensure_alive(part.name)

            if self.supervisor.states()[part.name].state in IDLE_STATES and probes.passes(part.ready):
                raise StackError(
                    f"Another program already answers in the place of {part.name}; stop it, or choose "
                    "other ports with BUDEVAL_PORT_BASE"
                )
            self.supervisor.start(part.name)
            try:
                probes.wait_until(part.ready, READY_TIMEOUT_SECONDS, part.name, alive)
            except StackError as error:
                raise StackError(f"{error}\n{self.supervisor.log_end(part.name)}") from error

    def _after(self, part: Part) -> None:
        """What becomes possible once this part is ready."""
        if part.name == "kube-controller-manager":
            self._apply_manifests()
        elif part.name == "containerd":
            self._import("pause")
        elif part.name == "kubelet":
            with console.line("node"):
                probes.wait_until(self.cluster.node_ready, READY_TIMEOUT_SECONDS, "The node")

    def _apply_manifests(self) -> None:
        documents = local_manifests(self.settings)
        stamp = self.settings.kubernetes / "applied"
        with console.line("manifests and identity") as current:
            key = files.digest(repr(documents))
            if files.read(stamp) == key:
                current.note = "unchanged"
            else:
                self.cluster.apply(documents)
                probes.wait_until(self.cluster.claim_bound, READY_TIMEOUT_SECONDS, "The claim budeval-data")
                files.write(stamp, key)
            self.cluster.ensure_service_kubeconfig()

    def _import(self, name: str) -> None:
        archive, reference = images.ensure_image(self.settings, name), images.IMAGES[name].reference
        with console.line(f"image {name}") as current:
            if node_images.is_imported(self.settings, reference, archive):
                current.note = "unchanged"
            else:
                node_images.import_image(self.settings, reference, archive)

    def set_cluster_up(self) -> None:
        """Give an existing cluster what the service needs there: namespace, identity, claim."""
        if self._starts_cluster:
            raise StackError("Which cluster? Set KUBECONFIG to that of its administrator.")
        self.cluster.require_kubeconfig()
        gobuild.ensure_programs(self.settings, gobuild.KUBERNETES)
        with console.line("manifests and identity"):
            self.cluster.apply(cluster_manifests(self.settings))
            self.cluster.ensure_service_kubeconfig()

    def _write_environment(self) -> None:
        values = {
            **environment.service_environment(self.settings, self._overrides),
            **environment.sidecar_environment(self.settings, self.runtime),
        }
        if self._starts_cluster:
            values |= environment.kubectl_environment(self.settings)
        modules = [gobuild.KUBERNETES, *([gobuild.DAPR, gobuild.DAPR_CLI] if self.runtime.built else [])]
        programs = [gobuild.binary_directory(self.settings, module) for module in modules]
        path = [self.settings.root / ".venv" / "bin", *programs]
        home = runtime.arrange_for_cli(self.settings, self.runtime)
        environment.write_environment(self.settings, values, path, home)

    def status(self) -> list[PartStatus]:
        """The state of every part, and of the service where it was started."""
        states = self.supervisor.states() if self.supervisor.is_running() else {}
        lines = [_part_status(part, states.get(part.name)) for part in self.parts()]
        return [*lines, *(_service_status(states[name]) for name in ("daprd", "budeval") if name in states)]

    def down(self) -> None:
        """Stop everything; leave no process, mount, cgroup or socket. Data stay for the next `up`."""
        with self._alone():
            self._take_down()

    def _take_down(self) -> None:
        for name in ("budeval", "daprd", "kubelet"):
            self._stop(name)
        self._remove_pods()
        if self.supervisor.is_running():
            with console.line("all other parts") as current:
                self.supervisor.shutdown()
                current.state = "stopped"
        with console.line("processes, mounts, cgroups") as current:
            teardown.kill_leftovers(self.settings)
            teardown.unmount_all(self.settings)
            teardown.remove_cgroups(self.settings)
            teardown.remove_log_links(self.settings)
            teardown.remove_files(self.settings.state.glob("*.sock*"))
            current.state = "removed"

    def start_service(self) -> None:
        """Start the service and its sidecar and wait until both answer; a service of other code is stopped first."""
        ports = self.settings.ports
        with self._alone():
            source = images.image_hash(images.IMAGES["service"], self.settings.root)
            stamp = self.settings.state / "service-source"
            if files.read(stamp) not in {"", source}:
                self._stop("budeval")
            files.write(stamp, source)
            for name, ready in (
                ("budeval", probes.http_ok(ports.service, "/livez")),
                ("daprd", probes.tcp(ports.daprd_http)),
            ):
                self._start(Part(name, lambda: self.services()[0], ready, "service"))

    def stop_service(self) -> None:
        """Stop the service first, so that it can say goodbye to its sidecar."""
        with self._alone():
            for name in ("budeval", "daprd"):
                self._stop(name)

    def _stop(self, name: str) -> None:
        if not self.supervisor.is_running():
            return
        with console.line(name) as current:
            self.supervisor.stop(name)
            current.state = "stopped"

    def _remove_pods(self) -> None:
        with console.line("pods") as current:
            teardown.kill_pods(self.settings)
            if probes.passes(probes.unix(self.settings.containerd_socket)):
                teardown.delete_containers(self.settings)
            current.state = "removed"


def require_root() -> None:
    """Raise StackError unless this is root: a node makes mounts and cgroups."""
    if os.getuid() != 0:
        raise StackError(
            "The local Kubernetes node needs root (it makes mounts and cgroups). Run this as root, or set "
            "KUBECONFIG to use a cluster of your own."
        )


def _health(port: int, path: str = "/healthz") -> Probe:
    return probes.http_ok(port, path)


def _model_program(settings: Settings) -> Program:
    return Program("model", model.model_command(settings), stop_group=True)


def _part_status(part: Part, state: ProcessState | None) -> PartStatus:
    if state is None:
        return PartStatus(part.name, "stopped", None, None, "")
    # The supervisor calls the first second of a process "starting", whatever the process can do by then.
    if state.state not in {"RUNNING", "STARTING"}:
        return PartStatus(part.name, state.state.lower(), state.pid, None, state.detail)
    word = "ready" if probes.passes(part.ready) else "starting"
    return PartStatus(part.name, word, state.pid, state.uptime, "")


def _service_status(state: ProcessState) -> PartStatus:
    return PartStatus(state.name, state.state.lower(), state.pid, state.uptime, "")

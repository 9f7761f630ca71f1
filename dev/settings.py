"""Where the local stack lives and which ports it uses: pure values, read from the environment once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.errors import StackError

DEFAULT_PORT_BASE = 13000
# All ports lie within this span above the base; the whole span must stay below Linux' ephemeral range (32768 and up).
PORT_SPAN = 700
EPHEMERAL_RANGE_START = 32768
# sockaddr_un.sun_path holds 108 bytes including the closing NUL.
SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True)
class Ports:
    """Every TCP port of the stack; all are bound to 127.0.0.1."""

    base: int
    service: int

    def __post_init__(self) -> None:
        if not 1024 <= self.base <= EPHEMERAL_RANGE_START - PORT_SPAN:
            raise StackError(
                f"BUDEVAL_PORT_BASE={self.base} is out of range: choose 1024 to {EPHEMERAL_RANGE_START - PORT_SPAN}, "
                "so that no port falls into the range the kernel hands out by itself"
            )

    @property
    def placement(self) -> int:
        return self.base + 5

    @property
    def placement_health(self) -> int:
        return self.base + 6

    @property
    def placement_metrics(self) -> int:
        return self.base + 7

    @property
    def placement_raft(self) -> int:
        return self.base + 8

    @property
    def scheduler(self) -> int:
        return self.base + 10

    @property
    def scheduler_health(self) -> int:
        return self.base + 11

    @property
    def scheduler_metrics(self) -> int:
        return self.base + 12

    @property
    def scheduler_etcd_client(self) -> int:
        return self.base + 13

    @property
    def scheduler_etcd_peer(self) -> int:
        return self.base + 14

    @property
    def model(self) -> int:
        return self.base + 200

    @property
    def kubelet_health(self) -> int:
        return self.base + 248

    @property
    def kubelet(self) -> int:
        return self.base + 250

    @property
    def controller_manager(self) -> int:
        return self.base + 257

    @property
    def kube_scheduler(self) -> int:
        return self.base + 259

    @property
    def etcd_client(self) -> int:
        return self.base + 379

    @property
    def etcd_peer(self) -> int:
        return self.base + 380

    @property
    def apiserver(self) -> int:
        return self.base + 443

    @property
    def daprd_http(self) -> int:
        return self.base + 500

    @property
    def daprd_grpc(self) -> int:
        return self.base + 501

    @property
    def daprd_internal(self) -> int:
        return self.base + 502

    @property
    def daprd_metrics(self) -> int:
        return self.base + 503

    @property
    def redis(self) -> int:
        return self.base + 637


@dataclass(frozen=True)
class Settings:
    """The stack's settings, one object for everything below."""

    root: Path
    """The checkout."""
    state: Path
    """Everything the stack writes, except what is cached."""
    cache: Path
    """Builds and downloads, shared by all checkouts of this user."""
    ports: Ports
    namespace: str
    use_existing_cluster: bool
    """Use the cluster of KUBECONFIG instead of starting one."""
    own_dapr: bool
    """Start our own Dapr even where `dapr init` has been run."""

    @property
    def default_ports(self) -> bool:
        """Whether these are the ports that app.yaml names."""
        return self.ports.base == DEFAULT_PORT_BASE

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def kubernetes(self) -> Path:
        """Keys, kubeconfigs and configuration of the node."""
        return self.state / "kubernetes"

    @property
    def admin_kubeconfig(self) -> Path:
        return admin_kubeconfig(self.state)

    @property
    def service_kubeconfig(self) -> Path:
        return self.kubernetes / "budeval.kubeconfig"

    @property
    def kubectl_cache(self) -> Path:
        return self.kubernetes / "cache"

    @property
    def data(self) -> Path:
        """What lies on the local PersistentVolume."""
        return self.state / "data"

    @property
    def cgroup(self) -> str:
        """The cgroup all pods of this node run under: two stacks never touch each other's pods."""
        return f"/budeval-{self.ports.base}"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def supervisor_socket(self) -> Path:
        return self.state / "supervisor.sock"


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from environment variables.

    Raises:
        StackError: a value is unusable; the message names the variable.
    """
    env = os.environ if environment is None else environment
    root = Path(__file__).resolve().parent.parent
    base = _port(env, "BUDEVAL_PORT_BASE", DEFAULT_PORT_BASE)
    service = 8099 if base == DEFAULT_PORT_BASE else base + 99
    state = Path(env.get("BUDEVAL_STATE_DIR") or root / ".budeval").resolve()
    settings = Settings(
        root=root,
        state=state,
        cache=_cache_directory(env),
        ports=Ports(base=base, service=service),
        namespace=env.get("BUDEVAL_NAMESPACE") or "development",
        use_existing_cluster=_names_existing_cluster(env, state),
        own_dapr=env.get("BUDEVAL_DAPR") == "own",
    )
    for socket in (settings.containerd_socket, settings.supervisor_socket):
        _check_socket_path(socket)
    return settings


def _names_existing_cluster(env: Mapping[str, str], state: Path) -> bool:
    word, kubeconfig = env.get("BUDEVAL_CLUSTER", ""), env.get("KUBECONFIG", "")
    if word not in {"", "local", "existing"}:
        raise StackError(f"BUDEVAL_CLUSTER={word} is neither `existing` nor `local`")
    # A shell that has read our `env` names our own cluster.
    ours = Path(kubeconfig).resolve() == admin_kubeconfig(state)
    return word == "existing" or bool(kubeconfig and not ours)


def admin_kubeconfig(state: Path) -> Path:
    """The kubeconfig of the local cluster's administrator."""
    return state / "kubernetes" / "admin.kubeconfig"


def _cache_directory(env: Mapping[str, str]) -> Path:
    if explicit := env.get("BUDEVAL_CACHE"):
        return Path(explicit).resolve()
    return Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or "~").expanduser() / ".cache") / "budeval"


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal():
        raise StackError(f"{name}={text!r} is not a port number")
    return int(text)


def _check_socket_path(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_LIMIT:
        raise StackError(
            f"The socket path {path} has {length} bytes, and Linux allows {SOCKET_PATH_LIMIT}: "
            "move the checkout to a shorter path or set BUDEVAL_STATE_DIR to one"
        )

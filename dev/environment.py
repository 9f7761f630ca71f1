"""What the service is told: its settings, tokens and keys, as a file to source and as a mapping."""

import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.fernet import Fernet

from dev import files
from dev.runtime import Runtime
from dev.settings import Settings

ENGINE_IMAGE = "localhost/budeval-engine-opencompass:0.1.0"
TOKENS = ("APP_API_TOKEN", "DAPR_API_TOKEN")


def sidecar_environment(settings: Settings, runtime: Runtime) -> dict[str, str]:
    """What daprd needs: the tokens of both directions, and what the components refer to."""
    return {
        **_tokens(settings),
        # The address daprd tells its companions; its own guess is that of a network card.
        "DAPR_HOST_IP": "127.0.0.1",
        "BUDEVAL_REDIS_HOST": f"127.0.0.1:{runtime.redis_port}",
        "BUDEVAL_STATE_FILE": f"file:{settings.state / 'state.sqlite'}",
    }


def service_environment(settings: Settings, overrides: Mapping[str, str]) -> dict[str, str]:
    """What the service needs.

    Args:
        overrides: the caller's own environment; an engine image or pull policy named there wins.
    """
    ports = settings.ports
    values = {
        **_tokens(settings),
        "BUDEVAL_HOST": "127.0.0.1",
        # Whoever is on this machine may use the stack; elsewhere the service refuses this.
        "BUDEVAL_ACCESS": "off",
        "BUDEVAL_PORT": str(ports.service),
        "BUDEVAL_NAMESPACE": settings.namespace,
        "BUDEVAL_KUBECONFIG": str(settings.service_kubeconfig),
        "BUDEVAL_ENGINE_IMAGE": overrides.get("BUDEVAL_ENGINE_IMAGE") or ENGINE_IMAGE,
        "BUDEVAL_IMAGE_PULL_POLICY": overrides.get("BUDEVAL_IMAGE_PULL_POLICY") or "IfNotPresent",
        "BUDEVAL_PVC_NAME": "budeval-data",
        "BUDEVAL_DATABASE_URL": f"sqlite:///{settings.state / 'record.sqlite'}",
        "BUDEVAL_SEALING_KEYS_FILE": str(_sealing_keys(settings)),
        "BUDEVAL_PUBSUB_NAME": "pubsub-redis",
        "DAPR_HTTP_PORT": str(ports.daprd_http),
        "DAPR_GRPC_PORT": str(ports.daprd_grpc),
    }
    if not settings.use_existing_cluster:
        values["BUDEVAL_POD_TEMPLATE_OVERLAY"] = str(settings.root / "dev" / "kubernetes" / "pod-overlay.yaml")
    return values


def kubectl_environment(settings: Settings) -> dict[str, str]:
    """What leads kubectl to the local cluster, and keeps what it knows of it out of the user's home."""
    return {"KUBECONFIG": str(settings.admin_kubeconfig), "KUBECACHEDIR": str(settings.kubectl_cache)}


def write_environment(settings: Settings, values: Mapping[str, str], path: Sequence[Path], runtime_path: Path) -> None:
    """Write the file that a shell sources before it runs `dapr`, `kubectl` or the service by hand."""
    prefix = ":".join(str(folder) for folder in path)
    lines = [
        "# Written by `make up`; contains secrets.",
        *(f"export {name}={shlex.quote(value)}" for name, value in values.items()),
        f"export BUDEVAL_SERVER=http://127.0.0.1:{settings.ports.service}",
        f"export DAPR_RUNTIME_PATH={shlex.quote(str(runtime_path))}",
        f'export PATH={shlex.quote(prefix)}:"$PATH"',
    ]
    files.write(settings.state / "env", "\n".join(lines) + "\n", files.SECRET_MODE)


def _tokens(settings: Settings) -> dict[str, str]:
    """The tokens between daprd and the service, made once."""
    found = {}
    for name in TOKENS:
        path = settings.state / "tokens" / name
        if not path.exists():
            files.write(path, secrets.token_urlsafe(32), files.SECRET_MODE)
        found[name] = path.read_text()
    return found


def _sealing_keys(settings: Settings) -> Path:
    path = settings.state / "sealing.keys"
    if not path.exists():
        files.write(path, Fernet.generate_key() + b"\n", files.SECRET_MODE)
    return path

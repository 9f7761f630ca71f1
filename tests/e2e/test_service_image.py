"""The service's image, as a pod runs it: without root, without a writable root, without capabilities."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from dev.errors import StackError
from dev.images.build import ensure_image
from dev.images.recipes import IMAGES
from dev.kubernetes.images import import_image, is_imported
from tests.cluster import until
from tests.dapr_harness import HOST, answers
from tests.e2e.system import System

NAME = "budeval-e2e-service"
PORT_OFFSET = 95
IMAGE = IMAGES["service"]
BUILD_SECONDS = 900
"""With nothing in the cache it takes a few minutes."""
PRINT_UNWANTED = """
import importlib.util, shutil
print([name for name in ("gcc", "cc", "c++", "make", "git", "curl") if shutil.which(name)],
      [name for name in ("pip", "setuptools", "pytest") if importlib.util.find_spec(name)])
"""
VERIFY_BY_PLAYBOOK = """
from budeval.ansible.runner import PlaybookRunner
from budeval.commons.settings import Settings
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
settings = Settings()
print(AnsibleOrchestrator(settings, PlaybookRunner(settings)).verify_cluster_connection())
"""

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 180)


@dataclass(frozen=True)
class ServicePod:
    """A pod of the service."""

    system: System
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def python(self, program: str) -> str:
        """Runs a program with the image's Python; answers what it printed."""
        return self.system.kubectl("exec", NAME, "--", "python", "-c", program).strip()


@pytest.fixture(scope="module")
def pod(system: System) -> Iterator[ServicePod]:
    """The image, built from the Dockerfile and started on the node."""
    archive = ensure_image(system.settings, IMAGE.name)
    if not is_imported(system.settings, IMAGE.reference, archive):
        import_image(system.settings, IMAGE.reference, archive)
    remove(system)
    running = ServicePod(system, system.settings.ports.base + PORT_OFFSET)
    try:
        system.admin.made(secret(system))
        system.admin.made(pod_manifest(running.port))
        until(lambda: answers(f"{running.url}/livez"), 90)
        yield running
    finally:
        remove(system)


def remove(system: System) -> None:
    """Take the pod and its Secret away, and wait until the pod is gone."""
    system.admin.delete("Pod", NAME)
    system.admin.delete("Secret", NAME)
    until(lambda: NAME not in system.admin.names("Pod"), 60)


def secret(system: System) -> dict[str, Any]:
    """What the service needs to know that is secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME},
        "stringData": {
            "kubeconfig": system.settings.service_kubeconfig.read_text(),
            "sealing.keys": Fernet.generate_key().decode(),
        },
    }


def pod_manifest(port: int) -> dict[str, Any]:
    """A pod under the strictest of Kubernetes' standards, but for the network of the local node."""
    variables = {
        "BUDEVAL_HOST": HOST,
        "BUDEVAL_ACCESS": "off",
        "BUDEVAL_PORT": str(port),
        "BUDEVAL_KUBECONFIG": "/run/budeval/kubeconfig",
        "BUDEVAL_SEALING_KEYS_FILE": "/run/budeval/sealing.keys",
    }
    writable = {"record": "/var/lib/budeval", "memory": "/dev/shm", "temporary": "/tmp"}
    container = {
        "name": "budeval",
        "image": IMAGE.reference,
        "imagePullPolicy": "Never",
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "secret", "mountPath": "/run/budeval", "readOnly": True},
            *({"name": name, "mountPath": path} for name, path in writable.items()),
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME},
        "spec": {
            "hostNetwork": True,
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                # Kubernetes takes the user of an image, but not its group, and no group without a user.
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "secret", "secret": {"secretName": NAME, "defaultMode": 0o440}},
                *({"name": name, "emptyDir": {"medium": "Memory"}} for name in writable),
            ],
        },
    }


def test_it_serves_without_root_or_a_writable_root(pod: ServicePod) -> None:
    assert httpx.get(f"{pod.url}/livez").json() == {"status": "ok"}
    assert pod.python("import os; print(os.getuid(), os.getgid())") == "65532 65532"
    with pytest.raises(StackError, match="Read-only file system"):
        pod.python("open('/opt/budeval/app/x', 'w')")
    checks = {check["name"]: check["ok"] for check in httpx.get(f"{pod.url}/readyz", timeout=30).json()["checks"]}
    assert checks["database"]
    assert not checks["sidecar"]


def test_it_has_no_compiler_and_no_package_installer(pod: ServicePod) -> None:
    assert pod.python(PRINT_UNWANTED) == "[] []"


def test_playbooks_run_in_it(pod: ServicePod) -> None:
    assert "server_version='v1." in pod.python(VERIFY_BY_PLAYBOOK)

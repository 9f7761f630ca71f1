"""The cluster of the tests: a namespace of their own on the local stack, with the identity that the service gets."""

import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from budeval.ansible.cluster import Cluster
from budeval.commons.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".budeval"
ADMIN_KUBECONFIG = STATE / "kubernetes" / "admin.kubeconfig"
IDENTITY = ROOT / "manifests" / "identity.yaml"

TMPFS = Path("/dev/shm")

PAUSE_IMAGE = "localhost/budeval-pause:0.1.0"
ENGINE_IMAGE = "localhost/budeval-engine-opencompass:0.1.0"
VOLUME_CLAIM = "budeval-data"

_COLLECTIONS = {
    "Namespace": "/api/v1/namespaces",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "LimitRange": "/api/v1/namespaces/{}/limitranges",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Pod": "/api/v1/namespaces/{}/pods",
}


@dataclass(frozen=True)
class Admin:
    """The API server as its administrator sees it, in one namespace."""

    cluster: Cluster
    namespace: str

    def path(self, kind: str, name: str = "") -> str:
        """Path of a collection, or of one of its objects."""
        return f"{_COLLECTIONS[kind].format(self.namespace)}/{name}".rstrip("/")

    def create(self, obj: dict[str, Any], **query: str) -> tuple[int, dict[str, Any]]:
        """HTTP status and answer of a creation."""
        status, body = self.cluster.ask("POST", self.path(obj["kind"]), obj, query=query)
        return status, json.loads(body)

    def made(self, obj: dict[str, Any]) -> dict[str, Any]:
        """An object that was created."""
        status, answer = self.create(obj)
        assert status == 201, answer
        return answer

    def get(self, kind: str, name: str = "", **query: str) -> dict[str, Any]:
        """An object, or a list of them."""
        return self.cluster.fetch(self.path(kind, name), **query)

    def names(self, kind: str) -> list[str]:
        """Names of all objects of a kind."""
        return [item["metadata"]["name"] for item in self.get(kind)["items"]]

    def delete(self, kind: str, name: str) -> None:
        """Remove an object, as a user does."""
        self.cluster.ask("DELETE", self.path(kind, name), {"propagationPolicy": "Background"})


@dataclass(frozen=True)
class ServiceCluster:
    """What the service knows of the tests' cluster, and the administrator's view beside it."""

    admin: Admin
    kubeconfig: Path
    """Of the service's own identity: the Role of ``manifests/`` and nothing else."""
    volume: Path
    """Where the claim's volume lies on this machine."""

    @property
    def namespace(self) -> str:
        """The namespace of this session's tests."""
        return self.admin.namespace

    def settings(self, directory: Path, **changes: Any) -> Settings:
        """Settings of a service that works here; ``directory`` is for its files."""
        overlay = directory / "overlay.yaml"
        overlay.write_text("spec: {hostNetwork: true}\n")
        values = {
            "kubeconfig": self.kubeconfig,
            "namespace": self.namespace,
            "pvc_name": VOLUME_CLAIM,
            "engine_image": ENGINE_IMAGE,
            "pod_template_overlay": overlay,
            "playbook_run_dir": TMPFS / f"{self.namespace}-{directory.name}",
        }
        return Settings(**{**values, **changes})


def until(reached: Callable[[], Any], timeout: float = 30.0, pause: float = 0.2) -> Any:
    """The first true answer; fails when there is none in ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := reached()):
        assert time.monotonic() < deadline, f"not reached in {timeout:g} s"
        time.sleep(pause)
    return answer


@contextmanager
def service_cluster() -> Iterator[ServiceCluster]:
    """A fresh namespace on the local stack, with identity, volume and claim; all gone afterwards."""
    assert ADMIN_KUBECONFIG.exists(), "the local stack is not up: run `make up` first"
    admin = Admin(Cluster(str(ADMIN_KUBECONFIG)), f"budeval-test-{secrets.token_hex(4)}")
    volume = STATE / "test-volumes" / admin.namespace
    volume.mkdir(parents=True)
    volume.chmod(0o777)
    kubeconfig = volume.with_suffix(".kubeconfig")
    try:
        admin.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": admin.namespace}})
        make_volume(admin, volume, VOLUME_CLAIM)
        for document in identity_manifests(admin.namespace):
            admin.made(document)
        kubeconfig.write_text(kubeconfig_text(admin, "budeval"))
        until(lambda: admin.get("PersistentVolumeClaim", VOLUME_CLAIM)["status"]["phase"] == "Bound")
        yield ServiceCluster(admin, kubeconfig, volume)
    finally:
        admin.delete("Namespace", admin.namespace)
        admin.delete("PersistentVolume", admin.namespace)
        for directory in (volume, *TMPFS.glob(f"{admin.namespace}-*")):
            shutil.rmtree(directory, ignore_errors=True)
        kubeconfig.unlink(missing_ok=True)


def identity_manifests(namespace: str) -> list[dict[str, Any]]:
    """The service's identity as the repository has it, for another namespace."""
    text = IDENTITY.read_text(encoding="utf-8").replace("development", namespace)
    return [document for document in yaml.safe_load_all(text) if document]


def kubeconfig_text(admin: Admin, service_account: str) -> str:
    """A kubeconfig with a short-lived token of a service account."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    path = f"{admin.path('ServiceAccount', service_account)}/token"
    status, body = admin.cluster.ask("POST", path, request)
    assert status == 201, body
    document = yaml.safe_load(ADMIN_KUBECONFIG.read_text(encoding="utf-8"))
    document["users"][0]["user"] = {"token": json.loads(body)["status"]["token"]}
    return json.dumps(document)


def make_volume(admin: Admin, path: Path, claim: str, *, name: str | None = None) -> None:
    """A claim that is bound to a directory of this machine, by a volume called ``name`` or like the namespace."""
    name = name or admin.namespace
    storage = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    admin.made(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {**storage, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(path), "type": "Directory"}},
        }
    )
    resources = {"requests": {"storage": "1Gi"}}
    admin.made(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim},
            "spec": {**storage, "volumeName": name, "resources": resources},
        }
    )

"""What lies in the cluster: the manifests, and the service's own identity."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dev import files
from dev.errors import NotReady, StackError
from dev.kubernetes import pki
from dev.settings import Settings
from dev.shell import run

KUBECTL_TIMEOUT_SECONDS = 60.0
MANIFEST_NAMESPACE = "development"
SERVICE_ACCOUNT = "budeval"
# Kept short enough that a lost one ages, long enough that nobody meets its end: every `up` makes a new one if it fails.
TOKEN_DURATION = "8760h"  # noqa: S105 - a duration, not a token


class Cluster:
    """A cluster by its kubeconfig, spoken to with kubectl."""

    def __init__(self, settings: Settings, kubectl: str | Path, kubeconfig: Path | None) -> None:
        self._settings = settings
        self._kubectl = kubectl
        self._kubeconfig = kubeconfig

    def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl and return its output; raises StackError."""
        chosen = kubeconfig or self._kubeconfig
        option = [f"--kubeconfig={chosen}"] if chosen else []
        # kubectl would keep what it knows of the cluster in the user's home.
        environment = {**os.environ, "KUBECACHEDIR": str(self._settings.kubectl_cache)}
        command = [self._kubectl, *option, *arguments]
        return run(command, timeout=KUBECTL_TIMEOUT_SECONDS, stdin=stdin, env=environment)

    def node_ready(self) -> None:
        """Probe: the node takes pods."""
        query = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        try:
            status = self.kubectl("get", "node", pki.NODE_NAME, "-o", query)
        except StackError as error:
            raise NotReady(str(error).splitlines()[-1]) from error
        if status != "True":
            raise NotReady(f"the node's condition Ready is {status or 'not set'}")

    def apply(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Server-side apply; running it again changes nothing."""
        text = yaml.safe_dump_all(documents)
        self.kubectl(
            "apply", "--server-side", "--force-conflicts", "--field-manager=budeval-dev", "-f", "-", stdin=text
        )

    def dry_run(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Let the API server judge objects without storing them; raises StackError with its words."""
        options = ["--dry-run=server", "--validate=strict", "--field-manager=budeval-check", "--force-conflicts"]
        self.kubectl("apply", "--server-side", *options, "-f", "-", stdin=yaml.safe_dump_all(documents))

    def claim_bound(self) -> None:
        """Probe: the claim has its volume."""
        query = ["get", "persistentvolumeclaim", "budeval-data", "-n", self._settings.namespace]
        phase = self.kubectl(*query, "-o", "jsonpath={.status.phase}")
        if phase != "Bound":
            raise NotReady(f"the claim is {phase}")

    def require_kubeconfig(self) -> None:
        """Raise StackError where there is no kubeconfig of a cluster of one's own."""
        named = os.environ.get("KUBECONFIG", "")
        found = [Path(part) for part in named.split(os.pathsep) if part] or [Path.home() / ".kube" / "config"]
        if not any(path.is_file() for path in found):
            says = f"KUBECONFIG is {named}, and" if named else "KUBECONFIG is not set, and"
            raise StackError(f"{says} there is no file {found[0]}. It is to lead to the cluster that is used.")

    def require_service_kubeconfig(self) -> None:
        """Raise StackError unless the service has an identity in this cluster, which answers."""
        target = self._settings.service_kubeconfig
        if not target.exists() or not self._is_of_this_cluster(target):
            raise StackError("The service has no identity in this cluster yet: run `make cluster-setup` first")
        self.kubectl("auth", "whoami", kubeconfig=target)

    def ensure_service_kubeconfig(self) -> bool:
        """Write the service's kubeconfig unless the one that is there still works; return whether it is new."""
        target = self._settings.service_kubeconfig
        if target.exists() and self._works(target):
            return False
        command = ["create", "token", SERVICE_ACCOUNT, "-n", self._settings.namespace, f"--duration={TOKEN_DURATION}"]
        token = self.kubectl(*command).strip()
        server, authority = self._endpoint()
        text = pki.token_kubeconfig(authority, server, SERVICE_ACCOUNT, token, self._settings.namespace)
        return files.write(target, text, files.SECRET_MODE)

    def _works(self, kubeconfig: Path) -> bool:
        if not self._is_of_this_cluster(kubeconfig):
            return False
        try:
            self.kubectl("auth", "whoami", kubeconfig=kubeconfig)
        except StackError:
            return False
        return True

    def _is_of_this_cluster(self, kubeconfig: Path) -> bool:
        server, authority = self._endpoint()
        document = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
        return bool(document == pki.cluster_entry(server, authority))

    def _endpoint(self) -> tuple[str, bytes]:
        """Address and certificate authority (PEM) of the cluster."""
        view = json.loads(self.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
        cluster = view["clusters"][0]["cluster"]
        return cluster["server"], base64.b64decode(cluster.get("certificate-authority-data", ""))


def local_manifests(settings: Settings) -> list[dict[str, Any]]:
    """Everything the local stack puts into its cluster."""
    documents = _load(settings, "namespace.yaml", "identity.yaml", "local/volume.yaml")
    for document in documents:
        if document["kind"] == "PersistentVolume":
            document["spec"]["hostPath"]["path"] = str(settings.data)
    return documents


def cluster_manifests(settings: Settings) -> list[dict[str, Any]]:
    """What a cluster of one's own needs."""
    return _load(settings, "namespace.yaml", "identity.yaml", "cluster/claim.yaml")


def _load(settings: Settings, *names: str) -> list[dict[str, Any]]:
    texts = [(settings.root / "manifests" / name).read_text() for name in names]
    documents = [document for text in texts for document in yaml.safe_load_all(text)]
    return [in_namespace(document, settings.namespace) for document in documents]


def in_namespace(document: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The manifest with every mention of the namespace it was written for replaced."""

    def replace(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replace(item) for key, item in value.items()}
        if isinstance(value, list):
            return [replace(item) for item in value]
        return namespace if value == MANIFEST_NAMESPACE else value

    replaced = replace(document)
    assert isinstance(replaced, dict)  # noqa: S101 - a dict goes in, a dict comes out
    return replaced

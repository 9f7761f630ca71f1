"""A cluster of one's own: which one it is, and whether the service has an identity there."""

import base64
import json
from pathlib import Path

import pytest

from dev import files
from dev.errors import StackError
from dev.kubernetes import pki
from dev.kubernetes.cluster import Cluster
from dev.settings import Settings

SERVER, AUTHORITY = "https://cluster.example:6443", b"authority"


@pytest.fixture
def cluster(settings: Settings, tmp_path: Path) -> Cluster:
    """With a kubectl that knows the cluster, and says who one is unless there is a file `away`."""
    data = base64.b64encode(AUTHORITY).decode()
    view = json.dumps({"clusters": [{"cluster": {"server": SERVER, "certificate-authority-data": data}}]})
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f"""#!/bin/sh
case "$*" in
  *"config view"*) echo '{view}' ;;
  *whoami*) test ! -e {tmp_path}/away || {{ echo "connection refused" >&2; exit 1; }} ;;
esac
"""
    )
    kubectl.chmod(0o755)
    return Cluster(settings, kubectl, None)


def identify(settings: Settings, server: str) -> None:
    files.write(settings.service_kubeconfig, pki.token_kubeconfig(AUTHORITY, server, "budeval", "token", "development"))


def test_an_identity_in_this_cluster_will_do(settings: Settings, cluster: Cluster) -> None:
    identify(settings, SERVER)

    cluster.require_service_kubeconfig()


def test_an_identity_in_another_cluster_is_none(settings: Settings, cluster: Cluster) -> None:
    """As that in the local one, which an earlier `make up` has left."""
    identify(settings, "https://127.0.0.1:13443")

    with pytest.raises(StackError, match="run `make cluster-setup` first"):
        cluster.require_service_kubeconfig()


def test_a_cluster_that_does_not_answer_is_told_with_kubectls_words(
    settings: Settings, cluster: Cluster, tmp_path: Path
) -> None:
    identify(settings, SERVER)
    (tmp_path / "away").touch()

    with pytest.raises(StackError, match="connection refused"):
        cluster.require_service_kubeconfig()


@pytest.mark.parametrize("named", ["/nonsense", "/nonsense:/other", ""])
def test_a_kubeconfig_that_is_not_there_is_named(
    cluster: Cluster, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", named)

    with pytest.raises(StackError, match=f"there is no file {'/nonsense' if named else tmp_path / '.kube'}"):
        cluster.require_kubeconfig()

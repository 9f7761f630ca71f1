"""A cluster of one's own is used instead of starting one."""

import json
import subprocess

import pytest
import yaml

from dev.kubernetes.cluster import in_namespace
from tests.stack.second_stack import ROOT, SecondStack


@pytest.fixture
def own_cluster(second_stack: SecondStack) -> dict[str, str]:
    """Variables that name a cluster somebody else runs: here, that of the other stack."""
    second_stack.up()
    kubeconfig = second_stack.state / "kubernetes" / "admin.kubeconfig"
    return {"KUBECONFIG": str(kubeconfig), "BUDEVAL_NAMESPACE": "elsewhere"}


def test_no_kubernetes_part_is_started(doomed_stack: SecondStack, own_cluster: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="run `make cluster-setup` first"):
        doomed_stack.dev("up", **own_cluster)
    doomed_stack.dev("cluster-setup", **own_cluster)

    doomed_stack.dev("up", "redis", "dapr", "api", "node", **own_cluster)

    shown = json.loads(doomed_stack.dev("status", "--json", **own_cluster))
    assert {line["name"] for line in shown if line["state"] == "ready"} == {"redis", "placement", "dapr-scheduler"}
    assert not {"etcd", "kube-apiserver", "kubelet", "containerd"} & {line["name"] for line in shown}
    # Pods of a real cluster have a network of their own.
    assert "BUDEVAL_POD_TEMPLATE_OVERLAY" not in (doomed_stack.state / "env").read_text()


def test_cluster_setup_makes_namespace_identity_and_claim(
    doomed_stack: SecondStack, second_stack: SecondStack, own_cluster: dict[str, str]
) -> None:
    doomed_stack.dev("cluster-setup", **own_cluster)

    listing = second_stack.kubectl("get", "pvc,role,serviceaccount", "-n", "elsewhere", "-o", "name").stdout.split()
    assert {"persistentvolumeclaim/budeval-data", "role.rbac.authorization.k8s.io/budeval"} <= set(listing)
    assert "serviceaccount/budeval" in listing
    kubeconfig = doomed_stack.state / "kubernetes" / "budeval.kubeconfig"
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    asked: subprocess.CompletedProcess[str] = second_stack.kubectl(
        "auth", "can-i", "create", "jobs", "-n", "elsewhere", f"--kubeconfig={kubeconfig}"
    )
    assert asked.stdout.strip() == "yes", asked.stderr


def test_cluster_setup_leaves_a_claim_with_a_volume_of_ones_own_as_it_is(
    doomed_stack: SecondStack, second_stack: SecondStack, own_cluster: dict[str, str]
) -> None:
    """As the guide has it for kind, whose storage class would refuse the claim of a cluster of one's own."""
    volume, claim = yaml.safe_load_all((ROOT / "manifests" / "local" / "volume.yaml").read_text())
    volume["metadata"]["name"] = claim["spec"]["volumeName"] = "by-the-user"
    namespace = yaml.safe_load((ROOT / "manifests" / "namespace.yaml").read_text())
    applied = second_stack.kubectl(
        "apply",
        "-f",
        "-",
        stdin=yaml.safe_dump_all(in_namespace(part, "by-the-user") for part in (namespace, volume, claim)),
    )
    assert applied.returncode == 0, applied.stderr

    doomed_stack.dev("cluster-setup", **{**own_cluster, "BUDEVAL_NAMESPACE": "by-the-user"})

    query = "jsonpath={.spec.volumeName} {.status.phase}"
    wait = ["wait", "--for=jsonpath={.status.phase}=Bound", "pvc/budeval-data", "-n", "by-the-user", "--timeout=30s"]
    assert second_stack.kubectl(*wait).returncode == 0
    shown = second_stack.kubectl("get", "pvc", "budeval-data", "-n", "by-the-user", "-o", query)
    assert shown.stdout == "by-the-user Bound"

"""The service's identity in the cluster may do what evaluations need, and nothing else."""

import subprocess
from pathlib import Path

import pytest
import yaml

from dev.kubernetes.cluster import in_namespace
from tests.stack.second_stack import ROOT, SecondStack

ALLOWED = [
    *[(verb, "jobs.batch") for verb in ("get", "list", "create", "patch", "delete")],
    ("list", "pods"),
    ("create", "pods"),
    ("get", "pods/log"),
    *[(verb, kind) for kind in ("secrets", "configmaps") for verb in ("get", "create", "patch", "delete")],
    ("get", "persistentvolumeclaims/budeval-data"),
    ("get", "namespaces/development"),
]  # fmt: skip
DENIED = [
    ("watch", "jobs.batch"),
    ("deletecollection", "jobs.batch"),
    ("list", "secrets"),
    ("deletecollection", "secrets"),
    ("list", "configmaps"),
    ("delete", "pods"),
    ("create", "pods/exec"),
    ("create", "pods/attach"),
    ("create", "pods/portforward"),
    ("create", "deployments.apps"),
    ("create", "cronjobs.batch"),
    ("list", "persistentvolumeclaims"),
    ("delete", "persistentvolumeclaims/budeval-data"),
    ("get", "persistentvolumeclaims/another"),
    ("create", "serviceaccounts/token"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("bind", "roles.rbac.authorization.k8s.io"),
    ("escalate", "roles.rbac.authorization.k8s.io"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("impersonate", "users"),
    ("list", "namespaces"),
    ("get", "namespaces/kube-system"),
    ("list", "nodes"),
    ("list", "persistentvolumes"),
    ("list", "customresourcedefinitions"),
]


def may(stack: SecondStack, verb: str, resource: str, namespace: str = "development") -> bool:
    kind, slash, name = resource.partition("/")
    # kubectl takes TYPE/NAME for an object, and a subresource by an option.
    subresource = ["--subresource", name] if name in {"log", "exec", "attach", "portforward", "token"} else []
    target = kind if subresource else kind + slash + name
    answer = stack.kubectl("auth", "can-i", verb, target, "-n", namespace, *subresource, kubeconfig="budeval")
    assert answer.stdout.strip() in {"yes", "no"}, answer.stderr
    return answer.stdout.strip() == "yes"


@pytest.mark.parametrize(("verb", "resource"), ALLOWED)
def test_the_service_may(second_stack: SecondStack, verb: str, resource: str) -> None:
    assert may(second_stack, verb, resource)


@pytest.mark.parametrize(("verb", "resource"), DENIED)
def test_the_service_may_not(second_stack: SecondStack, verb: str, resource: str) -> None:
    assert not may(second_stack, verb, resource)


@pytest.mark.parametrize(("verb", "resource"), [("list", "secrets"), ("create", "jobs.batch"), ("get", "configmaps")])
@pytest.mark.parametrize("namespace", ["default", "kube-system"])
def test_the_service_may_do_nothing_in_another_namespace(
    second_stack: SecondStack, verb: str, resource: str, namespace: str
) -> None:
    assert not may(second_stack, verb, resource, namespace)


def test_the_kubeconfigs_are_private_and_self_contained(second_stack: SecondStack) -> None:
    for name in ("admin", "budeval"):
        path = second_stack.state / "kubernetes" / f"{name}.kubeconfig"
        document = yaml.safe_load(path.read_text())
        assert path.stat().st_mode & 0o777 == 0o600
        assert set(document["clusters"][0]["cluster"]) == {"server", "certificate-authority-data"}
        assert set(document["users"][0]["user"]) <= {"token", "client-certificate-data", "client-key-data"}


def test_a_shell_that_has_read_env_speaks_to_the_cluster_and_goes_on_with_the_stack(second_stack: SecondStack) -> None:
    script = f". {second_stack.state}/env && kubectl get namespace development -o name && python -m dev up redis"
    shell = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=second_stack.environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip

    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert shell.stdout.startswith("namespace/development")
    assert second_stack.status()["kubelet"]["state"] == "ready"


def test_a_lost_token_is_replaced_by_up(second_stack: SecondStack) -> None:
    kubeconfig = second_stack.state / "kubernetes" / "budeval.kubeconfig"
    document = yaml.safe_load(kubeconfig.read_text())
    document["users"][0]["user"]["token"] = "stale"
    kubeconfig.write_text(yaml.safe_dump(document))

    second_stack.up()

    assert second_stack.kubectl("auth", "whoami", kubeconfig="budeval").returncode == 0


@pytest.mark.parametrize("manifest", sorted((ROOT / "manifests").rglob("*.yaml")), ids=lambda path: path.name)
def test_the_api_server_accepts_every_manifest(second_stack: SecondStack, manifest: Path) -> None:
    documents = [in_namespace(document, "default") for document in yaml.safe_load_all(manifest.read_text())]
    for document in documents:
        # Under another name, because some fields of what is there already never change.
        document["metadata"]["name"] += "-probe"

    answer = second_stack.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=yaml.safe_dump_all(documents)
    )

    assert answer.returncode == 0, answer.stderr

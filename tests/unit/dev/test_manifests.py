"""The manifests: one namespace, no more rights than needed, the local volume where the data are."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.kubernetes.cluster import cluster_manifests, in_namespace, local_manifests
from dev.settings import Settings


def by_kind(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in documents}


def test_the_local_volume_is_the_data_folder(settings: Settings) -> None:
    volume = by_kind(local_manifests(settings))["PersistentVolume"]

    assert volume["spec"]["hostPath"]["path"] == str(settings.data)


def test_another_namespace_reaches_every_manifest(settings: Settings) -> None:
    documents = local_manifests(dataclasses.replace(settings, namespace="evaluations"))

    assert "development" not in repr(documents)
    assert by_kind(documents)["RoleBinding"]["subjects"][0]["namespace"] == "evaluations"


def test_a_cluster_of_ones_own_gets_no_local_volume(settings: Settings) -> None:
    assert set(by_kind(cluster_manifests(settings))) == {
        "Namespace", "ServiceAccount", "Role", "RoleBinding", "PersistentVolumeClaim",
    }  # fmt: skip


def test_the_service_has_no_right_outside_its_namespace_and_no_wildcard(settings: Settings) -> None:
    documents = local_manifests(settings)

    assert not {"ClusterRole", "ClusterRoleBinding"} & set(by_kind(documents))
    assert "*" not in repr(by_kind(documents)["Role"]["rules"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": "development"}, {"a": "new"}),
        ({"a": ["development", "developments"]}, {"a": ["new", "developments"]}),
        ({"development": {"b": 1}}, {"development": {"b": 1}}),
    ],
)
def test_only_whole_values_are_the_namespace(value: dict[str, Any], expected: dict[str, Any]) -> None:
    assert in_namespace(value, "new") == expected


def test_the_service_in_a_cluster_wants_tokens_and_knows_those_of_its_sidecar(settings: Settings) -> None:
    path = Path(__file__).parents[3] / "manifests" / "service" / "deployment.yaml"
    pod = yaml.safe_load(path.read_text())["spec"]["template"]
    variables = {item["name"]: item for item in pod["spec"]["containers"][0]["env"]}
    sidecar = {
        "APP_API_TOKEN": pod["metadata"]["annotations"]["dapr.io/app-token-secret"],
        "DAPR_API_TOKEN": pod["metadata"]["annotations"]["dapr.io/api-token-secret"],
    }

    assert "BUDEVAL_ACCESS" not in variables
    assert variables["BUDEVAL_TOKENS_FILE"]["value"].startswith("/etc/budeval/tokens/")
    for name, secret in sidecar.items():
        assert variables[name]["valueFrom"]["secretKeyRef"] == {"name": secret, "key": "token"}

"""What a cluster says to all that an evaluation needs; nothing is judged here."""

import json
from collections.abc import Mapping

from budeval.ansible.cluster import Cluster, JsonObject, member, segment
from budeval.ansible.projection import cut


def verify(cluster: Cluster, namespace: str, volume_claim: str, permissions: list[list[str]]) -> JsonObject:
    """What a cluster says to all that an evaluation needs; each answer with its HTTP status, none judged."""
    version = _answer(cluster, "GET", "/version")
    if version["status"] == 401 or version["status"] >= 500:
        return {"version": version}
    # A Role may grant these on one object only.
    named = {"namespaces": namespace, "persistentvolumeclaims": volume_claim}
    return {
        "version": version,
        "permissions": [_access(cluster, namespace, permission, named) for permission in permissions],
        "namespace": _answer(cluster, "GET", f"/api/v1/namespaces/{segment(namespace)}"),
        "volume_claim": _answer(cluster, "GET", member("PersistentVolumeClaim", namespace, volume_claim)),
    }


def _access(cluster: Cluster, namespace: str, permission: list[str], named: Mapping[str, str]) -> JsonObject:
    group, resource, verb, subresource = permission
    wanted = {
        "namespace": namespace,
        "group": group,
        "resource": resource,
        "verb": verb,
        "subresource": subresource,
        "name": named.get(resource, ""),
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": wanted},
    }
    answer = _answer(cluster, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return {"permission": permission, **answer}


def _answer(cluster: Cluster, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
    status, text = cluster.ask(method, path, body)
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {"message": cut(text.decode(errors="replace"))}
    return {"status": status, "body": answer}

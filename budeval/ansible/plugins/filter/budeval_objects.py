"""Filters over what ``kubernetes.core.k8s`` returns for the objects of an evaluation."""

from collections.abc import Callable
from typing import Any

JsonObject = dict[str, Any]


def ownership(applied: JsonObject) -> list[JsonObject]:
    """Patches that make all Jobs of a result the owners of its other objects: the last Job to go takes them along."""
    objects = _objects(applied)
    owners = [
        {"apiVersion": job["apiVersion"], "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        for job in objects
        if job["kind"] == "Job"
    ]
    return [_owned(each, owners) for each in objects if each["kind"] != "Job"]


def deployed(applied: JsonObject) -> JsonObject:
    """Name and uid of each Job of a result."""
    jobs = [each["metadata"] for each in _objects(applied) if each["kind"] == "Job"]
    return {"jobs": [{"name": job["name"], "uid": job["uid"]} for job in jobs]}


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[[JsonObject], Any]]:
        """Filters by name."""
        return {"budeval_ownership": ownership, "budeval_deployed": deployed}


def _objects(applied: JsonObject) -> list[JsonObject]:
    return [each["result"] for each in applied["result"]["results"]]


def _owned(owned: JsonObject, owners: list[JsonObject]) -> JsonObject:
    metadata = {"name": owned["metadata"]["name"], "namespace": owned["metadata"]["namespace"]}
    return {
        "apiVersion": owned["apiVersion"],
        "kind": owned["kind"],
        "metadata": {**metadata, "ownerReferences": owners},
    }

"""Removing what an evaluation has in a cluster."""

from budeval.ansible.cluster import Cluster, ClusterError, JsonObject, checked, collection, member, segment, wait_until
from budeval.ansible.projection import name_and_attempt


def remove(
    cluster: Cluster,
    namespace: str,
    selector: str,
    only: list[str] | None,
    named: list[list[str]],
    timeout: float,
    *,
    before: int | None = None,
    pods: bool = False,
) -> JsonObject:
    """Delete the Jobs behind a selector and the named objects, and wait until the Jobs are gone.

    Args:
        only: names of Jobs; others behind the selector stay. None: all.
        named: collection (``secrets``) and name of further objects.
        timeout: seconds to wait; going on after it is an error.
        before: an attempt; what belongs to it or to a later one stays. None: nothing does.
        pods: wait for the end of the pods too, which may still write to the volume.
    """

    def found(kind: str) -> list[str]:
        objects = cluster.collect(collection(kind, namespace), selector, name_and_attempt)
        return [each["name"] for each in objects if before is None or each["attempt"] < before]

    def present() -> list[str]:
        return [name for name in found("Job") if only is None or name in only]

    jobs = [name for name in present() if _delete(cluster, member("Job", namespace, name))]
    removed: JsonObject = {"jobs": jobs}
    for objects, name in named:
        one = f"/api/v1/namespaces/{segment(namespace)}/{segment(objects)}/{segment(name)}"
        removed.setdefault(objects, []).extend([name] if _delete(cluster, one) else [])
    if not wait_until(lambda: not present() and not (pods and found("Pod")), timeout):
        what = "Jobs or their pods" if pods else "Jobs"
        raise ClusterError(f"the {what} are still there {timeout:g} s after their deletion")
    return removed


def _delete(cluster: Cluster, path: str) -> bool:
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    status, body = cluster.ask("DELETE", path, options)
    if status == 404:
        return False
    checked(status, body)
    return True

import pytest

from budeval.commons.errors import ClusterNotReady, ClusterUnauthorized, ClusterUnreachable
from budeval.jobs.permissions import REQUIRED_PERMISSIONS
from budeval.jobs.verification import judge_cluster


def answers(**changes):
    permissions = [
        {
            "permission": [each.group, each.resource, each.verb, each.subresource],
            "status": 201,
            "body": {"status": {"allowed": str(each) not in changes.get("denied", [])}},
        }
        for each in REQUIRED_PERMISSIONS
    ]
    ready = {
        "version": {"status": 200, "body": {"gitVersion": "v1.34.4"}},
        "permissions": permissions,
        "namespace": {"status": 200, "body": {"status": {"phase": "Active"}}},
        "volume_claim": {"status": 200, "body": {"status": {"phase": "Bound"}}},
    }
    return {**ready, **{key: value for key, value in changes.items() if key != "denied"}}


def judge(**changes):
    return judge_cluster(answers(**changes), "development", "budeval-data")


def failure(status, message=""):
    return {"status": status, "body": {"kind": "Status", "message": message}}


def test_a_ready_cluster_is_reported():
    report = judge()
    assert (report.server_version, report.warnings) == ("v1.34.4", [])


@pytest.mark.parametrize("permission", [str(each) for each in REQUIRED_PERMISSIONS])
def test_each_missing_permission_is_named(permission):
    with pytest.raises(ClusterNotReady, match=permission):
        judge(denied=[permission])


def test_all_problems_are_told_at_once():
    with pytest.raises(ClusterNotReady) as caught:
        judge(denied=["create jobs.batch", "get pods/log"], volume_claim=failure(404))
    for words in ("create jobs.batch", "get pods/log", "budeval-data does not exist"):
        assert words in caught.value.detail


def test_refused_credentials_are_told_as_such():
    with pytest.raises(ClusterUnauthorized, match="401"):
        judge(version=failure(401, "Unauthorized"))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_may_recover(status):
    with pytest.raises(ClusterUnreachable, match=str(status)):
        judge(version=failure(status))


@pytest.mark.parametrize("status", [200, 201, 404, 400])
def test_what_is_no_api_server_is_told_as_such_and_nothing_is_said_of_a_namespace(status):
    with pytest.raises(ClusterNotReady, match="no Kubernetes API server") as caught:
        judge(version=failure(status, "<html>"), namespace=failure(404))
    assert "namespace" not in caught.value.detail


def test_a_version_that_may_not_be_seen_is_nothing_in_the_way():
    assert judge(version=failure(403)).server_version == "unknown"


def test_a_missing_namespace_is_named():
    with pytest.raises(ClusterNotReady, match="namespace development does not exist"):
        judge(namespace=failure(404), volume_claim=failure(404))


def test_a_namespace_that_may_not_be_seen_is_named():
    with pytest.raises(ClusterNotReady, match="does not exist, or nothing is granted"):
        judge(denied=[str(each) for each in REQUIRED_PERMISSIONS], namespace=failure(403), volume_claim=failure(403))


def test_a_namespace_that_goes_is_no_place_for_an_evaluation():
    with pytest.raises(ClusterNotReady, match="being deleted"):
        judge(namespace={"status": 200, "body": {"status": {"phase": "Terminating"}}})


@pytest.mark.parametrize("phase", ["Pending", "Lost"])
def test_an_unbound_claim_is_named(phase):
    with pytest.raises(ClusterNotReady, match=f"budeval-data is {phase}"):
        judge(volume_claim={"status": 200, "body": {"status": {"phase": phase}, "spec": {"storageClassName": ""}}})


def test_a_claim_that_its_class_may_still_bind_is_a_warning():
    report = judge(
        volume_claim={"status": 200, "body": {"status": {"phase": "Pending"}, "spec": {"storageClassName": "local"}}}
    )
    assert "not bound yet" in report.warnings[0]

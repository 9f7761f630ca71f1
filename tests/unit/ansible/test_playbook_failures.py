import json

import pytest

from budeval.ansible.failures import TaskFailure, playbook_error
from budeval.ansible.plugins.filter.budeval_objects import deployed, ownership
from budeval.commons.errors import ClusterUnauthorized, ClusterUnreachable, PlaybookFailed


def status(code, message="no"):
    return "Failed to create object: " + json.dumps(
        {"kind": "Status", "message": message, "code": code}, separators=(",", ":")
    )


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (TaskFailure("t", "refused", {"kind": "connection", "status": None}), ClusterUnreachable),
        (TaskFailure("t", "no", {"kind": "status", "status": 401}), ClusterUnauthorized),
        (TaskFailure("t", "no", {"kind": "status", "status": 403}), PlaybookFailed),
        (TaskFailure("t", "no", {"kind": "status", "status": 429}), ClusterUnreachable),
        (TaskFailure("t", "no", {"kind": "status", "status": 503}), ClusterUnreachable),
        (TaskFailure("t", "no", {"kind": "config"}), PlaybookFailed),
        (TaskFailure("t", status(422)), PlaybookFailed),
        (TaskFailure("t", status(401)), ClusterUnauthorized),
        (TaskFailure("t", status(500)), ClusterUnreachable),
        (TaskFailure("t", 'Failed: {"kind":"Status", broken'), PlaybookFailed),
        (TaskFailure("t", "HTTPSConnectionPool: Max retries exceeded with url: /version"), ClusterUnreachable),
        (TaskFailure("t", "template error"), PlaybookFailed),
    ],
)
def test_the_error_tells_whether_a_retry_can_help(failure, kind):
    assert type(playbook_error("x.yml", [failure], [])) is kind


def test_kubernetes_own_message_is_told():
    error = playbook_error("x.yml", [TaskFailure("t", status(403, "exceeded quota: runs"))], [])
    assert error.detail == "the API server answered 403: exceeded quota: runs"


def test_the_first_failure_with_words_counts():
    failures = [TaskFailure("hidden", ""), TaskFailure("told", "because"), TaskFailure("later", "other")]
    assert playbook_error("x.yml", failures, []).detail == "told: because"


def test_a_failure_before_the_first_task_tells_the_last_lines():
    assert "not found" in playbook_error("x.yml", [], ["ERROR! the playbook: x.yml was not found"]).detail


def test_messages_are_cut_and_masked():
    error = playbook_error("x.yml", [TaskFailure("t", "Bearer abcdefghijklmnop " + "x" * 100_000)], [])
    assert "abcdefghijklmnop" not in error.detail
    assert len(error.detail) < 1200


def test_jobs_own_the_other_objects():
    applied = {
        "result": {
            "results": [
                {"result": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"}}},
                {"result": {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "uid": "1"}}},
                {"result": {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "b", "uid": "2"}}},
            ]
        }
    }
    (patch,) = ownership(applied)
    assert patch["metadata"]["name"] == "s"
    assert [owner["uid"] for owner in patch["metadata"]["ownerReferences"]] == ["1", "2"]
    assert "data" not in patch
    assert deployed(applied) == {"jobs": [{"name": "a", "uid": "1"}, {"name": "b", "uid": "2"}]}

import pytest

from budeval.commons.errors import ClusterUnreachable
from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.models import ErrorInfo
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.models import JobState
from budeval.record import happenings
from tests.api.conftest import BOTH_DATABASES
from tests.api.test_listing import encoded
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, a_request

DATABASES = BOTH_DATABASES

OTHER_ID = "555e4567-e89b-12d3-a456-426614174021"
RUN_ID = "test-monitor-pattern-001"
PULLING = ErrorInfo(reason="ImagePullBackOff", message="The image cannot be pulled")
UNREACHABLE = happenings.step_postponed(ClusterUnreachable("nobody answers"))


def ask(service, **parameters):
    response = service.client.get(f"/evals/{EVAL_ID}/timeline", params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def test_what_happened_is_told_in_order_and_after_the_end(service):
    service.start(a_request())
    service.record.step(EVAL_ID, Event.DEPLOY, WorkflowStatus.RUNNING, "creates Jobs")
    for _ in range(2):
        service.record.trying_again(EVAL_ID, UNREACHABLE)
    service.record.update_runs(EVAL_ID, [RunUpdate(run_id=RUN_ID, status=JobState.PENDING, error=PULLING)])
    service.client.post(f"/evals/{EVAL_ID}/cancel")
    service.record.finish(EVAL_ID, WorkflowStatus.TERMINATED)
    page = ask(service)
    assert page["next_cursor"] is None
    assert [
        (entry["kind"], entry["run_id"], entry["reason"], entry["message"], entry["actor"], entry["count"])
        for entry in page["items"]
    ] == [
        ("created", None, None, "1 run of gpt-oss-20b, for budapp", "api", 1),
        ("step", None, "RUNNING", "creates Jobs", None, 1),
        ("retry", None, "ClusterUnreachable", "nobody answers", None, 2),
        ("run", RUN_ID, "ImagePullBackOff", "The image cannot be pulled", None, 1),
        ("cancel", None, None, "", "api", 1),
        ("end", None, "TERMINATED", "", None, 1),
    ]
    assert all(entry["title"] and entry["at"] >= entry["first_at"] for entry in page["items"])
    assert [entry["sequence"] for entry in page["items"]] == [1, 2, 4, 5, 6, 7]


def test_pages_follow_each_other(service):
    service.start(a_request())
    for number in range(6):
        service.record.trying_again(EVAL_ID, UNREACHABLE._replace(message=f"{number}"))
    first = ask(service, limit=4)
    second = ask(service, limit=4, cursor=first["next_cursor"])
    assert [entry["sequence"] for entry in first["items"] + second["items"]] == list(range(1, 8))
    assert second["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["", "x", encoded("1"), encoded(-1), encoded(2**31), encoded(10**30), encoded(1.5)])
def test_what_is_no_cursor_is_refused_by_name(shared, cursor):
    problem = is_problem(shared.client.get(f"/evals/{EVAL_ID}/timeline", params={"cursor": cursor}), 422)
    assert [error["field"] for error in problem["errors"]] == ["cursor"]


def test_what_nobody_asked_for_has_no_timeline(shared):
    is_problem(shared.client.get(f"/evals/{OTHER_ID}/timeline"), 404)

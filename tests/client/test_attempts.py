import pytest

from budeval.client import Conflict, InvalidRequest, NotFound, RetryRequest
from tests.client.service import fail
from tests.client.test_calls import a_request
from tests.samples import EVAL_ID


@pytest.fixture
def failed(client, service):
    client.start(a_request(eval_id=EVAL_ID))
    fail(service, EVAL_ID)


def test_a_failed_evaluation_is_tried_again_with_what_changes(client, service, failed):
    asked = RetryRequest(api_key="sk-new", configs={"max_checks": 9}, requests={"cpu": "1"}, limits={"memory": "4Gi"})
    begun = client.retry(EVAL_ID, asked)
    evaluation = client.evaluation(EVAL_ID)
    assert (begun.workflow_id, begun.attempt, begun.status) == (EVAL_ID, 2, "PENDING")
    assert begun.run_ids == [run.run_id for run in evaluation.runs]
    assert (evaluation.attempt, {run.attempt for run in evaluation.runs}) == (2, {2})
    definition = service.record.definition(EVAL_ID)
    assert definition.resources.model_dump() == {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}}
    with pytest.raises(Conflict):
        client.retry(EVAL_ID, asked)


def test_a_secret_that_is_missing_is_named(client, failed):
    with pytest.raises(InvalidRequest) as refused:
        client.retry(EVAL_ID, RetryRequest())
    assert [problem.field for problem in refused.value.problem.errors] == ["api_key"]


def test_a_key_is_not_shown(client):
    assert "sk-new" not in repr(RetryRequest(api_key="sk-new"))


def test_what_runs_or_is_not_there_is_not_deleted(client):
    with pytest.raises(NotFound):
        client.delete(EVAL_ID)
    client.start(a_request(eval_id=EVAL_ID))
    with pytest.raises(Conflict):
        client.delete(EVAL_ID)

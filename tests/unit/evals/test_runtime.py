import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from budeval.commons.errors import (
    ClusterUnreachable,
    DeploymentFailed,
    EvaluationNotFound,
    PublishFailed,
    SidecarUnavailable,
)
from budeval.commons.redaction import redactor
from budeval.evals.models import ErrorInfo
from budeval.evals.publisher import dapr_settings
from budeval.evals.runtime import WorkflowClient, boundary
from tests.samples import EVAL_ID


def failing(error):
    def some_activity(_ctx, _request):
        raise error

    return boundary(some_activity)


def failure_of(activity):
    with pytest.raises(Exception) as caught:
        activity(None, {})
    return caught.value


KINDS = [
    (ClusterUnreachable("x"), "ActivityFailed", "ClusterUnreachable"),
    (PublishFailed("x"), "ActivityFailed", "PublishFailed"),
    (DeploymentFailed("x"), "NonRetryableError", "DeploymentFailed"),
    (EvaluationNotFound("x"), "NonRetryableError", "EvaluationNotFound"),
    (KeyError("x"), "ActivityFailed", "KeyError"),
    (ZeroDivisionError("x"), "ActivityFailed", "ZeroDivisionError"),
]


@pytest.mark.parametrize(("error", "kind", "reason"), KINDS, ids=[reason for *_, reason in KINDS])
def test_only_a_permanent_error_stops_the_retries(error, kind, reason):
    failure = failure_of(failing(error))
    assert type(failure).__name__ == kind
    assert ErrorInfo.model_validate_json(str(failure)).reason == reason


@pytest.mark.parametrize("error", [error for error, *_ in KINDS])
def test_nothing_of_the_cause_leaves_with_it(error):
    failure = failure_of(failing(error))
    assert failure.__cause__ is None
    assert failure.__suppress_context__


@pytest.mark.parametrize("kind", [ClusterUnreachable, DeploymentFailed, ValueError])
def test_a_secret_that_an_activity_used_does_not_leave_with_its_error(kind, caplog):
    def some_activity(_ctx, _request):
        with redactor.hiding("canary-of-a-key"):
            raise kind("the endpoint refused canary-of-a-key")

    message = ErrorInfo.model_validate_json(str(failure_of(boundary(some_activity)))).message
    assert "canary" not in message
    assert "refused" in message


def test_a_message_is_bounded():
    assert len(str(failure_of(failing(DeploymentFailed("x" * 10_000))))) < 1200


def test_what_an_activity_answers_passes_unchanged():
    def some_activity(_ctx, request):
        return {"seen": request}

    guarded = boundary(some_activity)
    assert guarded(None, 1) == {"seen": 1}
    assert guarded.__name__ == "some_activity"


# ------------------------------------------------------------------ a sidecar that takes connections and says nothing


@pytest.fixture
def silent_sidecar(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(dapr_settings, "DAPR_GRPC_PORT", server.getsockname()[1])
        monkeypatch.setattr(dapr_settings, "DAPR_API_TIMEOUT_SECONDS", None)
        monkeypatch.setattr("budeval.evals.publisher.SIDECAR_CALL_SECONDS", 0.2)
        yield


def test_a_sidecar_that_says_nothing_is_not_waited_for_for_ever(silent_sidecar):
    workflows = WorkflowClient()
    asking = ThreadPoolExecutor(1)
    try:
        answer = asking.submit(workflows.status, EVAL_ID)
        with pytest.raises(SidecarUnavailable):
            answer.result(timeout=20)
    finally:
        workflows.close()
        asking.shutdown()

from budeval.cli.views import failures
from budeval.client import Evaluation
from tests.samples import EVAL_ID


def an_answer(**changes):
    """An evaluation as the service answers it."""
    values = {
        "eval_id": EVAL_ID,
        "status": "COMPLETED",
        "model_name": "small-model",
        "engine": "opencompass",
        "source": "budapp",
        "created_at": "2026-01-01T10:00:00Z",
        "steps": [],
        "runs": [],
    }
    return Evaluation.model_validate({**values, **changes})


def test_what_subscribers_may_not_have_been_told_is_shown_with_what_to_do():
    unknown = [{"event": "results", "topic": "budapp-notifications"}]
    first, second = failures(an_answer(notifications={"waiting": 0, "unknown": unknown}))
    assert first == "Whether results reached the topic budapp-notifications is unknown."
    assert f"budeval resend {EVAL_ID}" in second


def test_of_an_older_service_nothing_is_in_doubt():
    assert failures(an_answer()) == []

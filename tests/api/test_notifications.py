"""What subscribers may not have been told, as a caller sees it and can mend it."""

from budeval.commons.wire import WorkflowStatus
from budeval.record.outbox import Outbox, OutgoingMessage
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, a_request, write_down

RESULTS = OutgoingMessage(
    event_id="1", event="results", status="COMPLETED", topic="budapp-notifications", message="1 of 1", body={}
)


def in_doubt(service):
    """Whoever published the results of the evaluation died in its middle."""
    outbox = Outbox(service.database)
    write_down(outbox, [RESULTS])
    outbox.let_be(outbox.claim_next(EVAL_ID).id)


def notifications(service):
    return service.client.get(f"/evals/{EVAL_ID}").json()["notifications"]


def timeline(service):
    entries = service.client.get(f"/evals/{EVAL_ID}/timeline").json()["items"]
    return [(entry["title"], entry["actor"], entry["message"]) for entry in entries if entry["kind"] == "notification"]


def test_an_evaluation_says_what_its_subscribers_may_not_have_been_told(service):
    service.start(a_request())
    assert notifications(service) == {"waiting": 0, "unknown": []}
    in_doubt(service)
    assert notifications(service)["unknown"] == [{"event": "results", "topic": "budapp-notifications"}]
    assert timeline(service) == [
        (
            "budapp-notifications may not have been notified",
            None,
            "Whether results reached the topic is unknown, and it is not sent again by itself.",
        )
    ]
    assert "budeval_evaluations_notifications_unknown 1.0" in service.client.get("/metrics").text


def test_what_did_not_arrive_is_sent_again_when_somebody_says_so(service):
    service.start(a_request())
    in_doubt(service)
    service.record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    answer = service.client.post(f"/evals/{EVAL_ID}/notifications/resend")
    # There is no broker here, so it waits.
    assert answer.json()["notifications"] == {"waiting": 1, "unknown": []}
    claimed = Outbox(service.database).claim_next(EVAL_ID)
    assert (claimed.event, claimed.event_id, claimed.uncertain) == ("results", "1", False)
    assert timeline(service)[-1] == ("To be sent to budapp-notifications again", "api", "1 of 1")


def test_what_is_not_in_doubt_is_never_sent_again(service):
    service.start(a_request())
    in_doubt(service)
    assert service.client.post(f"/evals/{EVAL_ID}/notifications/resend").status_code == 200
    problem = is_problem(service.client.post(f"/evals/{EVAL_ID}/notifications/resend"), 409)
    assert "no notification whose fate is unknown" in problem["detail"]

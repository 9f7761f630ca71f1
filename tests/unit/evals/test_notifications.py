import json
from datetime import timedelta
from uuid import UUID

import pytest
from grpc import StatusCode

from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.models import Announcement, ErrorInfo, NotificationMetadata, RunResult, Score
from budeval.evals.monitoring import RunUpdate
from budeval.evals.notifications import (
    eta_announcement,
    event_id,
    final_announcements,
    notification_body,
    progress_announcement,
    status_announcement,
)
from budeval.evals.publisher import _cloud_event_metadata, is_uncertain
from budeval.jobs.models import JobState
from budeval.record import outbox as outbox_module
from budeval.record.outbox import CLAIM_SECONDS
from tests.samples import EVAL_ID, NOW, an_evaluation, announce

SCORES = [
    Score(dataset="siqa", version="18632c", metric="loss", mode="gen", score=1.25),
    Score(dataset="siqa", version="18632c", metric="accuracy", mode="gen", score=65.62),
]
BROKEN = ErrorInfo(reason="EndpointUnauthorized", message="the key was refused", resolution="Give the right key.")


def good(run_id="run-a"):
    return RunResult(
        run_id=run_id,
        scores=SCORES,
        start_time=NOW,
        completion_time=NOW + timedelta(minutes=15, seconds=30),
        duration_seconds=930.0,
    )


def content_of(body):
    return body["payload"]["content"]


# ------------------------------------------------------------------ the shape


def test_a_notification_has_exactly_the_keys_that_its_consumer_knows():
    announcement = Announcement(
        event=Event.RESULTS,
        status=WorkflowStatus.COMPLETED,
        title="Evaluation Results",
        message="m",
        result={"results": []},
    )
    assert notification_body(an_evaluation(), announcement, "a-topic") == {
        "notification_type": "event",
        "name": "evaluate_model",
        "subscriber_ids": None,
        "actor": None,
        "topic_keys": None,
        "payload": {
            "category": "internal",
            "type": "evaluate_model",
            "event": "results",
            "workflow_id": EVAL_ID,
            "source": "budeval",
            "content": {
                "title": "Evaluation Results",
                "message": "m",
                "status": "COMPLETED",
                "result": {"evaluation_id": EVAL_ID, "event_id": event_id(EVAL_ID, announcement), "results": []},
                "primary_action": None,
                "secondary_action": None,
            },
        },
        "source_topic": "a-topic",
        "type": "evaluate_model",
    }


def test_what_the_requester_asked_to_find_is_found():
    asked = NotificationMetadata(
        name="n", workflow_id="w", subscriber_ids="s", category="c", notification_type="t", actor="a", topic_keys=["k"]
    )
    body = notification_body(an_evaluation(notification=asked), eta_announcement(3), "topic")
    found = (body["name"], body["subscriber_ids"], body["notification_type"], body["actor"], body["topic_keys"])
    assert found == ("n", "s", "t", "a", ["k"])
    assert (body["payload"]["workflow_id"], body["payload"]["category"]) == ("w", "c")


def test_a_message_is_redacted_and_of_bounded_length():
    announcement = status_announcement(WorkflowStatus.FAILED, "t", "sk-canary-of-a-key " + "x" * 5000)
    message = content_of(notification_body(an_evaluation(), announcement, "topic"))["message"]
    assert "canary" not in message
    assert len(message) <= 1000


def test_minutes_left_are_an_integer_as_a_text():
    body = notification_body(an_evaluation(), eta_announcement(7), "topic")
    content = content_of(body)
    assert (body["payload"]["event"], content["message"], content["status"]) == ("eta", "7", "RUNNING")


def test_a_plain_cloud_event_tells_its_id_type_source_and_subject():
    announcement = eta_announcement(7)
    evaluation = an_evaluation(notification=NotificationMetadata(workflow_id="another"))
    assert _cloud_event_metadata(notification_body(evaluation, announcement, "topic"), "the-id") == {
        "cloudevent.id": "the-id",
        "cloudevent.type": "evaluate_model.eta",
        "cloudevent.source": "budeval",
        "cloudevent.subject": EVAL_ID,
    }


# ------------------------------------------------------------------ ids


def test_the_id_of_an_event_is_a_uuid_that_never_changes():
    assert event_id(EVAL_ID, eta_announcement(30)) == "410de788-cc7b-5ea5-bc66-4ed725037c9b"
    assert UUID(event_id(EVAL_ID, eta_announcement(30))).version == 5


DIFFERENT = [
    (EVAL_ID, eta_announcement(30)),
    (EVAL_ID, eta_announcement(29)),
    (EVAL_ID.replace("4", "5"), eta_announcement(30)),
    (EVAL_ID, status_announcement(WorkflowStatus.STARTED, "t")),
    (EVAL_ID, status_announcement(WorkflowStatus.COMPLETED, "t")),
    (EVAL_ID, progress_announcement("Jobs: 0 completed, 2 running", 1, [])),
    (EVAL_ID, progress_announcement("Jobs: 0 completed, 2 running", 10, [])),
    (EVAL_ID, progress_announcement("Jobs: 1 completed, 1 running", 10, [])),
]


def test_what_is_not_the_same_has_another_id():
    assert len({event_id(*announced) for announced in DIFFERENT}) == len(DIFFERENT)


def test_a_repetition_has_the_same_id_whatever_its_words():
    first = status_announcement(WorkflowStatus.FAILED, "t", "one")
    second = status_announcement(WorkflowStatus.FAILED, "t", "another")
    assert event_id(EVAL_ID, first) == event_id(EVAL_ID, second)


# ------------------------------------------------------------------ the last words


@pytest.fixture
def ended(record, record_evaluation):
    """Ends an evaluation of run-a and run-b; answers its last words."""

    def end(status, error=None, results=(), updates=()):
        record_evaluation()
        record.update_runs(EVAL_ID, updates)
        record.save_results(EVAL_ID, results)
        record.finish(EVAL_ID, status, error)
        return final_announcements(record.view(EVAL_ID))

    return end


def words(announcements):
    return [f"{item.event}.{item.status}" for item in announcements]


SUCCESS = ["eta.RUNNING", "monitor_eval_job_progress.COMPLETED", "results.COMPLETED", "evaluate_model_status.COMPLETED"]


def test_a_complete_success_brings_every_score_with_the_headline_last(ended):
    last = ended(WorkflowStatus.COMPLETED, results=[good("run-a"), good("run-b")])
    assert words(last) == SUCCESS
    assert last[0].message == "0"
    results = last[2].result["results"]
    assert [entry["run_id"] for entry in results] == ["run-a", "run-b"]
    assert results[0] == {
        "run_id": "run-a",
        "eval_id": EVAL_ID,
        "status": "success",
        "scores": [score.model_dump() for score in SCORES],
        "startTime": "2026-01-01T10:00:00Z",
        "completionTime": "2026-01-01T10:15:30Z",
        "duration_seconds": 930.0,
    }
    assert results[0]["scores"][-1]["metric"] == "accuracy"


def test_a_partial_failure_is_told_by_its_results_and_never_as_failed(ended):
    last = ended(WorkflowStatus.COMPLETED, results=[good("run-a"), RunResult(run_id="run-b", error=BROKEN)])
    assert words(last) == SUCCESS
    assert "1 of 2" in last[1].message and "1 of 2" in last[3].message
    failed = last[2].result["results"][1]
    assert (failed["run_id"], failed["status"], failed["scores"]) == ("run-b", "error", [])
    assert failed["error"] == BROKEN.model_dump()


def test_a_run_that_nobody_heard_of_is_in_the_results_too(ended):
    last = ended(WorkflowStatus.COMPLETED, results=[good("run-a")])
    assert [(entry["run_id"], entry["status"]) for entry in last[2].result["results"]] == [
        ("run-a", "success"),
        ("run-b", "error"),
    ]


def test_a_total_failure_is_closed_by_the_monitors_event_and_has_no_results(ended):
    failed = [RunUpdate(run_id=run_id, status=JobState.FAILED, error=BROKEN) for run_id in ("run-a", "run-b")]
    last = ended(WorkflowStatus.FAILED, BROKEN, updates=failed)
    assert words(last) == ["monitor_eval_job_progress.FAILED", "evaluate_model_status.FAILED"]
    assert last[0].result == {
        "failed_jobs": ["run-a", "run-b"],
        "error_category": "EndpointUnauthorized",
        "error_details": [
            {
                "job_id": run_id,
                "category": "EndpointUnauthorized",
                "error_type": "EndpointUnauthorized",
                "message": "EndpointUnauthorized: the key was refused Give the right key.",
            }
            for run_id in ("run-a", "run-b")
        ],
    }
    body = notification_body(an_evaluation(), last[0], "topic")
    assert content_of(body)["result"]["evaluation_id"] == EVAL_ID


def test_a_failure_before_any_job_is_closed_the_same_way(ended):
    error = ErrorInfo(reason="ClusterUnreachable", message="nobody answers")
    last = ended(WorkflowStatus.FAILED, error)
    assert words(last) == ["monitor_eval_job_progress.FAILED", "evaluate_model_status.FAILED"]
    assert last[0].result["error_category"] == "ClusterUnreachable"
    assert last[0].message == last[1].message == "ClusterUnreachable: nobody answers"


def test_a_cancellation_is_told_as_terminated(ended):
    error = ErrorInfo(reason="Cancelled", message="The evaluation was cancelled.")
    last = ended(WorkflowStatus.TERMINATED, error)
    assert words(last) == ["monitor_eval_job_progress.FAILED", "evaluate_model_status.TERMINATED"]
    assert {item.title for item in last} == {"Evaluation cancelled"}


def test_progress_tells_the_questions_of_each_run(record, record_evaluation):
    record_evaluation()
    announcement = progress_announcement("Jobs: 0 completed, 2 running", 1, record.view(EVAL_ID).runs)
    assert announcement.result["progress"][0] == {"run_id": "run-a", "status": "Pending", "done": 0, "total": 0}


# ------------------------------------------------------------------ through the outbox


def test_every_topic_is_told_in_order_and_once(record_evaluation, notifier, broker):
    evaluation = record_evaluation(source_topics=["one", "two"])
    for _ in range(2):
        announce(notifier, evaluation, [eta_announcement(3), eta_announcement(2)])
    told = [(message.topic, content_of(message.body)["message"]) for message in broker.messages]
    assert told == [("one", "3"), ("two", "3"), ("one", "2"), ("two", "2")]
    assert [message.body["source_topic"] for message in broker.messages] == ["one", "two", "one", "two"]
    json.dumps([message.body for message in broker.messages], allow_nan=False)


def test_a_broker_that_refuses_stops_nobody_and_gets_everything_later_in_order(record_evaluation, notifier, broker):
    evaluation = record_evaluation()
    broker.refuses = lambda _topic, _body: True
    announce(notifier, evaluation, [eta_announcement(3), eta_announcement(2)])
    announce(notifier, evaluation, [eta_announcement(1)])
    assert broker.messages == []
    broker.refuses = lambda _topic, _body: False
    notifier.flush_all()
    assert [content_of(message.body)["message"] for message in broker.messages] == ["3", "2", "1"]


def test_a_message_that_is_refused_holds_back_those_behind_it(record_evaluation, notifier, broker):
    evaluation = record_evaluation()
    broker.refuses = lambda _topic, body: content_of(body)["message"] == "2"
    announce(notifier, evaluation, [eta_announcement(number) for number in (3, 2, 1)])
    assert [content_of(message.body)["message"] for message in broker.messages] == ["3"]


def test_a_topic_that_refuses_keeps_no_other_topic_waiting(record_evaluation, notifier, broker):
    evaluation = record_evaluation(source_topics=["forbidden", "good"])
    broker.refuses = lambda topic, _body: topic == "forbidden"
    announce(notifier, evaluation, [eta_announcement(number) for number in (3, 2, 1)])
    assert [message.topic for message in broker.messages] == ["good"] * 3
    broker.refuses = lambda _topic, _body: False
    notifier.flush_all()
    told = [message.body["payload"]["content"]["message"] for message in broker.messages]
    assert told == ["3", "2", "1"] * 2


def test_what_one_evaluation_waits_with_keeps_no_other_waiting(record_evaluation, notifier, broker):
    stuck = record_evaluation(source_topics=["stuck"])
    other = record_evaluation(eval_id=EVAL_ID.replace("4", "5"))
    broker.refuses = lambda topic, _body: topic == "stuck"
    announce(notifier, stuck, [eta_announcement(1)])
    announce(notifier, other, [eta_announcement(1)])
    notifier.flush_all()
    assert [message.topic for message in broker.messages] == ["budapp-notifications"]


@pytest.fixture
def died_while_publishing(record_evaluation, outbox, notifier, broker, monkeypatch):
    """A process died after it had claimed a message; answers what is told afterwards."""

    def tell(announcement):
        evaluation = record_evaluation()
        broker.refuses = lambda _topic, _body: True
        announce(notifier, evaluation, [announcement, status_announcement(WorkflowStatus.COMPLETED, "t")])
        broker.refuses = lambda _topic, _body: False
        assert outbox.claim_next(EVAL_ID).event == announcement.event
        now = outbox_module.utc_now
        monkeypatch.setattr(outbox_module, "utc_now", lambda: now() + timedelta(seconds=CLAIM_SECONDS + 1))
        notifier.flush_all()
        return broker.told

    return tell


def test_results_that_may_have_been_told_are_not_told_again(died_while_publishing):
    results = Announcement(event=Event.RESULTS, status=WorkflowStatus.COMPLETED, title="t")
    assert died_while_publishing(results) == ["evaluate_model_status.COMPLETED"]


def test_anything_else_that_may_have_been_told_is_told_under_the_same_id(died_while_publishing, broker):
    announcement = eta_announcement(3)
    assert died_while_publishing(announcement) == ["eta.RUNNING", "evaluate_model_status.COMPLETED"]
    assert broker.messages[0].event_id == event_id(EVAL_ID, announcement)


RESULTS = Announcement(event=Event.RESULTS, status=WorkflowStatus.COMPLETED, title="t")
LAST = status_announcement(WorkflowStatus.COMPLETED, "t")


def test_results_whose_fate_is_unknown_are_not_told_again_and_hold_nobody_back(record_evaluation, notifier, broker):
    evaluation = record_evaluation()
    broker.silent = True
    announce(notifier, evaluation, [RESULTS, LAST])
    broker.silent = False
    notifier.flush_all()
    assert broker.told == ["results.COMPLETED", *["evaluate_model_status.COMPLETED"] * 2]


def test_the_timeline_does_not_say_that_somebody_was_told_who_may_not_have_been(
    record_evaluation, record, notifier, broker
):
    broker.silent = True
    announce(notifier, record_evaluation(), [RESULTS])
    entry = record.timeline.entries(EVAL_ID, 1, 9)[0]
    assert (entry.kind, entry.title) == ("notification", "budapp-notifications may not have been notified")
    assert entry.reason == "results COMPLETED"


def test_results_that_were_refused_for_sure_are_told_later(record_evaluation, notifier, broker):
    broker.refuses = lambda _topic, _body: True
    announce(notifier, record_evaluation(), [RESULTS, LAST])
    broker.refuses = lambda _topic, _body: False
    notifier.flush_all()
    assert broker.told == ["results.COMPLETED", "evaluate_model_status.COMPLETED"]


def test_nothing_is_claimed_before_there_is_a_connection(record_evaluation, outbox, notifier, broker):
    broker.away = True
    announce(notifier, record_evaluation(), [RESULTS])
    assert not outbox.claim_next(EVAL_ID).uncertain


SENTENCES = [
    (StatusCode.UNAVAILABLE, "failed to connect to all addresses; last error: Connection refused", False),
    (StatusCode.UNAVAILABLE, "Stream removed (Socket closed)", True),
    (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", True),
    (StatusCode.CANCELLED, "Channel closed!", True),
    (StatusCode.UNKNOWN, None, True),
    (StatusCode.INVALID_ARGUMENT, "pubsub nope is not found", False),
    (StatusCode.PERMISSION_DENIED, "topic t is not allowed for app id budeval", False),
    (StatusCode.INTERNAL, "error from publish: dial tcp 127.0.0.1:6379: connect: connection refused", False),
    (StatusCode.INTERNAL, "error from publish: dial tcp: lookup redis: no such host", False),
    (StatusCode.INTERNAL, "error from publish: OOM command not allowed when used memory > 'maxmemory'.", False),
    (StatusCode.INTERNAL, "redis streams: error from publish: LOADING Redis is loading the dataset", False),
    (StatusCode.INTERNAL, "error from publish: dial tcp 10.0.0.1:6379: i/o timeout", False),
    (StatusCode.INTERNAL, "redis streams: error from publish: EOF", True),
    (StatusCode.INTERNAL, "error from publish: read tcp 127.0.0.1:1->127.0.0.1:2: i/o timeout", True),
    (StatusCode.INTERNAL, "error from publish: write tcp 127.0.0.1:1->127.0.0.1:2: broken pipe", True),
    (StatusCode.INTERNAL, "anything that another broker says", True),
]


@pytest.mark.parametrize(("code", "details", "unknown"), SENTENCES)
def test_a_failure_is_certain_only_where_the_broker_cannot_have_the_message(code, details, unknown):
    assert is_uncertain(code, details or "") is unknown

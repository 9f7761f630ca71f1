"""The strict consumer: accepts exactly what the wire contract says about notifications, and nothing else.

Works on messages as a subscriber receives them, after Dapr's additions, in the order of the topic.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

Event = Literal[
    "evaluate_model_status",
    "eta",
    "verify_cluster_connection",
    "preparing_eval_engine",
    "deploy_eval_job",
    "monitor_eval_job_progress",
    "results",
]
Status = Literal["UNKNOWN", "STARTED", "RUNNING", "COMPLETED", "FAILED", "TERMINATED", "PENDING", "SUSPENDED"]
FINAL_STATUSES = ("COMPLETED", "FAILED", "TERMINATED")

STEPS = ("verify_cluster_connection", "preparing_eval_engine", "deploy_eval_job")
_PROGRESS = r"(monitor_eval_job_progress\.RUNNING |eta\.RUNNING )*"
_BEGIN = r"evaluate_model_status\.STARTED eta\.RUNNING "
_DONE = "".join(rf"{step}\.RUNNING {step}\.COMPLETED " for step in STEPS)
_COMPLETED = re.compile(
    rf"{_BEGIN}{_DONE}{_PROGRESS}monitor_eval_job_progress\.COMPLETED "
    r"results\.COMPLETED evaluate_model_status\.COMPLETED "
)
_PARTLY = "".join(rf"({step}\.RUNNING ({step}\.COMPLETED " for step in STEPS) + _PROGRESS + ")?)?" * len(STEPS)
_STEP_FAILED = "(" + "|".join(rf"{step}\.FAILED " for step in STEPS) + ")?"
_UNSUCCESSFUL = re.compile(
    rf"({_BEGIN})?{_PARTLY}{_STEP_FAILED}monitor_eval_job_progress\.FAILED evaluate_model_status\.(FAILED|TERMINATED) "
)
_STEP_CAME_TO_NOTHING = "(" + "|".join(rf"{step}\.RUNNING " for step in STEPS) + ")?"
_KEPT = re.compile(
    rf"{_BEGIN}{_PARTLY}{_STEP_CAME_TO_NOTHING}{_PROGRESS}monitor_eval_job_progress\.COMPLETED "
    r"results\.COMPLETED evaluate_model_status\.COMPLETED "
)
"""A later attempt that came to nothing, of an evaluation with scores: FAILED would paint those failed too."""
_PROGRESS_MESSAGE = re.compile(r"Jobs: \d+ completed, \d+ running(, \d+ failed)?")
OUTAGE_WORDS = "could not be asked"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Content(_Strict):
    """What a person reads, and the data that comes with it."""

    title: str
    message: str
    status: Status
    result: dict[str, Any] | None
    primary_action: None
    secondary_action: None


class Payload(_Strict):
    """What the consumer's handlers read."""

    category: str
    type: Literal["evaluate_model"]
    event: Event
    workflow_id: str
    source: Literal["budeval"]
    content: Content


class Notification(_Strict):
    """The JSON that budeval publishes."""

    notification_type: str
    name: str
    subscriber_ids: str | None
    actor: str | None
    topic_keys: str | list[str] | None
    payload: Payload
    source_topic: str
    type: Literal["evaluate_model"]


class BudappNotification(Notification):
    """The same as it arrives: the JSON is the envelope, and Dapr adds exactly these keys."""

    specversion: Literal["1.0"]
    pubsubname: str
    source: str
    time: str
    topic: str
    traceid: str
    traceparent: str
    tracestate: str


class CloudEventNotification(_Strict):
    """The plain CloudEvent of the other format."""

    specversion: Literal["1.0"]
    id: str
    type: str
    source: Literal["budeval"]
    subject: str
    datacontenttype: Literal["application/json"]
    time: str
    topic: str
    pubsubname: str
    traceid: str
    traceparent: str
    tracestate: str
    data: Notification


class Error(_Strict):
    """Why a run has no scores."""

    reason: str
    message: str
    resolution: str | None


class ScoreLine(_Strict):
    """One number."""

    dataset: str
    version: str
    metric: str
    mode: str
    score: float


class ResultEntry(_Strict):
    """One run in ``results``."""

    run_id: str
    eval_id: str
    status: Literal["success", "error"]
    scores: list[ScoreLine]
    error: Error | None = None
    startTime: str | None
    completionTime: str | None
    duration_seconds: float | None


class ErrorDetail(_Strict):
    """One failed run of a failed evaluation."""

    job_id: str
    category: str
    error_type: str
    message: str


@dataclass
class Story:
    """What a consumer has learnt from the notifications of one evaluation."""

    status: str
    events: list[str]
    """``event.STATUS`` of each message, in order."""
    etas: list[int] = field(default_factory=list)
    progress: list[str] = field(default_factory=list)
    """Messages of ``monitor_eval_job_progress`` RUNNING."""
    results: dict[str, ResultEntry] = field(default_factory=dict)
    """By run id; empty when there was no ``results``."""
    failure: dict[str, Any] | None = None
    """``content.result`` of ``monitor_eval_job_progress`` FAILED."""
    event_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """What the requester asked for, as far as notifications show it."""

    eval_id: str
    run_ids: Sequence[str]
    topic: str
    metadata: Mapping[str, str | None] = field(default_factory=dict)
    attempt: int = 1
    """Of a later attempt, ``run_ids`` are the runs whose results were not told before."""


def parse(message: Mapping[str, Any], asked: Asked) -> tuple[Notification, str]:
    """One message as received; answers its content and event id. Raises when it is not exactly as agreed."""
    if "data" in message:
        return _parse_cloud_event(message, asked)
    body = BudappNotification.model_validate(dict(message))
    assert body.topic == body.source_topic == asked.topic
    _time(body.time)
    return body, _check_notification(body, asked)


def read_story(messages: Sequence[Mapping[str, Any]], asked: Asked) -> Story:
    """All messages of one ended evaluation on one topic, in order. Raises ``AssertionError`` at the first deviation."""
    parsed = [parse(message, asked) for message in messages]
    bodies = [body for body, _ in parsed]
    story = Story(
        status=bodies[-1].payload.content.status,
        events=[f"{body.payload.event}.{body.payload.content.status}" for body in bodies],
        event_ids=[event_id for _, event_id in parsed],
    )
    assert len(set(story.event_ids)) == len(story.event_ids), "an event was told twice"
    for body in bodies:
        _read(story, body.payload, asked)
    _check_order(story, asked)
    _check_end(story, asked)
    return story


def _parse_cloud_event(message: Mapping[str, Any], asked: Asked) -> tuple[Notification, str]:
    event = CloudEventNotification.model_validate(dict(message))
    event_id = _check_notification(event.data, asked)
    assert event.id == event_id
    assert event.subject == asked.eval_id
    assert event.topic == asked.topic
    assert event.type == f"evaluate_model.{event.data.payload.event}"
    return event.data, event_id


def _check_notification(body: Notification, asked: Asked) -> str:
    metadata = asked.metadata
    assert body.source_topic == asked.topic
    assert body.name == (metadata.get("name") or "evaluate_model")
    assert body.notification_type == (metadata.get("notification_type") or "event")
    assert body.subscriber_ids == metadata.get("subscriber_ids")
    assert body.actor == metadata.get("actor")
    assert body.topic_keys == metadata.get("topic_keys")
    assert body.payload.category == (metadata.get("category") or "internal")
    assert body.payload.workflow_id == (metadata.get("workflow_id") or asked.eval_id)
    assert body.payload.content.title
    result = body.payload.content.result
    assert result is not None
    assert result["evaluation_id"] == asked.eval_id
    return str(UUID(result["event_id"]))


def _read(story: Story, payload: Payload, asked: Asked) -> None:
    content, result = payload.content, payload.content.result or {}
    match payload.event, content.status:
        case "eta", _:
            assert content.status == "RUNNING"
            assert content.message.isdecimal()
            story.etas.append(int(content.message))
        case "monitor_eval_job_progress", "RUNNING":
            assert content.title == "Evaluation in progress"
            assert _PROGRESS_MESSAGE.fullmatch(content.message) or OUTAGE_WORDS in content.message
            story.progress.append(content.message)
        case "monitor_eval_job_progress", "FAILED":
            story.failure = _failure(result, asked)
        case "results", _:
            assert set(result) == {"evaluation_id", "event_id", "results"}
            entries = [ResultEntry.model_validate(entry) for entry in result["results"]]
            story.results = {entry.run_id: entry for entry in entries}
            assert [entry.run_id for entry in entries] == list(asked.run_ids), "a run is absent or there twice"
            for entry in entries:
                _check_entry(entry, asked)


def _failure(result: dict[str, Any], asked: Asked) -> dict[str, Any]:
    assert set(result) == {"evaluation_id", "event_id", "failed_jobs", "error_category", "error_details"}
    assert set(result["failed_jobs"]) <= set(asked.run_ids)
    assert result["error_category"]
    details = [ErrorDetail.model_validate(detail) for detail in result["error_details"]]
    assert [detail.job_id for detail in details] == result["failed_jobs"]
    return result


def _check_entry(entry: ResultEntry, asked: Asked) -> None:
    assert entry.eval_id == asked.eval_id
    for time in (entry.startTime, entry.completionTime):
        if time is not None:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)
    if entry.status == "error":
        assert entry.error is not None
        assert entry.error.message
        assert entry.scores == []
    else:
        assert entry.error is None
        assert entry.scores
        assert all(math.isfinite(line.score) for line in entry.scores)


def _check_order(story: Story, asked: Asked) -> None:
    text = "".join(f"{event} " for event in story.events)
    completed = (_COMPLETED,) if asked.attempt == 1 else (_COMPLETED, _KEPT)
    grammars = completed if story.status == "COMPLETED" else (_UNSUCCESSFUL,)
    assert any(grammar.fullmatch(text) for grammar in grammars), f"not in the agreed order: {text}"
    assert story.etas == sorted(story.etas, reverse=True), f"the time left went up: {story.etas}"


def _check_end(story: Story, asked: Asked) -> None:
    if story.status == "COMPLETED":
        # A FAILED status would paint the whole evaluation failed.
        assert not any(event.endswith(".FAILED") for event in story.events)
        assert asked.attempt > 1 or any(entry.status == "success" for entry in story.results.values())
    else:
        assert story.failure is not None
        assert not story.results
        if story.status == "FAILED":
            assert set(story.failure["failed_jobs"]) == set(asked.run_ids)


def _time(text: str) -> None:
    datetime.fromisoformat(text)

"""`make demo`: one real evaluation, from the request to the scores on a subscriber's topic, shown as it goes.

With ENDPOINT, MODEL and DATASET in the environment it evaluates the user's own model; the key is in OPENAI_API_KEY.
"""

import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from budeval.cli.errors import ExitCode
from budeval.cli.output import Output
from budeval.cli.views import RESULT_HEADERS, result_rows
from budeval.cli.watching import follow
from budeval.client import BudevalClientError, Client, DatasetRun, EvaluationRequest, Results
from dev.command_line import exit_code
from dev.errors import StackError

TOPIC = "budeval-demo"
SOURCE = "budeval-demo"
LOCAL_MODEL = "smollm2-135m-instruct"
LOCAL_DATASET = "siqa_gen"
LOCAL_QUESTIONS = 24
"""About 15 s of a small model on two cores."""
CONFIGS: dict[str, str | int | float] = {"poll_interval": 3, "max_checks": 2400}
PARAMETERS: dict[str, str | int | float] = {
    "query_per_second": 50,
    "max_out_len": 64,
    "max_seq_len": 4096,
    "batch_size": 4,
}
EXAMPLE = "For example: make demo ENDPOINT=http://127.0.0.1:8000/v1 MODEL=my-model DATASET=siqa_gen,piqa_gen"
POLL_SECONDS = 0.5
LAST_WORD_SECONDS = 20.0

Told = dict[tuple[str, str], float]
"""Scores by run id and metric."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated."""

    endpoint: str
    model: str
    datasets: Sequence[str]
    api_key: str = field(repr=False, default="")
    max_questions: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], local_endpoint: str) -> "Subject":
        """The user's own model, or the small local one.

        Raises:
            StackError: ENDPOINT is set without MODEL and DATASET, MODEL without ENDPOINT, or QUESTIONS is no number.
        """
        datasets = [name.strip() for name in environment.get("DATASET", "").split(",") if name.strip()]
        limit = _number(environment.get("QUESTIONS", ""))
        if not environment.get("ENDPOINT"):
            if environment.get("MODEL"):
                raise StackError(f"MODEL needs ENDPOINT beside it. {EXAMPLE}")
            return cls(local_endpoint, LOCAL_MODEL, datasets or [LOCAL_DATASET], max_questions=limit or LOCAL_QUESTIONS)
        if not environment.get("MODEL") or not datasets:
            raise StackError(f"ENDPOINT needs MODEL and DATASET beside it. {EXAMPLE}")
        key = environment.get("OPENAI_API_KEY", "")
        return cls(environment["ENDPOINT"], environment["MODEL"], datasets, key, limit)

    def request(self, eval_id: str) -> EvaluationRequest:
        """What the service is asked for."""
        limited = {} if self.max_questions is None else {"max_questions": self.max_questions}
        return EvaluationRequest(
            eval_id=eval_id,
            model_name=self.model,
            endpoint=self.endpoint,
            api_key=SecretStr(self.api_key),
            parameters=PARAMETERS,
            datasets=[DatasetRun(dataset_id=name) for name in self.datasets],
            configs={**CONFIGS, **limited},
            source=SOURCE,
            topics=[TOPIC],
        )


def _number(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise StackError(f"QUESTIONS is the greatest number of questions of a data set, not {text!r}")
    return int(text)


class Subscriber:
    """A real subscriber of the topic, through daprd."""

    def __init__(self, pubsub_name: str, eval_id: str) -> None:
        self._eval_id = eval_id
        self._lock = threading.Lock()
        self._messages: list[dict[str, Any]] = []
        from dapr.clients import DaprClient  # reads the ports of the sidecar from the environment when imported

        self._client = DaprClient()
        self._close = self._client.subscribe_with_handler(pubsub_name, TOPIC, self._take)

    def _take(self, message: Any) -> Any:
        from dapr.clients.grpc._response import TopicEventResponse

        payload = message.extensions().get("payload", {})
        if payload.get("workflow_id") == self._eval_id:
            with self._lock:
                self._messages.append(payload)
        return TopicEventResponse("success")

    def received(self) -> list[dict[str, Any]]:
        """Payloads of this evaluation so far."""
        with self._lock:
            return list(self._messages)

    def wait_for_last_word(self) -> list[dict[str, Any]]:
        """Everything, when the last notification has arrived or has not within a few seconds."""
        deadline = time.monotonic() + LAST_WORD_SECONDS
        while not any(is_last_word(payload) for payload in self.received()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return self.received()

    def close(self) -> None:
        """End the subscription."""
        self._close()
        self._client.close()  # type: ignore[no-untyped-call]


def is_last_word(payload: Mapping[str, Any]) -> bool:
    """Whether a notification is the one that ends an evaluation."""
    ended = ("COMPLETED", "FAILED", "TERMINATED")
    return payload["event"] == "evaluate_model_status" and payload["content"]["status"] in ended


def scores_told(received: Sequence[Mapping[str, Any]]) -> Told:
    """The scores that a subscriber was told."""
    return {
        (run["run_id"], score["metric"]): score["score"]
        for payload in received
        if payload["event"] == "results"
        for run in payload["content"]["result"]["results"]
        for score in run["scores"]
    }


def scores_recorded(results: Results) -> Told:
    """The scores that the service shows."""
    return {(run.run_id, score.metric): score.score for run in results.results for score in run.scores}


def conclude(output: Output, results: Results, received: Sequence[Mapping[str, Any]]) -> ExitCode:
    """Print the scores, what the subscriber got, and where to look next; good where there are scores, told rightly."""
    recorded, told = scores_recorded(results), scores_told(received)
    output.line("")
    output.table(RESULT_HEADERS, list(result_rows(results)))
    same = ", the same scores among them" if told and told == recorded else ""
    output.line("")
    output.line(f"A subscriber of the topic {TOPIC} received {len(received)} notifications{same}.")
    for line in next_steps(results.eval_id):
        output.line(line)
    return ExitCode.GOOD if recorded and told == recorded else ExitCode.FAILED


def next_steps(eval_id: str) -> list[str]:
    """Where to look next."""
    return [
        "",
        "Next:",
        "  . .budeval/env                               # the command budeval, kubectl and dapr for this shell",
        f"  budeval show {eval_id} --timeline",
        "  budeval list; budeval datasets siqa; budeval doctor",
        "  make demo ENDPOINT=... MODEL=... DATASET=...  # your own model; its key in OPENAI_API_KEY",
        "  make status; make down",
    ]


@contextmanager
def subscribed(pubsub_name: str, eval_id: str) -> Iterator[Subscriber]:
    """A subscriber for as long as the block."""
    subscriber = Subscriber(pubsub_name, eval_id)
    try:
        yield subscriber
    finally:
        subscriber.close()


def run(base_url: str, pubsub_name: str, subject: Subject) -> ExitCode:
    """Evaluate, watch and conclude; the service must be up."""
    eval_id, output = str(uuid.uuid4()), Output()
    output.line(f"\nEvaluating {subject.model} at {subject.endpoint} on {', '.join(subject.datasets)}\n")
    with subscribed(pubsub_name, eval_id) as subscriber, Client(base_url) as client:
        client.start(subject.request(eval_id))
        if follow(client, output, eval_id) is ExitCode.INTERRUPTED:
            return ExitCode.INTERRUPTED
        return conclude(output, client.results(eval_id), subscriber.wait_for_last_word())


def main() -> int:
    """Bring everything up and run the demo."""
    from dev import environment
    from dev.settings import load_settings
    from dev.stack import GROUPS, Stack

    settings = load_settings()
    stack = Stack(settings)
    subject = Subject.from_environment(os.environ, f"http://127.0.0.1:{settings.ports.model}/v1")
    stack.up(GROUPS)
    stack.start_service()
    os.environ.update(environment.service_environment(settings, os.environ))
    try:
        return run(f"http://127.0.0.1:{settings.ports.service}", "pubsub-redis", subject)
    except BudevalClientError as error:
        raise StackError(str(error)) from error


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""`make demo`: one real evaluation, from the request to the scores on a subscriber's topic, shown as it goes.

With ENDPOINT, MODEL and DATASET in the environment it evaluates the user's own model; the key is in OPENAI_API_KEY.
"""

import os
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dev.errors import StackError

TOPIC = "budeval-demo"
SOURCE = "budeval-demo"
LOCAL_MODEL = "smollm2-135m-instruct"
LOCAL_DATASET = "siqa_gen"
LOCAL_QUESTIONS = 24
"""About 15 s of a small model on two cores."""
POLL_INTERVAL_SECONDS = 3
POLL_SECONDS = 0.5
ENDED = ("COMPLETED", "FAILED", "TERMINATED")
LAST_WORD_SECONDS = 20.0


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
            StackError: ENDPOINT is set without MODEL and DATASET.
        """
        datasets = [name.strip() for name in environment.get("DATASET", "").split(",") if name.strip()]
        questions = environment.get("QUESTIONS")
        limit = int(questions) if questions else None
        if not environment.get("ENDPOINT"):
            return cls(local_endpoint, LOCAL_MODEL, datasets or [LOCAL_DATASET], max_questions=limit or LOCAL_QUESTIONS)
        if not environment.get("MODEL") or not datasets:
            raise StackError(
                "ENDPOINT needs MODEL and DATASET beside it, e.g. "
                "make demo ENDPOINT=http://127.0.0.1:8000/v1 MODEL=my-model DATASET=siqa_gen,piqa_gen"
            )
        key = environment.get("OPENAI_API_KEY", "")
        return cls(environment["ENDPOINT"], environment["MODEL"], datasets, key, limit)

    def request(self, eval_id: str) -> dict[str, Any]:
        """Body of `POST /evals/start`."""
        configs = {"poll_interval": POLL_INTERVAL_SECONDS, "max_checks": 2400, "max_questions": self.max_questions}
        return {
            "eval_id": eval_id,
            "eval_model_info": {
                "model_name": self.model,
                "endpoint": self.endpoint,
                "api_key": self.api_key,
                "extra_args": {"query_per_second": "50", "max_out_len": "64", "max_seq_len": "4096", "batch_size": "4"},
            },
            "eval_datasets": [
                {"dataset_id": name, "run_id": f"demo-{position}-{eval_id[:8]}"}
                for position, name in enumerate(self.datasets, 1)
            ],
            "eval_configs": [
                {"config_name": name, "config_value": value} for name, value in configs.items() if value is not None
            ],
            "engine": "opencompass",
            "source": SOURCE,
            "source_topic": TOPIC,
        }


class Subscriber:
    """A real subscriber of the topic, through daprd."""

    def __init__(self, pubsub_name: str, eval_id: str) -> None:
        self._eval_id = eval_id
        self._lock = threading.Lock()
        self.messages: list[dict[str, Any]] = []
        from dapr.clients import DaprClient  # reads the ports of the sidecar from the environment when imported

        self._client = DaprClient()
        self._close = self._client.subscribe_with_handler(pubsub_name, TOPIC, self._take)

    def _take(self, message: Any) -> Any:
        from dapr.clients.grpc._response import TopicEventResponse

        payload = message.extensions().get("payload", {})
        if payload.get("workflow_id") == self._eval_id:
            with self._lock:
                self.messages.append(payload)
        return TopicEventResponse("success")

    def received(self) -> list[dict[str, Any]]:
        """Payloads of this evaluation so far."""
        with self._lock:
            return list(self.messages)

    def wait_for_last_word(self) -> bool:
        """Whether the last notification of the evaluation arrives within a few seconds."""
        deadline = time.monotonic() + LAST_WORD_SECONDS
        while time.monotonic() < deadline:
            if any(is_last_word(payload) for payload in self.received()):
                return True
            time.sleep(POLL_SECONDS)
        return False

    def close(self) -> None:
        """End the subscription."""
        self._close()
        self._client.close()  # type: ignore[no-untyped-call]


def is_last_word(payload: Mapping[str, Any]) -> bool:
    """Whether a notification is the one that ends an evaluation."""
    return payload["event"] == "evaluate_model_status" and payload["content"]["status"] in ENDED


def start(base_url: str, subject: Subject, eval_id: str) -> None:
    """Start the evaluation.

    Raises:
        StackError: with the service's own words.
    """
    response = httpx.post(f"{base_url}/evals/start", json=subject.request(eval_id), timeout=30)
    if response.status_code != httpx.codes.OK:
        problem = response.json()
        lines = [f"{item['field']}: {item['message']}" for item in problem.get("errors", [])]
        raise StackError("\n  ".join([f"the service refused: {problem['title']}", *(lines or [problem["detail"]])]))


def watch(console: Console, base_url: str, eval_id: str) -> dict[str, Any]:
    """Show the evaluation until it has ended; answers its last state. Ctrl-C leaves it running."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            return _follow(base_url, eval_id, lambda view: live.update(render(view)))
    told: set[str] = set()

    def tell(view: dict[str, Any]) -> None:
        for line in plain_lines(view):
            if line not in told:
                told.add(line)
                console.print(line, highlight=False)

    return _follow(base_url, eval_id, tell)


def _follow(base_url: str, eval_id: str, show: Any) -> dict[str, Any]:
    while True:
        view: dict[str, Any] = httpx.get(f"{base_url}/evals/{eval_id}", timeout=30).json()
        show(view)
        if view["status"] in ENDED:
            return view
        time.sleep(POLL_SECONDS)


_MARKS = {"PENDING": ("·", "dim"), "RUNNING": ("▸", "cyan"), "COMPLETED": ("✓", "green"), "FAILED": ("✗", "red")}


def render(view: Mapping[str, Any]) -> RenderableType:
    """The evaluation for a terminal."""
    lines = Text()
    for step in view["steps"]:
        mark, style = _MARKS.get(step["status"], ("✗", "red"))
        lines.append(f" {mark} {step['title']}", style)
        lines.append(f"  {step['message']}\n", "dim")
    return Group(lines, runs_table(view))


def runs_table(view: Mapping[str, Any]) -> Table:
    """One row for each run and score."""
    table = Table("data set", "status", "questions", "metric", "score", box=None, pad_edge=True)
    for run in view["runs"]:
        progress = run["progress"]
        questions = f"{progress['done']} of {progress['total']}" if progress["total"] else progress["phase"]
        error = run["error"]
        scores = run["scores"] or [None]
        for score in scores:
            shown = ("", "") if score is None else (score["metric"], f"{score['score']:.2f}")
            table.add_row(run["dataset_id"], run["status"], questions, *shown)
        if error:
            table.add_row("", Text(f"{error['reason']}: {error['message']} {error['resolution'] or ''}", "red"))
    return table


def plain_lines(view: Mapping[str, Any]) -> list[str]:
    """The evaluation for a log: each line is printed once."""
    steps = [f"{step['title']}: {step['status']}" for step in view["steps"] if step["status"] != "PENDING"]
    runs = []
    for run in view["runs"]:
        progress = run["progress"]
        if progress["total"]:
            runs.append(f"{run['dataset_id']}: {progress['done']} of {progress['total']} questions")
        if run["error"]:
            runs.append(f"{run['dataset_id']}: {run['error']['reason']}: {run['error']['message']}")
    return [*steps, *runs]


def conclude(
    console: Console, base_url: str, view: Mapping[str, Any], received: Sequence[Mapping[str, Any]], seconds: float
) -> int:
    """Print the scores, what the subscriber got, and where to look next; 0 where there are scores."""
    console.print(f"\nEvaluation {view['eval_id']} {view['status']} after {seconds:.0f} s", style="bold")
    console.print(runs_table(view))
    results = [payload for payload in received if payload["event"] == "results"]
    told = {
        (run["run_id"], score["metric"]): score["score"]
        for payload in results
        for run in payload["content"]["result"]["results"]
        for score in run["scores"]
    }
    recorded = {(run["run_id"], score["metric"]): score["score"] for run in view["runs"] for score in run["scores"]}
    console.print(f"A subscriber of the topic {TOPIC} received {len(received)} notifications", end="")
    console.print(f", the same {len(told)} score(s) among them." if told and told == recorded else ".")
    if view["error"]:
        error = view["error"]
        console.print(f"{error['reason']}: {error['message']} {error['resolution'] or ''}", style="red")
    for line in next_steps(base_url, view["eval_id"]):
        console.print(line, highlight=False)
    return 0 if recorded and told == recorded else 1


def next_steps(base_url: str, eval_id: str) -> list[str]:
    """Where to look next."""
    return [
        "\nNext:",
        f"  curl -s {base_url}/evals/{eval_id}",
        f"  open {base_url}/docs",
        "  . .budeval/env && kubectl get jobs,pods -n development",
        "  make demo ENDPOINT=... MODEL=... DATASET=...    (key from OPENAI_API_KEY)",
        "  make status; make down",
    ]


def run(base_url: str, pubsub_name: str, subject: Subject) -> int:
    """Evaluate, watch and conclude; the service must be up."""
    console = Console()
    eval_id = str(uuid.uuid4())
    console.print(
        f"\nEvaluating {subject.model} at {subject.endpoint} on {', '.join(subject.datasets)} (evaluation {eval_id})\n",
        highlight=False,
    )
    subscriber = Subscriber(pubsub_name, eval_id)
    try:
        began = time.monotonic()
        start(base_url, subject, eval_id)
        view = watch(console, base_url, eval_id)
        seconds = time.monotonic() - began
        subscriber.wait_for_last_word()
        return conclude(console, base_url, view, subscriber.received(), seconds)
    finally:
        subscriber.close()


def main() -> int:
    """Bring everything up and run the demo."""
    from dev import environment
    from dev.settings import load_settings
    from dev.stack import GROUPS, Stack

    try:
        settings = load_settings()
        stack = Stack(settings)
        subject = Subject.from_environment(os.environ, f"http://127.0.0.1:{settings.ports.model}/v1")
        stack.up(GROUPS)
        stack.start_service()
        os.environ.update(environment.service_environment(settings, os.environ))
        return run(f"http://127.0.0.1:{settings.ports.service}", "pubsub-redis", subject)
    except StackError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the evaluation goes on without being watched", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""Everything an evaluation needs but a cluster, as real processes, and an evaluation as a test sees it."""

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import redis
from dapr.ext.workflow import DaprWorkflowClient

from tests.contract import FINAL_STATUSES, Asked, Story, read_story
from tests.dapr_harness import (
    APP_ID,
    HOST,
    REQUEST_TOPIC,
    SUBSCRIBER_ID,
    TOPIC,
    DaprParts,
    Part,
    component,
    read_deliveries,
    wait_for,
    write_components,
)
from tests.workflow.world import World

API_KEY = "a-key-that-is-not-looked-for"
SECONDS = 60.0


class Stack:
    """All parts; each can be killed and started alone."""

    def __init__(self, factory: DaprParts, environment: Mapping[str, str] | None = None) -> None:
        self.factory = factory
        directory = factory.directory
        self.ports = self.factory.ports
        self.directory = directory
        self.world = World(directory / "world")
        self.redis = self._redis()
        self.placement = self.factory.placement()
        self.scheduler = self.factory.scheduler()
        self.service = self.factory.service(
            self.world.root, {"BUDEVAL_REQUEST_TOPIC": REQUEST_TOPIC, **(environment or {})}
        )
        self.daprd = self.factory.daprd(self._service_components())
        self.subscriber = self.factory.subscriber()
        self.subscriber_daprd = self.factory.subscriber_daprd(self._subscriber_components())
        self.url = f"http://{HOST}:{self.ports.service}"

    @property
    def parts(self) -> list[Part]:
        """In the order in which they start."""
        return [self.redis, self.placement, self.scheduler, self.subscriber, self.subscriber_daprd, self.service,
                self.daprd]  # fmt: skip

    def start(self) -> None:
        """Starts what does not run, and waits until evaluations can be run."""
        started = [part for part in self.parts if not part.running]
        for part in started:
            part.start(wait=part is self.redis)
        for part in started:
            part.wait_ready()
        self.wait_ready()

    def wait_ready(self, seconds: float = SECONDS) -> None:
        """Waits for ``/readyz``."""
        wait_for(lambda: httpx.get(f"{self.url}/readyz", timeout=10).is_success, seconds, "the service is ready")

    def stop(self) -> None:
        """Ends every part; nothing is left but what lies in the test's directory."""
        for part in reversed(self.parts):
            part.kill()
        shutil.rmtree(self.service.environment["BUDEVAL_PLAYBOOK_RUN_DIR"], ignore_errors=True)

    def restart_service(self, **environment: str | None) -> None:
        """Starts the service again with other variables; none removes one."""
        self.service.stop()
        change_environment(self.service, environment)
        self.service.start()

    def evaluation(self, runs: int = 1, **changes: Any) -> "Evaluation":
        """A request that has not been sent yet."""
        return Evaluation.make(self, runs, **changes)

    def start_evaluation(self, runs: int = 1, **changes: Any) -> "Evaluation":
        """A request that was accepted."""
        evaluation = self.evaluation(runs, **changes)
        response = evaluation.post()
        assert response.status_code == 200, response.text
        return evaluation

    def broker(self) -> redis.Redis:
        """A client of Redis."""
        return redis.Redis(host=HOST, port=self.ports.redis, decode_responses=True)

    def deliveries(self, topic: str) -> list[dict[str, Any]]:
        """What the subscriber has received on a topic."""
        return [item for item in read_deliveries(self.factory.deliveries) if item["topic"] == topic]

    @contextmanager
    def workflows(self) -> Iterator[DaprWorkflowClient]:
        """A client of the service's daprd."""
        client = DaprWorkflowClient(host=HOST, port=str(self.ports.daprd_grpc))
        try:
            yield client
        finally:
            client.close()  # type: ignore[no-untyped-call]

    def custom_status(self, instance_id: str) -> Any:
        """What an instance says about itself; none: nothing yet."""
        with self.workflows() as client:
            state = client.get_workflow_state(instance_id)
        text = state.serialized_custom_status if state else None
        return _decoded(text) if text else None

    def history_size(self, instance_id: str) -> int:
        """Events in the history of a workflow instance."""
        with self.workflows() as client:
            return len(client.get_workflow_history(instance_id))

    def claims(self, eval_id: str) -> int:
        """Messages that somebody is publishing right now, from the record itself."""
        with closing(sqlite3.connect(self.directory / "record.sqlite", timeout=30)) as record:
            query = "SELECT count(*) FROM events WHERE eval_id=? AND claimed_at IS NOT NULL AND published_at IS NULL"
            return int(record.execute(query, (eval_id,)).fetchone()[0])

    def age_claims(self, eval_id: str) -> None:
        """As if the service had been away for long: a claim of a service that died is given up after half a minute."""
        with closing(sqlite3.connect(self.directory / "record.sqlite", timeout=30)) as record, record:
            change = (
                "UPDATE events SET claimed_at='2026-01-01 00:00:00.000000' WHERE eval_id=? AND published_at IS NULL"
            )
            record.execute(f"{change} AND claimed_at IS NOT NULL", (eval_id,))

    def broker_pause(self) -> None:
        """Redis keeps its connections and answers nobody."""
        os.kill(self.redis.pid, signal.SIGSTOP)

    def broker_continue(self) -> None:
        """The opposite of :meth:`broker_pause`."""
        os.kill(self.redis.pid, signal.SIGCONT)

    def _redis(self) -> Part:
        return self.factory.redis()

    def _service_components(self) -> Path:
        store = component(
            "statestore",
            "state.sqlite",
            connectionString=f"file:{self.directory / 'state.sqlite'}",
            actorStateStore="true",
        )
        return write_components(self.directory / "components", store, self._pubsub(APP_ID))

    def _subscriber_components(self) -> Path:
        # One message at a time: the topic's order is what the subscriber sees.
        return write_components(self.directory / "subscriber-components", self._pubsub(SUBSCRIBER_ID, concurrency="1"))

    def _pubsub(self, consumer: str, **more: str) -> dict[str, Any]:
        return component(
            "pubsub-redis", "pubsub.redis", redisHost=f"{HOST}:{self.ports.redis}", consumerID=consumer, **more
        )


def change_environment(part: Part, changes: Mapping[str, str | None]) -> None:
    """Changes variables for the next start of a part; none removes one."""
    for name, value in changes.items():
        if value is None:
            part.environment.pop(name, None)
        else:
            part.environment[name] = value


@dataclass
class Evaluation:
    """One request and what came of it."""

    stack: Stack
    eval_id: str
    run_ids: list[str]
    body: dict[str, Any]
    topics: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, stack: Stack, runs: int, **changes: Any) -> "Evaluation":
        """``changes`` replaces parts of the body; ``configs`` is a mapping of ``eval_configs``, ``api_key`` the key."""
        eval_id = str(uuid4())
        run_ids = [f"run-{eval_id[:8]}-{number}" for number in range(runs)]
        configs = {"poll_interval": 1, **changes.pop("configs", {})}
        body = {
            "eval_id": eval_id,
            "eval_model_info": {
                "model_name": "gpt-oss-20b",
                "endpoint": "http://127.0.0.1:13200/v1",
                "api_key": changes.pop("api_key", API_KEY),
                "extra_args": {"query_per_second": "50"},
            },
            "eval_datasets": [{"dataset_id": "siqa_gen", "run_id": run_id} for run_id in run_ids],
            "eval_configs": [{"config_name": name, "config_value": str(value)} for name, value in configs.items()],
            "engine": "opencompass",
            "kubeconfig": "",
            "source": "budapp",
            "source_topic": TOPIC,
            **changes,
        }
        topics = body["source_topic"]
        return cls(stack, eval_id, run_ids, body, [topics] if isinstance(topics, str) else topics)

    def post(self) -> httpx.Response:
        """``POST /evals/start``."""
        return httpx.post(f"{self.stack.url}/evals/start", json=self.body, timeout=20)

    def cancel(self) -> httpx.Response:
        """``POST /evals/{eval_id}/cancel``."""
        return httpx.post(f"{self.stack.url}/evals/{self.eval_id}/cancel", timeout=20)

    def view(self) -> dict[str, Any]:
        """``GET /evals/{eval_id}``."""
        response = httpx.get(f"{self.stack.url}/evals/{self.eval_id}", timeout=20)
        response.raise_for_status()
        view: dict[str, Any] = response.json()
        return view

    def script(self, number: int = 0, **script: Any) -> None:
        """How the Job of one run behaves (see ``World.run``)."""
        self.stack.world.run(self.run_ids[number], **script)

    def calls(self, method: str) -> list[dict[str, Any]]:
        """Calls to the cluster about this evaluation; sweeps by the Jobs they ask for."""
        if method != "sweep":
            return self.stack.world.calls(method, self.eval_id)
        names = {job["name"] for job in self.stack.world.jobs(self.eval_id).values()}
        return [call for call in self.stack.world.calls(method) if names & set(call["names"])]

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Jobs that were made, by run id."""
        return self.stack.world.jobs(self.eval_id)

    def published(self, topic: str | None = None) -> list[dict[str, Any]]:
        """What lies in the broker's stream, in its order: the truth about what was told, how often and when."""
        with self.stack.broker() as broker:
            entries = broker.xrange(topic or self.topics[0])
        messages = [json.loads(values["data"]) for _, values in entries]
        return [message for message in messages if self.eval_id in json.dumps(message)]

    def delivered(self, topic: str | None = None) -> list[dict[str, Any]]:
        """What the subscriber has received."""
        deliveries = self.stack.deliveries(topic or self.topics[0])
        return [item["body"] for item in deliveries if self.eval_id in json.dumps(item["body"])]

    def wait_told(self, event: str, status: str, seconds: float = SECONDS) -> None:
        """Waits until an event is in the topic."""
        wait_for(lambda: (event, status) in map(_what, self.published()), seconds, f"{event} {status} is told")

    def wait_call(self, method: str, count: int = 1, seconds: float = SECONDS) -> None:
        """Waits until the cluster was called."""
        wait_for(lambda: len(self.calls(method)) >= count, seconds, f"{count} calls of {method}")

    def wait_status(self, status: str, seconds: float = SECONDS) -> None:
        """Waits until the record says so."""
        wait_for(lambda: self.view()["status"] == status, seconds, f"evaluation {self.eval_id} is {status}")

    def story(self, status: str, seconds: float = SECONDS, *, repeated: bool = False) -> Story:
        """Waits for the end, checks every message against the contract, on every topic, and answers what was told.

        ``repeated``: the same message may be there twice, one after the other; ``results`` never.
        """
        last = [("evaluate_model_status", final) for final in FINAL_STATUSES]
        wait_for(lambda: any(_what(item) in last for item in self.published(self.topics[-1])), seconds, "the last word")
        stories = [self._story(topic, repeated) for topic in self.topics]
        assert stories[0].status == status, stories[0]
        assert all(story.event_ids == stories[0].event_ids for story in stories)
        assert self.view()["status"] == status
        return stories[0]

    def _story(self, topic: str, repeated: bool) -> Story:
        published = self.published(topic)
        assert [_what(message) for message in published].count(("results", "COMPLETED")) <= 1
        published = _distinct(published) if repeated else published
        metadata = self.body.get("notification_metadata") or {}
        story = read_story(published, Asked(self.eval_id, self.run_ids, topic, metadata))
        complete = "the subscriber has received everything"
        wait_for(lambda: len(_distinct(self.delivered(topic))) >= len(published), 20, complete)
        assert _distinct(self.delivered(topic)) == published
        return story


def _decoded(text: str) -> Any:
    """Custom statuses are JSON in a JSON string."""
    value = json.loads(text)
    return json.loads(value) if isinstance(value, str) else value


def _what(message: dict[str, Any]) -> tuple[str, str]:
    payload = message.get("data", message)["payload"]
    return payload["event"], payload["content"]["status"]


def _distinct(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The broker delivers at least once, so a consumer drops what it has seen."""
    distinct: dict[str, dict[str, Any]] = {}
    for message in messages:
        distinct.setdefault(message.get("data", message)["payload"]["content"]["result"]["event_id"], message)
    return list(distinct.values())


def seconds_of(began: float) -> float:
    """Seconds since ``began`` (monotonic)."""
    return time.monotonic() - began

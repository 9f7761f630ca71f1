"""The local stack, the service as ``make demo`` starts it, and a real subscriber, as the end-to-end tests see them."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import redis
import yaml
from cryptography.fernet import Fernet

from budeval.ansible.cluster import Cluster
from dev import environment, model
from dev.settings import load_settings
from dev.stack import GROUPS, Stack
from tests.cluster import Admin, until
from tests.contract import FINAL_STATUSES, Asked, Story, read_story
from tests.dapr_harness import (
    APP_ID,
    HOST,
    SUBSCRIBER_ID,
    TOPIC,
    DaprParts,
    Part,
    answers,
    component,
    read_deliveries,
    write_components,
)

MODEL = model.MODEL_NAME
DATASET = "siqa_gen"
ABSENT_DATASET = "gsm8k_gen"
"""Known to the engine; its files are not on the volume of the local stack."""
MANY_QUESTIONS = 1900
"""Minutes of work: such an evaluation is still running when a test is done with it."""
PATIENCE_SECONDS = 240.0
"""A small evaluation takes about 20 s on two idle cores; tests share them."""
SECOND_PORT_BASE = 12000
KEYED_MODEL_OFFSET = 201
NOBODY_OFFSET = 97


class System:
    """Everything that runs for the whole session, and the door to each part of it."""

    def __init__(self, directory: Path) -> None:
        self.settings = load_settings()
        self.stack = Stack(self.settings)
        self.directory = directory
        self.evaluations: list[Evaluation] = []
        """All that were made, so that nothing of them stays."""
        self._factory = DaprParts(directory, self.settings.ports.base)
        self._subscriber = self._factory.subscriber()
        self._subscriber_daprd = self._factory.subscriber_daprd(self._subscriber_components())

    @property
    def url(self) -> str:
        """The supervised service."""
        return f"http://{HOST}:{self.settings.ports.service}"

    @property
    def endpoint(self) -> str:
        """The real small model."""
        return f"http://{HOST}:{self.settings.ports.model}/v1"

    @cached_property
    def admin(self) -> Admin:
        """The cluster as its administrator sees it."""
        return Admin(Cluster(str(self.settings.admin_kubeconfig)), self.settings.namespace)

    @property
    def results(self) -> Path:
        """Results of all evaluations on the volume."""
        return self.settings.data / "results"

    @property
    def port_of_nobody(self) -> int:
        """A port on which nobody listens."""
        return self.settings.ports.base + NOBODY_OFFSET

    @contextmanager
    def running(self) -> Iterator["System"]:
        """Brings up what is not up, and the service anew, since its code may have changed; leaves all as it was."""
        parts = {part.name: part.state for part in self.stack.status()}
        served = parts.pop("budeval", "stopped") == "running"
        parts.pop("daprd", None)
        if any(state != "ready" for state in parts.values()):
            self.stack.up(GROUPS)
        try:
            self.restart_service()
            self._subscriber.start()
            self._subscriber_daprd.start()
            yield self
        finally:
            self._subscriber_daprd.kill()
            self._subscriber.kill()
            self._clean_up()
            if not served:
                self.stack.stop_service()

    def _clean_up(self) -> None:
        for evaluation in self.evaluations:
            evaluation.remove()

    def restart_service(self) -> None:
        """Stops the service and its sidecar, and starts both again."""
        self.stack.stop_service()
        self.start_service()

    @contextmanager
    def service_stopped(self) -> Iterator[None]:
        """Neither the service nor its sidecar runs; both do again afterwards."""
        self.stack.stop_service()
        try:
            yield
        finally:
            self.start_service()

    def start_service(self) -> None:
        """Starts what does not run of the two, and waits until evaluations can be run."""
        self.stack.start_service()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Waits for ``/readyz``."""
        until(lambda: answers(f"{self.url}/readyz"), 60)

    def pid(self, name: str) -> int | None:
        """Process id of a supervised program, while it runs."""
        return self.stack.supervisor.states()[name].pid

    def log(self, name: str = "budeval") -> str:
        """The log of a supervised program."""
        return (self.settings.logs / f"{name}.log").read_text(errors="replace")

    def kubectl(self, *arguments: str) -> str:
        """kubectl as the administrator, in the namespace of the evaluations."""
        return self.stack.cluster.kubectl("-n", self.settings.namespace, *arguments)

    def evaluation(self, runs: Mapping[str, str] | None = None, **changes: Any) -> "Evaluation":
        """A request that has not been sent yet; see :meth:`Evaluation.make`."""
        return Evaluation.make(self, self.url, runs, **changes)

    def published(self, eval_id: str) -> list[dict[str, Any]]:
        """What lies in the broker's stream about an evaluation, in its order: what was told, and how often."""
        with redis.Redis(host=HOST, port=self.settings.ports.redis, decode_responses=True) as broker:
            entries = broker.xrange(TOPIC)
        return [json.loads(values["data"]) for _, values in entries if eval_id in values["data"]]

    def delivered(self, eval_id: str) -> list[dict[str, Any]]:
        """What the subscriber has received about an evaluation; what came twice is there once."""
        bodies = [delivery["body"] for delivery in read_deliveries(self._factory.deliveries)]
        texts = {json.dumps(body, sort_keys=True): body for body in bodies}
        return [body for text, body in texts.items() if eval_id in text]

    @contextmanager
    def second_service(self, directory: Path, **variables: str) -> Iterator["SecondService"]:
        """Another installation of the service on the same cluster and broker, with settings of its own."""
        service = SecondService(self, directory, variables)
        try:
            service.start()
            yield service
        finally:
            service.stop()

    @contextmanager
    def keyed_model(self, directory: Path, key: str) -> Iterator[str]:
        """A second server of the model that wants a key; its endpoint."""
        port = self.settings.ports.base + KEYED_MODEL_OFFSET
        command = model.model_command(self.settings, port)
        variables = {"BUDEVAL_MODEL_API_KEY": key}
        part = Part("keyed-model", command, directory / "keyed-model.log", lambda: model.ready(port), variables)
        try:
            part.start()
            yield f"http://{HOST}:{port}/v1"
        finally:
            part.kill()

    def _subscriber_components(self) -> Path:
        # One message at a time: the order of the topic is what the subscriber sees.
        return write_components(self.directory / "subscriber-components", self.pubsub(SUBSCRIBER_ID, concurrency="1"))

    def pubsub(self, consumer: str, **more: str) -> dict[str, Any]:
        """The stack's broker as a component."""
        address = f"{HOST}:{self.settings.ports.redis}"
        return component("pubsub-redis", "pubsub.redis", redisHost=address, consumerID=consumer, **more)


class SecondService:
    """A service with a sidecar, placement and scheduler of its own."""

    def __init__(self, system: System, directory: Path, variables: Mapping[str, str]) -> None:
        factory = DaprParts(directory, SECOND_PORT_BASE)
        self._system = system
        self._runs = Path("/dev/shm") / f"budeval-e2e-{factory.ports.base}"
        self.url = f"http://{HOST}:{factory.ports.service}"
        store = component(
            "statestore", "state.sqlite", connectionString=f"file:{directory / 'state.sqlite'}", actorStateStore="true"
        )
        components = write_components(directory / "components", store, system.pubsub(APP_ID))
        self._parts = [
            factory.placement(),
            factory.scheduler(),
            self._service(factory, {**self._variables(factory), **variables}),
            factory.daprd(components),
        ]

    def start(self) -> None:
        """Starts every part and waits until evaluations can be run."""
        for part in self._parts:
            part.start(wait=False)
        for part in self._parts:
            part.wait_ready()
        until(lambda: answers(f"{self.url}/readyz"), 60)

    def stop(self) -> None:
        """Ends every part."""
        for part in reversed(self._parts):
            part.kill()
        shutil.rmtree(self._runs, ignore_errors=True)

    def evaluation(self, runs: Mapping[str, str] | None = None, **changes: Any) -> "Evaluation":
        """A request to this service that has not been sent yet."""
        return Evaluation.make(self._system, self.url, runs, **changes)

    def _variables(self, factory: DaprParts) -> dict[str, str]:
        values = environment.service_environment(self._system.settings, {})
        kept = {name: value for name, value in values.items() if not name.endswith(("_TOKEN", "_KEYS_FILE"))}
        return {
            **kept,
            "PATH": os.defpath,
            "BUDEVAL_PORT": str(factory.ports.service),
            "BUDEVAL_RATE_LIMIT": "none",
            "BUDEVAL_DATABASE_URL": f"sqlite:///{factory.directory / 'record.sqlite'}",
            "BUDEVAL_SEALING_KEYS": Fernet.generate_key().decode(),
            "BUDEVAL_PLAYBOOK_RUN_DIR": str(self._runs),
            "DAPR_HTTP_PORT": str(factory.ports.daprd_http),
            "DAPR_GRPC_PORT": str(factory.ports.daprd_grpc),
        }

    def _service(self, factory: DaprParts, variables: Mapping[str, str]) -> Part:
        log = factory.logs / "service.log"
        command = [sys.executable, "-m", "budeval"]
        return Part("service", command, log, lambda: answers(f"{self.url}/livez"), variables)


@dataclass
class Evaluation:
    """One request and what came of it."""

    system: System
    url: str
    body: dict[str, Any]

    @classmethod
    def make(
        cls, system: System, url: str, runs: Mapping[str, str] | None, *, questions: int = 8, **changes: Any
    ) -> "Evaluation":
        """A request with ``runs`` (run id to data set), of ``questions`` each.

        ``changes`` replace fields of the body or of ``eval_model_info``; ``configs`` adds ``eval_configs``.
        """
        eval_id = str(uuid4())
        runs = runs or {f"e2e-{eval_id[:8]}": DATASET}
        configs = {"poll_interval": 2, "max_questions": questions, **changes.pop("configs", {})}
        subject = {"model_name": MODEL, "endpoint": system.endpoint, "api_key": ""}
        body = {
            "eval_id": eval_id,
            "eval_model_info": {
                **{name: changes.pop(name, default) for name, default in subject.items()},
                "extra_args": {"query_per_second": "50", "max_out_len": "32", "batch_size": "4"},
            },
            "eval_datasets": [{"dataset_id": dataset, "run_id": run_id} for run_id, dataset in runs.items()],
            "eval_configs": [{"config_name": name, "config_value": value} for name, value in configs.items()],
            "engine": "opencompass",
            "source": "budapp",
            "source_topic": TOPIC,
            **changes,
        }
        evaluation = cls(system, url, body)
        system.evaluations.append(evaluation)
        return evaluation

    @property
    def eval_id(self) -> str:
        """Of the request."""
        return str(self.body["eval_id"])

    @property
    def run_ids(self) -> list[str]:
        """Of the request, in its order."""
        return [run["run_id"] for run in self.body["eval_datasets"]]

    def start(self) -> "Evaluation":
        """Sends the request."""
        response = httpx.post(f"{self.url}/evals/start", json=self.body, timeout=30)
        assert response.status_code == 200, response.text
        return self

    def cancel(self) -> dict[str, Any]:
        """Asks it to end."""
        response = httpx.post(f"{self.url}/evals/{self.eval_id}/cancel", timeout=30)
        response.raise_for_status()
        return dict(response.json())

    def view(self) -> dict[str, Any]:
        """``GET /evals/{eval_id}``."""
        response = httpx.get(f"{self.url}/evals/{self.eval_id}", timeout=30)
        response.raise_for_status()
        return dict(response.json())

    def steps(self) -> dict[str, str]:
        """Status of each step, by its id."""
        return {step["id"]: step["status"] for step in self.view()["steps"]}

    def run(self, run_id: str | None = None) -> dict[str, Any]:
        """The view of one run; the first where none is named."""
        runs = {run["run_id"]: run for run in self.view()["runs"]}
        return dict(runs[run_id or self.run_ids[0]])

    def wait_answers(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until the model has answered questions."""
        until(lambda: self.run()["progress"]["done"] > 0, seconds, 0.5)

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """What it has in the cluster now."""
        return list(self.system.admin.get(kind, labelSelector=f"budeval.io/eval-id={self.eval_id}")["items"])

    def remove(self) -> None:
        """Takes away what it has in the cluster and on the volume."""
        for kind in ("Job", "Secret", "ConfigMap"):
            for found in self.objects(kind):
                self.system.admin.delete(kind, found["metadata"]["name"])
        until(lambda: not self.objects("Job") and not self.objects("Pod"), 60)
        shutil.rmtree(self.system.results / self.eval_id, ignore_errors=True)

    def job(self) -> dict[str, Any]:
        """The Job of its only run."""
        (job,) = self.objects("Job")
        return job

    def story(self, status: str, seconds: float = PATIENCE_SECONDS) -> Story:
        """Waits for the last word, checks every message against the contract, and answers what was told."""
        until(lambda: self._last_word(status), seconds, 0.5)
        published = self.system.published(self.eval_id)
        story = read_story(published, Asked(self.eval_id, self.run_ids, TOPIC))
        until(lambda: len(self.system.delivered(self.eval_id)) >= len(published), 20)
        assert self.system.delivered(self.eval_id) == published
        assert (story.status, self.view()["status"]) == (status, status), self.view()
        return story

    def _last_word(self, status: str) -> bool:
        """Whether it was told; another end than ``status`` ends the waiting, with the reason."""
        view = self.view()
        assert view["status"] not in FINAL_STATUSES or view["status"] == status, view
        payloads = [message["payload"] for message in self.system.published(self.eval_id)]
        return any(
            payload["event"] == "evaluate_model_status" and payload["content"]["status"] in FINAL_STATUSES
            for payload in payloads
        )


def overlay_file(path: Path, **container: Any) -> Path:
    """The local stack's pod template overlay with changes to the engine's container."""
    spec: dict[str, Any] = {"hostNetwork": True, "dnsPolicy": "Default"}
    path.write_text(yaml.safe_dump({"spec": {**spec, "containers": [container]}}))
    return path


def kubeconfig_of_nobody(port: int) -> str:
    """A kubeconfig of an API server that is not there."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "dead",
        "clusters": [{"name": "dead", "cluster": {"server": f"https://{HOST}:{port}"}}],
        "users": [{"name": "dead", "user": {"token": "of-no-use"}}],
        "contexts": [{"name": "dead", "context": {"cluster": "dead", "user": "dead"}}],
    }
    return json.dumps(document)


def in_order(wanted: Sequence[str], text: str) -> bool:
    """Whether all texts occur, each behind the one before."""
    position = 0
    for item in wanted:
        position = text.find(item, position) + 1
        if not position:
            return False
    return True

"""The components for production, loaded as they are by a real daprd: PostgreSQL, Redis with TLS, secrets by reference.

In a cluster the secret store called ``kubernetes`` is built in; here a file takes its place under the same name.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis
import yaml

from tests.dapr_harness import HOST, ROOT, DaprParts, Part, component, redis_answers, write_components
from tests.postgresql import running_postgresql
from tests.workflow.stack import Stack

PORT_BASE = 24000
PRODUCTION = ROOT / "components" / "production"
REDIS_USER, REDIS_PASSWORD = "budeval-publisher", "password-of-redis"


class ProductionStack(Stack):
    """The parts as in production: the record and the workflow state in PostgreSQL, the broker behind TLS."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.certificate = make_certificate(directory / "tls")
        self.connection = connection_string(database_url)
        # The components' scopes name these two.
        factory = DaprParts(directory, PORT_BASE, app_id="budeval", subscriber_id="budapp")
        super().__init__(factory, {"BUDEVAL_DATABASE_URL": database_url})
        for sidecar in (self.daprd, self.subscriber_daprd):
            # As with a certificate of one's own authority in production: daprd really checks it.
            sidecar.environment["SSL_CERT_FILE"] = str(self.certificate)

    def broker(self) -> redis.Redis:
        return redis.Redis(
            host=HOST,
            port=self.ports.redis,
            username=REDIS_USER,
            password=REDIS_PASSWORD,
            ssl=True,
            ssl_ca_certs=str(self.certificate),
            decode_responses=True,
        )

    def _redis(self) -> Part:
        users = self.directory / "users.acl"
        users.write_text(f"user default off\nuser {REDIS_USER} on >{REDIS_PASSWORD} ~* &* +@all\n")
        tls = {
            "port": 0,
            "tls-port": self.ports.redis,
            "tls-cert-file": self.certificate,
            "tls-key-file": self.certificate.with_name("key.pem"),
            "tls-ca-cert-file": self.certificate,
            "tls-auth-clients": "no",
            "aclfile": users,
        }
        return self.factory.redis(tls)

    def _service_components(self) -> Path:
        resources = shutil.copytree(PRODUCTION, self.directory / "components")
        return write_components(resources, self._secret_store())

    def _subscriber_components(self) -> Path:
        pubsub = yaml.safe_load((PRODUCTION / "pubsub-redis.yaml").read_text())
        pubsub["spec"]["metadata"].append({"name": "concurrency", "value": "1"})
        return write_components(self.directory / "subscriber-components", pubsub, self._secret_store())

    def _secret_store(self) -> dict[str, Any]:
        secrets = self.directory / "secrets.json"
        content = {
            "budeval-state": {"connectionString": self.connection},
            "budeval-pubsub": {
                "redisHost": f"{HOST}:{self.ports.redis}",
                "redisUsername": REDIS_USER,
                "redisPassword": REDIS_PASSWORD,
            },
        }
        secrets.write_text(json.dumps(content))
        return component("kubernetes", "secretstores.local.file", secretsFile=str(secrets), multiValued="true")


def make_certificate(directory: Path) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, with its key beside it."""
    directory.mkdir()
    certificate = directory / "certificate.pem"
    files: list[str | Path] = ["-keyout", directory / "key.pem", "-out", certificate]
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:{HOST}"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate


def connection_string(url: str) -> str:
    """The same database as libpq's keywords."""
    parts = urlsplit(url)
    return f"host={parts.hostname} port={parts.port} user={parts.username} dbname={parts.path[1:]} sslmode=disable"


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductionStack]:
    with (
        tempfile.TemporaryDirectory(prefix="budeval-postgresql-") as data,
        running_postgresql(Path(data), PORT_BASE + 432) as server,
    ):
        stack = ProductionStack(tmp_path_factory.mktemp("production"), server.url)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def test_an_evaluation_runs_on_the_production_components(production: ProductionStack) -> None:
    evaluation = production.evaluation(runs=2)
    evaluation.script(1, sweeps=1, end="Failed")
    evaluation.post()
    story = evaluation.story("COMPLETED")
    assert story.results[evaluation.run_ids[0]].scores[-1].score == 35.42


def test_daprd_has_loaded_each_production_component(production: ProductionStack) -> None:
    metadata = httpx.get(f"http://{HOST}:{production.ports.daprd_http}/v1.0/metadata", timeout=10).json()
    loaded = {item["name"]: f"{item['type']}/{item['version']}" for item in metadata["components"]}
    assert loaded["statestore"] == "state.postgresql/v2"
    assert loaded["pubsub-redis"] == "pubsub.redis/v1"


def test_workflow_instances_can_be_listed(production: ProductionStack) -> None:
    evaluation = production.start_evaluation()
    evaluation.story("COMPLETED")
    with production.workflows() as client:
        assert evaluation.eval_id in list(client.iter_workflow_instance_ids())


def test_the_broker_refuses_callers_without_tls_or_password(production: ProductionStack) -> None:
    assert not redis_answers(production.ports.redis)
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(host=HOST, port=production.ports.redis, ssl=True, ssl_ca_certs=str(production.certificate)).ping()


def test_no_component_carries_a_secret_itself() -> None:
    names = {"connectionString", "redisHost", "redisUsername", "redisPassword"}
    components = [yaml.safe_load(path.read_text()) for path in PRODUCTION.glob("*.yaml")]
    fields = [field for item in components for field in item["spec"].get("metadata", []) if field["name"] in names]
    assert {field["name"] for field in fields} == names
    assert all(set(field) == {"name", "secretKeyRef"} for field in fields)

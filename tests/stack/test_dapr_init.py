"""What the real `dapr init` leaves is used: its programs, and its containers where there is Docker.

Each test has processes and a network of its own: `dapr init` publishes at fixed ports, and this machine may have been
initialised.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dev.gobuild import DAPR, DAPR_CLI, ensure_programs
from dev.packages import REDIS_PACKAGES, ensure_packages
from dev.settings import Settings, load_settings
from tests.stack.dapr_bundle import IMAGE_FILE, add_image, run_redis, write_bundle
from tests.stack.docker_engine import DockerEngine, Enclosure, docker_engine, enclosure, run_inside, signal_inside
from tests.stack.second_stack import eventually

SECONDS = 600
"""Of one test on a busy machine; it takes a tenth of that alone."""
SERVICE = "http://127.0.0.1:8099"
SIDECAR = "http://127.0.0.1:13500"
REQUEST = {
    "eval_id": "444e4567-e89b-12d3-a456-426614174020",
    "experiment_id": "123e4567-e89b-12d3-a456-426614174000",
    "eval_model_info": {"model_name": "m", "endpoint": "http://127.0.0.1:1/v1", "api_key": "", "extra_args": {}},
    "eval_datasets": [{"dataset_id": "siqa_gen", "run_id": "run"}],
    "engine": "opencompass",
    "source": "budapp",
    "source_topic": "budapp-notifications",
}


pytestmark = pytest.mark.timeout(SECONDS)


@dataclass(frozen=True)
class User:
    """Somebody with a home folder and the Dapr CLI, on a machine where the stack has its usual ports for itself."""

    home: Path
    around: Enclosure
    settings: Settings
    docker: DockerEngine | None = None

    @property
    def state(self) -> Path:
        return self.home / "stack"

    @property
    def bin(self) -> Path:
        """Where `dapr init` puts programs."""
        return self.home / ".dapr" / "bin"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {**os.environ, **(self.docker.environment if self.docker else {})}
        foreign = [name for name in inherited if name.startswith(("BUDEVAL_", "DAPR_")) or name == "KUBECONFIG"]
        return {
            **{name: value for name, value in inherited.items() if name not in foreign},
            "HOME": str(self.home),
            "PATH": f"{ensure_programs(self.settings, DAPR_CLI)}:{inherited['PATH']}",
            "BUDEVAL_STATE_DIR": str(self.state),
            "BUDEVAL_CACHE": str(self.settings.cache),
        }

    def tried(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever its exit code."""
        return run_inside(self.around, *words, environment=self.environment, timeout=120)

    def run(self, *words: str | Path) -> str:
        """Run a command to its good end; answers what it printed."""
        done = self.tried(*words)
        assert done.returncode == 0, f"{words}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    def dev(self, *arguments: str) -> str:
        # Cgroups are named by the ports, and those of the stack of this machine are none of its own.
        hide = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
        return self.run("unshare", "--mount", "sh", "-c", hide, "sh", ".venv/bin/python", "-m", "dev", *arguments)

    def ready(self) -> set[str]:
        """Parts of the stack that it runs itself."""
        return {part["name"] for part in json.loads(self.dev("status", "--json")) if part["state"] == "ready"}

    def programs(self) -> set[str]:
        """What runs on this machine, by the path it was started with."""
        return {row.split()[0] for row in self.run("ps", "-eo", "args=").splitlines()}

    def containers(self) -> set[str]:
        """Names of those that run."""
        assert self.docker is not None
        return set(self.docker.docker("ps", "--format={{.Names}}").split())

    def get(self, url: str, *options: str) -> Any:
        """JSON of an answer, or None where there is none."""
        answer = self.tried("curl", "--silent", "--max-time", "5", *options, url).stdout
        return json.loads(answer) if answer else None

    @contextmanager
    def service(self) -> Iterator[None]:
        """The service, started as the README says, but without the cluster, which is not up here."""
        run_service = "exec env -u BUDEVAL_KUBECONFIG dapr run --run-file ./app.yaml"
        start = self.around.command("bash", "-c", f". {self.state}/env && {run_service}")
        log = self.home / "dapr-run.log"
        with log.open("w") as output:
            process = subprocess.Popen(start, env=self.environment, stdout=output, stderr=output)
        try:
            eventually("the service is ready", lambda: (self.get(f"{SERVICE}/readyz") or {}).get("ready", False), 180)
            yield
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()[-4000:]}") from error
        finally:
            signal_inside(process, signal.SIGINT)
            process.wait(timeout=60)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings()


@pytest.fixture(scope="module")
def bundle(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("dapr") / "bundle", ensure_programs(settings, DAPR))


@pytest.fixture
def user(settings: Settings) -> Iterator[User]:
    with a_user(settings) as somebody:
        yield somebody


@pytest.fixture
def docker_user(settings: Settings, bundle: Path) -> Iterator[User]:
    """One on whose machine a Docker engine runs, with a network of containers and published ports."""
    with (
        tempfile.TemporaryDirectory(prefix="budeval-docker-") as data,
        a_user(settings) as somebody,
        docker_engine(settings, somebody.around, Path(data)) as engine,
    ):
        if not (bundle / "docker" / IMAGE_FILE).exists():
            add_image(bundle, ensure_programs(settings, DAPR), engine)
        yield replace(somebody, docker=engine)


@contextmanager
def a_user(settings: Settings) -> Iterator[User]:
    ensure_packages(settings, REDIS_PACKAGES)
    # Not pytest's own folder: its long names would not leave room for the sockets.
    with tempfile.TemporaryDirectory(prefix="budeval-") as home, enclosure(own_network=True) as around:
        yield User(Path(home), around, settings)


def connected(user: User) -> bool:
    """daprd has found its placement and its scheduler."""
    token = (user.state / "tokens" / "DAPR_API_TOKEN").read_text()
    found = user.get(f"{SIDECAR}/v1.0/metadata", "--header", f"dapr-api-token: {token}")
    return bool(
        found["actorRuntime"]["placement"] == "placement: connected"
        and found.get("scheduler", {}).get("connected_addresses")
    )


def ends_an_evaluation(user: User) -> bool:
    """A workflow comes to its end, which here is that there is no cluster."""
    headers = ("--header", "Content-Type: application/json")
    user.get(f"{SERVICE}/evals/start", *headers, "--data", json.dumps(REQUEST))
    shown = f"{SERVICE}/evals/{REQUEST['eval_id']}"
    eventually("the evaluation has failed", lambda: user.get(shown)["status"] == "FAILED", 90)
    return True


def test_the_programs_of_dapr_init_slim_are_started(user: User, bundle: Path) -> None:
    user.run("dapr", "init", "--slim", "--from-dir", bundle)

    user.dev("up", "redis", "dapr")

    assert user.ready() == {"redis", "placement", "dapr-scheduler"}
    assert {str(user.bin / "placement"), str(user.bin / "scheduler")} <= user.programs()
    with user.service():
        assert str(user.bin / "daprd") in user.programs()
        eventually("daprd has found both", lambda: connected(user), 60)
        assert ends_an_evaluation(user)


@pytest.fixture
def containers(docker_user: User, bundle: Path) -> User:
    """A user who has what a bundle brings where there is Docker."""
    docker_user.run("dapr", "init", "--from-dir", bundle)
    assert docker_user.containers() == {"dapr_placement", "dapr_scheduler"}
    return docker_user


def test_the_containers_of_dapr_init_are_used_with_a_redis_of_ours(containers: User) -> None:
    containers.dev("up", "redis", "dapr")

    assert containers.ready() == {"redis"}
    with containers.service():
        assert str(containers.bin / "daprd") in containers.programs()
        eventually("daprd has found both", lambda: connected(containers), 60)
        assert ends_an_evaluation(containers)
    containers.dev("down")
    assert containers.containers() == {"dapr_placement", "dapr_scheduler"}


def test_its_redis_is_used_too_and_what_it_took_away_is_replaced(containers: User) -> None:
    assert containers.docker is not None
    run_redis(containers.docker)
    eventually("Redis answers", lambda: containers.tried("redis-cli", "ping").stdout == "PONG\n")

    containers.dev("up", "redis", "dapr")

    assert containers.ready() == set()
    with containers.service():
        eventually("daprd has found both", lambda: connected(containers), 60)

    containers.run("dapr", "uninstall", "--all")
    containers.dev("up", "redis", "dapr")
    assert containers.ready() == {"redis", "placement", "dapr-scheduler"}

"""The real OpenCompass in an environment made from the image's own lock, real data, a real model, and a double."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.datasets import install
from dev.model import model_command, ready
from dev.settings import Settings, load_settings
from dev.virtualenv import ensure_virtualenv
from tests.engine.endpoint_double import EndpointDouble, answer
from tests.engine.running import ENGINE, Engine, wait_until

MODEL_PORT_OFFSET = 290


@pytest.fixture(scope="session")
def settings() -> Settings:
    return load_settings()


@pytest.fixture(scope="session")
def engine_python(settings: Settings) -> Path:
    """The Python that has what the image has."""
    return ensure_virtualenv(settings, "engine", ENGINE / "requirements.lock")


@pytest.fixture(scope="session")
def tokenizer(engine_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    command = [str(engine_python), str(ENGINE / "budeval_engine" / "tokenizer.py"), str(folder)]
    subprocess.run(command, check=True, timeout=60)
    return folder


@pytest.fixture(scope="session")
def data(settings: Settings) -> Path:
    """Every data set of the manifest."""
    root = settings.cache / "datasets" / "laid-out"
    install(root)
    return root


@pytest.fixture
def engine(engine_python: Path, tokenizer: Path, data: Path, tmp_path: Path) -> Engine:
    return Engine(engine_python, tmp_path, data, tokenizer)


@pytest.fixture
def double() -> Iterator[EndpointDouble]:
    """An endpoint that answers `A` to everything."""
    with EndpointDouble(lambda _: answer("A")).serving() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def real_model(settings: Settings) -> Iterator[str]:
    """The base URL of a real model."""
    port = settings.ports.base + MODEL_PORT_OFFSET
    process = subprocess.Popen(model_command(settings, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: ready(port))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=20)

"""The service as a process of its own, with nothing around it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from cryptography.fernet import Fernet

from tests.api.test_start import is_problem
from tests.samples import API_KEY, EVAL_ID, KUBECONFIG, TOKEN, a_request

STOP_SECONDS = 10
NOBODY = "1"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def lonely(tmp_path):
    """The service without a sidecar; answers its client, its process and the file with its log."""
    with a_service(tmp_path, sidecar=NOBODY) as started:
        yield started


@pytest.fixture
def ignored(tmp_path):
    """The same beside a sidecar that takes connections and says nothing."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        a_service(tmp_path, sidecar=str(silent.getsockname()[1])) as started,
    ):
        yield started


@contextmanager
def a_service(tmp_path, sidecar):
    port, log = free_port(), tmp_path / "log"
    environment = {
        **os.environ,
        "BUDEVAL_PORT": str(port),
        "BUDEVAL_DATABASE_URL": f"sqlite:///{tmp_path}/record.sqlite",
        "BUDEVAL_SEALING_KEYS": Fernet.generate_key().decode(),
        "BUDEVAL_PLAYBOOK_RUN_DIR": str(tmp_path / "runs"),
        "BUDEVAL_LOG_LEVEL": "DEBUG",
        "DAPR_HTTP_PORT": sidecar,
        "DAPR_GRPC_PORT": sidecar,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "error::DeprecationWarning:budeval", "-m", "budeval"],
            env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            wait_until_alive(client, process, log)
            yield client, process, log
    finally:
        process.kill()
        process.wait(timeout=10)


def wait_until_alive(client, process, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            assert client.get("/livez").status_code == 200
        except httpx.ConnectError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


def test_without_a_sidecar_it_answers_keeps_requests_logs_json_and_stops_on_sigterm(lonely):
    client, process, log = lonely
    request = a_request(eval_model_info__api_key=API_KEY, kubeconfig=KUBECONFIG)
    assert client.get("/readyz").status_code == 503
    assert client.post("/evals/start", json=request).status_code == 200
    is_problem(client.post("/evals/start", json={**request, "engine": API_KEY}), 422)
    assert client.get(f"/evals/{EVAL_ID}").json()["status"] == "PENDING"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=STOP_SECONDS) in (0, -signal.SIGTERM)
    assert time.monotonic() - began < STOP_SECONDS
    lines = log.read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert all({"message", "level", "logger", "timestamp"} <= set(entry) for entry in entries)
    assert "stopped" in [entry["message"] for entry in entries]
    assert [line for line in lines if API_KEY in line or TOKEN in line] == []


def test_a_listener_does_not_keep_it_from_stopping(lonely):
    client, process, log = lonely
    assert client.post("/evals/start", json=a_request()).status_code == 200
    with client.stream("GET", f"/evals/{EVAL_ID}/events") as stream:
        texts = stream.iter_text()
        while "event: created" not in next(texts):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=STOP_SECONDS) in (0, -signal.SIGTERM)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert "stopped" in [entry["message"] for entry in entries]
    assert [entry for entry in entries if "Traceback" in str(entry)] == []


def test_a_sidecar_that_says_nothing_does_not_keep_it_from_stopping(ignored):
    client, process, log = ignored
    with ThreadPoolExecutor(1) as asking:
        asking.submit(client.post, "/evals/start", json=a_request())
        wait_until(lambda: client.get(f"/evals/{EVAL_ID}").status_code == 200, "the request is recorded")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=3 * STOP_SECONDS) in (0, -signal.SIGTERM)
        assert time.monotonic() - began < STOP_SECONDS
    assert "stopped" in [json.loads(line)["message"] for line in log.read_text().splitlines()]


def wait_until(reached, what):
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def refused_start(tmp_path, **variables):
    """What a service says that does not start."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BUDEVAL_", "APP_", "DAPR_"))}
    environment = {
        **kept,
        "BUDEVAL_PORT": str(free_port()),
        "BUDEVAL_DATABASE_URL": f"sqlite:///{tmp_path}/record.sqlite",
        "BUDEVAL_SEALING_KEYS": Fernet.generate_key().decode(),
        **variables,
    }
    command = [sys.executable, "-m", "budeval"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "record.sqlite").exists()
    return done.stderr


OFF = {"BUDEVAL_ACCESS": "off"}
REFUSED_STARTS = [
    ({}, ["BUDEVAL_TOKENS_FILE", "BUDEVAL_TOKENS_SECRET_STORE", "BUDEVAL_OIDC_ISSUER", "BUDEVAL_ACCESS=off"]),
    ({"BUDEVAL_ACCESS": "off", "BUDEVAL_HOST": "0.0.0.0"}, ["BUDEVAL_HOST=127.0.0.1", "BUDEVAL_TOKENS_FILE"]),  # noqa: S104
    ({"BUDEVAL_ACCESS": "of"}, ["BUDEVAL_ACCESS: Input should be 'required' or 'off'"]),
    ({"BUDEVAL_TOKENS_FILE": "/nowhere"}, ["BUDEVAL_TOKENS_FILE: /nowhere cannot be used: No such file"]),
    ({"BUDEVAL_TOKENS_FILE": "/dev/null", "BUDEVAL_REQUEST_TOPIC": "requests"}, ["APP_API_TOKEN"]),
    ({"BUDEVAL_OIDC_ISSUER": "https://id.example"}, ["BUDEVAL_OIDC_AUDIENCE"]),
    ({"BUDEVAL_OIDC_ROLES": "{canary"}, ["oidc_roles"]),
    ({"BUDEVAL_OIDC_ALGORITHMS": "HS256"}, ["BUDEVAL_OIDC_ALGORITHMS"]),
    ({"BUDEVAL_PORT": "canary", "DAPR_HTTP_PORT": "x"}, ["BUDEVAL_PORT: ", "DAPR_HTTP_PORT: "]),
    (
        {**OFF, "BUDEVAL_SEALING_KEYS": ""},
        ["BUDEVAL_SEALING_KEYS or BUDEVAL_SEALING_KEYS_FILE: there is no key", "python -c"],
    ),
    ({**OFF, "BUDEVAL_SEALING_KEYS": "canary"}, ["BUDEVAL_SEALING_KEYS: key 1 is no Fernet key", "python -c"]),
    ({**OFF, "BUDEVAL_KUBECONFIG": "/nowhere"}, ["BUDEVAL_KUBECONFIG: /nowhere cannot be used"]),
    ({**OFF, "BUDEVAL_RESULTS_MOUNT": "/nowhere"}, ["BUDEVAL_RESULTS_MOUNT: /nowhere cannot be used"]),
    (
        {**OFF, "BUDEVAL_DATABASE_URL": "postgresql+psycopg://user:canary@127.0.0.1:1/db"},
        ["BUDEVAL_DATABASE_URL: the database cannot be used", "Connection refused"],
    ),
]


@pytest.mark.parametrize(("variables", "words"), REFUSED_STARTS)
def test_a_service_that_must_not_start_says_what_to_set(tmp_path, variables, words):
    told = refused_start(tmp_path, **variables)
    assert told.startswith("budeval does not start: ")
    assert len(told.splitlines()) == 1
    assert [word for word in words if word not in told] == []
    assert "canary" not in told

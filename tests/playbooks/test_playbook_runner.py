import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from budeval.ansible.runner import PlaybookRunner
from budeval.commons.errors import ClusterNotReady, PlaybookCancelled, PlaybookFailed, PlaybookTimeout, TemporaryError
from budeval.commons.settings import Settings, StartRefused
from budeval.jobs.manifest import build_secret
from tests.cluster import TMPFS

CANARY = "sk-canary-0123456789"
HOSTILE = [
    "{{ lookup('pipe', 'touch MARK') }}",
    "{% for x in [].__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{{ 7 * 7 }}",
    "!unsafe x",
    "a: b\n- c: {d: e}\n---\n",
    "$(touch MARK)",
    "`touch MARK`; touch MARK #",
    "'\"\\'\"",
    "../../../../etc/passwd",
    "{{ request_file }}",
    "@/etc/passwd",
    "naïve 実行 \u202e\u0000\u001b[31m",
    "omit",
    "yes",
    "1e3",
]

ECHO = """
- hosts: localhost
  gather_facts: false
  vars:
    request: "{{ lookup('ansible.builtin.file', request_file) | from_json }}"
  tasks:
    - ansible.builtin.set_stats:
        aggregate: false
        per_host: false
        data: {budeval: {value: "{{ request.value }}"}}
"""
SLEEP = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.command: sleep 60
    - ansible.builtin.set_stats: {aggregate: false, data: {budeval: {}}}
"""


@pytest.fixture
def write(tmp_path):
    def written(text, name="playbook.yml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return written


def run(runner, playbook, request=None, kubeconfig=None, **options):
    return runner.run(playbook, request or {}, kubeconfig, **{"timeout_seconds": 60, **options})


def named_processes_of(settings):
    """The living processes of all runs and their names; one that ends while it is looked at is not among them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            directory = process.environ().get("AWX_ISOLATED_DATA_DIR", "")
            if directory.startswith(str(settings.playbook_run_dir)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process, process.name()))
    return found


def processes_of(settings):
    return [process for process, _ in named_processes_of(settings)]


def in_thread(call):
    """The call's future, in a thread of its own."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def error_of(future, timeout=30):
    return type(future.exception(timeout))


def wait_for_processes(settings):
    deadline = time.monotonic() + 20
    while not any("sleep" in name for _, name in named_processes_of(settings)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_arrives_to_the_letter_and_runs_nothing(runner, write, tmp_path, value):
    value = value.replace("MARK", str(tmp_path / "mark"))
    assert run(runner, write(ECHO), {"value": value})["value"] == value
    assert not (tmp_path / "mark").exists()


def test_hostile_names_of_fields_are_only_names(runner, write, tmp_path):
    request = {"value": "x", f"{{{{ lookup('pipe', 'touch {tmp_path}/mark') }}}}": 1, "ansible_connection": "ssh"}
    assert run(runner, write(ECHO), request) == {"value": "x"}
    assert not (tmp_path / "mark").exists()


def test_nothing_is_left_after_a_run(runner, settings, write):
    run(runner, write(ECHO), {"value": CANARY})
    assert list(settings.playbook_run_dir.iterdir()) == []


def test_during_a_run_secrets_are_only_in_private_files(runner, settings, write, monkeypatch):
    monkeypatch.setenv("MODEL_KEY", CANARY)
    monkeypatch.setenv("BUDEVAL_SEALING_KEYS", CANARY)
    running = in_thread(lambda: run(runner, write(SLEEP), {"key": CANARY}, timeout_seconds=4))
    wait_for_processes(settings)
    for process in processes_of(settings):
        with contextlib.suppress(psutil.NoSuchProcess):  # a short one that ended meanwhile
            assert CANARY not in json.dumps(process.environ())
            assert CANARY not in json.dumps(process.cmdline())
    (directory,) = settings.playbook_run_dir.iterdir()
    with_canary = [
        path for path in directory.rglob("*") if path.is_file() and CANARY in path.read_text(errors="ignore")
    ]
    assert with_canary == [directory / "request.json"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(with_canary[0].stat().st_mode) == 0o600
    assert error_of(running) is PlaybookTimeout


def kubeconfig_of(port):
    """Of a server that is no API server."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"token": "of-no-use"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
    )


def test_during_a_deployment_the_key_is_in_no_file_but_the_request(tmp_path):
    directory, cancelled = TMPFS / f"budeval-deployment-{tmp_path.name}", threading.Event()
    secret = build_secret("e", "development", SecretStr(CANARY))
    needles = (CANARY.encode(), secret["data"]["OPENAI_API_KEY"].rstrip("=").encode())
    request = {"objects": [secret], "earlier": None}
    runner = PlaybookRunner(Settings(playbook_run_dir=directory))
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(60)
            options = {"kubeconfig": kubeconfig_of(server.getsockname()[1]), "cancelled": cancelled.is_set}
            running = in_thread(lambda: run(runner, "deploy_eval_job_k8s.yml", request, **options))
            # Now the module runs, and waits for the answer to its first question.
            connection, _ = server.accept()
            with connection:
                files = [path for path in directory.rglob("*") if path.is_file()]
                found = {path.name for path in files if any(needle in path.read_bytes() for needle in needles)}
                cancelled.set()
                assert error_of(running) is PlaybookCancelled
        assert found == {"request.json"}
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_a_run_that_takes_too_long_is_ended_with_all_its_processes(runner, settings, write):
    began = time.monotonic()
    with pytest.raises(PlaybookTimeout, match="2 s"):
        run(runner, write(SLEEP), timeout_seconds=2)
    assert time.monotonic() - began < 4
    assert processes_of(settings) == []
    assert list(settings.playbook_run_dir.iterdir()) == []


def test_a_cancelled_run_is_ended_with_all_its_processes(runner, settings, write):
    cancelled = threading.Event()
    running = in_thread(lambda: run(runner, write(SLEEP), cancelled=cancelled.is_set))
    wait_for_processes(settings)
    cancelled.set()
    assert error_of(running, 3) is PlaybookCancelled
    assert processes_of(settings) == []


def test_an_error_of_whoever_is_asked_about_cancelling_ends_the_run(runner, settings, write):
    def cancelled():
        if processes_of(settings):
            raise ConnectionError("record is gone")
        return False

    with pytest.raises(ConnectionError):
        run(runner, write(SLEEP), cancelled=cancelled)
    assert processes_of(settings) == []


def test_when_the_service_stops_all_runs_end_within_a_second(runner, settings, write):
    playbook = write(SLEEP)
    runs = [in_thread(lambda: run(runner, playbook)) for _ in range(4)]
    wait_for_processes(settings)
    began = time.monotonic()
    runner.terminate_all()
    assert [error_of(each) for each in runs] == [TemporaryError] * 4
    assert time.monotonic() - began < 1.5
    assert processes_of(settings) == []
    with pytest.raises(TemporaryError, match="stopping"):
        run(runner, playbook)


def test_only_so_many_runs_go_on_at_once(cluster, tmp_path, write):
    settings = cluster.settings(tmp_path, playbook_concurrency=1)
    runner, playbook = PlaybookRunner(settings), write(SLEEP)
    first = in_thread(lambda: run(runner, playbook, timeout_seconds=3))
    wait_for_processes(settings)
    cancelled = threading.Event()
    second = in_thread(lambda: run(runner, playbook, cancelled=cancelled.is_set))
    time.sleep(0.5)
    assert len(list(settings.playbook_run_dir.iterdir())) == 1
    cancelled.set()
    assert error_of(second, 1) is PlaybookCancelled
    assert error_of(first) is PlaybookTimeout


def test_what_a_killed_service_left_is_cleared_at_the_next_start(cluster, tmp_path, write):
    settings = cluster.settings(tmp_path)
    program = f"""
from pathlib import Path
from budeval.ansible.runner import PlaybookRunner
from budeval.commons.settings import Settings
settings = Settings(kubeconfig={str(settings.kubeconfig)!r}, playbook_run_dir={str(settings.playbook_run_dir)!r})
PlaybookRunner(settings).run({write(SLEEP)!r}, {{"key": {CANARY!r}}}, None, timeout_seconds=60)
"""
    service = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": "."})
    wait_for_processes(settings)
    service.send_signal(signal.SIGKILL)
    service.wait()
    assert processes_of(settings)
    PlaybookRunner(settings)
    assert processes_of(settings) == []
    assert list(settings.playbook_run_dir.iterdir()) == []


def test_a_second_service_leaves_the_runs_of_the_first_alone(runner, settings, write):
    running = in_thread(lambda: run(runner, write(SLEEP), timeout_seconds=4))
    wait_for_processes(settings)
    PlaybookRunner(settings)
    assert processes_of(settings)
    assert error_of(running) is PlaybookTimeout


def test_a_directory_that_others_can_read_is_refused(settings):
    settings.playbook_run_dir.mkdir(mode=0o700)
    settings.playbook_run_dir.chmod(0o755)
    with pytest.raises(StartRefused, match=r"BUDEVAL_PLAYBOOK_RUN_DIR: .*0700"):
        PlaybookRunner(settings)


def test_a_large_answer_arrives_whole(runner, write):
    value = "0123456789" * 300_000
    assert run(runner, write(ECHO), {"value": value})["value"] == value


@pytest.mark.parametrize(
    ("playbook", "words"),
    [
        ("- hosts: nobody\n  tasks: []\n", "no answer"),
        ("- hosts: localhost\n  gather_facts: false\n  tasks: []\n", "no answer"),
        ("- hosts: localhost\n  tasks: [{no.such.module: {}}]\n", "no.such.module"),
        ("not: a playbook\n", "playbook"),
        ("- hosts: localhost\n  gather_facts: false\n  tasks: [{ansible.builtin.fail: {msg: because}}]\n", "because"),
    ],
)
def test_a_playbook_without_an_answer_is_an_error(runner, write, playbook, words):
    with pytest.raises(PlaybookFailed, match=words):
        run(runner, write(playbook))


def test_the_signal_handlers_of_the_service_stay(runner, write):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run(runner, write(ECHO), {"value": "x"})
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_without_any_cluster_a_run_says_what_to_set(cluster, tmp_path, write, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    runner = PlaybookRunner(cluster.settings(tmp_path, kubeconfig=None))
    with pytest.raises(ClusterNotReady, match="BUDEVAL_KUBECONFIG"):
        run(runner, write(ECHO), {"value": "x"})


def test_the_program_is_found_whatever_the_path(runner, write, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(runner, write(ECHO), {"value": "x"}) == {"value": "x"}
    assert Path(sys.executable).parent.joinpath("ansible-playbook").exists()

"""The search for secrets can fail: what is put somewhere is found there."""

import base64
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from tests.cluster import until
from tests.e2e import leaks
from tests.e2e.leaks import PLAYBOOK_MARKER, ProcessWatch, database_text, files_with, texts_with

CANARY = 'canary "of" a test/search+1'
NOTHING = "/no-such-control-group"


@pytest.mark.parametrize(
    "written",
    [CANARY, json.dumps(CANARY), CANARY.encode().hex(), base64.b64encode(b"user:" + CANARY.encode() + b"!").decode()],
)
def test_a_secret_in_a_file_is_found_however_it_is_written(tmp_path, written):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_text(f"before {written} behind")
    (tmp_path / "other").write_text("nothing")
    assert files_with([CANARY], tmp_path) == [str(tmp_path / "deep" / "file")]


@pytest.mark.parametrize("place", [0, 60, 95, 100, 150, 1000])
def test_a_secret_anywhere_in_a_large_file_is_found(tmp_path, monkeypatch, place):
    monkeypatch.setattr(leaks, "CHUNK", 100)
    (tmp_path / "file").write_bytes(b"x" * place + CANARY.encode() + b"x" * 300)
    assert files_with([CANARY], tmp_path) == [str(tmp_path / "file")]


@pytest.mark.parametrize("value", [CANARY, f"before {CANARY}".encode(), base64.b64encode(b"12" + CANARY.encode())])
def test_a_secret_in_a_database_is_found(tmp_path, value):
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as database:
        database.execute("CREATE TABLE t (v)")
        database.execute("INSERT INTO t VALUES (?)", (value,))
        database.commit()
    assert texts_with([CANARY], {"it": database_text(tmp_path / "x.sqlite")}) == ["it"]


@contextmanager
def a_process(*arguments, **variables):
    command = [sys.executable, "-c", "import time; time.sleep(60)", *arguments]
    process = subprocess.Popen(command, env={**os.environ, **variables})
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.mark.parametrize(
    ("arguments", "variables", "where"),
    [((CANARY,), {}, "command line"), ((), {"KEY": CANARY}, "environment")],
)
def test_a_secret_of_a_process_is_found(arguments, variables, where):
    with ProcessWatch([CANARY], NOTHING) as watch, a_process(*arguments, **variables):
        until(lambda: watch.found, 30, 0.05)
    assert all(found.startswith(where) for found in watch.found)


@pytest.mark.parametrize(("mode", "leaks_out"), [(0o600, False), (0o644, True)])
def test_a_secret_in_a_file_of_a_playbook_may_be_its_users_alone(tmp_path, mode, leaks_out):
    tmp_path.chmod(0o700)
    (tmp_path / "request.json").write_text(json.dumps({"key": CANARY}))
    (tmp_path / "request.json").chmod(mode)
    marker = {PLAYBOOK_MARKER: str(tmp_path / "artifacts" / "job_events")}
    with ProcessWatch([CANARY], NOTHING) as watch, a_process(**marker):
        until(lambda: watch.private_files, 30, 0.05)
    assert bool(watch.found) is leaks_out

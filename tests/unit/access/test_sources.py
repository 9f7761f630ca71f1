import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from budeval.access.callers import RecognitionUnavailable
from budeval.access.sources import FileTokens, SecretStoreTokens
from tests.tokens import ENTRIES, write_tokens


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def file(tmp_path):
    return write_tokens(tmp_path / "tokens.json")


def test_a_changed_file_is_noticed_within_a_second_and_not_read_more_often(file, clock):
    source = FileTokens(file, clock)
    write_tokens(file, ENTRIES[:1])
    clock.now = 0.9
    assert len(source.current()) == 4
    clock.now = 1.0
    assert len(source.current()) == 1


def test_a_change_that_keeps_size_and_time_is_noticed(file, clock):
    import os

    before = file.stat()
    source = FileTokens(file, clock)
    text = file.read_text()
    file.write_text(text.replace('"vera"', '"verb"'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now = 1
    names = [entry.name for _, entry in source.current()._entries]
    assert names[0] == "verb"


def test_a_file_that_is_replaced_behind_a_link_is_noticed(tmp_path, clock):
    """As Kubernetes changes a mounted Secret."""
    for name, entries in (("one", ENTRIES), ("two", ENTRIES[:2])):
        (tmp_path / name).mkdir()
        write_tokens(tmp_path / name / "tokens", entries)
    (tmp_path / "data").symlink_to("one")
    source = FileTokens(tmp_path / "data" / "tokens", clock)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(tmp_path / "data")
    clock.now = 1
    assert len(source.current()) == 2


@pytest.mark.parametrize("breakage", ["broken", "removed", "a directory"])
def test_a_file_that_breaks_changes_nothing_and_is_told_once(file, clock, caplog, breakage):
    source = FileTokens(file, clock)
    file.unlink()
    if breakage == "broken":
        file.write_text("[{canary: ")
    elif breakage == "a directory":
        file.mkdir()
    for clock.now in range(1, 5):
        assert len(source.current()) == 4
    (told,) = [record.getMessage() for record in caplog.records]
    assert str(file) in told
    assert "stay in force" in told
    assert "canary" not in told


def test_a_file_that_was_broken_is_read_again(file, clock, caplog):
    caplog.set_level(logging.INFO)
    source = FileTokens(file, clock)
    file.write_text("[")
    clock.now = 1
    source.current()
    write_tokens(file, ENTRIES[:3])
    clock.now = 2
    assert len(source.current()) == 3
    assert caplog.messages[-1] == f"{file} has changed: 3 tokens"


def test_a_file_that_is_no_good_at_the_start_is_refused(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        FileTokens(tmp_path / "nothing")
    (tmp_path / "bad").write_text("{}")
    with pytest.raises(ValueError, match="no list of tokens"):
        FileTokens(tmp_path / "bad")


# ------------------------------------------------------------------ the secret store


class Daprd:
    """Answers as daprd's secrets API does."""

    def __init__(self):
        self.answer = (200, json.dumps({"tokens": json.dumps(ENTRIES)}))
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.path, self.headers.get("dapr-api-token")))
                status, body = outer.answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *arguments):
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1.0/secrets/store/name"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


@pytest.fixture
def daprd():
    daprd = Daprd()
    yield daprd
    daprd.close()


def store(daprd, refresh=0.02):
    return SecretStoreTokens(daprd.url, "tokens", SecretStr("canary-of-daprd"), refresh)


def test_the_store_is_asked_with_daprds_token(daprd):
    source = store(daprd)
    source.refresh()
    assert len(source.current()) == 4
    assert daprd.asked == [("/v1.0/secrets/store/name", "canary-of-daprd")]


def test_nobody_is_recognised_before_the_store_has_answered(daprd):
    with pytest.raises(RecognitionUnavailable, match="not asked yet"):
        store(daprd).current()


BAD_ANSWERS = [
    (500, "canary"),
    (204, ""),
    (403, json.dumps({"message": "canary"})),
    (200, "canary"),
    (200, "[]"),
    (200, json.dumps({"other": "canary"})),
    (200, json.dumps({"tokens": ["canary"]})),
    (200, json.dumps({"tokens": "{canary"})),
]


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_a_bad_answer_keeps_the_tokens_and_is_told_once_without_the_secret(daprd, caplog, answer):
    source = store(daprd)
    source.refresh()
    daprd.answer = answer
    source.refresh()
    source.refresh()
    assert len(source.current()) == 4
    assert len(caplog.messages) == 1
    assert "canary" not in caplog.text


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_a_bad_answer_at_first_says_why_nobody_is_recognised(daprd, answer):
    daprd.answer = answer
    source = store(daprd)
    source.refresh()
    with pytest.raises(RecognitionUnavailable) as unavailable:
        source.current()
    assert "canary" not in str(unavailable.value)


def test_the_store_is_asked_in_the_background_also_while_it_is_away(daprd):
    url, answer = daprd.url, daprd.answer
    daprd.answer = (500, "")
    source = SecretStoreTokens(url, "tokens", None, 0.02)
    source.start()
    try:
        until(lambda: len(daprd.asked) > 2)
        daprd.answer = answer
        until(lambda: not unavailable(source))
        daprd.answer = (200, json.dumps({"tokens": "[]"}))
        until(lambda: len(source.current()) == 0)
    finally:
        source.stop()
    asked = len(daprd.asked)
    time.sleep(0.1)
    assert len(daprd.asked) == asked


def test_a_store_that_nobody_serves_is_told(caplog):
    source = SecretStoreTokens("http://127.0.0.1:1/v1.0/secrets/store/name", "tokens", None, 1)
    source.refresh()
    assert unavailable(source)
    assert "refused" in caplog.text


def unavailable(source):
    try:
        source.current()
    except RecognitionUnavailable:
        return True
    return False


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

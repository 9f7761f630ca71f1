"""A stream lasts as long as its caller's permission."""

import time

import pytest

from tests.samples import EVAL_ID, a_request
from tests.tokens import ADMIN, ENTRIES, OPERATOR, VIEWER, bearer, entry, in_seconds, write_tokens

PATH = f"/evals/{EVAL_ID}/events"


@pytest.fixture
def streaming(serve, tmp_path, monkeypatch):
    """A service whose streams show signs of life all the time."""
    monkeypatch.setattr("budeval.api.events.KEEP_ALIVE_SECONDS", 0.1)
    monkeypatch.setattr("budeval.api.access.STREAM_CHECK_SECONDS", 0.05)
    monkeypatch.setattr("budeval.access.sources.LOOK_SECONDS", 0.0)
    path = write_tokens(tmp_path / "tokens.json")
    service = serve(access="required", tokens_file=path)
    service.tokens = path
    assert service.start(a_request(), headers=bearer(OPERATOR)).status_code == 200
    return service


def listened(service, token, change):
    """Calls ``change`` when the stream has shown a sign of life; answers how long it went on."""
    with service.client.stream("GET", PATH, headers=bearer(token)) as stream:
        assert stream.status_code == 200
        texts = stream.iter_text()
        while "still here" not in next(texts):
            pass
        change()
        began = time.monotonic()
        for _ in texts:
            assert time.monotonic() - began < 10
    return time.monotonic() - began


def without(name):
    return [item for item in ENTRIES if item["name"] != name]


def test_a_token_that_is_taken_back_ends_its_stream(streaming):
    assert listened(streaming, VIEWER, lambda: write_tokens(streaming.tokens, without("vera"))) < 3
    assert streaming.client.get(PATH, headers=bearer(VIEWER)).status_code == 401


def test_a_token_that_expires_ends_its_stream(streaming):
    write_tokens(streaming.tokens, [entry("brief", "viewer", VIEWER, in_seconds(1))])
    assert listened(streaming, VIEWER, lambda: None) < 3


def test_a_token_that_changes_its_owner_ends_its_stream(streaming):
    changed = [*without("vera"), entry("another", "viewer", VIEWER)]
    assert listened(streaming, VIEWER, lambda: write_tokens(streaming.tokens, changed)) < 3


def test_a_good_token_listens_on(streaming):
    with streaming.client.stream("GET", PATH, headers=bearer(ADMIN)) as stream:
        texts, signs, began = stream.iter_text(), 0, time.monotonic()
        write_tokens(streaming.tokens, without("vera"))
        while signs < 10 and time.monotonic() - began < 10:
            signs += next(texts).count("still here")
    assert signs >= 10


def test_nothing_of_an_ended_stream_stays(streaming, caplog):
    listened(streaming, VIEWER, lambda: write_tokens(streaming.tokens, without("vera")))
    assert "Traceback" not in caplog.text
    assert [record for record in caplog.records if record.exc_info] == []

"""A service that says when to come back."""

import itertools
import time
from contextlib import ExitStack

import pytest

from budeval.client import Client, TooManyRequests, Unauthorized
from tests.client.service import http_server, url_of
from tests.client.test_calls import a_request
from tests.tokens import OPERATOR, STRANGER, VIEWER, write_tokens


@pytest.fixture
def limited(serve, tmp_path):
    """A service that takes two calls a second of each caller."""
    return serve(access="required", rate_limit="2/second", tokens_file=write_tokens(tmp_path / "tokens"))


def test_a_call_that_was_too_much_is_made_again_in_time(limited):
    with Client(url_of(limited), OPERATOR) as client:
        began = time.monotonic()
        made = [client.start(a_request()).eval_id for _ in range(4)]
        assert time.monotonic() - began >= 1.0
    assert sorted(limited.created().evaluations) == sorted(made)


def test_one_without_patience_is_told_at_once(limited):
    with Client(url_of(limited), VIEWER, patience=0) as client, pytest.raises(TooManyRequests) as refused:
        for _ in range(3):
            client.whoami()
    assert refused.value.retry_after == 1.0


def test_a_wait_that_is_longer_than_the_patience_is_not_begun(serve, tmp_path):
    service = serve(access="required", rate_limit="1/hour", tokens_file=write_tokens(tmp_path / "tokens"))
    with Client(url_of(service), VIEWER) as client:
        client.whoami()
        began = time.monotonic()
        with pytest.raises(TooManyRequests):
            client.whoami()
        assert time.monotonic() - began < 2


def test_a_refused_token_is_not_tried_again(limited):
    with Client(url_of(limited), STRANGER) as client, pytest.raises(Unauthorized):
        client.whoami()
    assert limited.client.get("/metrics").text.count('budeval_http_refused_total{reason="unauthorized"} 1.0') == 1


@pytest.fixture
def busy():
    """Starts servers that say 429 once, with a wait that is told in ``header``."""
    with ExitStack() as servers:

        def start(header):
            calls = itertools.count()

            def answer(handler):
                body = b'{"name": "a", "role": "viewer"}'
                handler.send_response(429 if next(calls) == 0 else 200)
                if header is not None:
                    handler.send_header("Retry-After", header)
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            return servers.enter_context(http_server(answer))

        yield start


@pytest.mark.parametrize("header", [None, "0", "Wed, 21 Oct 2026 07:28:00 GMT", "-1"])
def test_a_wait_that_is_not_told_in_seconds_is_short(busy, header):
    began = time.monotonic()
    with Client(busy(header)) as client:
        assert client.whoami().name == "a"
    assert time.monotonic() - began < 3

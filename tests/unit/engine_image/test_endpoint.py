"""What answers of an endpoint mean."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import httpx
import pytest
from budeval_engine import endpoint
from budeval_engine.endpoint import EndpointClient, QuestionRefused, fault, read_completion
from budeval_engine.outcome import EngineError, Reason


def completion(content: Any, *, finish: str = "stop", tokens: int | None = 5, **message: Any) -> str:
    """The body of a chat completion."""
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return json.dumps({"choices": [{"finish_reason": finish, "message": {"content": content, **message}}], **usage})


@pytest.mark.parametrize(
    ("status", "body", "reason", "permanent"),
    [
        (401, '{"error": {"message": "Invalid API key"}}', Reason.ENDPOINT_UNAUTHORIZED, True),
        (403, "forbidden", Reason.ENDPOINT_UNAUTHORIZED, True),
        (404, '{"error": {"message": "The model `x` does not exist"}}', Reason.MODEL_NOT_FOUND, True),
        (404, "", Reason.MODEL_NOT_FOUND, True),
        (400, '{"error": {"code": "model_not_found"}}', Reason.MODEL_NOT_FOUND, True),
        (400, '{"detail": "Invalid model name passed in model=x"}', Reason.MODEL_NOT_FOUND, True),
        (422, '{"error": "unknown model"}', Reason.MODEL_NOT_FOUND, True),
        (429, '{"error": {"message": "model x not found in quota"}}', Reason.ENDPOINT_RATE_LIMITED, False),
        (500, "model not found in cache", Reason.ENDPOINT_UNREACHABLE, False),
        (502, "<html>bad gateway</html>", Reason.ENDPOINT_UNREACHABLE, False),
        (503, "", Reason.ENDPOINT_UNREACHABLE, False),
        (408, "", Reason.ENDPOINT_UNREACHABLE, False),
        (307, "", Reason.INVALID_CONFIGURATION, True),
    ],
)
def test_a_status_tells_the_reason(status: int, body: str, reason: Reason, permanent: bool) -> None:
    problem = fault(status, body)
    assert isinstance(problem, EngineError)
    assert (problem.reason, problem.permanent) == (reason, permanent)
    assert str(status) in problem.message


@pytest.mark.parametrize("before", range(270, 310))
def test_a_key_that_is_quoted_where_the_excerpt_is_cut_is_not_shown_in_part(before: int) -> None:
    assert "sk-c" not in endpoint.excerpt("x" * before + "sk-canary-of-a-key", "sk-canary-of-a-key")


@pytest.mark.parametrize("body", ['{"error": "no: KEY"}', "<html>KEY", '{"error": {"message": "no such model KEY"}}'])
def test_no_answer_that_is_no_answer_tells_the_key(body: str) -> None:
    with pytest.raises(EngineError) as caught:
        read_completion(body.replace("KEY", "sk-canary"), "sk-canary")
    assert "***" in caught.value.message
    assert "canary" not in caught.value.message


@pytest.mark.parametrize("status", [401, 400])
def test_no_message_has_what_no_file_can_hold(status: int) -> None:
    assert str(fault(status, '{"error": {"message": "no \\ud800 key"}}')).encode().count(b"no ? key") == 1


@pytest.mark.parametrize("status", [400, 413, 422, 451])
def test_a_refused_request_is_about_the_question(status: int) -> None:
    assert isinstance(fault(status, '{"error": {"message": "context length exceeded"}}'), QuestionRefused)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "no\\nquota"}}', "no quota"),
        ('{"error": "busy"}', "busy"),
        ('{"message": "down"}', "down"),
        ("<html>\n x", "<html> x"),
        ("", "(nothing)"),
        ("x" * 1000, "x" * 300),
        ("[1]", "[1]"),
        ("[" * 100_000, "[" * 300),
    ],
)
def test_an_excerpt_is_the_error_on_one_line(body: str, words: str) -> None:
    assert endpoint.excerpt(body) == words


def test_an_answer_is_its_text() -> None:
    assert read_completion(completion("A. yes")).text == "A. yes"


def test_reasoning_comes_before_the_answer() -> None:
    assert read_completion(completion("A", reasoning_content="Hm.")).text == "Hm.</think>A"
    assert read_completion(completion(None, reasoning_content="Hm.")).text == "Hm."


def test_a_lone_surrogate_does_not_break_files() -> None:
    body = '{"choices": [{"message": {"content": "a\\ud800b"}}]}'
    assert read_completion(body).text.encode() == b"a?b"


@pytest.mark.parametrize(
    ("body", "generated"),
    [
        (completion("", tokens=1), True),
        (completion("", tokens=0), False),
        (completion("", tokens=None), False),
        (completion("", finish="content_filter"), False),
        (completion("", finish="length"), False),
        (completion(None), True),
        (completion("x", tokens=None, finish="length"), True),
        ('{"choices": [{"message": null}]}', False),
        ('{"choices": [{}]}', False),
    ],
)
def test_an_empty_answer_counts_only_when_the_model_ended_it(body: str, generated: bool) -> None:
    assert read_completion(body).generated is generated


@pytest.mark.parametrize(
    "body",
    [
        '{"choices": []}',
        '{"error": null, "choices": []}',
        "{}",
        '{"choices": "x"}',
        completion(5),
        completion([{"a": 1}]),
    ],
)
def test_a_body_without_an_answer_refuses_the_question(body: str) -> None:
    with pytest.raises(QuestionRefused):
        read_completion(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("<html>", Reason.ENDPOINT_UNREACHABLE),
        ("[]", Reason.ENDPOINT_UNREACHABLE),
        ("[" * 100_000, Reason.ENDPOINT_UNREACHABLE),
        ('{"error": {"message": "slow down", "code": 429}}', Reason.ENDPOINT_RATE_LIMITED),
        ('{"error": {"message": "no such key", "code": 401}}', Reason.ENDPOINT_UNAUTHORIZED),
        ('{"error": {"message": "odd", "code": 7}}', Reason.ENDPOINT_UNREACHABLE),
        ('{"error": {"message": "overloaded"}}', Reason.ENDPOINT_UNREACHABLE),
        ('{"error": {"message": "The model x does not exist."}}', Reason.MODEL_NOT_FOUND),
    ],
)
def test_a_200_can_be_an_error(body: str, reason: Reason) -> None:
    with pytest.raises(EngineError) as caught:
        read_completion(body)
    assert caught.value.reason is reason


Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of a client, not waited for."""
    waited: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", waited.append)
    return waited


def client_of(handler: Handler, *, retries: int = 2, key: str = "sk-secret", model: str = "m") -> EndpointClient:
    client = EndpointClient("http://host/v1", model, key, timeout=1, retries=retries)
    client._client.close()
    client._client = httpx.Client(transport=httpx.MockTransport(handler), headers=client._client.headers)
    return client


def answers(responses: Sequence[httpx.Response | Exception]) -> tuple[Handler, list[httpx.Request]]:
    seen: list[httpx.Request] = []
    remaining: Iterator[httpx.Response | Exception] = iter(responses)

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = next(remaining)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle, seen


def ask(client: EndpointClient) -> endpoint.Completion:
    with closing(client):
        return client.complete(client.request([{"role": "user", "content": "Q"}], max_tokens=3, temperature=0.0))


def test_asks_as_an_openai_client_does(pauses: list[float]) -> None:
    handler, seen = answers([httpx.Response(200, text=completion("A"))])
    assert ask(client_of(handler)).text == "A"
    assert str(seen[0].url) == "http://host/v1/chat/completions"
    assert seen[0].headers["authorization"] == "Bearer sk-secret"
    assert json.loads(seen[0].content) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Q"}],
        "max_tokens": 3,
        "temperature": 0.0,
    }
    assert pauses == []


def test_sends_no_key_when_there_is_none() -> None:
    handler, seen = answers([httpx.Response(200, text=completion("A"))])
    ask(client_of(handler, key=""))
    assert "authorization" not in seen[0].headers


@pytest.mark.parametrize(("model", "field"), [("o3-mini", "max_completion_tokens"), ("foo1", "max_tokens")])
def test_reasoning_models_get_their_own_length_field(model: str, field: str) -> None:
    handler, seen = answers([httpx.Response(200, text=completion("A"))])
    ask(client_of(handler, model=model))
    assert json.loads(seen[0].content)[field] == 3


def test_asks_again_where_it_helps_and_waits_longer_each_time(pauses: list[float]) -> None:
    handler, seen = answers(
        [
            httpx.ConnectError("refused"),
            httpx.Response(503),
            httpx.Response(200, text="<html>starting"),
            httpx.Response(200, text=completion("A")),
        ]
    )
    assert ask(client_of(handler, retries=3)).text == "A"
    assert len(seen) == 4
    assert pauses == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        ("2", 2.0),
        ("9999", 30.0),
        ("inf", 30.0),
        ("-5", 0.0),
        ("Wed", 0.5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Sun, 21 Oct 2085 07:28:00 GMT", 30.0),
    ],
)
def test_waits_as_long_as_the_endpoint_asks_for_within_bounds(pauses: list[float], asked: str, waited: float) -> None:
    handler, _ = answers(
        [httpx.Response(429, headers={"retry-after": asked}), httpx.Response(200, text=completion("A"))]
    )
    ask(client_of(handler))
    assert pauses == [waited]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(429), Reason.ENDPOINT_RATE_LIMITED),
        (httpx.Response(500), Reason.ENDPOINT_UNREACHABLE),
        (httpx.ConnectError("refused"), Reason.ENDPOINT_UNREACHABLE),
        (httpx.ReadTimeout("slow"), Reason.ENDPOINT_UNREACHABLE),
    ],
)
def test_gives_up_after_the_retries(pauses: list[float], answer: httpx.Response | Exception, reason: Reason) -> None:
    handler, seen = answers([answer] * 3)
    with pytest.raises(EngineError) as caught:
        ask(client_of(handler))
    assert caught.value.reason is reason
    assert caught.value.exit_code == 20
    assert len(seen) == 3


@pytest.mark.parametrize("status", [401, 404, 302])
def test_does_not_ask_again_where_it_is_useless(pauses: list[float], status: int) -> None:
    handler, seen = answers([httpx.Response(status)] * 3)
    with pytest.raises(EngineError) as caught:
        ask(client_of(handler))
    assert caught.value.exit_code == 10
    assert len(seen) == 1


def test_does_not_wait_once_nobody_waits_for_the_answer(pauses: list[float]) -> None:
    handler, seen = answers([httpx.Response(503)] * 3)
    with closing(client_of(handler)) as client, pytest.raises(EngineError):
        client.complete({}, give_up=lambda: True)
    assert len(seen) == 1


@pytest.mark.parametrize("key", ["a b", "k\n", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(EngineError) as caught:
        EndpointClient("http://host", "m", key, timeout=1, retries=0)
    assert caught.value.reason is Reason.INVALID_CONFIGURATION
    assert key not in caught.value.message

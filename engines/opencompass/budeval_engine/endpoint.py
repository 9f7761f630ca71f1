"""The model's endpoint: one chat completion at a time, and what each way of failing means."""

import json
import math
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from budeval_engine.logbook import masked
from budeval_engine.outcome import EngineError, Reason

Message = Mapping[str, Any]

_MODEL_MISSING = re.compile(
    r"model_not_found|model[^.]{0,200}(does not exist|doesn't exist|not found|not exist|is unknown|not supported)"
    r"|(no such|unknown|invalid) model",
    re.IGNORECASE | re.DOTALL,
)
_EXCERPT = 300
_TOO_LARGE = 64 * 1024 * 1024
# Longer than this and the Job's own retry is the better place to wait.
_LONGEST_WAIT = 30.0
# Models that refuse `max_tokens` and want `max_completion_tokens`.
_REASONING_MODEL = re.compile(r"(.*/)?(o1|o3|o4|gpt-5)([-.].*)?")


class QuestionRefused(Exception):
    """The endpoint answers, but not this question: a 4xx about the request, or a body without an answer."""


@dataclass(frozen=True)
class Completion:
    """One answer."""

    text: str
    """May be empty: see `generated`."""
    generated: bool
    """The model itself ended its answer here. False when nothing shows that it said anything at all."""


def fault(status: int, body: str, secret: str = "") -> EngineError | QuestionRefused:
    """Say what an HTTP answer other than 200 means, without `secret`."""
    words = f"The endpoint answered {status}: {excerpt(body, secret)}"
    if status in {401, 403}:
        return EngineError(Reason.ENDPOINT_UNAUTHORIZED, f"{words}. Check the API key and what it may use.")
    if status == 404 or (status < 500 and status != 429 and _MODEL_MISSING.search(body)):
        return EngineError(Reason.MODEL_NOT_FOUND, f"{words}. Check the model's name and the endpoint's path.")
    if status == 429:
        return EngineError(Reason.ENDPOINT_RATE_LIMITED, f"{words}. Lower query_per_second or batch_size.")
    if status in {408, 409, 425} or status >= 500:
        return EngineError(Reason.ENDPOINT_UNREACHABLE, f"{words}.")
    if 300 <= status < 400:
        return EngineError(Reason.INVALID_CONFIGURATION, f"{words}. Give the address it redirects to as endpoint.")
    return QuestionRefused(words)


def excerpt(body: str, secret: str = "") -> str:
    """Return the error message inside a JSON body, or the beginning of any other, on one line and without `secret`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    error = document.get("error", document) if isinstance(document, dict) else None
    words = error.get("message") if isinstance(error, dict) else error
    # Masked before it is cut: of a key that was cut in two, nobody would recognise the first half.
    words = masked(" ".join((words if isinstance(words, str) else body).split()), secret)[:_EXCERPT]
    return _without_surrogates(words) or "(nothing)"


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which are valid JSON and break every file that they are written to."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_completion(body: str, secret: str = "") -> Completion:
    """Take the answer out of a 200; no error tells `secret`.

    Raises EngineError when the body is an error after all, QuestionRefused when it holds no answer. Reasoning that is
    delivered apart from the answer is put before it, ended by `</think>`, as OpenCompass does.
    """
    document = _document(body, secret)
    error = document.get("error")
    if error and not document.get("choices"):
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and 400 <= code < 600:  # a gateway that passes on what it was answered
            raise fault(code, body, secret)
        if _MODEL_MISSING.search(body):
            raise fault(404, body, secret)
        raise EngineError(Reason.ENDPOINT_UNREACHABLE, f"The endpoint answered with an error: {excerpt(body, secret)}.")
    choice = _first_choice(document)
    content, reasoning = _text_of(choice, "content"), _text_of(choice, "reasoning_content")
    text = f"{reasoning}</think>{content}" if reasoning and content else reasoning or content
    text = _without_surrogates(text)
    usage = document.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    ended = choice.get("finish_reason") == "stop" and isinstance(tokens, int) and tokens > 0
    return Completion(text=text, generated=bool(text.strip()) or ended)


def _document(body: str, secret: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EngineError(
            Reason.ENDPOINT_UNREACHABLE, f"The endpoint does not answer like an OpenAI API: {excerpt(body, secret)}."
        ) from error
    if not isinstance(document, dict):
        raise EngineError(Reason.ENDPOINT_UNREACHABLE, "The endpoint does not answer like an OpenAI API.")
    return document


def _first_choice(document: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise QuestionRefused("The endpoint's answer has no choices.")
    return choices[0]


def _text_of(choice: Mapping[str, Any], name: str) -> str:
    message = choice.get("message")
    text = message.get(name) if isinstance(message, dict) else None
    if text is not None and not isinstance(text, str):
        raise QuestionRefused(f"The endpoint's answer has no text but a {type(text).__name__} as {name}.")
    return text or ""


def _never() -> bool:
    return False


class _Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    text: str
    retry_after: str | None


class EndpointClient:
    """Asks one model. Thread-safe; close it when done."""

    def __init__(self, base: str, model: str, key: str, *, timeout: float, retries: int) -> None:
        """Prepare for `model` at `base`; `timeout` is in seconds per attempt, an empty `key` sends none."""
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise EngineError(Reason.INVALID_CONFIGURATION, "The API key has characters that no HTTP header can carry.")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(
            headers=headers,
            # The certificates that the image trusts, or those that SSL_CERT_FILE names.
            verify=ssl.create_default_context(),
            timeout=timeout,
            # A thread that waited for a free connection would look like an endpoint that does not answer.
            limits=httpx.Limits(max_connections=None),
            follow_redirects=False,  # the key is for this host only
        )
        self._timeout = timeout
        self._key = key
        self._url = f"{base}/chat/completions"
        self._model = model
        self._retries = retries
        self._length_field = "max_completion_tokens" if _REASONING_MODEL.fullmatch(model) else "max_tokens"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(self, messages: Sequence[Message], *, max_tokens: int, temperature: float) -> dict[str, Any]:
        """Return the body that asks `messages`; also what a question is recognised by in the journal."""
        return {
            "model": self._model,
            "messages": list(messages),
            self._length_field: max_tokens,
            "temperature": temperature,
        }

    def complete(self, request: Mapping[str, Any], *, give_up: Callable[[], bool] = _never) -> Completion:
        """Ask, again where that helps, until `give_up` says that nobody waits for the answer any more.

        Raises EngineError when the endpoint can't be used, QuestionRefused when only this question got no answer.
        """
        for attempt in range(self._retries + 1):
            try:
                return self._attempt(request)
            except _BusyError as busy:
                if attempt == self._retries or give_up():
                    raise busy.error from busy
                time.sleep(busy.wait(attempt))
        raise AssertionError("range(n + 1) is never empty")

    def _attempt(self, request: Mapping[str, Any]) -> Completion:
        try:
            answer = self._post(request)
        except (httpx.InvalidURL, UnicodeError) as error:  # a host name whose parts are empty or too long
            raise EngineError(Reason.INVALID_CONFIGURATION, f"model.endpoint is not a usable URL: {error}.") from error
        except httpx.HTTPError as error:
            raise _BusyError(_unreachable(error), None) from error
        try:
            if answer.status == 200:
                return read_completion(answer.text, self._key)
            raise fault(answer.status, answer.text, self._key)
        except EngineError as error:
            if error.permanent:
                raise
            raise _BusyError(error, answer.retry_after) from error

    def _post(self, request: Mapping[str, Any]) -> _Answer:
        """Return the answer. Raises QuestionRefused when it is too large, httpx.ReadTimeout when it does not end."""
        deadline = time.monotonic() + self._timeout  # httpx' own is for each piece of an answer, of which many may come
        body = bytearray()
        with self._client.stream("POST", self._url, json=request) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _TOO_LARGE:
                    raise QuestionRefused(f"The endpoint's answer is larger than {_TOO_LARGE} bytes.")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"the answer did not end within {self._timeout:g} s")
        # JSON is UTF-8 whatever the header says.
        return _Answer(response.status_code, body.decode("utf-8", "replace"), response.headers.get("retry-after"))


class _BusyError(Exception):
    """The endpoint may answer a little later."""

    def __init__(self, error: EngineError, retry_after: str | None) -> None:
        super().__init__(error.message)
        self.error = error
        self._retry_after = retry_after

    def wait(self, attempt: int) -> float:
        """Return seconds to wait: what the endpoint asked for, else doubling from half a second."""
        asked = _seconds(self._retry_after or "")
        if asked is None:
            asked = 0.5 * 2.0**attempt
        return min(_LONGEST_WAIT, max(0.0, asked)) if math.isfinite(asked) else _LONGEST_WAIT


def _seconds(retry_after: str) -> float | None:
    """Return the seconds that a Retry-After asks for: a number or a date; None for anything else."""
    try:
        return float(retry_after)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None


def _unreachable(error: httpx.HTTPError) -> EngineError:
    kind = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "can't be reached"
    return EngineError(
        Reason.ENDPOINT_UNREACHABLE, f"The endpoint {kind}: {str(error)[:_EXCERPT] or type(error).__name__}."
    )

"""The client: one method for each thing the service does."""

import ipaddress
import os
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay

from budeval.client.errors import TooManyRequests, UnexpectedAnswer, Unreachable, problem_error
from budeval.client.feed import TEMPORARY, EventFeed, Listener
from budeval.client.logs import followed_lines, log_lines, log_path
from budeval.client.models import (
    Dataset,
    EngineInfo,
    Evaluation,
    EvaluationRequest,
    EvaluationSummary,
    Identity,
    Readiness,
    Results,
    RetriedEvaluation,
    RetryRequest,
    StartedEvaluation,
    TimelineEntry,
    Validation,
)

DEFAULT_SERVER = "http://127.0.0.1:8099"
SERVER_VARIABLE = "BUDEVAL_SERVER"
TOKEN_VARIABLE = "BUDEVAL_TOKEN"  # noqa: S105 - the variable's name
DEFAULT_TIMEOUT = httpx.Timeout(30.0, connect=5.0, pool=5.0)
"""Seconds for one answer."""
DELETION_TIMEOUT = 300.0
"""Seconds: pods are waited for, and files may be removed by a Job."""
LOOKING_TIMEOUT = httpx.Timeout(180.0, connect=5.0, pool=5.0)
"""Seconds for an answer that the service has to look into a cluster for."""
START_ATTEMPTS = 3
RETRY_SECONDS = 1.0
POLL_SECONDS = 1.0
"""Between two looks at an evaluation whose progress is watched: questions are counted there, not in the events."""
PATIENCE_SECONDS = 120.0
"""How long a watched service may be away, e.g. for its restart."""
PAGE_SIZE = 200
LONGEST_DELAY_SECONDS = 10.0
"""How long a call waits at the most for a service that says 429; ``patience`` may be less."""
SPREAD_SECONDS = 0.25

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class Client:
    """Talks to one service; may be used as a context manager.

    ``server`` is its base URL, by default ``BUDEVAL_SERVER`` or this machine; ``token`` is its bearer token, by default
    ``BUDEVAL_TOKEN``. Raises ``ValueError`` for a URL or a token that cannot be one; every call raises
    :class:`~budeval.client.errors.BudevalClientError`.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        timeout: httpx.Timeout | float = DEFAULT_TIMEOUT,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.server = checked_server(server or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER)
        self._patience = patience
        token = checked_token(token if token is not None else os.environ.get(TOKEN_VARIABLE, ""))
        self._http = httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout,
            # A token must not follow to another host, and a proxy has no way to this machine's own services.
            follow_redirects=False,
            trust_env=not is_loopback(self.server),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections."""
        self._http.close()

    def start(self, request: EvaluationRequest, *, validate: bool = False) -> StartedEvaluation:
        """Starts an evaluation. Its ids are made here, so that a lost answer can be asked for again safely.

        With ``validate`` it is looked at first; raises ``InvalidRequest`` with ``problem.checks`` where one failed.
        """
        eval_id = request.eval_id or str(uuid.uuid4())
        run_ids = [run.run_id or f"{run.dataset_id}-{uuid.uuid4().hex[:8]}" for run in request.datasets]
        answer = self._start(request.body(eval_id, run_ids), validate=validate)
        return _read(
            StartedEvaluation,
            {"eval_id": eval_id, "run_ids": run_ids, "status": answer.get("status"), "eta_minutes": answer.get("eta")},
        )

    def validate(self, request: EvaluationRequest) -> Validation:
        """Looks at everything that an evaluation needs, without making anything of it; takes seconds."""
        run_ids = [run.run_id or f"{run.dataset_id}-{uuid.uuid4().hex[:8]}" for run in request.datasets]
        body = request.body(request.eval_id or str(uuid.uuid4()), run_ids)
        return _read(
            Validation, _json_object(self._send("POST", "/evals/validate", json=body, timeout=LOOKING_TIMEOUT))
        )

    def _start(self, body: dict[str, Any], *, validate: bool) -> dict[str, Any]:
        options: dict[str, Any] = {"params": {"validate": "true"}, "timeout": LOOKING_TIMEOUT} if validate else {}
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                return _json_object(self._send("POST", "/evals/start", json=body, **options))
            except Unreachable:
                if attempt == START_ATTEMPTS:
                    raise
                time.sleep(RETRY_SECONDS)
        raise AssertionError("unreachable")

    def evaluation(self, eval_id: str) -> Evaluation:
        """An evaluation, whole."""
        return self._get(Evaluation, f"/evals/{eval_id}")

    def evaluations(
        self,
        *,
        status: str | None = None,
        queued: bool | None = None,
        model: str | None = None,
        dataset: str | None = None,
        source: str | None = None,
        requested_by: str | None = None,
        experiment_id: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        sort: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> Iterator[EvaluationSummary]:
        """Evaluations, by default the newest first; asks for further pages as they are needed."""
        wanted = {
            "status": status,
            "queued": None if queued is None else str(queued).lower(),
            "model": model,
            "dataset": dataset,
            "source": source,
            "requested_by": requested_by,
            "experiment_id": experiment_id,
            "created_after": created_after.isoformat() if created_after else None,
            "created_before": created_before.isoformat() if created_before else None,
            "sort": sort,
        }
        return self._pages(EvaluationSummary, "/evals", wanted, page_size)

    def results(self, eval_id: str) -> Results:
        """The scores, and why some are missing."""
        return self._get(Results, f"/evals/{eval_id}/results")

    def results_csv(self, eval_id: str) -> str:
        """The scores as the service's CSV."""
        response = self._send("GET", f"/evals/{eval_id}/results", headers={"Accept": "text/csv"})
        if not response.headers.get("Content-Type", "").startswith("text/csv"):
            raise UnexpectedAnswer(f"{response.url} does not answer with CSV; the service may be too old")
        return response.text

    def timeline(self, eval_id: str) -> Iterator[TimelineEntry]:
        """What happened so far, oldest first."""
        return self._pages(TimelineEntry, f"/evals/{eval_id}/timeline", {}, PAGE_SIZE)

    def events(self, eval_id: str, last_event_id: str = "") -> Iterator[TimelineEntry]:
        """What happens, as it happens, until the evaluation has ended; misses nothing when the connection breaks.

        Raises :class:`~budeval.client.errors.NotFound` where the evaluation, or the service's stream, does not exist.
        """
        return self._feed(eval_id, last_event_id).entries(lambda: self.evaluation(eval_id).ended)

    def logs(
        self, eval_id: str, run_id: str, *, tail: int | None = None, since: str | None = None, follow: bool = False
    ) -> Iterator[str]:
        """The engine's log of a run, line by line, without secrets and control characters.

        ``tail`` is the number of lines at the most, ``since`` a time span such as ``90s``, ``10m`` or ``1h30m``. With
        ``follow`` lines come as they are written, until the run has ended; a run without a log is waited for. Where the
        connection breaks, they go on where they were; a service that goes away is waited for, ``patience`` seconds.

        Raises :class:`~budeval.client.errors.NotFound` where there is no log, or none yet.
        """
        wanted = {"tail": None if tail is None else str(tail), "since": since, "follow": "true" if follow else None}
        query = {name: value for name, value in wanted.items() if value is not None}
        path = log_path(eval_id, run_id)
        if not follow:
            return log_lines(self._http, path, query)
        return followed_lines(EventFeed(self._http, path, self._patience, query=query, eager=True))

    def _feed(self, eval_id: str, last_event_id: str = "") -> EventFeed:
        return EventFeed(self._http, f"/evals/{eval_id}/events", self._patience, last_event_id)

    def watch(self, eval_id: str, interval: float = POLL_SECONDS) -> Iterator[Evaluation]:
        """The evaluation now and after every change, until it has ended.

        It is looked at when an event tells of something, and every ``interval`` seconds for the progress in questions.
        A service that goes away is waited for, ``patience`` seconds at the most.
        """
        seen = self.evaluation(eval_id)
        yield seen
        if seen.ended:
            return
        with Listener(self._feed(eval_id), lambda: self.evaluation(eval_id).ended) as listener:
            while not seen.ended:
                listener.wait(interval)
                now = self._patiently(eval_id)
                if now != seen:
                    yield now
                seen = now

    def _patiently(self, eval_id: str) -> Evaluation:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self.evaluation(eval_id)
            except TEMPORARY:
                if time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    def cancel(self, eval_id: str) -> Evaluation:
        """Cancels an evaluation; harmless when it has ended."""
        return _read(Evaluation, _json_object(self._send("POST", f"/evals/{eval_id}/cancel")))

    def resend(self, eval_id: str) -> Evaluation:
        """Publishes notifications whose fate is unknown after all; only where the subscriber did not get them."""
        return _read(Evaluation, _json_object(self._send("POST", f"/evals/{eval_id}/notifications/resend")))

    def retry(self, eval_id: str, request: RetryRequest) -> RetriedEvaluation:
        """Runs the runs without scores again; each goes on where it stopped."""
        path = f"/evals/{eval_id}/retry"
        return _read(
            RetriedEvaluation, _json_object(self._send("POST", path, params={"only": "failed"}, json=request.body()))
        )

    def delete(self, eval_id: str) -> None:
        """Deletes an evaluation that has ended, with its files. Where that fails, the same call goes on."""
        self._send("DELETE", f"/evals/{eval_id}", timeout=DELETION_TIMEOUT)

    def datasets(
        self,
        *,
        engine: str | None = None,
        search: str | None = None,
        usable: bool | None = None,
        present: bool | None = None,
        refresh: bool = False,
    ) -> Iterator[Dataset]:
        """The data sets that engines know; with ``refresh`` the volume is looked at first: seconds, for operators."""
        wanted = {"engine": engine, "search": search, "usable": _flag(usable), "present": _flag(present)}
        if refresh:
            self._send("POST", "/datasets/refresh", timeout=LOOKING_TIMEOUT)
        return self._pages(Dataset, "/datasets", wanted, PAGE_SIZE)

    def engines(self) -> list[EngineInfo]:
        """The engines of the service."""
        return list(self._pages(EngineInfo, "/engines", {}, PAGE_SIZE))

    def readiness(self) -> Readiness:
        """What the service needs, each with whether it is there; also when it is not ready."""
        return self._get(Readiness, "/readyz", accepted=(httpx.codes.SERVICE_UNAVAILABLE,))

    def whoami(self) -> Identity:
        """As whom the service knows the token, and what its role is."""
        return self._get(Identity, "/whoami")

    def version(self) -> str:
        """The service's version."""
        document = _json_object(self._send("GET", "/openapi.json"))
        info = document.get("info")
        return str(info.get("version", "")) if isinstance(info, dict) else ""

    def _pages(
        self, kind: type[AnswerT], path: str, wanted: Mapping[str, str | None], page_size: int
    ) -> Iterator[AnswerT]:
        query = {name: value for name, value in wanted.items() if value is not None} | {"limit": str(page_size)}
        while True:
            page = _json_object(self._send("GET", path, params=query))
            items, cursor = page.get("items"), page.get("next_cursor")
            if not isinstance(items, list):
                raise UnexpectedAnswer(f"{path} does not answer with a list")
            yield from (_read(kind, item) for item in items)
            if not cursor or cursor == query.get("cursor"):
                return
            query["cursor"] = str(cursor)

    def _get(self, kind: type[AnswerT], path: str, accepted: tuple[int, ...] = ()) -> AnswerT:
        return _read(kind, _json_object(self._send("GET", path, accepted=accepted)))

    def _send(self, method: str, path: str, accepted: tuple[int, ...] = (), **options: Any) -> httpx.Response:
        """Refused with 429, a request has done nothing: it is sent again when the service says so."""
        again = Retrying(
            retry=retry_if_exception_type(TooManyRequests),
            wait=_as_told,
            stop=stop_before_delay(min(self._patience, LONGEST_DELAY_SECONDS)),
            reraise=True,
        )
        return again(self._send_once, method, path, accepted, **options)

    def _send_once(self, method: str, path: str, accepted: tuple[int, ...], **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.server} does not answer in time") from error
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.server} does not answer: {error}") from error
        if response.is_error and response.status_code not in accepted:
            raise problem_error(response)
        if response.is_redirect:
            raise UnexpectedAnswer(f"{self.server} redirects to {response.headers.get('Location', '')}")
        return response


def _as_told(state: RetryCallState) -> float:
    """Seconds that the service wants to be left alone, and a little more, so that not all come back at once."""
    error = state.outcome.exception() if state.outcome is not None else None
    told = error.retry_after if isinstance(error, TooManyRequests) else None
    return (RETRY_SECONDS if told is None else told) + random.uniform(0, SPREAD_SECONDS)  # noqa: S311


def checked_server(url: str) -> str:
    """The base URL without a slash at its end; raises ``ValueError``."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("the server must be an http or https URL without credentials, e.g. http://127.0.0.1:8099")
    return url.rstrip("/")


def checked_token(token: str) -> str:
    """The token without white space around it; raises ``ValueError``, which never shows it."""
    token = token.strip()
    if not token.isascii() or any(not character.isprintable() or character == " " for character in token):
        raise ValueError("the token must be one line of printable ASCII characters without spaces")
    return token


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _flag(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError as error:
        raise UnexpectedAnswer(f"{response.url} does not answer with JSON; is it budeval?") from error
    if not isinstance(body, dict):
        raise UnexpectedAnswer(f"{response.url} does not answer with a JSON object; is it budeval?")
    return body


def _read(kind: type[AnswerT], value: Any) -> AnswerT:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, item["loc"])) for item in error.errors(include_url=False))
        raise UnexpectedAnswer(f"the service's answer is not the expected {kind.__name__}: {fields}") from error

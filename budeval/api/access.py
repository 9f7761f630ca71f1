"""Who may do what over HTTP: one gate in front of every route, so that none can be forgotten.

The table of it is :data:`ROLES`, by method: a route that is added later is guarded from its first moment. A method that
is not in the table is for administrators alone.
"""

import ipaddress
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, FastAPI, Request
from prometheus_client import Counter
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from budeval.access.authentication import Authenticator, is_loopback
from budeval.access.callers import EVERYBODY, Caller, RecognitionUnavailable, Roleless, Unrecognised
from budeval.access.throttle import Throttle
from budeval.api.documentation import DOCUMENTATION_PATHS
from budeval.api.problem import documented, problem_response
from budeval.api.sidecar import SidecarToken, for_sidecar
from budeval.commons.redaction import printable
from budeval.commons.roles import Role
from budeval.commons.settings import Settings

logger = logging.getLogger("::EVAL:: Access")

ROLES: Mapping[str, Role] = {
    "GET": Role.VIEWER,
    "HEAD": Role.VIEWER,
    "OPTIONS": Role.VIEWER,
    "POST": Role.OPERATOR,
    "DELETE": Role.ADMIN,
}
"""The role that a method needs. Paths of the sidecar have its token instead, and these need nothing:"""
OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"}) | DOCUMENTATION_PATHS
CALLER = "caller"
"""Where the gate leaves the :class:`Caller` in the state of a request."""
STREAM_CHECK_SECONDS = 5.0
"""A stream that goes on looks so often whether its caller is still allowed to read; an idle one at each keep-alive."""
PROVIDER_THREADS = 4
"""Callers that may wait for the identity provider at once; the others' requests go on meanwhile."""
UNAVAILABLE_RETRY_SECONDS = 5


def role_for(method: str) -> Role:
    """The role that a route of this method needs."""
    return ROLES.get(method, Role.ADMIN)


def caller_of(request: Request) -> Caller:
    """Who calls; for what the gate has let in."""
    caller = getattr(request.state, CALLER)
    if not isinstance(caller, Caller):
        raise TypeError("the request did not come through the gate")
    return caller


@dataclass(eq=False)
class Refusal(Exception):
    """Why a call is not let in."""

    status: HTTPStatus
    kind: str
    """Label of the metric."""
    title: str
    detail: str
    challenge: str = ""
    """``WWW-Authenticate``."""
    retry_after: int = 0
    """Seconds; 0: nothing is said about it."""
    told: bool = True
    """Whether it is worth a line in the log."""

    def response(self, path: str) -> Response:
        """As a problem."""
        response = problem_response(self.status, self.title, self.detail, None, path)
        if self.challenge:
            response.headers["WWW-Authenticate"] = self.challenge
        if self.retry_after:
            response.headers["Retry-After"] = str(self.retry_after)
        return response


class Gate:
    """Recognises every caller, and lets in whom the table allows, as often as the limits allow."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator | None, settings: Settings, refused: Counter) -> None:
        """``authenticator``: none where access is off; ``refused`` counts by its label ``reason``."""
        self._app = app
        self._authenticator = authenticator
        self._refused = refused
        self._calls = Throttle(settings.rate_limit)
        self._failures = Throttle(settings.failure_limit)
        self._sidecar = SidecarToken(settings.app_api_token, required=authenticator is not None)
        self._provider_threads: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            # There is no other kind of route; should there be one, it needs a way in first.
            return await send({"type": "websocket.close", "code": 1008})
        try:
            permit = await self._admit(scope)
        except Refusal as refusal:
            self._note(refusal, scope)
            return await refusal.response(scope["path"])(scope, receive, send)
        if permit is None:
            return await self._app(scope, receive, send)
        scope.setdefault("state", {})[CALLER] = permit.caller
        return await self._serve(permit, scope, receive, send)

    async def _admit(self, scope: Scope) -> "_Permit | None":
        """Who was let in; none: the path is open, or the sidecar's. Raises :class:`Refusal`."""
        if not self._sidecar.allows(scope):
            detail = "The call carries a wrong or no dapr-api-token; daprd and the service need the same APP_API_TOKEN."
            raise self._unrecognised(scope, "sidecar", detail, 'dapr-api-token realm="budeval"')
        if scope["path"] in OPEN_PATHS or for_sidecar(scope["path"]):
            return None
        if self._authenticator is None:
            _check_host(scope)
            self._count(f"address {address_of(scope)}")
            return _Permit("", EVERYBODY)
        token = self._token(scope)
        caller = await self._recognise(self._authenticator, token, scope)
        self._count(f"caller {caller.name}")
        _check_role(caller, scope["method"])
        return _Permit(token, caller)

    def _count(self, key: str) -> None:
        if wait := self._calls.take(key):
            detail = f"Too many requests; try again in {wait} s."
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "rate", "Too many requests", detail, retry_after=wait)

    def _token(self, scope: Scope) -> str:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise self._unauthorized(scope, "Send a token in the header Authorization, as: Bearer TOKEN.", error="")
        header: str = given[0].decode("latin-1").strip()
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if (
            len(given) > 1
            or scheme.lower() != "bearer"
            or not token.isascii()
            or not token.isprintable()
            or " " in token
        ):
            raise self._unauthorized(scope, "The header Authorization must be given once, as: Bearer TOKEN.")
        return token

    async def _recognise(self, authenticator: Authenticator, token: str, scope: Scope) -> Caller:
        try:
            return await self._find(authenticator, token)
        except Unrecognised as error:
            raise self._unauthorized(scope, _sentence(error)) from error
        except Roleless as error:
            raise _forbidden(_sentence(error)) from error
        except RecognitionUnavailable as error:
            status, retry = HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE_RETRY_SECONDS
            raise Refusal(status, "unavailable", error.title, error.detail, retry_after=retry) from error

    async def _find(self, authenticator: Authenticator, token: str) -> Caller:
        if not authenticator.may_wait(token):
            return authenticator.find(token)
        if self._provider_threads is None:
            self._provider_threads = anyio.CapacityLimiter(PROVIDER_THREADS)
        return await anyio.to_thread.run_sync(authenticator.find, token, limiter=self._provider_threads)

    def _unauthorized(self, scope: Scope, detail: str, error: str = "invalid_token") -> Refusal:
        challenge = 'Bearer realm="budeval"' + (f', error="{error}"' if error else "")
        return self._unrecognised(scope, "unauthorized", detail, challenge)

    def _unrecognised(self, scope: Scope, kind: str, detail: str, challenge: str) -> Refusal:
        """401, or 429 for an address that has failed too often. A good token is never refused for others' failures."""
        if wait := self._failures.take(address_of(scope)):
            detail = f"Too many calls from this address were not recognised; try again in {wait} s."
            status = HTTPStatus.TOO_MANY_REQUESTS
            return Refusal(status, "failures", "Too many requests", detail, retry_after=wait, told=False)
        return Refusal(HTTPStatus.UNAUTHORIZED, kind, "Unauthorized", detail, challenge)

    def _note(self, refusal: Refusal, scope: Scope) -> None:
        self._refused.labels(refusal.kind).inc()
        if refusal.told:
            where = f"{scope['method']} {scope['path']}"
            logger.warning("refused %s from %s: %s", printable(where, 200), address_of(scope), refusal.detail)

    async def _serve(self, permit: "_Permit", scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the application answer, and ends an answer that lasts longer than its caller's permission."""
        checked = time.monotonic()

        async def guarded(message: Message) -> None:
            nonlocal checked
            lasts = message["type"] == "http.response.body" and message.get("more_body", False)
            if lasts and time.monotonic() - checked >= STREAM_CHECK_SECONDS:
                checked = time.monotonic()
                if not await self._still_allowed(permit, scope):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    raise _StreamEnded
            await send(message)

        try:
            await self._app(scope, receive, guarded if self._authenticator else send)
        except _StreamEnded:
            logger.info("a stream of %s has ended with its permission", permit.caller.name)

    async def _still_allowed(self, permit: "_Permit", scope: Scope) -> bool:
        if self._authenticator is None:
            return True
        try:
            caller = await self._find(self._authenticator, permit.token)
            _check_role(caller, scope["method"])
        except RecognitionUnavailable:
            # Nobody says that it has been taken back; its own end is known.
            ends = permit.caller.expires_at
            return ends is None or datetime.now(ends.tzinfo) < ends
        except (Unrecognised, Roleless, Refusal):
            return False
        return caller.name == permit.caller.name


@dataclass(frozen=True)
class _Permit:
    """A call that was let in."""

    token: str
    caller: Caller

    def __repr__(self) -> str:
        return f"_Permit({self.caller.name})"


class _StreamEnded(Exception):
    """Unwinds what still wants to send."""


def _check_role(caller: Caller, method: str) -> None:
    needed = role_for(method)
    if not caller.role.includes(needed):
        raise _forbidden(f"{method} here needs the role {needed}; the token of {caller.name!r} has {caller.role}.")


def _check_host(scope: Scope) -> None:
    """Where access is off, only who calls this machine by one of its own names is let in.

    A page in a browser can have its name point to 127.0.0.1, and a proxy can bring strangers: both give other names.
    """
    named = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
    for name in named:
        host = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        if not is_loopback(host) and not host.endswith(".localhost"):
            detail = "Access is off, so the service answers to this machine's own names alone, such as 127.0.0.1."
            raise Refusal(HTTPStatus.MISDIRECTED_REQUEST, "host", "Misdirected request", detail)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def _forbidden(detail: str) -> Refusal:
    challenge = 'Bearer realm="budeval", error="insufficient_scope"'
    return Refusal(HTTPStatus.FORBIDDEN, "forbidden", "Forbidden", detail, challenge)


def address_of(scope: Scope) -> str:
    """The client's address, or its network where one customer has as many addresses as it likes."""
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)


class CallerView(BaseModel):
    """Who calls."""

    name: str
    """As the record writes it down with everything that the caller changes."""
    role: Role
    expires_at: datetime | None
    """When the token ends to be valid; null: it has no end."""


def whoami_router() -> APIRouter:
    """``/whoami``."""
    router = APIRouter(tags=["access"])

    @router.get("/whoami")
    async def whoami(request: Request) -> CallerView:
        """As whom the service knows the caller, and what it lets it do."""
        return CallerView(**vars(caller_of(request)))

    return router


_REFUSED = {
    HTTPStatus.UNAUTHORIZED: "The token is missing, not known, or has expired",
    HTTPStatus.FORBIDDEN: "The token's role does not allow this",
    HTTPStatus.TOO_MANY_REQUESTS: "A limit is reached; Retry-After says how long",
}


def document_access(app: FastAPI) -> None:
    """Says in the OpenAPI document what the gate asks for. Not where access is off: it then never refuses so."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        scheme = {"type": "http", "scheme": "bearer", "description": "A token of this service or a JSON Web Token"}
        document.setdefault("components", {})["securitySchemes"] = {"bearer": scheme}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if path not in OPEN_PATHS:
                    operation["security"] = [{"bearer": []}]
                    operation["x-required-role"] = role_for(method.upper())
                    operation["responses"] = {**_described(), **operation["responses"]}
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _described() -> dict[str, Any]:
    return {str(status): answer for status, answer in documented(_REFUSED).items()}

"""Liveness and readiness: each dependency named, so that the one that is missing is known at once."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import httpx
from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from budeval.access.authentication import Authenticator
from budeval.commons.redaction import printable
from budeval.commons.settings import Settings
from budeval.evals.runtime import Runtime
from budeval.record import Record

SIDECAR_TIMEOUT_SECONDS = 2.0


class CheckView(BaseModel):
    """One dependency."""

    name: str
    ok: bool
    detail: str = ""


class ReadinessView(BaseModel):
    """All of them."""

    ready: bool
    checks: list[CheckView]


@dataclass(frozen=True)
class Readiness:
    """What the service needs before it can run evaluations."""

    settings: Settings
    record: Record
    runtime: Runtime
    authenticator: Authenticator | None = None
    """None: access is off."""

    def check(self) -> ReadinessView:
        """Asks every dependency, each within two seconds."""
        checks = [
            self._checked("database", self._database),
            self._checked("sidecar", self._sidecar),
            self._checked("pubsub", self._pubsub),
            self._checked("workflow-worker", self._worker),
        ]
        if self.authenticator is not None:
            checks.append(self._checked("access", self.authenticator.check_sources))
        return ReadinessView(ready=all(check.ok for check in checks), checks=checks)

    def _checked(self, name: str, check: Callable[[], str]) -> CheckView:
        try:
            detail = check()
        except (httpx.HTTPError, SQLAlchemyError, ValueError, LookupError) as error:
            # ValueError and LookupError: something else than daprd answers there.
            detail = printable(str(error) or type(error).__name__, 300)
        return CheckView(name=name, ok=not detail, detail=detail)

    def _database(self) -> str:
        self.record.ping()
        return ""

    def _sidecar(self) -> str:
        # Not /healthz: that one waits for the application, which would wait for it.
        status = self._get("/v1.0/healthz/outbound").status_code
        return "" if status < HTTPStatus.BAD_REQUEST else f"daprd answers {status}"

    def _pubsub(self) -> str:
        components = self._get("/v1.0/metadata").json().get("components", [])
        names = [component["name"] for component in components if component["type"].startswith("pubsub.")]
        wanted = self.settings.pubsub_name
        return "" if wanted in names else f"daprd has no pub/sub component {wanted!r}, only {names}"

    def _worker(self) -> str:
        return "" if self.runtime.ready() else "the workflow worker is not connected to daprd"

    def _get(self, path: str) -> httpx.Response:
        token = self.settings.dapr_api_token
        headers = {"dapr-api-token": token.get_secret_value()} if token else {}
        return httpx.get(self.settings.dapr_http_url + path, headers=headers, timeout=SIDECAR_TIMEOUT_SECONDS)


def health_router(readiness: Readiness) -> APIRouter:
    """``/livez`` and ``/readyz``."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """The process answers; nothing else is asked."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"model": ReadinessView}})
    def readyz(response: Response) -> ReadinessView:
        """Whether evaluations can be run, and what is missing."""
        view = readiness.check()
        response.status_code = HTTPStatus.OK if view.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return view

    return router

"""``doctor``: whether the service can be reached and used, and what to do where it cannot."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import typer

from budeval import __version__
from budeval.cli.contexts import contexts_path, read_contexts
from budeval.cli.errors import ExitCode, UsageProblem, advice
from budeval.cli.options import JsonOption, session_of
from budeval.cli.session import Session, Target
from budeval.cli.views import when
from budeval.client import BudevalClientError, Client, Forbidden, NotFound, Unauthorized
from budeval.client.client import is_loopback

ADVICE = {
    "database": "Start the database that BUDEVAL_DATABASE_URL of the service names, or correct the URL.",
    "sidecar": "Start daprd beside the service: dapr run --run-file ./app.yaml, or look into its log.",
    "access": "Look at BUDEVAL_TOKENS_SECRET_STORE of the service, and at the log of daprd.",
    "pubsub": "Give daprd a pub/sub component of the name in BUDEVAL_PUBSUB_NAME, and look at its scopes.",
    "workflow-worker": "Wait some seconds; if it stays, look whether daprd reaches placement and scheduler.",
}


class Finding(NamedTuple):
    """One check."""

    name: str
    verdict: Literal["ok", "warning", "failed"]
    detail: str = ""
    todo: str = ""
    code: ExitCode = ExitCode.FAILED
    """Exit code where it failed."""


def doctor(context: typer.Context, _json: JsonOption = False) -> None:
    """Check the configuration, the service and what it needs, and say what to do.

    Exits with 3 where the service cannot be reached or used, with 1 where it is not ready.
    """
    session = session_of(context)
    findings = list(_examine(session))
    if session.output.json:
        told = [{"name": item.name, "verdict": item.verdict, "detail": item.detail, "what_to_do": item.todo}
                for item in findings]  # fmt: skip
        session.output.data({"good": all(item.verdict != "failed" for item in findings), "checks": told})
    else:
        rows = [[item.name, item.verdict, item.detail] for item in findings]
        session.output.table(("check", "verdict", "detail"), rows)
        for item in findings:
            if item.todo and item.verdict != "ok":
                session.output.line(f"{item.name}: {item.todo}")
    codes = [item.code for item in findings if item.verdict == "failed"]
    raise typer.Exit(max(codes, default=ExitCode.GOOD))


def _examine(session: Session) -> Iterator[Finding]:
    try:
        count = len(read_contexts().contexts)
        yield Finding("contexts", "ok", f"{count} in {contexts_path()}" if count else "none; the defaults are used")
        target = session.target()
        yield _target(target)
        with session.client() as client:
            yield from _service(client)
    except UsageProblem as problem:
        yield Finding("configuration", "failed", str(problem), "Correct it and ask again.", ExitCode.USAGE)


def _target(target: Target) -> Finding:
    detail = f"{target.server} (from {target.origin}), {'with' if target.token else 'without'} a token"
    if target.token and target.server.startswith("http://") and not is_loopback(target.server):
        return Finding("server", "warning", detail, "The token travels in clear; use https.")
    return Finding("server", "ok", detail)


def _service(client: Client) -> Iterator[Finding]:
    try:
        readiness = client.readiness()
        yield Finding("reachable", "ok", "the service answers")
    except BudevalClientError as error:
        yield _failed("reachable", error, f"Is it running? {client.server}/livez must answer; --server or a context "
                      "names another one.")  # fmt: skip
        return
    for check in readiness.checks:
        todo = "" if check.ok else ADVICE.get(check.name, "Look into the service's log.")
        yield Finding(check.name, "ok" if check.ok else "failed", check.detail, todo)
    yield from _access(client)


def _access(client: Client) -> Iterator[Finding]:
    try:
        yield _identity(client)
        yield _version(client.version())
    except BudevalClientError as error:
        yield _failed("access", error, advice(error))


def _identity(client: Client) -> Finding:
    try:
        identity = client.whoami()
    except NotFound:
        # A service that is older than access.
        next(client.evaluations(page_size=1), None)
        return Finding("access", "ok", "evaluations can be read")
    detail = f"{identity.name}, {identity.role}"
    if identity.expires_at is None:
        return Finding("access", "ok", detail)
    return Finding("access", "ok", f"{detail}, until {when(identity.expires_at)}")


def _version(version: str) -> Finding:
    detail = f"service {version}, command line {__version__}"
    if version.split(".")[:2] == __version__.split(".")[:2]:
        return Finding("version", "ok", detail)
    return Finding("version", "warning", detail, "Install the same version of both.")


def _failed(name: str, error: BudevalClientError, todo: str) -> Finding:
    todo = advice(error) if isinstance(error, Unauthorized | Forbidden) else todo
    return Finding(name, "failed", str(error), todo, ExitCode.UNREACHABLE)

"""``validate``, and what ``start --validate`` does first."""

import typer

from budeval.cli.errors import ExitCode
from budeval.cli.options import JsonOption, session_of
from budeval.cli.output import Output
from budeval.cli.request_options import with_request_options
from budeval.client import Client, EvaluationRequest, InvalidRequest, PreflightCheck, StartedEvaluation

CHECK_HEADERS = ("check", "status", "message")


@with_request_options
def validate(context: typer.Context, request: EvaluationRequest, _json: JsonOption = False) -> None:
    """Look at everything that an evaluation needs, without starting it; takes the options of start.

    A small Job runs in the cluster for some seconds. Exit code 1: something is in the way.
    """
    session = session_of(context)
    with session.client() as client:
        found = client.validate(request)
    if session.output.json:
        session.output.data(found)
    else:
        tell_checks(session.output, found.checks)
    raise typer.Exit(ExitCode.GOOD if found.ok else ExitCode.FAILED)


def start_valid(client: Client, output: Output, request: EvaluationRequest) -> StartedEvaluation:
    """Start an evaluation that can run; where it cannot, tell why and end with the code of a failure."""
    try:
        return client.start(request, validate=True)
    except InvalidRequest as refusal:
        if refusal.problem.checks is None:
            raise
        told = [check for check in refusal.problem.checks if check.status in ("failed", "warning")]
        details = {"problem": refusal.problem.model_dump(mode="json")}
        if not output.json:
            tell_checks(output, told)
        output.error("nothing was started: the evaluation could not run", "", details)
        raise typer.Exit(ExitCode.FAILED) from refusal


def tell_checks(output: Output, checks: list[PreflightCheck]) -> None:
    """Every check, and what to do about those that are not good."""
    output.table(CHECK_HEADERS, [[check.title, check.status, _message(check)] for check in checks])
    for check in checks:
        if check.resolution and check.status in ("failed", "warning"):
            output.note(f"{check.title}: {check.resolution}", "red" if check.status == "failed" else "yellow")


def _message(check: PreflightCheck) -> str:
    return f"{check.field}: {check.message}" if check.field and check.status == "failed" else check.message

"""``retry``, ``resend`` and ``delete``: what can be done with an evaluation that has ended."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from budeval.cli.errors import UsageProblem
from budeval.cli.options import (
    ApiKeyFile,
    ApiKeyPrompt,
    ApiKeyVariable,
    EvalArgument,
    JsonOption,
    PollIntervalOption,
    WatchOption,
    session_of,
)
from budeval.cli.secret_input import secret_from
from budeval.cli.watching import follow
from budeval.client import RetryRequest


def retry(
    context: typer.Context,
    eval_id: EvalArgument,
    poll_interval: PollIntervalOption = None,
    max_checks: Annotated[int | None, typer.Option(help="Looks at the Jobs before it is timed out.")] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=QUANTITY", help="Resource requested for each Job, e.g. cpu=500m; repeatable."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=QUANTITY", help="Limit of each Job, e.g. memory=4Gi; repeatable."),
    ] = None,
    api_key_env: ApiKeyVariable = None,
    api_key_file: ApiKeyFile = None,
    api_key_prompt: ApiKeyPrompt = False,
    kubeconfig_file: Annotated[Path | None, typer.Option(help="kubeconfig of the evaluation's own cluster.")] = None,
    watch: WatchOption = False,
    _json: JsonOption = False,
) -> None:
    """Run the failed, incomplete or cancelled runs of an evaluation again; questions that were answered stay answered.

    The endpoint's key is needed again where the evaluation had one: it was erased when the evaluation ended.
    """
    session = session_of(context)
    key = secret_from("API key", variable=api_key_env, file=api_key_file, prompt=api_key_prompt)
    configs = {"poll_interval": poll_interval, "max_checks": max_checks}
    asked = RetryRequest.model_validate(
        {
            "api_key": key or "",
            "kubeconfig": secret_from("kubeconfig", file=kubeconfig_file),
            "configs": {name: value for name, value in configs.items() if value is not None},
            "requests": _quantities("--request", request),
            "limits": _quantities("--limit", limit),
        }
    )
    output = session.output
    with session.client() as client:
        begun = client.retry(str(eval_id), asked)
        if watch:
            output.note(f"evaluation {eval_id}, attempt {begun.attempt}")
            raise typer.Exit(follow(client, output, str(eval_id)))
    if output.json:
        output.data(begun)
    elif output.terminal:
        output.line(f"evaluation {eval_id}: attempt {begun.attempt} with {_runs(len(begun.run_ids))}")
        output.note(f"budeval watch {eval_id} follows it.")
    else:
        output.line(str(eval_id))


def delete(
    context: typer.Context,
    eval_id: EvalArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    _json: JsonOption = False,
) -> None:
    """Delete an evaluation that has ended: its Jobs, its files on the volume, its scores and its timeline."""
    session = session_of(context)
    if not yes:
        _confirm(f"Delete evaluation {eval_id} with its files and scores?")
    with session.client() as client:
        client.delete(str(eval_id))
    if session.output.json:
        session.output.data({"eval_id": str(eval_id), "deleted": True})
    else:
        session.output.line(f"evaluation {eval_id} is deleted")


def resend(context: typer.Context, eval_id: EvalArgument, _json: JsonOption = False) -> None:
    """Send the notifications again of which nobody knows whether they reached their topic; `show` names them.

    Look at the subscriber first: one that has them already would count them twice.
    """
    session = session_of(context)
    with session.client() as client:
        evaluation = client.resend(str(eval_id))
    if session.output.json:
        session.output.data(evaluation)
    else:
        waiting = evaluation.notifications.waiting
        later = f"; {waiting} are sent when the broker takes them" if waiting else ""
        session.output.line(f"evaluation {eval_id}: sent again{later}")


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageProblem("there is no terminal to ask on; --yes deletes without asking")
    if not typer.confirm(question, err=True):
        raise UsageProblem("nothing was deleted")


def _quantities(option: str, given: list[str] | None) -> dict[str, Any]:
    quantities: dict[str, Any] = {}
    for text in given or []:
        name, equals, quantity = text.partition("=")
        if not name or not equals or not quantity:
            raise UsageProblem(f"{option} {text!r}: give NAME=QUANTITY, e.g. memory=4Gi")
        if name in quantities:
            raise UsageProblem(f"{option}: {name} is given twice")
        quantities[name] = quantity
    return quantities


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"

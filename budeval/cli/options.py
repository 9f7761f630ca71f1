"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from budeval.cli.errors import UsageProblem
from budeval.cli.session import Session
from budeval.client import BudevalClientError, Client

COMPLETION_SECONDS = 2.0
COMPLETED_ITEMS = 50


def session_of(context: typer.Context) -> Session:
    """The session of a command."""
    session = context.find_object(Session)
    if session is None:
        raise LookupError("the command was not called through the application")
    return session


def _remember_json(context: typer.Context, value: bool) -> bool:
    # Remembered at once, so that errors are JSON as well.
    session_of(context).output.json = value
    return value


def _recent(incomplete: str) -> list[str]:
    try:
        with _short_client() as client:
            page = client.evaluations(page_size=COMPLETED_ITEMS)
            ids = [summary.eval_id for summary, _ in zip(page, range(COMPLETED_ITEMS), strict=False)]
    except (BudevalClientError, UsageProblem, ValueError):
        return []
    return [eval_id for eval_id in ids if eval_id.startswith(incomplete)]


def _datasets(incomplete: str) -> list[str]:
    try:
        with _short_client() as client:
            return [found.dataset_id for found in client.datasets(search=incomplete or None, usable=True)
                    if found.dataset_id.startswith(incomplete)]  # fmt: skip
    except (BudevalClientError, UsageProblem, ValueError):
        return []


def _short_client() -> Client:
    target = Session().target()
    return Client(target.server, target.token, timeout=COMPLETION_SECONDS, patience=0)


EvalArgument = Annotated[
    UUID, typer.Argument(metavar="EVAL", help="The evaluation's id.", autocompletion=_recent, show_default=False)
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON.", callback=_remember_json, is_eager=True, show_default=False)
]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")]
PollIntervalOption = Annotated[int | None, typer.Option(help="Seconds between two looks at the Jobs.")]
ApiKeyVariable = Annotated[
    str | None, typer.Option(metavar="VARIABLE", help="Environment variable with the endpoint's key.")
]
ApiKeyFile = Annotated[Path | None, typer.Option(help="File with the endpoint's key; - for input.")]
ApiKeyPrompt = Annotated[bool, typer.Option("--api-key-prompt", help="Ask for the endpoint's key.")]
DatasetCompletion = _datasets

"""``datasets`` and ``engines``."""

import itertools
from typing import Annotated

import typer

from budeval.cli.options import JsonOption, session_of

DATASET_HEADERS = ("data set", "engine", "kind", "usable", "can be limited", "present", "questions", "metrics")


def datasets(
    context: typer.Context,
    search: Annotated[str | None, typer.Argument(help="Part of the name.", show_default=False)] = None,
    engine: Annotated[str | None, typer.Option(help="Of this engine only.")] = None,
    all_kinds: Annotated[
        bool, typer.Option("--all", "-a", help="Also those that cannot be run against a chat API.")
    ] = False,
    present: Annotated[bool, typer.Option("--present", "-p", help="Only those that lie on the volume.")] = False,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh", help="Have the service look at the volume now; takes some seconds and the role operator."
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many.")] = None,
    _json: JsonOption = False,
) -> None:
    """List the data sets that can be evaluated on."""
    session = session_of(context)
    with session.client() as client:
        found = client.datasets(
            engine=engine, search=search, usable=None if all_kinds else True,
            present=True if present else None, refresh=refresh,
        )  # fmt: skip
        listed = list(itertools.islice(found, limit))
    if session.output.json:
        return session.output.data(listed)
    rows = [
        [item.dataset_id, item.engine, item.kind, _word(item.usable), _word(not item.whole), _word(item.present),
         "" if item.questions is None else str(item.questions), ", ".join(item.metrics)]
        for item in listed
    ]  # fmt: skip
    session.output.table(DATASET_HEADERS, rows)
    if session.output.terminal and any(item.present is None for item in listed):
        session.output.note("?: not known; budeval datasets --refresh has the service look at the volume.")
    return None


def engines(context: typer.Context, _json: JsonOption = False) -> None:
    """List the engines, with the parameters that each takes."""
    session = session_of(context)
    with session.client() as client:
        found = client.engines()
    if session.output.json:
        return session.output.data(found)
    rows = [
        [item.name, item.version, f"{item.usable_datasets} of {item.datasets}",
         ", ".join(item.parameters.get("properties", {}))] for item in found
    ]  # fmt: skip
    return session.output.table(("engine", "version", "usable data sets", "parameters"), rows)


def _word(value: bool | None) -> str:
    return "?" if value is None else "yes" if value else "no"

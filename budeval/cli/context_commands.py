"""``context set``, ``list``, ``use`` and ``remove``."""

import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr, ValidationError

from budeval.cli.contexts import Context, changed_contexts, read_contexts
from budeval.cli.errors import UsageProblem
from budeval.cli.options import JsonOption, session_of
from budeval.cli.secret_input import secret_from

contexts_app = typer.Typer(
    help="Services by name, with their tokens, in a file that only you can read.", no_args_is_help=True
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The context's name.", show_default=False)]


@contexts_app.command("set")
def set_context(
    context: typer.Context,
    name: NameArgument,
    server: Annotated[str | None, typer.Option(help="Base URL of the service.")] = None,
    token_env: Annotated[str | None, typer.Option(metavar="VARIABLE", help="Variable with its token.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with its token; - for standard input.")] = None,
    token_prompt: Annotated[bool, typer.Option("--token-prompt", help="Ask for its token.")] = False,
    _json: JsonOption = False,
) -> None:
    """Make or change a context. The first one is used at once. A new server forgets the old server's token."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise UsageProblem("a context's name has letters, digits, dots, dashes and underscores, 64 at most")
    token = secret_from("token", variable=token_env, file=token_file, prompt=token_prompt)
    with changed_contexts() as contexts:
        old = contexts.contexts.get(name)
        if server is None and old is None:
            raise UsageProblem(f"there is no context {name!r} yet; give --server")
        kept = old.token if old and server in (None, old.server) else None
        contexts.contexts[name] = _checked(server or (old.server if old else ""), token, kept)
        contexts.current = contexts.current or name
    _tell(context, f"context {name} is set", name)


@contexts_app.command("list")
def list_contexts(context: typer.Context, _json: JsonOption = False) -> None:
    """List the contexts; tokens are not shown."""
    output, contexts = session_of(context).output, read_contexts()
    if output.json:
        output.data([
            {"name": name, "server": item.server, "has_token": bool(item.token), "current": name == contexts.current}
            for name, item in sorted(contexts.contexts.items())
        ])  # fmt: skip
        return
    rows = [
        ["*" if name == contexts.current else "", name, item.server, "yes" if item.token else "no"]
        for name, item in sorted(contexts.contexts.items())
    ]
    output.table(("current", "name", "server", "token"), rows)


@contexts_app.command("use")
def use_context(context: typer.Context, name: NameArgument, _json: JsonOption = False) -> None:
    """Use a context from now on."""
    with changed_contexts() as contexts:
        _must_exist(name, contexts.contexts)
        contexts.current = name
    _tell(context, f"context {name} is used from now on", name)


@contexts_app.command("remove")
def remove_context(context: typer.Context, name: NameArgument, _json: JsonOption = False) -> None:
    """Remove a context and its token."""
    with changed_contexts() as contexts:
        _must_exist(name, contexts.contexts)
        del contexts.contexts[name]
        contexts.current = None if contexts.current == name else contexts.current
    _tell(context, f"context {name} is removed", name)


def _checked(server: str, token: str | None, kept: SecretStr | None) -> Context:
    try:
        return Context(server=server, token=SecretStr(token) if token else kept)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise UsageProblem(message) from error


def _must_exist(name: str, contexts: dict[str, Context]) -> None:
    if name not in contexts:
        raise UsageProblem(f"there is no context {name!r}; known: {', '.join(sorted(contexts)) or 'none'}")


def _tell(context: typer.Context, text: str, name: str) -> None:
    output = session_of(context).output
    if output.json:
        output.data({"name": name})
    else:
        output.line(text)

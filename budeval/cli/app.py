"""The application: commands, options that all have, and what errors end with."""

import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from budeval import __version__
from budeval.cli import (
    access_commands,
    attempt_commands,
    catalogue_commands,
    evaluation_commands,
    log_commands,
    preflight_commands,
)
from budeval.cli.context_commands import contexts_app
from budeval.cli.doctor import doctor
from budeval.cli.errors import EXIT_CODES_HELP, ExitCode, UsageProblem, advice, exit_code
from budeval.cli.session import CONTEXT_VARIABLE, Session
from budeval.client import SERVER_VARIABLE, BudevalClientError, ProblemError

PROGRAM = "budeval"
COMPLETION_VARIABLE = "_BUDEVAL_COMPLETE"


class Commands(TyperGroup):
    """Turns errors into a sentence for the user and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Carries out the command."""
        try:
            return super().invoke(ctx)
        except UsageProblem as problem:
            ctx.obj.output.error(str(problem))
            raise typer.Exit(ExitCode.USAGE) from problem
        except BudevalClientError as error:
            details = {"problem": error.problem.model_dump(mode="json")} if isinstance(error, ProblemError) else None
            ctx.obj.output.error(str(error), advice(error), details)
            raise typer.Exit(exit_code(error)) from error
        except BrokenPipeError as error:
            # What is still buffered has nowhere to go, and the interpreter would complain at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.PIPE_CLOSED) from error


app = typer.Typer(
    name=PROGRAM,
    cls=Commands,
    help="Evaluate language models: start evaluations, follow them, read their scores.",
    epilog=EXIT_CODES_HELP,
    # Frames and colours are for people; a pipe gets plain help and plain messages.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"budeval {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help=f"The service (or {SERVER_VARIABLE}, or a context).")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--context", metavar="NAME", help=f"The context to use (or {CONTEXT_VARIABLE}).")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Evaluate language models: start evaluations, follow them, read their scores.

    The token comes from BUDEVAL_TOKEN, from the file that BUDEVAL_TOKEN_FILE names, or from the context.
    """
    context.obj = Session(server=server, context=name)


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Your shell.")] = "bash",
) -> None:
    """Print the completion for a shell, e.g. source <(budeval completion bash); --install-completion installs it."""
    os.environ[COMPLETION_VARIABLE] = f"source_{shell}"
    app(args=[], prog_name=PROGRAM, complete_var=COMPLETION_VARIABLE)


_COMMANDS: dict[str, Callable[..., None]] = {
    "start": evaluation_commands.start,
    "validate": preflight_commands.validate,
    "list": evaluation_commands.list_evaluations,
    "show": evaluation_commands.show,
    "watch": evaluation_commands.watch,
    "logs": log_commands.logs,
    "results": evaluation_commands.results,
    "cancel": evaluation_commands.cancel,
    "retry": attempt_commands.retry,
    "resend": attempt_commands.resend,
    "delete": attempt_commands.delete,
    "gate": evaluation_commands.gate,
    "datasets": catalogue_commands.datasets,
    "engines": catalogue_commands.engines,
    "schema": evaluation_commands.schema,
    "whoami": access_commands.whoami,
    "doctor": doctor,
    "completion": completion,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, epilog=EXIT_CODES_HELP)(_command)
app.add_typer(contexts_app, name="context")
app.add_typer(access_commands.tokens_app, name="token")


def main() -> None:
    """Runs the command of ``sys.argv`` and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A locale that lacks a character is no reason to show nothing.
            stream.reconfigure(errors="replace")
    app(prog_name=PROGRAM)

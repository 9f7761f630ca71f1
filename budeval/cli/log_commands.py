"""``logs``: what the engine says, of one run or of all runs of an evaluation."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from budeval.cli.errors import ExitCode
from budeval.cli.options import EvalArgument, JsonOption, session_of
from budeval.cli.output import Output, shown
from budeval.client import BudevalClientError, Client, NotFound

Line = tuple[str, str]
"""Run id and text."""
Reader = Callable[[str], Iterator[str]]
"""The log of a run, by its id."""


def logs(
    context: typer.Context,
    eval_id: EvalArgument,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run's id; left out: all runs.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the runs have ended.")] = False,
    tail: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only the last N lines.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only lines of the last 90s, 10m, 1h30m, ...", show_default=False),
    ] = None,
    _json: JsonOption = False,
) -> None:
    """Show the engine's log. Lines of several runs begin with the run's id. With --json, one JSON object a line."""
    session = session_of(context)
    with session.client() as client:
        runs = [run] if run is not None else [each.run_id for each in client.evaluation(str(eval_id)).runs]

        def read(run_id: str) -> Iterator[str]:
            return client.logs(str(eval_id), run_id, tail=tail, since=since, follow=follow)

        try:
            lines = read_together(read, runs) if follow else _one_after_the_other(read, runs, session.output)
            _print(lines, session.output, several=len(runs) > 1)
            if follow:
                raise typer.Exit(_end(client, str(eval_id), runs, session.output))
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def _print(lines: Iterator[Line], output: Output, *, several: bool) -> None:
    for run_id, text in lines:
        if output.json:
            output.data({"run_id": run_id, "line": text}, one_line=True)
        else:
            output.raw(shown(f"[{run_id}] {text}" if several else text))


def _one_after_the_other(read: Reader, runs: list[str], output: Output) -> Iterator[Line]:
    """Runs without a log are told beside the others; where none has one, that is the error."""
    missing: list[NotFound] = []
    for run_id in runs:
        try:
            yield from ((run_id, text) for text in read(run_id))
        except NotFound as error:
            missing.append(error)
            if len(runs) > 1:
                output.note(str(error))
    if len(missing) == len(runs):
        raise missing[0]


def read_together(read: Reader, runs: list[str]) -> Iterator[Line]:
    """Lines of all runs as they come. The first error ends it."""
    if len(runs) == 1:
        yield from ((runs[0], text) for text in read(runs[0]))
        return
    # Bounded, so that a log is read no faster than it is printed.
    heard: queue.Queue[Line | Exception | None] = queue.Queue(maxsize=1000)

    def listen(run_id: str) -> None:
        try:
            for text in read(run_id):
                heard.put((run_id, text))
            heard.put(None)
        except Exception as error:  # noqa: BLE001 - the thread's outermost boundary: raised again where it is seen
            heard.put(error)

    for run_id in runs:
        threading.Thread(target=listen, args=(run_id,), name=f"log of {run_id}", daemon=True).start()
    remaining = len(runs)
    while remaining:
        match heard.get():
            case None:
                remaining -= 1
            case Exception() as error:
                raise error
            case line:
                yield line


def _end(client: Client, eval_id: str, runs: list[str], output: Output) -> ExitCode:
    """A service that cannot read a log any more ends it with a word of its own."""
    try:
        evaluation = client.evaluation(eval_id)
    except BudevalClientError as error:
        output.error(f"the service ended the log: {error}", "budeval doctor says more.")
        return ExitCode.UNREACHABLE
    going_on = [run for run in evaluation.runs if run.run_id in runs and run.status not in ("Succeeded", "Failed")]
    if going_on and not evaluation.ended:
        output.error("the service ended the log before the run has ended", f"budeval logs -f {eval_id} goes on.")
        return ExitCode.UNREACHABLE
    return ExitCode.GOOD

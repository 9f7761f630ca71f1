"""Following an evaluation until it has ended."""

from collections.abc import Callable, Iterator

from rich.live import Live

from budeval.cli.errors import ExitCode
from budeval.cli.output import Output
from budeval.cli.views import live_view, log_lines
from budeval.client import Client, Evaluation


def follow(client: Client, output: Output, eval_id: str) -> ExitCode:
    """Shows the evaluation until it has ended: live on a terminal, in lines in a pipe, as one JSON object a line."""
    try:
        last = _shown(client.watch(eval_id), output)
    except KeyboardInterrupt:
        output.note(
            f"The evaluation goes on. Follow it again: budeval watch {eval_id}. End it: budeval cancel {eval_id}."
        )
        return ExitCode.INTERRUPTED
    return outcome(last)


def outcome(evaluation: Evaluation) -> ExitCode:
    """The exit code for an evaluation that has ended."""
    return ExitCode.GOOD if evaluation.succeeded else ExitCode.FAILED


def _shown(states: Iterator[Evaluation], output: Output) -> Evaluation:
    if output.json:
        return _each(states, lambda state: output.data(state, one_line=True))
    if output.terminal:
        with Live(console=output.console, refresh_per_second=4, vertical_overflow="visible") as live:
            return _each(states, lambda state: live.update(live_view(state)))
    told: set[str] = set()

    def tell(state: Evaluation) -> None:
        fresh = [line for line in log_lines(state) if line not in told]
        told.update(fresh)
        for line in fresh:
            output.line(line)

    return _each(states, tell)


def _each(states: Iterator[Evaluation], show: Callable[[Evaluation], None]) -> Evaluation:
    for state in states:
        show(state)
    return state

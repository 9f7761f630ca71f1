"""``start``, ``list``, ``show``, ``watch``, ``results``, ``cancel`` and ``gate``."""

import itertools
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer

from budeval.cli.errors import ExitCode, UsageProblem
from budeval.cli.evaluation_file import evaluation_schema
from budeval.cli.gate import InvalidExpression, Verdict, judge, known_subjects, parse_gate
from budeval.cli.options import DatasetCompletion, EvalArgument, JsonOption, WatchOption, session_of
from budeval.cli.output import Output
from budeval.cli.preflight_commands import start_valid
from budeval.cli.request_options import with_request_options
from budeval.cli.views import (
    RESULT_HEADERS,
    RUN_HEADERS,
    SUMMARY_HEADERS,
    failures,
    head_lines,
    result_rows,
    results_markdown,
    run_row,
    step_lines,
    summary_row,
    timeline_row,
)
from budeval.cli.watching import follow, outcome
from budeval.client import Evaluation, EvaluationRequest

TIME_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


class Sort(StrEnum):
    """Orders of a list."""

    CREATED = "created_at"
    CREATED_DOWN = "-created_at"
    ENDED = "ended_at"
    ENDED_DOWN = "-ended_at"
    MODEL = "model"
    MODEL_DOWN = "-model"


class Status(StrEnum):
    """Statuses of an evaluation."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TERMINATED = "TERMINATED"


@with_request_options
def start(
    context: typer.Context,
    request: EvaluationRequest,
    watch: WatchOption = False,
    validate: Annotated[
        bool, typer.Option("--validate", help="Look first whether it can run, and start it only then.")
    ] = False,
    _json: JsonOption = False,
) -> None:
    """Start an evaluation, from options or from a file."""
    session = session_of(context)
    with session.client() as client:
        started = start_valid(client, session.output, request) if validate else client.start(request)
        if not watch:
            _tell_started(session.output, started.eval_id, started)
            return
        session.output.note(f"evaluation {started.eval_id}")
        raise typer.Exit(follow(client, session.output, started.eval_id))


def list_evaluations(
    context: typer.Context,
    status: Annotated[Status | None, typer.Option(case_sensitive=False, help="Only with this status.")] = None,
    queued: Annotated[
        bool | None, typer.Option("--queued/--not-queued", help="Only those that wait for a place, or do not.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Only on this data set.", autocompletion=DatasetCompletion)
    ] = None,
    source: Annotated[str | None, typer.Option(help="Only asked for by this source.")] = None,
    requested_by: Annotated[str | None, typer.Option(help="Only asked for by this caller; see whoami.")] = None,
    experiment: Annotated[UUID | None, typer.Option(help="Only of this experiment.")] = None,
    after: Annotated[
        datetime | None, typer.Option(formats=TIME_FORMATS, metavar="TIME", help="Created after, e.g. 2026-01-31.")
    ] = None,
    before: Annotated[
        datetime | None, typer.Option(formats=TIME_FORMATS, metavar="TIME", help="Created before.")
    ] = None,
    sort: Annotated[Sort, typer.Option(help="Order; - for the reverse.")] = Sort.CREATED_DOWN,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    _json: JsonOption = False,
) -> None:
    """List evaluations, the newest first."""
    session = session_of(context)
    with session.client() as client:
        found = client.evaluations(
            status=status, queued=queued, model=model, dataset=dataset, source=source, sort=sort,
            requested_by=requested_by, page_size=min(limit, 200),
            experiment_id=str(experiment) if experiment else None,
            created_after=_aware(after), created_before=_aware(before),
        )  # fmt: skip
        evaluations = list(itertools.islice(found, limit))
    if session.output.json:
        session.output.data(evaluations)
    else:
        session.output.table(SUMMARY_HEADERS, [summary_row(summary) for summary in evaluations])


def show(
    context: typer.Context,
    eval_id: EvalArgument,
    timeline: Annotated[bool, typer.Option("--timeline", "-t", help="Also everything that happened.")] = False,
    _json: JsonOption = False,
) -> None:
    """Show an evaluation: its steps, its runs, and why something failed."""
    session = session_of(context)
    with session.client() as client:
        evaluation = client.evaluation(str(eval_id))
        entries = list(client.timeline(str(eval_id))) if timeline else []
    output = session.output
    if output.json:
        told = evaluation.model_dump(mode="json")
        output.data({**told, "timeline": [entry.model_dump(mode="json") for entry in entries]} if timeline else told)
        return
    for line in [*head_lines(evaluation), *step_lines(evaluation)]:
        output.line(line)
    output.table(RUN_HEADERS, [run_row(run) for run in evaluation.runs])
    for line in failures(evaluation):
        output.line(line, "red")
    if timeline:
        rows = [timeline_row(entry) for entry in entries]
        output.table(("when", "kind", "times", "what", "message"), rows)


def watch(context: typer.Context, eval_id: EvalArgument, _json: JsonOption = False) -> None:
    """Follow an evaluation to its end: progress, minutes left, reasons. With --json, one JSON object a line."""
    session = session_of(context)
    with session.client() as client:
        raise typer.Exit(follow(client, session.output, str(eval_id)))


def results(
    context: typer.Context,
    eval_id: EvalArgument,
    _json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Show the scores."""
    session = session_of(context)
    output = session.output
    if sum((output.json, csv, markdown)) > 1:
        raise UsageProblem("choose one of --json, --csv and --markdown")
    with session.client() as client:
        if csv:
            return output.raw(client.results_csv(str(eval_id)))
        found = client.results(str(eval_id))
    if output.json:
        return output.data(found)
    if markdown:
        return output.raw(results_markdown(found))
    return output.table(RESULT_HEADERS, result_rows(found))


def cancel(
    context: typer.Context,
    eval_id: EvalArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended and its Jobs are gone.")] = False,
    _json: JsonOption = False,
) -> None:
    """Cancel an evaluation; harmless when it has ended."""
    session = session_of(context)
    with session.client() as client:
        evaluation = client.cancel(str(eval_id))
        if wait:
            *_, evaluation = client.watch(str(eval_id))
    if session.output.json:
        session.output.data(evaluation)
    elif evaluation.ended:
        session.output.line(f"evaluation {eval_id}: {evaluation.status}")
    else:
        session.output.line(f"evaluation {eval_id} is being cancelled; budeval watch {eval_id} shows it end")


def gate(
    context: typer.Context,
    eval_id: EvalArgument,
    expression: Annotated[
        str, typer.Argument(help="E.g. 'siqa.accuracy >= 35 and piqa.accuracy > 50'.", show_default=False)
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the evaluation has ended.")] = False,
    _json: JsonOption = False,
) -> None:
    """Exit with 0 only where the evaluation completed and its scores are good enough.

    A condition is DATASET.METRIC OP NUMBER with OP one of >= <= > < == !=, joined by "and"; names with spaces stand in
    double quotes. A score that does not exist meets nothing.
    """
    try:
        conditions = parse_gate(expression)
    except InvalidExpression as error:
        raise UsageProblem(f"{error}. Example: 'siqa.accuracy >= 35 and piqa.accuracy > 50'") from error
    session = session_of(context)
    with session.client() as client:
        evaluation = client.evaluation(str(eval_id))
        if wait:
            for state in client.watch(str(eval_id)):
                evaluation = state
    verdicts = judge(conditions, evaluation)
    met = evaluation.succeeded and all(verdict.met for verdict in verdicts)
    if session.output.json:
        session.output.data({"eval_id": str(eval_id), "status": evaluation.status, "met": met,
                             "conditions": [_verdict(verdict) for verdict in verdicts]})  # fmt: skip
    else:
        _tell_gate(session.output, evaluation, verdicts)
    raise typer.Exit(ExitCode.GOOD if met else ExitCode.FAILED)


def schema() -> None:
    """Print the JSON schema of evaluation.yaml, for editors.

    An editor completes and checks a file whose first line is "# yaml-language-server: $schema=evaluation.schema.json".
    """
    Output().data(evaluation_schema())


def _tell_started(output: Output, eval_id: str, started: Any) -> None:
    if output.json:
        output.data(started)
    elif output.terminal:
        output.line(f"started evaluation {eval_id}")
        output.note(f"budeval watch {eval_id} follows it.")
    else:
        # For eval_id=$(budeval start ...).
        output.line(eval_id)


def _aware(time: datetime | None) -> datetime | None:
    return time.astimezone(UTC) if time else None


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {**vars(verdict.condition), "scores": list(verdict.scores), "met": verdict.met}


def _tell_gate(output: Output, evaluation: Evaluation, verdicts: list[Verdict]) -> None:
    rows = [
        [str(verdict.condition), ", ".join(f"{score:g}" for score in verdict.scores) or "no score",
         "met" if verdict.met else "not met"] for verdict in verdicts
    ]  # fmt: skip
    output.table(("condition", "score", "verdict"), rows)
    if not evaluation.ended:
        output.note("The evaluation has not ended; --wait waits for it.")
    elif outcome(evaluation) is not ExitCode.GOOD:
        output.note(f"The evaluation is {evaluation.status}, so the gate is not met.")
    if any(not verdict.scores for verdict in verdicts):
        output.note(f"Scores: {', '.join(known_subjects(evaluation)) or 'none'}")

"""Evaluations as words, rows and documents."""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from budeval.cli.output import STATUS_STYLES, shown
from budeval.client import ErrorInfo, Evaluation, EvaluationSummary, Results, Run, TimelineEntry

SUMMARY_HEADERS = ("evaluation", "status", "model", "data sets", "runs", "left", "created", "attempt")
RUN_HEADERS = ("run", "data set", "status", "questions", "scores")
RESULT_HEADERS = ("data set", "version", "metric", "mode", "score", "status", "reason")
MARKS = {"PENDING": "·", "RUNNING": "▸", "COMPLETED": "✓"}


def when(time: datetime | None) -> str:
    """A time in the user's zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""


def timeline_row(entry: TimelineEntry) -> list[str]:
    """A row for something that happened."""
    what = f"{entry.title}, by {entry.actor}" if entry.actor else entry.title
    return [when(entry.at), entry.kind, str(entry.count), what, entry.message or ""]


def minutes_left(minutes: int | None, status: str) -> str:
    """The estimate as a word; empty where there is none."""
    if not minutes or status not in ("STARTED", "RUNNING", "PENDING"):
        return ""
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def place(evaluation: Evaluation) -> str:
    """Where an evaluation stands in the queue, and what for; empty where it does not wait."""
    queue = evaluation.queue
    if queue is None:
        return ""
    whose = "" if queue.scope == "all" else " of the same requester"
    why = f": at most {queue.limit} {queue.waiting_for}{whose} at once" if queue.waiting_for else ""
    return f"waiting, place {queue.position}{why}"


def summary_row(summary: EvaluationSummary) -> list[str]:
    """A row of a list."""
    runs = f"{summary.runs_succeeded}/{summary.runs_total}"
    failed = f", {summary.runs_failed} failed" if summary.runs_failed else ""
    return [
        summary.eval_id,
        summary.status,
        summary.model_name,
        ", ".join(summary.datasets),
        runs + failed,
        "waiting" if summary.queued else minutes_left(summary.eta_minutes, summary.status),
        when(summary.created_at),
        str(summary.attempt) if summary.attempt > 1 else "",
    ]


def run_row(run: Run) -> list[str]:
    """A row for a run."""
    return [run.run_id, run.dataset_id, run.status, questions(run), scores_text(run)]


def questions(run: Run) -> str:
    """How far a run is."""
    progress = run.progress
    return f"{progress.done} of {progress.total}" if progress.total else progress.phase


def scores_text(run: Run) -> str:
    """The scores of a run on one line."""
    return ", ".join(f"{score.metric} {score.score:.2f}" for score in run.scores)


def error_lines(error: ErrorInfo) -> list[str]:
    """A failure and its fix."""
    first = f"{error.reason}: {error.message}" if error.message else error.reason
    return [first, f"What to do: {error.resolution}"] if error.resolution else [first]


def failures(evaluation: Evaluation) -> list[str]:
    """Every reason with its fix; a reason that several runs share with the same words is told once."""
    lines: dict[str, None] = {}
    for run in evaluation.runs:
        if run.error:
            first, *rest = error_lines(run.error)
            lines |= dict.fromkeys([f"{run.dataset_id} ({run.run_id}): {first}", *(f"  {line}" for line in rest)])
    if evaluation.error:
        lines |= dict.fromkeys(error_lines(evaluation.error))
    return [*lines, *doubts(evaluation)]


def doubts(evaluation: Evaluation) -> list[str]:
    """What subscribers may not have been told, and what can be done."""
    unknown = evaluation.notifications.unknown
    lines = [f"Whether {each.event} reached the topic {each.topic} is unknown." for each in unknown]
    resend = f"budeval resend {evaluation.eval_id}"
    return [*lines, f"What to do: look whether the subscriber has it; if it does not, {resend}"] if lines else []


def head_lines(evaluation: Evaluation) -> list[str]:
    """What an evaluation is, and how it stands."""
    left = minutes_left(evaluation.eta_minutes, evaluation.status)
    cancelled = f", cancelled by {evaluation.cancelled_by}" if evaluation.cancelled_by else ""
    waiting = f", {place(evaluation)}" if evaluation.queue else ""
    attempt = f", attempt {evaluation.attempt}" if evaluation.attempt > 1 else ""
    times = f"created {when(evaluation.created_at)}"
    times += f", ended {when(evaluation.ended_at)}" if evaluation.ended_at else ""
    return [
        f"{evaluation.eval_id}  {evaluation.status}{attempt}{waiting}{cancelled}"
        + (f", about {left} left" if left else ""),
        f"{evaluation.model_name} by {evaluation.engine}, asked for by {_asker(evaluation)}, {times}",
    ]


def _asker(evaluation: Evaluation) -> str:
    by = evaluation.requested_by
    return evaluation.source if by in (None, evaluation.source) else f"{by} for {evaluation.source}"


def live_view(evaluation: Evaluation) -> RenderableType:
    """The evaluation on a terminal: steps, a bar for each run, reasons."""
    table = Table(*RUN_HEADERS[1:4], "", "scores", box=None, pad_edge=False, header_style="bold")
    for run in evaluation.runs:
        progress = run.progress
        bar = ProgressBar(total=max(progress.total, 1), completed=progress.done, width=24) if progress.total else ""
        cells = [shown(cell) for cell in run_row(run)[1:]]
        table.add_row(cells[0], Text(cells[1], STATUS_STYLES.get(cells[1], "")), cells[2], bar, cells[3])
    first, *rest = head_lines(evaluation)
    lines = [Text(shown(first), f"bold {STATUS_STYLES.get(evaluation.status, '')}".strip())]
    lines += [Text(shown(line)) for line in rest]
    steps = [Text(shown(line), "dim") for line in step_lines(evaluation)]
    reasons = [Text(shown(line), "red") for line in failures(evaluation)]
    return Group(*lines, *steps, table, *reasons)


def step_lines(evaluation: Evaluation) -> list[str]:
    """Each step with how it stands."""
    return [
        f"{MARKS.get(step.status, '✗')} {step.title}" + (f": {step.message}" if step.message else "")
        for step in evaluation.steps
    ]


def log_lines(evaluation: Evaluation) -> list[str]:
    """The evaluation for a log: who follows it prints each line once."""
    left = minutes_left(evaluation.eta_minutes, evaluation.status)
    lines = [f"{step.title}: {step.status}" for step in evaluation.steps if step.status != "PENDING"]
    lines += [f"{run.dataset_id}: {questions(run)} questions" for run in evaluation.runs if run.progress.total]
    lines += [place(evaluation)] if evaluation.queue else []
    lines += [f"{run.dataset_id}: {run.status}" for run in evaluation.runs if run.status not in ("Pending", "Running")]
    lines += [f"about {left} left"] if left else []
    lines += failures(evaluation)
    return [*lines, f"evaluation {evaluation.eval_id}: {evaluation.status}"]


def result_rows(results: Results) -> Iterator[list[str]]:
    """A row for each score, and one for each run without any."""
    for run in results.results:
        last = [run.status, run.error.reason if run.error else ""]
        if not run.scores:
            yield [run.dataset_id, "", "", "", "", *last]
        for score in run.scores:
            yield [score.dataset, score.version, score.metric, score.mode, f"{score.score:.2f}", *last]


def results_markdown(results: Results) -> str:
    """A table for a pull request or a report."""
    rows = [RESULT_HEADERS, ["---"] * 4 + ["---:"] + ["---"] * 2, *result_rows(results)]
    return "".join("| " + " | ".join(_cell(cell) for cell in row) + " |\n" for row in rows)


def _cell(text: str) -> str:
    return shown(text).replace("\n", " ").replace("\\", "\\\\").replace("|", "\\|")

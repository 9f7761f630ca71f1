"""What it costs to give places, with a full record: milliseconds of each decision.

The record, a SQLite file, has 9,000 evaluations that have ended or run, and then 1,000 and 10,000 more that wait, each
with five runs. Least and median of the repetitions count.
"""

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import count

from cryptography.fernet import Fernet
from sqlalchemy import Engine, insert

from benchmarks.report import Report
from budeval.commons.clock import utc_now
from budeval.commons.sealing import EvaluationSecrets, Sealer
from budeval.commons.settings import AdmissionLimits, MonitorSettings
from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import Evaluation, ModelInfo, Run
from budeval.jobs.names import job_name
from budeval.record import Record
from budeval.record.database import open_database
from budeval.record.tables import EvaluationRow, RunRow

ENDED, RUNNING, WAITING, RUNS = 8_900, 100, (1_000, 10_000), 5
FULL = AdmissionLimits(evaluations=RUNNING, jobs=RUNNING * RUNS)


def fill(database: Engine, ended: int, running: int, waiting: int) -> list[str]:
    """Writes rows without ceremony; answers the ids of those that wait."""
    now = utc_now()
    states = [
        *[(WorkflowStatus.COMPLETED, now)] * ended,
        *[(WorkflowStatus.RUNNING, now)] * running,
        *[(WorkflowStatus.PENDING, None)] * waiting,
    ]
    evaluations = [an_evaluation() for _ in states]
    rows = [
        {
            "eval_id": evaluation.eval_id,
            "definition": evaluation.model_dump(mode="json"),
            "model_name": evaluation.model.model_name,
            "engine": evaluation.engine,
            "source": evaluation.source,
            "attempt": 1,
            "requested_by": f"requester-{number % 10}",
            "newest_sequence": 0,
            "status": status,
            "created_at": now,
            "admitted_at": admitted_at,
            "last_heard_at": now,
            "poll_interval": 30,
            "steps": {},
        }
        for number, (evaluation, (status, admitted_at)) in enumerate(zip(evaluations, states, strict=True))
    ]
    runs = [
        {
            "eval_id": evaluation.eval_id,
            "run_id": run.run_id,
            "position": position,
            "dataset_id": run.dataset_id,
            "job_name": job_name(evaluation.eval_id, run.run_id),
            "attempt": 1,
            "status": "Pending",
            "questions_done": 0,
            "questions_total": 0,
        }
        for evaluation in evaluations
        for position, run in enumerate(evaluation.runs)
    ]
    with database.execution_options(record_writes=True).begin() as connection:
        connection.execute(insert(EvaluationRow), rows)
        connection.execute(insert(RunRow), runs)
    return [row["eval_id"] for row in rows if row["admitted_at"] is None]


def an_evaluation() -> Evaluation:
    """An evaluation of five runs."""
    return Evaluation(
        eval_id=str(uuid.uuid4()),
        model=ModelInfo(model_name="small-model", endpoint="http://127.0.0.1:13200/v1"),
        runs=[Run(run_id=f"run-{number}", dataset_id="siqa_gen") for number in range(RUNS)],
        engine="opencompass",
        monitor=MonitorSettings(),
        source="bench",
        source_topics=["bench"],
    )


def create(record: Record) -> None:
    """A request that comes."""
    evaluation = an_evaluation()
    names = {run_id: job_name(evaluation.eval_id, run_id) for run_id in evaluation.run_ids}
    record.create(evaluation, EvaluationSecrets(), b"", names, "requester-1")


def measured(report: Report, title: str, action: Callable[[], object], repeats: int) -> None:
    """Adds a line with the least and the median of the repetitions."""
    action()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - began))
    report.row(title, f"{min(times):.1f}", f"{statistics.median(times):.1f}")


def bench(report: Report, database: Engine, repeats: int) -> None:
    """Adds the table."""
    sealer = Sealer([Fernet.generate_key().decode()])
    record = Record(database, sealer, FULL)
    unlimited = Record(database, sealer)
    report.table("admission", "least, ms", "median, ms")
    fill(database, ENDED, RUNNING, 0)
    measured(report, "a look whether anybody waits; nobody does", record.admission.admit, repeats)
    measured(report, "a request, without any limit", lambda: create(unlimited), repeats)
    waiting: list[str] = []
    for number in WAITING:
        waiting += fill(database, 0, 0, number - len(waiting))
        queue = f"{number:,} that wait"
        middle = waiting[number // 2]
        measured(report, f"`GET` of one among {queue}", lambda eval_id=middle: record.view(eval_id), repeats)
        measured(report, f"a look with {queue}; no place is free", record.admission.admit, repeats)
        measured(report, f"a request behind {queue}", lambda: create(record), repeats)
        places = count(record.admission.counts().running + 1)

        def one_more_place(places: Iterator[int] = places) -> None:
            more = AdmissionLimits(evaluations=next(places))
            assert len(Record(database, sealer, more).admission.admit()) == 1

        measured(report, f"a place for the first of {queue}", one_more_place, repeats)


def main(report: Report, options: argparse.Namespace) -> int:
    """Measures everything."""
    with tempfile.TemporaryDirectory(prefix="budeval-bench-") as directory:
        database = open_database(f"sqlite:///{directory}/record.sqlite")
        bench(report, database, options.repeats)
        database.dispose()
    return 0

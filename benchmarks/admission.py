"""What it costs to give places, with a full record: ``python -m benchmarks.admission``.

Prints milliseconds (least and median of the repetitions) of each decision, with 10,000 evaluations in the record, 100
of them running and 1,000 waiting, each with five runs. ``--database`` names a database of your own instead of a new
SQLite file; it must be empty.
"""

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from itertools import count

from cryptography.fernet import Fernet
from sqlalchemy import Engine, insert

from budeval.commons.clock import utc_now
from budeval.commons.sealing import EvaluationSecrets, Sealer
from budeval.commons.settings import AdmissionLimits, MonitorSettings
from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import Evaluation, ModelInfo, Run
from budeval.jobs.names import job_name
from budeval.record import Record
from budeval.record.database import open_database
from budeval.record.tables import EvaluationRow, RunRow

ENDED, RUNNING, WAITING, RUNS = 8_900, 100, 1_000, 5
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


def measured(action: Callable[[], object], repeats: int) -> str:
    """Least and median of the repetitions."""
    action()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - began))
    return f"{min(times):9.2f} {statistics.median(times):9.2f}"


def bench(url: str, repeats: int) -> None:
    """Prints the table."""
    sealer = Sealer([Fernet.generate_key().decode()])
    database = open_database(url)
    record = Record(database, sealer, FULL)
    fill(database, ENDED, RUNNING, 0)
    print(f"{'milliseconds':<52} {'least':>9} {'median':>9}")
    print(f"{'a look whether anybody waits; nobody does':<52} {measured(record.admission.admit, repeats)}")
    unlimited = Record(database, sealer)
    print(f"{'a request, without any limit':<52} {measured(lambda: create(unlimited), repeats)}")
    waiting = fill(database, 0, 0, WAITING)
    print(f"{f'a look with {WAITING} that wait; no place is free':<52} {measured(record.admission.admit, repeats)}")
    middle = waiting[WAITING // 2]
    print(f"{'GET of one that waits':<52} {measured(lambda: record.view(middle), repeats)}")
    print(f"{f'a request behind {WAITING} that wait':<52} {measured(lambda: create(record), repeats)}")
    places = count(record.admission.counts().running + 1)

    def one_more_place() -> None:
        more = AdmissionLimits(evaluations=next(places))
        assert len(Record(database, sealer, more).admission.admit()) == 1

    print(f"{f'a place for the first of {WAITING} that wait':<52} {measured(one_more_place, repeats)}")
    database.dispose()


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--database", help="SQLAlchemy URL")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench(args.database or f"sqlite:///{directory}/record.sqlite", args.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())

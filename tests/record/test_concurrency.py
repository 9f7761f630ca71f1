from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from budeval.commons.wire import STEPS, WorkflowStatus
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.models import JobState, Progress
from budeval.record.outbox import OutgoingMessage
from tests.samples import EVAL_ID, SECRETS, an_evaluation, job_names, write_down

THREADS = 8


def at_once(work):
    """Runs ``work(number)`` in many threads that begin together; answers what each answered."""
    together = Barrier(THREADS)

    def run(number):
        together.wait(timeout=30)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result(timeout=120) for future in [pool.submit(run, number) for number in range(THREADS)]]


def test_of_many_who_create_one_evaluation_exactly_one_wins(record):
    def create(number):
        evaluation = an_evaluation(run_ids=(f"run-{number}",))
        return record.create(evaluation, SECRETS, str(number).encode(), job_names(evaluation), "tester")

    won = at_once(create)
    assert sorted(won) == [False] * (THREADS - 1) + [True]
    winner = won.index(True)
    assert [run.run_id for run in record.view(EVAL_ID).runs] == [f"run-{winner}"]
    assert record.is_same_request(EVAL_ID, str(winner).encode())


def test_of_many_who_finish_an_evaluation_exactly_one_ends_it(record, evaluation):
    assert sorted(at_once(lambda _: record.finish(EVAL_ID, WorkflowStatus.COMPLETED))) == [False] * (THREADS - 1) + [
        True
    ]


def test_many_writers_wait_for_each_other_instead_of_failing(record, outbox):
    def live(number):
        evaluation = an_evaluation(f"{number:08}-e89b-12d3-a456-426614174020")
        eval_id = evaluation.eval_id
        record.create(evaluation, SECRETS, b"", job_names(evaluation), "tester")
        record.begin(eval_id)
        for step in STEPS:
            record.step(eval_id, step.event, WorkflowStatus.COMPLETED, "")
        for done in range(10):
            progress = Progress(phase="inference", done=done, total=10)
            record.update_runs(eval_id, [RunUpdate(run_id="run-a", status=JobState.RUNNING, progress=progress)])
            write_down(outbox, [_message(f"{done}")], eval_id)
            outbox.published(outbox.claim_next(eval_id).id)
        record.finish(eval_id, WorkflowStatus.COMPLETED)
        return record.view(eval_id)

    views = at_once(live)
    assert {view.status for view in views} == {"COMPLETED"}
    assert {view.runs[0].progress.done for view in views} == {9}


def test_writes_to_one_evaluation_do_not_lose_each_other(record, evaluation):
    steps = [step.event for step in STEPS]
    at_once(lambda number: record.step(EVAL_ID, steps[number % 4], WorkflowStatus.COMPLETED, f"{number % 4}"))
    assert [step.message for step in record.view(EVAL_ID).steps] == ["0", "1", "2", "3"]


def _message(event_id):
    return OutgoingMessage(event_id=event_id, event="eta", status="RUNNING", topic="t", message="", body={})

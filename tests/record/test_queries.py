from datetime import timedelta

import pytest
from sqlalchemy import event, update

from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import ErrorInfo, ModelInfo, Run, RunResult, Score
from budeval.record.queries import Criteria, Position, Sort, position_of
from budeval.record.tables import EvaluationRow
from tests.samples import NOW, SECRETS, an_evaluation, job_names

ENDPOINT = "http://127.0.0.1:13200/v1"
EXPERIMENT = "123e4567-e89b-12d3-a456-426614174000"
NUMBERS = range(12)


def id_of(number):
    return f"{number:08}-e89b-12d3-a456-426614174020"


def numbers(found):
    return [int(summary.eval_id[:8]) for summary in found]


def found(record, sort=Sort.CREATED, **criteria):
    return numbers(record.queries.find(Criteria(**criteria), sort, None, 200))


@pytest.fixture
def many(record, database):
    """Twelve evaluations: made two a minute, of three models, two sources; every third has ended, the newest first."""
    for number in NUMBERS:
        evaluation = an_evaluation(
            id_of(number),
            model=ModelInfo(model_name=f"model-{number % 3}", endpoint=ENDPOINT),
            source=("budapp", "pipeline")[number % 2],
            experiment_id=EXPERIMENT if number < 2 else None,
            runs=[Run(run_id="a", dataset_id="siqa_gen"), Run(run_id="b", dataset_id=f"set-{number % 4}")],
        )
        record.create(evaluation, SECRETS, b"", job_names(evaluation), f"tester-{number // 5}")
        if number % 3 == 0:
            record.finish(id_of(number), WorkflowStatus.COMPLETED)
    with database.begin() as connection:
        for number in NUMBERS:
            times = {"created_at": NOW + timedelta(minutes=number // 2)}
            if number % 3 == 0:
                times["ended_at"] = NOW + timedelta(hours=12 - number)
            connection.execute(update(EvaluationRow).where(EvaluationRow.eval_id == id_of(number)).values(times))
    return record


def test_nothing_is_found_in_an_empty_record(record):
    assert found(record) == []


def test_a_summary_says_how_an_evaluation_stands(record):
    runs = [Run(run_id=run_id, dataset_id=name) for run_id, name in (("a", "z_gen"), ("b", "a_gen"), ("c", "z_gen"))]
    evaluation = an_evaluation(id_of(1), runs=runs, experiment_id=EXPERIMENT)
    record.create(evaluation, SECRETS, b"", job_names(evaluation), "tester")
    record.begin(id_of(1))
    score = Score(dataset="z", version="1", metric="accuracy", mode="gen", score=1)
    broken = ErrorInfo(reason="OutOfMemory", message="too little")
    record.save_results(id_of(1), [RunResult(run_id="a", scores=[score]), RunResult(run_id="b", error=broken)])
    summary = record.queries.find(Criteria(), Sort.NEWEST, None, 10)[0]
    assert summary.model_dump(exclude={"created_at", "started_at"}) == {
        "eval_id": id_of(1),
        "experiment_id": EXPERIMENT,
        "status": "RUNNING",
        "queued": False,
        "model_name": "small-model",
        "engine": "opencompass",
        "source": "budapp",
        "attempt": 1,
        "requested_by": "tester",
        "datasets": ["z_gen", "a_gen"],
        "ended_at": None,
        "runs_total": 3,
        "runs_succeeded": 1,
        "runs_failed": 1,
        "eta_minutes": None,
        "error": None,
    }
    record.finish(id_of(1), WorkflowStatus.FAILED, broken)
    summary = record.queries.find(Criteria(), Sort.NEWEST, None, 10)[0]
    assert (summary.error, summary.runs_failed, summary.eta_minutes) == (broken, 2, 0)


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({"status": WorkflowStatus.COMPLETED}, [0, 3, 6, 9]),
        ({"status": WorkflowStatus.SUSPENDED}, []),
        ({"model": "model-1"}, [1, 4, 7, 10]),
        ({"model": "MODEL-1"}, []),
        ({"model": "model-%"}, []),
        ({"dataset": "set-3"}, [3, 7, 11]),
        ({"dataset": "siqa_gen"}, list(NUMBERS)),
        ({"source": "pipeline"}, [1, 3, 5, 7, 9, 11]),
        ({"requested_by": "tester-1"}, [5, 6, 7, 8, 9]),
        ({"experiment_id": EXPERIMENT}, [0, 1]),
        ({"created_after": NOW + timedelta(minutes=4)}, [8, 9, 10, 11]),
        ({"created_before": NOW + timedelta(minutes=1)}, [0, 1]),
        ({"created_after": NOW + timedelta(minutes=1), "created_before": NOW + timedelta(minutes=2)}, [2, 3]),
        ({"model": "model-0", "source": "pipeline", "dataset": "set-1"}, [9]),
    ],
)
def test_evaluations_are_found_by_what_they_are(many, criteria, expected):
    assert found(many, **criteria) == expected


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (Sort.CREATED, list(NUMBERS)),
        (Sort.NEWEST, list(reversed(NUMBERS))),
        (Sort.ENDED, [9, 6, 3, 0, 1, 2, 4, 5, 7, 8, 10, 11]),
        (Sort.LAST_ENDED, [11, 10, 8, 7, 5, 4, 2, 1, 0, 3, 6, 9]),
        (Sort.MODEL, [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]),
        (Sort.MODEL_BACKWARDS, [11, 8, 5, 2, 10, 7, 4, 1, 9, 6, 3, 0]),
    ],
)
def test_evaluations_are_sorted_and_what_has_not_ended_comes_after_all_ends(many, sort, expected):
    assert found(many, sort) == expected


def pages(record, sort, limit, between=lambda: None):
    after, seen = None, []
    while page := record.queries.find(Criteria(), sort, after, limit):
        seen.append(page)
        after = position_of(page[-1], sort)
        between()
    return [summary for page in seen for summary in page]


@pytest.mark.parametrize("limit", [1, 2, 5, 12])
@pytest.mark.parametrize("sort", Sort)
def test_pages_put_together_are_the_whole_list(many, sort, limit):
    assert numbers(pages(many, sort, limit)) == found(many, sort)


def test_new_evaluations_neither_repeat_nor_hide_others_on_later_pages(many):
    made = iter(range(100, 200))

    def somebody_starts_another():
        evaluation = an_evaluation(id_of(next(made)))
        many.create(evaluation, SECRETS, b"", job_names(evaluation), "tester")

    listed = numbers(pages(many, Sort.NEWEST, 5, somebody_starts_another))
    assert listed == list(reversed(NUMBERS))


def test_a_position_need_not_be_an_evaluation_that_is_there(many):
    nowhere = Position(NOW + timedelta(minutes=2, seconds=30), id_of(99))
    assert numbers(many.queries.find(Criteria(), Sort.CREATED, nowhere, 200)) == [6, 7, 8, 9, 10, 11]


def test_a_page_costs_two_queries_however_long_it_is(many, database):
    statements = []

    @event.listens_for(database, "before_cursor_execute")
    def _count(_connection, _cursor, statement, *_rest):
        statements.append(statement)

    assert len(found(many)) == 12
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 2

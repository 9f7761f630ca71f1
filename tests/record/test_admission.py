"""Places in the record: limits that hold, order, and what is left when somebody dies."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from budeval.commons.errors import InvalidEvaluation, NoPlace
from budeval.commons.settings import AdmissionLimits
from budeval.commons.wire import WorkflowStatus
from budeval.evals.admission import Deciding
from budeval.evals.end_rules import END_RULES
from budeval.record import Record, admission
from budeval.record.database import open_database
from budeval.record.queries import Criteria, Sort
from budeval.record.tables import EvaluationRow, RunRow
from tests.record.test_concurrency import THREADS, at_once
from tests.samples import SECRETS, a_sealer, an_evaluation, job_names


def id_of(number):
    return f"{number:08}-e89b-12d3-a456-426614174020"


def number_of(eval_id):
    return int(eval_id[:8])


def ask(record, number, jobs=1, by="alice", body=b"the request"):
    evaluation = an_evaluation(id_of(number), run_ids=[f"run-{position}" for position in range(jobs)])
    return record.create(evaluation, SECRETS, body, job_names(evaluation), by)


def queue(record, number):
    view = record.view(id_of(number)).queue
    return None if view is None else (view.position, view.waiting_for, view.limit, view.scope)


def running(record):
    return [number_of(item.eval_id) for item in record.active()]


def end(record, number):
    return record.finish(id_of(number), WorkflowStatus.COMPLETED)


def admit(record):
    return [number_of(eval_id) for eval_id in record.admission.admit()]


def told(record, number):
    entries = record.timeline.entries(id_of(number), 0, 50)
    return [(entry.title, entry.message, entry.reason, entry.count) for entry in entries if entry.kind == "queue"]


@pytest.fixture
def limited(database):
    """Records with limits, all on one database."""
    sealer = a_sealer()
    return lambda **limits: Record(database, sealer, AdmissionLimits(**limits))


def test_an_evaluation_for_which_there_is_a_place_does_not_wait(limited):
    record = limited(evaluations=1, jobs=2)
    assert ask(record, 1, jobs=2)
    assert (queue(record, 1), told(record, 1), running(record)) == (None, [], [1])
    assert not record.admission.is_waiting(id_of(1))


def test_an_evaluation_without_a_place_waits_and_says_for_what(limited):
    record = limited(evaluations=2, jobs=10)
    assert all(ask(record, number, jobs) for number, jobs in ((1, 5), (2, 4), (3, 2)))
    assert queue(record, 3) == (1, "evaluations", 2, "all")
    assert record.view(id_of(3)).status == "PENDING"
    assert (running(record), record.admission.is_waiting(id_of(3))) == ([1, 2], True)
    assert told(record, 3) == [
        ("Waiting for a place", "Place 1 in the queue: at most 2 evaluations at once in all", "evaluations", 1)
    ]


def test_places_are_given_in_the_order_of_asking_when_somebody_ends(limited):
    record = limited(evaluations=1)
    for number in (1, 9, 5, 7):
        ask(record, number)
    assert [queue(record, number)[0] for number in (9, 5, 7)] == [1, 2, 3]
    assert admit(record) == []
    for ending, next_one in ((1, 9), (9, 5), (5, 7)):
        record.admission.freed.clear()
        end(record, ending)
        assert record.admission.freed.is_set()
        assert (admit(record), running(record)) == ([next_one], [next_one])
    assert told(record, 7)[1:] == [("Got a place", "", "Admitted", 1)]
    assert told(record, 7)[0][1].startswith("Place 3 in the queue")


def test_a_new_one_does_not_take_the_place_of_one_that_waits(limited):
    record = limited(evaluations=1)
    ask(record, 1)
    ask(record, 2)
    end(record, 1)
    ask(record, 3)
    assert queue(record, 2) == (1, None, None, None)
    assert queue(record, 3) == (2, "evaluations", 1, "all")
    assert admit(record) == [2]


def test_only_runs_of_the_current_attempt_are_jobs(limited, database):
    record = limited(jobs=3)
    ask(record, 1, jobs=3)
    with database.execution_options(record_writes=True).begin() as connection:
        connection.execute(update(EvaluationRow).values(attempt=2))
        connection.execute(update(RunRow).where(RunRow.run_id == "run-1").values(attempt=2))
    assert record.admission.counts() == (1, 1, 0)
    ask(record, 2, jobs=2)
    assert (record.admission.counts(), queue(record, 2)) == ((2, 3, 0), None)


def test_one_requester_over_its_limit_holds_no_other(limited):
    record = limited(evaluations_per_requester=1)
    for number, by in ((1, "alice"), (2, "alice"), (3, "bob"), (4, "alice")):
        ask(record, number, by=by)
    assert running(record) == [1, 3]
    assert queue(record, 2) == (1, "evaluations", 1, "requester")
    assert queue(record, 4) == (2, "evaluations", 1, "requester")


@pytest.mark.parametrize("limits", [{"jobs": 3}, {"jobs_per_requester": 3, "jobs": 10}])
def test_more_jobs_than_may_ever_run_are_refused_before_anything_is_recorded(limited, limits):
    record = limited(**limits)
    with pytest.raises(InvalidEvaluation) as refused:
        ask(record, 1, jobs=4)
    (problem,) = refused.value.problems
    assert problem.field == "eval_datasets"
    assert "at most 3 jobs" in problem.message
    assert record.queries.find(Criteria(), Sort.NEWEST, None, 10) == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"when_full": "refuse"}, "at most 1 evaluations at once in all"),
        ({"waiting": 1}, "may wait in all"),
        ({"waiting_per_requester": 1}, "for each requester"),
    ],
)
def test_what_may_not_wait_is_refused_and_not_recorded(limited, limits, words):
    ask(limited(evaluations=1), 1)
    ask(limited(evaluations=1), 2)
    record = limited(evaluations=1, **limits)
    with pytest.raises(NoPlace, match=words):
        ask(record, 3)
    assert {number_of(item.eval_id) for item in record.queries.find(Criteria(), Sort.NEWEST, None, 9)} == {1, 2}
    assert not ask(record, 2), "the same request again is known, however full it is"
    end(record, 1)
    assert admit(record) == [2]


def test_lists_tell_who_waits(limited):
    record = limited(evaluations=1)
    for number in (1, 2):
        ask(record, number)
    for queued, expected in ((None, {1: False, 2: True}), (True, {2: True}), (False, {1: False})):
        found = record.queries.find(Criteria(queued=queued), Sort.NEWEST, None, 9)
        assert {number_of(item.eval_id): item.queued for item in found} == expected
    record.begin(id_of(1))
    assert record.admission.counts() == (1, 1, 1)


def test_an_activity_that_comes_late_does_not_move_a_waiting_one_back(limited):
    record = limited(evaluations=1)
    for number in (1, 2, 3):
        ask(record, number)
    record.heard(id_of(2))
    assert (queue(record, 2)[0], queue(record, 3)[0]) == (1, 2)


def test_a_clock_that_goes_wrong_changes_no_order(limited, database):
    record = limited(evaluations=1)
    ask(record, 1)
    ask(record, 9)
    with database.execution_options(record_writes=True).begin() as connection:
        ahead = select(EvaluationRow.last_heard_at).where(EvaluationRow.eval_id == id_of(9)).scalar_subquery()
        time = connection.execute(select(ahead)).scalar_one() + timedelta(hours=1)
        connection.execute(update(EvaluationRow).where(EvaluationRow.eval_id == id_of(9)).values(last_heard_at=time))
    ask(record, 2)
    assert (queue(record, 9)[0], queue(record, 2)[0]) == (1, 2)


def test_one_that_is_tried_again_asks_like_a_new_one(limited):
    record = limited(evaluations=1)
    for number in (1, 2):
        ask(record, number)
    end(record, 1)
    with record.admission.deciding() as session:
        row = session.get_one(EvaluationRow, id_of(1))
        row.status, row.ended_at = WorkflowStatus.PENDING, None
        record.admission.ask(session, row)
    assert [queue(record, number)[0] for number in (2, 1)] == [1, 2]
    assert admit(record) == [2]


# ------------------------------------------------------------------ cancelling


def test_a_waiting_one_that_is_cancelled_ends_at_once_with_its_last_words(limited, outbox):
    record = limited(evaluations=1)
    for number in (1, 2, 3):
        ask(record, number)
    record.admission.freed.clear()
    assert record.request_cancel(id_of(2), "bob", END_RULES) == "PENDING"
    view = record.view(id_of(2))
    assert (view.status, view.cancelled_by, view.error.reason, view.queue) == ("TERMINATED", "bob", "Cancelled", None)
    assert {run.error.reason for run in view.runs} == {"Cancelled"}
    messages = [outbox.claim_next(id_of(2)).event]
    assert messages == ["monitor_eval_job_progress"]
    with pytest.raises(Exception, match="erased"):
        record.open_secrets(id_of(2))
    assert record.admission.freed.is_set(), "who stood behind it may be next"
    assert queue(record, 3)[0] == 1
    end(record, 1)
    assert admit(record) == [3]
    assert record.request_cancel(id_of(2), "carol", END_RULES) == "TERMINATED"
    assert record.view(id_of(2)).cancelled_by == "bob"


def test_one_that_has_a_place_is_only_marked_when_it_is_cancelled(limited, outbox):
    record = limited(evaluations=1)
    ask(record, 1)
    record.request_cancel(id_of(1), "bob", END_RULES)
    assert (record.view(id_of(1)).status, outbox.claim_next(id_of(1))) == ("PENDING", None)


def test_of_a_cancellation_and_an_admission_at_once_one_comes_first(limited):
    record = limited(evaluations=1)
    for number in range(20):
        ask(record, 100 + number)
        ask(record, number)
        end(record, 100 + number)

        def act(worker, number=number):
            if worker % 2:
                return bool(record.admission.admit())
            return record.request_cancel(id_of(number), "bob", END_RULES)

        came_in = any(answer is True for answer in at_once(act))
        assert record.view(id_of(number)).status == ("PENDING" if came_in else "TERMINATED")
        end(record, number)


# ------------------------------------------------------------------ many at once


def test_the_limits_hold_however_many_ask_admit_and_end_at_once(database_url, database):
    limits = AdmissionLimits(evaluations=4, jobs=6, evaluations_per_requester=3)
    sealer, rounds = a_sealer(), 12
    services = [Record(open_database(database_url), sealer, limits) for _ in range(THREADS)]
    watcher = Record(database, sealer, limits)

    def live(number):
        record = services[number]
        most = 0
        for turn in range(rounds):
            ask(record, 100 * number + turn, jobs=1 + turn % 3, by=f"requester-{number % 3}")
            record.admission.admit()
            counts = watcher.admission.counts()
            most = max(most, counts.running)
            assert counts.running <= 4
            assert counts.jobs <= 6
            for item in record.active()[:1]:
                record.finish(item.eval_id, WorkflowStatus.COMPLETED)
        return most

    try:
        assert max(at_once(live)) > 1
        order = []
        while watcher.active() or watcher.admission.counts().waiting:
            with ThreadPoolExecutor(THREADS) as pool:
                order += [eval_id for found in pool.map(lambda it: it.admission.admit(), services) for eval_id in found]
            assert watcher.admission.counts().running <= 4
            for item in watcher.active():
                watcher.finish(item.eval_id, WorkflowStatus.COMPLETED)
        assert len(order) == len(set(order))
        assert watcher.count_by_status() == {WorkflowStatus.COMPLETED: THREADS * rounds}
    finally:
        for service in services:
            service._database.dispose()


def test_each_of_those_who_wait_is_let_in_by_one_process_alone(database_url, limited):
    record = limited(evaluations=1)
    for number in range(21):
        ask(record, number)
    wide = AdmissionLimits(evaluations=11)
    services = [Record(open_database(database_url), a_sealer(), wide) for _ in range(THREADS)]
    try:
        found = [eval_id for let_in in at_once(lambda worker: admit(services[worker])) for eval_id in let_in]
    finally:
        for service in services:
            service._database.dispose()
    assert sorted(found) == list(range(1, 11))


# ------------------------------------------------------------------ what it costs and what it survives


def test_what_a_waiting_one_is_told_is_what_will_be_decided(limited, database):
    """Its place is found without loading the queue, and must be the same."""
    open_to_all = limited()
    for number in range(1, 6):
        ask(open_to_all, number, jobs=number % 3 + 1, by=f"requester-{number % 3}")
    closed = limited(evaluations=1)
    for number in range(100, 260):
        ask(closed, number, jobs=number % 4 + 1, by=f"requester-{number % 3 if number % 7 else 9}")
    for limits in (
        {"evaluations": 5},
        {"evaluations": 7},
        {"jobs": 12, "evaluations_per_requester": 3},
        {"jobs": 20, "jobs_per_requester": 6},
        {"jobs_per_requester": 5},
        {"evaluations_per_requester": 2},
        {"evaluations": 30, "jobs": 90, "jobs_per_requester": 30},
        {"jobs": 3},
        {},
    ):
        record = limited(**limits)
        with Session(database) as session:
            waiting = admission._asking(session, admission.WAITS)
            deciding = Deciding(AdmissionLimits(**limits), admission._running(session))
        decided = {asking.eval_id: deciding.take(asking) for asking in waiting}
        assert len(waiting) == 160
        for position, asking in list(enumerate(waiting, start=1))[::11]:
            view, obstacle = record.view(asking.eval_id).queue, decided[asking.eval_id]
            told = (view.waiting_for, view.scope, view.limit)
            assert (view.position, told) == (position, obstacle or (None, None, None)), limits


def test_all_for_whom_there_is_room_get_in_in_their_order_however_many_they_are(limited):
    for number in range(131):
        ask(limited(evaluations=1), number)
    assert admit(limited(evaluations=121)) == list(range(1, 121))
    assert queue(limited(evaluations=121), 121) == (1, "evaluations", 121, "all")


def test_a_long_queue_is_not_loaded(limited, database):
    record, statements = limited(evaluations=1), []
    ask(record, 0)
    event.listen(database, "before_cursor_execute", lambda *call: statements.append(call[2]))

    def cost(action):
        statements.clear()
        action()
        return len(statements)

    one = cost(lambda: ask(record, 1)), cost(lambda: admit(record))
    for number in range(2, 160):
        ask(record, number)
    many = cost(lambda: ask(record, 160)), cost(lambda: admit(record))
    # The first of those who wait decide for all behind them.
    assert many[0] - one[0] <= 1
    assert many[1] == one[1]


def test_nobody_who_waits_costs_one_query(limited, database):
    record, statements = limited(evaluations=1), []
    ask(record, 1)
    event.listen(database, "before_cursor_execute", lambda *call: statements.append(call[2]))
    assert admit(record) == []
    (query,) = [statement for statement in statements if not statement.startswith("BEGIN")]
    assert query.startswith("SELECT")


def test_the_queue_outlives_the_process(database_url, limited):
    record = limited(evaluations=1)
    for number in (1, 2, 3):
        ask(record, number)
    end(record, 1)
    again = Record(open_database(database_url), a_sealer(), AdmissionLimits(evaluations=1))
    try:
        assert admit(again) == [2]
        assert queue(again, 3) == (1, "evaluations", 1, "all")
    finally:
        again._database.dispose()


def test_a_limit_that_was_raised_lets_those_in_who_wait_and_one_that_was_lowered_lets_nobody_out(limited):
    for number in (1, 2, 3):
        ask(limited(evaluations=1), number)
    assert admit(limited(evaluations=2)) == [2]
    lower = limited(evaluations=1)
    assert (admit(lower), running(lower)) == ([], [1, 2])
    end(lower, 1)
    assert admit(lower) == []

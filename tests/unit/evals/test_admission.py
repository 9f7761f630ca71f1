import pytest

from budeval.commons.settings import AdmissionLimits
from budeval.evals.admission import Asking, Deciding, Obstacle, Resource, Scope, queue_obstacle

EVALUATIONS, JOBS = Resource.EVALUATIONS, Resource.JOBS
ALL, REQUESTER = Scope.ALL, Scope.REQUESTER


def asking(text):
    """``a1:3`` is an evaluation of requester ``a`` with three Jobs; one where no number is given."""
    names = [word.partition(":") for word in text.split()]
    return [Asking(eval_id=name, requester=name[0], jobs=int(jobs or 1)) for name, _, jobs in names]


def decide(limits, running, waiting):
    deciding = Deciding(limits, running)
    return {item.eval_id: deciding.take(item) for item in waiting}


def admitted(running, waiting, **limits):
    decided = decide(AdmissionLimits(**limits), asking(running), asking(waiting))
    return " ".join(eval_id for eval_id, obstacle in decided.items() if obstacle is None)


# running, waiting, limits, who gets a place
PLACES = [
    pytest.param("", "a1 b1", {}, "a1 b1", id="no limit"),
    pytest.param("", "a1 b1 a2", {"evaluations": 2}, "a1 b1", id="first come, first served"),
    pytest.param("c1 c2", "a1", {"evaluations": 2}, "", id="full"),
    pytest.param("c1 c2 c3", "a1", {"evaluations": 2}, "", id="more than full, after the limit was lowered"),
    pytest.param("c1", "a1 a2", {"evaluations": 2}, "a1", id="the last place"),
    pytest.param("c1:5", "a1:3 b1:2", {"jobs": 10}, "a1 b1", id="as many Jobs as there may be"),
    pytest.param("c1:5", "a1:6 b1:1", {"jobs": 10}, "", id="a big one is not overtaken by small ones"),
    pytest.param("c1:5", "a1:4 b1:6 c2:1", {"jobs": 10}, "a1", id="nor by those behind it when there is room"),
    pytest.param("", "a1:10", {"jobs": 10}, "a1", id="as large as the limit"),
    pytest.param("a1", "a2 b1", {"evaluations_per_requester": 1}, "b1", id="over its own limit it holds no other"),
    pytest.param("", "a1 a2 b1 b2", {"evaluations_per_requester": 1}, "a1 b1", id="one for each"),
    pytest.param("a1:4", "a2:3 a3:1 b1:1", {"jobs_per_requester": 5}, "b1", id="nobody overtakes within a requester"),
    pytest.param("a1:4", "a2:3 b1:5", {"jobs_per_requester": 5, "jobs": 9}, "b1", id="own limit, then that of all"),
    pytest.param("a1", "a2 b1 c1", {"evaluations_per_requester": 1, "evaluations": 2}, "b1", id="both limits"),
    pytest.param("a1 b1", "a2 c1", {"evaluations_per_requester": 2, "evaluations": 3}, "a2", id="oldest of any"),
    pytest.param("", "a1:11 b1 a2", {"jobs": 10}, "b1 a2", id="what can never run stands aside"),
    pytest.param("", "a1:6 a2 b1:6", {"jobs_per_requester": 5}, "a2", id="also over the limit of its requester"),
    pytest.param("c1", "a1:11 b1", {"jobs": 10, "evaluations": 1}, "", id="and leaves the other limits as they are"),
]


@pytest.mark.parametrize(("running", "waiting", "limits", "expected"), PLACES)
def test_places_are_given(running, waiting, limits, expected):
    assert admitted(running, waiting, **limits) == expected


# running, waiting (the last one is asked about), limits, why it waits
REASONS = [
    ("c1", "a1", {"evaluations": 1}, Obstacle(EVALUATIONS, ALL, 1)),
    ("c1:5", "a1:6", {"jobs": 10, "evaluations": 9}, Obstacle(JOBS, ALL, 10)),
    ("a1", "a2", {"evaluations_per_requester": 1, "evaluations": 1}, Obstacle(EVALUATIONS, REQUESTER, 1)),
    ("a1:5", "a2:6", {"jobs_per_requester": 10}, Obstacle(JOBS, REQUESTER, 10)),
    ("c1:5", "a1:6 b1", {"jobs": 10, "evaluations": 9}, Obstacle(JOBS, ALL, 10)),
    ("a1:5", "a2:6 a3", {"jobs_per_requester": 10}, Obstacle(JOBS, REQUESTER, 10)),
    ("", "a1:11", {"jobs": 10}, Obstacle(JOBS, ALL, 10)),
    ("", "a1:11", {"jobs": 10, "jobs_per_requester": 5}, Obstacle(JOBS, REQUESTER, 5)),
]


@pytest.mark.parametrize(("running", "waiting", "limits", "why"), REASONS)
def test_who_waits_knows_what_for(running, waiting, limits, why):
    decided = decide(AdmissionLimits(**limits), asking(running), asking(waiting))
    assert list(decided.values())[-1] == why


def test_a_big_evaluation_gets_its_turn_however_many_small_ones_come():
    limits = AdmissionLimits(jobs=10)
    running, waiting = asking(" ".join(f"s{number}" for number in range(10))), asking("b1:10")
    for number in range(100, 110):
        running.pop()
        waiting += asking(f"s{number}")
        decided = decide(limits, running, waiting)
        running += [item for item in waiting if decided[item.eval_id] is None]
        waiting = [item for item in waiting if decided[item.eval_id] is not None]
    assert [item.eval_id for item in running] == ["b1"]


# how many wait, how many of them are of the same requester, limits, what keeps another one from waiting too
QUEUES = [
    (0, 0, {}, None),
    (2, 1, {"waiting": 3, "waiting_per_requester": 2}, None),
    (2, 1, {"waiting": 2}, Obstacle(EVALUATIONS, ALL, 2)),
    (2, 0, {"waiting_per_requester": 2}, None),
    (3, 2, {"waiting_per_requester": 2}, Obstacle(EVALUATIONS, REQUESTER, 2)),
    (2, 2, {"waiting_per_requester": 2, "waiting": 2}, Obstacle(EVALUATIONS, REQUESTER, 2)),
]


@pytest.mark.parametrize(("waiting", "of_requester", "limits", "why"), QUEUES)
def test_the_queue_is_bounded(waiting, of_requester, limits, why):
    assert queue_obstacle(AdmissionLimits(**limits), waiting, of_requester) == why

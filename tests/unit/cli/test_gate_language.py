import pytest

from budeval.cli.gate import Condition, InvalidExpression, judge, known_subjects, parse_gate
from budeval.client import Evaluation


def an_evaluation(*scores):
    """An evaluation with one run of ``siqa_gen``."""
    run = {
        "run_id": "run",
        "dataset_id": "siqa_gen",
        "status": "Succeeded",
        "progress": {"phase": "scoring", "done": 1, "total": 1},
        "scores": [{"dataset": name, "metric": metric, "score": score} for name, metric, score in scores],
    }
    return Evaluation.model_validate(
        {
            "eval_id": "e",
            "status": "COMPLETED",
            "model_name": "m",
            "engine": "opencompass",
            "source": "s",
            "created_at": "2026-01-01T00:00:00Z",
            "steps": [],
            "runs": [run],
        }
    )


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("siqa.accuracy >= 35", Condition("siqa", "accuracy", ">=", 35)),
        ("siqa.accuracy>=35", Condition("siqa", "accuracy", ">=", 35)),
        ("  a-b_1.pass@1 < -1.5e2 ", Condition("a-b_1", "pass@1", "<", -150)),
        ("ceval-1.2.accuracy != .5", Condition("ceval-1.2", "accuracy", "!=", 0.5)),
        ('"a set"."exact match" == 1.', Condition("a set", "exact match", "==", 1)),
        ('siqa."exact.match" > 1', Condition("siqa", "exact.match", ">", 1)),
        ('"v1.2".accuracy <= +1', Condition("v1.2", "accuracy", "<=", 1)),
        ("and.and > 1", Condition("and", "and", ">", 1)),
    ],
)
def test_a_condition_is_read(text, condition):
    assert parse_gate(text) == [condition]


def test_conditions_are_joined_by_and():
    conditions = parse_gate("a.b > 1 and c.d < 2 AND e.f == 3")
    assert [str(condition) for condition in conditions] == ["a.b > 1", "c.d < 2", "e.f == 3"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "at the end"),
        ("siqa >= 35", "expected dataset.metric, at 'siqa >= 35'"),
        ("siqa.accuracy", "at 'siqa.accuracy'"),
        ("siqa.accuracy => 35", "siqa.accuracy => 35"),
        ("siqa.accuracy >= nan", "siqa.accuracy >= nan"),
        ("siqa.accuracy >= 1e999", "too large, at '1e999'"),
        ("siqa.accuracy >= 35 or piqa.accuracy >= 1", "expected 'and' or the end, at 'or piqa.accuracy >= "),
        ("siqa.accuracy >= 35 and", "at the end"),
        ("siqa.accuracy >= 35%", "siqa.accuracy"),
        ("a.b > 1 andc.d > 1", "at 'andc.d > 1'"),
        ("__import__('os').system('true') > 1", "at \"__import__('os')"),
        ('"".accuracy > 1', "expected dataset.metric"),
        ("a.b > 1" + " " * 10_000, "longer than"),
    ],
)
def test_what_is_no_gate_is_shown_where_it_is_wrong(text, where):
    with pytest.raises(InvalidExpression) as refused:
        parse_gate(text)
    assert where in str(refused.value)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("siqa.accuracy >= 35.5", True),
        ("siqa.accuracy > 35.5", False),
        ("siqa_gen.accuracy == 35.5", True),
        ("siqa.accuracy < 36", True),
        ("siqa.accuracy != 35.5", False),
        ("siqa.precision >= 0", False),
        ("siqa.precision != 0", False),
    ],
)
def test_a_condition_is_met_by_the_scores_it_speaks_of(text, met):
    (verdict,) = judge(parse_gate(text), an_evaluation(("siqa", "accuracy", 35.5)))
    assert verdict.met is met


def test_every_score_of_the_name_must_fit():
    evaluation = an_evaluation(("siqa", "accuracy", 30), ("siqa", "accuracy", 40))
    (verdict,) = judge(parse_gate("siqa.accuracy >= 35"), evaluation)
    assert (verdict.scores, verdict.met) == ((30, 40), False)
    assert known_subjects(evaluation) == ["siqa.accuracy"]

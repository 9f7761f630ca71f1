"""What the demo asks for, and when it is content."""

import pytest

from budeval.cli.errors import ExitCode
from budeval.cli.output import Output
from budeval.client import Results
from dev.demo import Subject, conclude, is_last_word
from dev.errors import StackError

LOCAL = "http://127.0.0.1:13200/v1"
EVAL_ID = "444e4567-e89b-12d3-a456-426614174020"


def results(*scores):
    rows = [{"dataset": "siqa", "metric": "accuracy", "score": score} for score in scores]
    run = {"run_id": "run-a", "dataset_id": "siqa_gen", "status": "Succeeded", "scores": rows}
    return Results.model_validate({"eval_id": EVAL_ID, "status": "COMPLETED", "results": [run]})


def told(score):
    entry = {"run_id": "run-a", "scores": [{"metric": "accuracy", "score": score}]}
    return {"event": "results", "content": {"status": "COMPLETED", "result": {"results": [entry]}}}


def test_without_a_wish_the_small_local_model_is_evaluated():
    request = Subject.from_environment({}, LOCAL).request(EVAL_ID)
    assert (request.endpoint, request.model_name) == (LOCAL, "smollm2-135m-instruct")
    assert [run.dataset_id for run in request.datasets] == ["siqa_gen"]
    assert request.configs["max_questions"] == 24


def test_an_own_model_is_asked_all_questions_unless_they_are_limited():
    wish = {
        "ENDPOINT": "http://127.0.0.1:1/v1",
        "MODEL": "mine",
        "DATASET": "siqa_gen, piqa_gen",
        "OPENAI_API_KEY": "k",
    }
    request = Subject.from_environment(wish, LOCAL).request(EVAL_ID)
    assert [run.dataset_id for run in request.datasets] == ["siqa_gen", "piqa_gen"]
    assert request.api_key.get_secret_value() == "k"
    assert "max_questions" not in request.configs
    limited = Subject.from_environment({**wish, "QUESTIONS": "100"}, LOCAL).request(EVAL_ID)
    assert limited.configs["max_questions"] == 100


@pytest.mark.parametrize(
    ("wish", "word"),
    [
        ({"ENDPOINT": "http://127.0.0.1:1/v1"}, "MODEL"),
        ({"ENDPOINT": "http://127.0.0.1:1/v1", "MODEL": "mine"}, "DATASET"),
        ({"MODEL": "mine", "DATASET": "siqa_gen"}, "ENDPOINT"),
        ({"QUESTIONS": "many"}, "QUESTIONS"),
        ({"QUESTIONS": "0"}, "QUESTIONS"),
        ({"QUESTIONS": "²"}, "QUESTIONS"),
    ],
)
def test_a_wish_that_is_not_whole_is_refused(wish, word):
    with pytest.raises(StackError, match=word):
        Subject.from_environment(wish, LOCAL)


def test_the_key_is_not_shown():
    assert "canary" not in repr(Subject(LOCAL, "mine", ["siqa_gen"], "canary"))


@pytest.mark.parametrize(
    ("shown", "received", "code", "words"),
    [
        (results(45.83), [told(45.83)], ExitCode.GOOD, "the same scores among them"),
        (results(45.83), [told(12.0)], ExitCode.FAILED, "received 1 notifications."),
        (results(45.83), [], ExitCode.FAILED, "received 0 notifications."),
        (results(), [], ExitCode.FAILED, "received 0 notifications."),
    ],
)
def test_it_is_content_only_with_scores_that_a_subscriber_was_told_too(shown, received, code, words, capsys):
    assert conclude(Output(), shown, received) is code
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("event", "status", "last"),
    [
        ("evaluate_model_status", "COMPLETED", True),
        ("evaluate_model_status", "TERMINATED", True),
        ("evaluate_model_status", "STARTED", False),
        ("results", "COMPLETED", False),
    ],
)
def test_the_last_word_is_the_status_of_the_end(event, status, last):
    assert is_last_word({"event": event, "content": {"status": status}}) is last

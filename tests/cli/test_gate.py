import pytest

from tests.cli.conftest import ended
from tests.cli.test_start_and_watch import when_started
from tests.client.service import complete, fail
from tests.client.test_calls import a_request


@pytest.fixture
def completed(client, service):
    eval_id = client.start(a_request()).eval_id
    complete(service, eval_id)
    return eval_id


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("siqa.accuracy >= 35", 0),
        ("siqa.accuracy >= 35 and piqa_gen.accuracy < 36", 0),
        ("siqa.accuracy >= 35 and siqa.accuracy > 36", 1),
        ("siqa.precision > 0", 1),
        ("siqa.accuracy", 2),
        ("siqa.accuracy > 1 or true", 2),
    ],
)
def test_the_exit_code_says_whether_the_gate_is_met(pipe, completed, expression, code):
    assert pipe("gate", completed, expression).code == code


def test_a_missing_score_is_told_with_those_that_exist(pipe, completed):
    assert "Scores: siqa.accuracy" in pipe("gate", completed, "siqa.precision > 0").err


def test_a_failed_evaluation_meets_no_gate(pipe, client, service):
    eval_id = client.start(a_request()).eval_id
    fail(service, eval_id)
    done = pipe("gate", eval_id, "siqa.accuracy != 0", "--json")
    assert (done.code, done.json()["met"], done.json()["status"]) == (1, False, "FAILED")


def test_an_evaluation_that_runs_meets_no_gate_yet(pipe, client):
    eval_id = client.start(a_request()).eval_id
    done = pipe("gate", eval_id, "siqa.accuracy > 0")
    assert done.code == 1
    assert "--wait" in done.err


def test_a_gate_can_wait_for_the_end(pipe, client, service):
    eval_id = client.start(a_request()).eval_id
    acting = when_started(service, complete)
    assert pipe("gate", eval_id, "siqa.accuracy > 0", "--wait").code == 0
    acting.join()


def test_the_gate_on_a_terminal(terminal, completed):
    output, code = ended(terminal("gate", completed, "siqa.accuracy >= 36"))
    assert code == 1
    assert "35.42" in output
    assert "not met" in output


def test_the_gate_as_json(pipe, completed):
    condition = pipe("gate", completed, "siqa.accuracy >= 35", "--json").json()["conditions"][0]
    assert (condition["dataset"], condition["scores"], condition["met"]) == ("siqa", [35.42, 35.42], True)

"""``budeval retry``, ``budeval resend`` and ``budeval delete``, in a pipe and in a pseudo-terminal."""

import json
import threading
import time

import pytest

from tests.api.test_attempts import Cluster
from tests.api.test_notifications import in_doubt
from tests.cli.conftest import ended
from tests.client.service import complete, fail
from tests.client.test_calls import a_request
from tests.samples import EVAL_ID

KEYED = ("--api-key-env", "OUR_KEY")


@pytest.fixture
def service(serve):
    return serve(orchestrator=Cluster())


@pytest.fixture
def failed(client, service):
    client.start(a_request(eval_id=EVAL_ID))
    fail(service, EVAL_ID)


def test_retry_in_a_pipe_prints_the_id_alone(pipe, service, failed):
    options = ("--poll-interval", 5, "--max-checks", 9, "--request", "cpu=500m", "--limit", "memory=4Gi")
    done = pipe("retry", EVAL_ID, *KEYED, *options)
    assert (done.code, done.out, done.err) == (0, f"{EVAL_ID}\n", "")
    evaluation = service.record.definition(EVAL_ID)
    assert (evaluation.attempt, evaluation.monitor.poll_interval, evaluation.monitor.max_checks) == (2, 5, 9)
    assert evaluation.resources.model_dump() == {"requests": {"cpu": "500m"}, "limits": {"memory": "4Gi"}}
    assert service.record.open_secrets(EVAL_ID).api_key.get_secret_value() == "sk-canary-of-a-key"


def test_show_tells_which_attempt_it_is(pipe, failed):
    assert "attempt" not in pipe("show", EVAL_ID).out
    pipe("retry", EVAL_ID, *KEYED)
    assert f"{EVAL_ID}  PENDING, attempt 2" in pipe("show", EVAL_ID).out


def test_list_tells_which_attempt_it_is_where_it_is_not_the_first(pipe, failed):
    def attempt():
        header, row = pipe("list").out.split("\n")[:2]
        return dict(zip(header.split("\t"), row.split("\t"), strict=True))["ATTEMPT"]

    assert attempt() == ""
    pipe("retry", EVAL_ID, *KEYED)
    assert attempt() == "2"


def test_retry_with_json_has_attempt_and_runs(pipe, failed):
    begun = pipe("retry", EVAL_ID, *KEYED, "--json").json()
    assert (begun["attempt"], len(begun["run_ids"])) == (2, 2)


def test_retry_on_a_terminal_asks_for_the_key_and_says_how_to_go_on(terminal, service, failed):
    child = terminal("retry", EVAL_ID, "--api-key-prompt")
    child.expect("API key: ")
    child.sendline("sk-typed")
    output, code = ended(child)
    assert code == 0
    assert "attempt 2 with 2 runs" in output
    assert f"budeval watch {EVAL_ID}" in output
    assert "sk-typed" not in output


@pytest.mark.parametrize(("finish", "code"), [(complete, 0), (fail, 1)])
def test_retry_can_be_watched_to_its_end(pipe, service, failed, finish, code):
    def end():
        deadline = time.monotonic() + 20
        while service.record.view(EVAL_ID).attempt == 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        finish(service, EVAL_ID)

    thread = threading.Thread(target=end)
    thread.start()
    done = pipe("retry", EVAL_ID, *KEYED, "--watch")
    thread.join()
    assert done.code == code
    assert "attempt 2" in done.err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "api_key"),
        ((*KEYED, "--limit", "memory"), "NAME=QUANTITY"),
        ((*KEYED, "--limit", "memory="), "NAME=QUANTITY"),
        ((*KEYED, "--limit", "memory=1Gi", "--limit", "memory=2Gi"), "given twice"),
        ((*KEYED, "--limit", "memory=much"), "Kubernetes quantity"),
        ((*KEYED, "--request", "gpu=1"), "resources.requests.gpu"),
        ((*KEYED, "--max-checks", "0"), "max_checks"),
        ((*KEYED, "--api-key-file", "key"), "name one of"),
    ],
)
def test_a_retry_that_is_wrong_says_why_and_begins_nothing(pipe, service, failed, options, why):
    done = pipe("retry", EVAL_ID, *options)
    assert (done.code, done.out) == (2, "")
    assert why in done.err
    assert service.record.view(EVAL_ID).attempt == 1


def test_retry_of_what_runs_is_told_as_json_where_that_is_wanted(pipe, client):
    client.start(a_request(eval_id=EVAL_ID))
    done = pipe("retry", EVAL_ID, *KEYED, "--json")
    assert done.code == 2
    assert json.loads(done.err)["error"]["problem"]["status"] == 409


def test_delete_in_a_pipe_wants_to_be_told(pipe, service, failed):
    done = pipe("delete", EVAL_ID)
    assert (done.code, "--yes" in done.err) == (2, True)
    assert service.created().evaluations == [EVAL_ID]


@pytest.mark.parametrize(("json_option", "out"), [((), f"evaluation {EVAL_ID} is deleted\n"), (("--json",), None)])
def test_delete_removes_what_has_ended(pipe, service, failed, json_option, out):
    done = pipe("delete", EVAL_ID, "--yes", *json_option)
    assert done.code == 0
    assert done.out == out if out else done.json() == {"eval_id": EVAL_ID, "deleted": True}
    assert service.created().evaluations == []
    assert pipe("delete", EVAL_ID, "--yes").code == 2


@pytest.mark.parametrize(("answer", "left", "code"), [("y", 0, 0), ("n", 1, 2), ("", 1, 2)])
def test_delete_asks_on_a_terminal(terminal, service, failed, answer, left, code):
    child = terminal("delete", EVAL_ID)
    child.expect("with its files and scores")
    child.sendline(answer)
    assert ended(child)[1] == code
    assert len(service.created().evaluations) == left


def test_resend_sends_what_nobody_knows_about_and_nothing_else(pipe, service, failed):
    in_doubt(service)
    assert f"budeval resend {EVAL_ID}" in pipe("show", EVAL_ID).out
    done = pipe("resend", EVAL_ID)
    # There is no broker here.
    assert (done.code, done.out) == (0, f"evaluation {EVAL_ID}: sent again; 1 are sent when the broker takes them\n")
    again = pipe("resend", EVAL_ID)
    assert again.code == 2
    assert "no notification whose fate is unknown" in again.err


def test_resend_with_json_has_the_evaluation(pipe, service, failed):
    in_doubt(service)
    assert pipe("resend", EVAL_ID, "--json").json()["notifications"] == {"waiting": 1, "unknown": []}

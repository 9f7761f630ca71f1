import json
import signal
import threading
import time

import pexpect
import pytest

from budeval.commons.wire import WorkflowStatus
from tests.cli.conftest import ended
from tests.client.service import complete, fail, progress
from tests.client.test_calls import a_request
from tests.samples import EVAL_ID

FLAGS = ("start", "-m", "small-model", "-e", "http://127.0.0.1:13200/v1", "-d", "siqa_gen")
FILE = """\
model:
  name: small-model
  endpoint: http://127.0.0.1:13200/v1
  api_key_file: key
  parameters: {max_out_len: 64}
datasets: [siqa_gen, {id: piqa_gen, run_id: mine}]
max_questions: 24
"""


def key_of(service, eval_id):
    return service.record.open_secrets(eval_id).api_key.get_secret_value()


def when_started(service, act):
    """Does something to the first evaluation as soon as it is there."""

    def wait():
        deadline = time.monotonic() + 20
        while not service.created().scheduled and time.monotonic() < deadline:
            time.sleep(0.05)
        act(service, service.created().scheduled[0])

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_start_in_a_pipe_prints_the_id_alone(pipe, service):
    done = pipe(*FLAGS, "-n", 24, "-p", "max_out_len=64", "--topic", "ours")
    assert (done.code, done.err) == (0, "")
    assert service.created().scheduled == [done.out.strip()]
    evaluation = service.record.definition(done.out.strip())
    assert (evaluation.max_questions, evaluation.parameters) == (24, {"max_out_len": 64})
    assert (evaluation.source, evaluation.source_topics) == ("budeval-cli", ["ours"])


def test_start_on_a_terminal_says_how_to_go_on(terminal, service):
    output, code = ended(terminal(*FLAGS))
    assert code == 0
    assert f"budeval watch {service.created().scheduled[0]}" in output


def test_start_with_json_has_the_runs(pipe):
    started = pipe(*FLAGS, "--json", "--eval-id", EVAL_ID).json()
    assert started["eval_id"] == EVAL_ID
    assert started["run_ids"][0].startswith("siqa_gen-")


def test_start_reads_a_file_and_a_key_beside_it(pipe, service, tmp_path):
    (tmp_path / "evaluation.yaml").write_text(FILE)
    (tmp_path / "key").write_text("sk-canary-of-a-file\n")
    done = pipe("start", "-f", tmp_path / "evaluation.yaml", "-n", 7)
    evaluation = service.record.definition(done.out.strip())
    assert [run.dataset_id for run in evaluation.runs] == ["siqa_gen", "piqa_gen"]
    assert (evaluation.runs[1].run_id, evaluation.max_questions) == ("mine", 7)
    assert key_of(service, evaluation.eval_id) == "sk-canary-of-a-file"


def test_start_reads_standard_input(pipe, service):
    text = FILE.replace("  api_key_file: key\n", "")
    assert pipe("start", "-f", "-", given=text).out.strip() in service.created().scheduled


def test_the_key_comes_from_a_variable(pipe, service):
    eval_id = pipe(*FLAGS, "--api-key-env", "OUR_KEY").out.strip()
    assert key_of(service, eval_id) == "sk-canary-of-a-key"


def test_the_key_is_asked_for_without_being_shown(terminal, service):
    child = terminal(*FLAGS, "--api-key-prompt")
    child.expect("API key: ")
    child.sendline("sk-canary-typed")
    output, code = ended(child)
    assert code == 0
    assert "canary" not in output
    assert key_of(service, service.created().scheduled[0]) == "sk-canary-typed"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--api-key-env", "NOT_SET"), "'NOT_SET' is not set"),
        (("--api-key-prompt",), "no terminal"),
        (("--api-key-env", "OUR_KEY", "--api-key-file", "x"), "name one of"),
        (("-p", "max_out_len"), "NAME=VALUE"),
        (("-p", "speed=1"), "extra_args.speed: unknown"),
        (("-d", "siqa_genn"), "did you mean siqa_gen"),
        (("-n", "0"), "max_questions"),
        (("--api-key", "sk-x"), "No such option"),
    ],
)
def test_a_wrong_start_is_told_and_starts_nothing(pipe, service, arguments, told):
    done = pipe(*FLAGS, *arguments)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert service.created().evaluations == []


def test_a_start_without_a_model_says_what_is_missing(pipe):
    done = pipe("start")
    assert done.code == 2
    assert all(name in done.err for name in ("model.name", "model.endpoint", "datasets"))


def test_refusals_are_json_if_wanted(pipe):
    done = pipe(*FLAGS, "-p", "speed=1", "--json")
    problem = json.loads(done.err)["error"]["problem"]
    assert (problem["status"], problem["errors"][0]["field"]) == (422, "eval_model_info.extra_args.speed")


@pytest.mark.parametrize(("act", "code"), [(complete, 0), (fail, 1)])
def test_start_and_watch_ends_as_the_evaluation_does(pipe, service, act, code):
    acting = when_started(service, act)
    done = pipe(*FLAGS, "--watch")
    acting.join()
    assert done.code == code
    assert done.out.splitlines()[-1].endswith("COMPLETED" if code == 0 else "FAILED")


def test_watch_in_a_pipe_prints_each_change_once(start_in_pipe, client, service):
    eval_id = client.start(a_request()).eval_id
    service.record.begin(eval_id)
    process = start_in_pipe("watch", eval_id)
    lines = []
    for done in (12, 24):
        progress(service, eval_id, done)
        while not lines or f"{done} of 48" not in lines[-1]:
            lines.append(process.stdout.readline())
    fail(service, eval_id)
    rest, errors = process.communicate(timeout=30)
    every = "".join(lines) + rest
    assert (process.returncode, errors) == (1, "")
    assert "about 7 min left" in every
    assert "EndpointUnauthorized: the endpoint refused the key" in every
    assert "What to do: Check api_key." in every
    assert len(every.splitlines()) == len(set(every.splitlines()))


def test_watch_with_json_prints_an_object_a_line(pipe, client, service):
    eval_id = client.start(a_request()).eval_id
    complete(service, eval_id)
    done = pipe("watch", eval_id, "--json")
    assert [json.loads(line)["status"] for line in done.out.splitlines()] == ["COMPLETED"]


def test_watch_on_a_terminal_shows_live_progress(terminal, client, service):
    eval_id = client.start(a_request()).eval_id
    service.record.begin(eval_id)
    child = terminal("watch", eval_id)
    progress(service, eval_id, done=12)
    child.expect("12 of 48")
    progress(service, eval_id, done=24)
    child.expect("24 of 48")
    child.expect("━")
    fail(service, eval_id)
    child.expect("What to do: Check api_key.")
    assert ended(child)[1] == 1


def test_watch_that_is_interrupted_leaves_the_evaluation_alone(terminal, client, service):
    eval_id = client.start(a_request()).eval_id
    child = terminal("watch", eval_id)
    child.expect("small-model")
    child.sendintr()
    output, code = ended(child)
    assert code == 130
    assert f"budeval watch {eval_id}" in output
    assert not client.evaluation(eval_id).ended
    assert "\x1b[?25h" in output, "the cursor is shown again"


def test_watch_that_is_told_to_end_ends(start_in_pipe, client):
    eval_id = client.start(a_request()).eval_id
    process = start_in_pipe("watch", eval_id)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM


def test_a_plain_terminal_gets_lines(terminal, client, service):
    eval_id = client.start(a_request()).eval_id
    complete(service, eval_id)
    child = terminal("watch", eval_id, TERM="dumb")
    child.expect(pexpect.EOF)
    assert "\x1b" not in child.before


def test_cancel_can_wait_for_the_end(pipe, client, service):
    eval_id = client.start(a_request()).eval_id
    later = threading.Timer(1.5, lambda: service.record.finish(eval_id, WorkflowStatus.TERMINATED))
    later.start()
    done = pipe("cancel", eval_id, "--wait")
    later.join()
    assert (done.code, f"evaluation {eval_id}: TERMINATED" in done.out) == (0, True)


def test_cancel_is_carried_out_and_said(pipe, client, service):
    eval_id = client.start(a_request()).eval_id
    done = pipe("cancel", eval_id)
    assert (done.code, "is being cancelled" in done.out) == (0, True)
    assert client.evaluation(eval_id).cancelled_by == "api"


def test_cancel_of_what_has_ended_is_harmless(pipe, terminal, client, service):
    eval_id = client.start(a_request()).eval_id
    complete(service, eval_id)
    assert pipe("cancel", eval_id, "--json").json()["status"] == "COMPLETED"
    assert "COMPLETED" in ended(terminal("cancel", eval_id))[0]

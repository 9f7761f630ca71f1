import json
import socket
import stat
import subprocess
import sys

import jsonschema
import pytest

from tests.cli.conftest import ended
from tests.client.service import url_of

TOKEN = "canary-of-a-token"
COMMANDS = ("start", "validate", "list", "show", "watch", "results", "cancel", "gate", "datasets", "engines",
            "schema", "doctor", "completion")  # fmt: skip


@pytest.fixture
def nobody():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_exit_codes_are_told_by_every_help(pipe):
    for command in COMMANDS:
        done = pipe(command, "--help")
        assert done.code == 0
        assert "Exit codes: 0 good; 1" in done.out, command


def test_help_in_a_pipe_has_no_frames(pipe):
    assert "│" not in pipe("--help").out + pipe("start", "--nonsense").err


def test_help_on_a_terminal(terminal):
    output, code = ended(terminal("--help"))
    assert code == 0
    assert "Exit codes" in output


def test_an_unknown_command_is_wrong_usage(pipe):
    assert pipe("nonsense").code == 2


@pytest.mark.parametrize("arguments", [("list",), ("datasets",), ("show", "444e4567-e89b-12d3-a456-426614174020")])
def test_a_service_that_is_away_is_told(pipe, nobody, arguments):
    done = pipe("--server", nobody, *arguments)
    assert (done.code, done.out) == (3, "")
    assert nobody in done.err
    assert "budeval doctor" in done.err


def test_errors_are_json_if_wanted(pipe, nobody):
    assert nobody in json.loads(pipe("--server", nobody, "list", "--json").err)["error"]["message"]


def test_doctor_says_what_a_service_lacks(pipe):
    done = pipe("doctor")
    verdicts = dict(line.split("\t")[:2] for line in done.out.splitlines() if "\t" in line)
    assert done.code == 1
    assert {name: verdicts[name] for name in ("server", "reachable", "database", "sidecar", "access", "version")} == {
        "server": "ok",
        "reachable": "ok",
        "database": "ok",
        "sidecar": "failed",
        "access": "ok",
        "version": "ok",
    }
    assert "sidecar: Start daprd" in done.out


def test_doctor_on_a_terminal(terminal):
    output, code = ended(terminal("doctor"))
    assert code == 1
    assert "workflow-worker" in output


def test_doctor_says_that_nobody_is_there(pipe, nobody):
    done = pipe("--server", nobody, "doctor", "--json")
    assert (done.code, done.json()["good"]) == (3, False)
    assert "Is it running?" in done.json()["checks"][-1]["what_to_do"]


def test_doctor_warns_of_a_token_in_clear(pipe):
    done = pipe("--server", "http://host.invalid", "doctor", BUDEVAL_TOKEN=TOKEN)
    assert "server\twarning" in done.out
    assert TOKEN not in done.out + done.err


def test_doctor_finds_a_context_file_that_others_can_read(pipe, service, tmp_path):
    pipe("context", "set", "here", "--server", url_of(service))
    (tmp_path / ".config/budeval/contexts.json").chmod(0o644)
    done = pipe("doctor", BUDEVAL_SERVER="")
    assert done.code == 2
    assert "chmod 600" in done.out


def test_a_context_is_made_used_and_removed(pipe, service, nobody, tmp_path):
    pipe("context", "set", "here", "--server", url_of(service))
    pipe("context", "set", "gone", "--server", nobody, "--token-env", "T", T=TOKEN)
    assert pipe("list", BUDEVAL_SERVER="").code == 0
    assert pipe("--context", "gone", "list", BUDEVAL_SERVER="").code == 3
    assert pipe("context", "use", "gone").code == 0
    assert pipe("list", BUDEVAL_SERVER="").code == 3
    listed = pipe("context", "list", "--json")
    assert [(item["name"], item["has_token"], item["current"]) for item in listed.json()] == [
        ("gone", True, True),
        ("here", False, False),
    ]
    assert TOKEN not in listed.out
    assert pipe("context", "remove", "gone").code == 0
    assert pipe("--context", "gone", "list").code == 2
    assert stat.S_IMODE((tmp_path / ".config/budeval/contexts.json").stat().st_mode) == 0o600


def test_a_token_is_asked_for_without_being_shown(terminal, tmp_path):
    child = terminal("context", "set", "here", "--server", "https://h.example", "--token-prompt")
    child.expect("token: ")
    child.sendline(TOKEN)
    output, code = ended(child)
    assert (code, TOKEN in output) == (0, False)
    stored = json.loads((tmp_path / ".config/budeval/contexts.json").read_text())
    assert stored["contexts"]["here"]["token"] == TOKEN


def test_a_new_server_forgets_the_token_of_the_old_one(pipe):
    pipe("context", "set", "c", "--server", "https://old.example", "--token-file", "-", given=TOKEN)
    pipe("context", "set", "c", "--server", "https://old.example/")
    pipe("context", "set", "c", "--server", "https://new.example")
    assert pipe("context", "list").out.splitlines()[1].split("\t") == ["*", "c", "https://new.example", "no"]


@pytest.mark.parametrize(
    "arguments", [("set", "c"), ("set", "c", "--server", "nonsense"), ("set", "../c", "--server", "http://h"),
                  ("use", "nowhere"), ("remove", "nowhere")],
)  # fmt: skip
def test_a_wrong_context_is_refused(pipe, arguments):
    done = pipe("context", *arguments)
    assert (done.code, done.out) == (2, "")


def test_the_schema_is_printed(pipe):
    jsonschema.Draft202012Validator.check_schema(pipe("schema").json())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(pipe, shell):
    done = pipe("completion", shell)
    assert done.code == 0
    assert "_BUDEVAL_COMPLETE=complete_" + shell in done.out


def test_completion_knows_commands_and_data_sets(environment):
    def completed(words):
        changes = {"_BUDEVAL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        command = [sys.executable, "-m", "budeval.cli"]
        done = subprocess.run(
            command, check=True, env={**environment, **changes}, capture_output=True, text=True, timeout=30
        )
        return done.stdout.split()

    assert completed("budeval resu") == ["results"]
    # It gives up after a second, so as not to hold up who types: on a busy machine one presses the key again.
    assert any("siqa_gen" in completed("budeval start -d siqa") for _ in range(10))

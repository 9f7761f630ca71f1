"""Tokens from the command line: made, used, refused."""

import hashlib
import json
import re
import stat
from datetime import UTC, datetime, timedelta

import pytest

from budeval.access.tokens import parse_tokens
from budeval.commons.clock import utc_now
from tests.cli.conftest import ended
from tests.client.service import url_of
from tests.samples import EVAL_ID, a_request
from tests.tokens import ADMIN, EXPIRED, OPERATOR, STRANGER, VIEWER, bearer, write_tokens

TOKEN = r"budeval_[A-Za-z0-9_-]{43}"


@pytest.fixture
def guarded(serve, tmp_path):
    """A service that wants tokens."""
    service = serve(access="required", tokens_file=write_tokens(tmp_path / "known.json"))
    assert service.start(a_request(), headers=bearer(OPERATOR)).status_code == 200
    return {"BUDEVAL_SERVER": url_of(service)}


def test_a_new_token_is_printed_once_and_its_entry_has_the_hash_alone(pipe):
    done = pipe("token", "new", "--name", "ci", "--role", "operator", "--expires", "90d")
    token = done.out.strip()
    assert done.code == 0
    assert re.fullmatch(TOKEN, token)
    assert token not in done.err
    entry = done.err[done.err.index("- name") :]
    caller = parse_tokens(entry.encode()).find(token, utc_now())
    assert (caller.name, caller.role) == ("ci", "operator")
    assert abs(caller.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)


def test_no_two_tokens_are_the_same(pipe):
    tokens = {pipe("token", "new", "--name", "ci", "--role", "viewer").out for _ in range(3)}
    assert len(tokens) == 3


def test_as_json(pipe):
    told = pipe("token", "new", "--name", "ci", "--role", "viewer", "--json").json()
    assert told["entry"] == {
        "name": "ci", "role": "viewer", "sha256": hashlib.sha256(told["token"].encode()).hexdigest(),
    }  # fmt: skip


def test_a_token_is_added_to_a_file_that_only_its_owner_can_read(pipe, tmp_path):
    path = tmp_path / "tokens.yaml"
    first = pipe("token", "new", "--name", "a", "--role", "viewer", "--file", path)
    path.write_text("# ours\n" + path.read_text().rstrip())
    second = pipe("token", "new", "--name", "b", "--role", "admin", "--expires", "12h", "--file", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("# ours\n- name: 'a'\n")
    tokens = parse_tokens(path.read_bytes())
    found = [tokens.find(done.out.strip(), utc_now()).name for done in (first, second)]
    assert found == ["a", "b"]
    assert first.out.strip() not in path.read_text() + first.err


WRONG_FILES = ["{}", "a: 1\n", "text", "[{name: 'x'}]", "- a: [\n", "\t", "- a\n- 'b"]


@pytest.mark.parametrize("content", WRONG_FILES)
def test_a_file_that_is_no_such_list_stays_as_it_is(pipe, tmp_path, content):
    path = tmp_path / "tokens.yaml"
    path.write_text(content)
    path.chmod(0o600)
    done = pipe("token", "new", "--name", "a", "--role", "viewer", "--file", path)
    assert (done.code, done.out, path.read_text()) == (2, "", content)
    assert "by hand" in done.err


@pytest.mark.parametrize("mode", [0o622, 0o660])
def test_a_file_that_others_can_change_is_refused(pipe, tmp_path, mode):
    path = tmp_path / "tokens.yaml"
    path.touch()
    path.chmod(mode)
    done = pipe("token", "new", "--name", "a", "--role", "viewer", "--file", path)
    assert (done.code, done.out) == (2, "")
    assert "chmod 600" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "two words", "--role", "viewer"),
        ("--name", "api", "--role", "viewer"),
        ("--name", "a'\n- name: b", "--role", "viewer"),
        ("--name", "", "--role", "viewer"),
        ("--name", "a", "--role", "root"),
        ("--name", "a"),
        ("--role", "viewer"),
        ("--name", "a", "--role", "viewer", "--expires", "soon"),
        ("--name", "a", "--role", "viewer", "--expires", "0d"),
        ("--name", "a", "--role", "viewer", "--expires", "-1d"),
        ("--name", "a", "--role", "viewer", "--file", "/nowhere/tokens.yaml"),
        ("--name", "a", "--role", "viewer", "--file", "/dev/null"),
    ],
)
def test_a_token_that_cannot_be_made(pipe, arguments):
    done = pipe("token", "new", *arguments)
    assert (done.code, done.out) == (2, "")


def test_on_a_terminal(terminal):
    output, code = ended(terminal("token", "new", "--name", "ci", "--role", "viewer"))
    assert code == 0
    assert len(re.findall(TOKEN, output)) == 1
    assert "name: 'ci'" in output


# ------------------------------------------------------------------ as whom


def test_whoami(pipe, guarded):
    told = pipe("whoami", BUDEVAL_TOKEN=VIEWER, **guarded)
    assert (told.code, told.out) == (0, f"vera, viewer, without an end, at {guarded['BUDEVAL_SERVER']}\n")
    assert pipe("whoami", "--json", BUDEVAL_TOKEN=ADMIN, **guarded).json()["role"] == "admin"


def test_whoami_on_a_terminal(terminal, guarded):
    output, code = ended(terminal("whoami", BUDEVAL_TOKEN=OPERATOR, **guarded))
    assert (code, "oscar, operator" in output) == (0, True)


@pytest.mark.parametrize("token", [None, STRANGER, EXPIRED])
@pytest.mark.parametrize("command", [("list",), ("whoami",), ("cancel", EVAL_ID), ("watch", EVAL_ID), ("datasets",)])
def test_a_token_that_is_refused_is_told_with_what_to_do(pipe, guarded, token, command):
    done = pipe(*command, BUDEVAL_TOKEN=token or "", **guarded)
    assert (done.code, done.out) == (3, "")
    assert "Unauthorized" in done.err
    assert "BUDEVAL_TOKEN_FILE" in done.err
    assert "canary" not in done.err


def test_a_role_that_does_not_reach_is_told_with_what_to_do(pipe, guarded):
    done = pipe("cancel", EVAL_ID, BUDEVAL_TOKEN=VIEWER, **guarded)
    assert (done.code, done.out) == (3, "")
    assert "needs the role operator; the token of 'vera' has viewer" in done.err
    assert "budeval whoami" in done.err
    told = json.loads(pipe("cancel", EVAL_ID, "--json", BUDEVAL_TOKEN=VIEWER, **guarded).err)
    assert told["error"]["problem"]["status"] == 403


def test_who_asked_and_who_cancelled_is_shown(pipe, guarded):
    pipe("cancel", EVAL_ID, BUDEVAL_TOKEN=ADMIN, **guarded)
    shown = pipe("show", EVAL_ID, "--timeline", BUDEVAL_TOKEN=VIEWER, **guarded).out
    assert "cancelled by ada" in shown
    assert "asked for by oscar for budapp" in shown
    assert "Evaluation requested, by oscar" in shown
    assert "Cancellation requested, by ada" in shown
    listed = pipe("list", "--requested-by", "oscar", "--json", BUDEVAL_TOKEN=VIEWER, **guarded).json()
    assert [item["requested_by"] for item in listed] == ["oscar"]
    assert pipe("list", "--requested-by", "ada", "--json", BUDEVAL_TOKEN=VIEWER, **guarded).json() == []


def test_doctor_says_who_one_is(pipe, guarded):
    done = pipe("doctor", BUDEVAL_TOKEN=OPERATOR, **guarded)
    assert "access\tok\toscar, operator" in done.out


def test_doctor_says_that_the_token_is_refused(pipe, guarded):
    done = pipe("doctor", BUDEVAL_TOKEN=STRANGER, **guarded)
    assert done.code == 3
    assert "access\tfailed\tUnauthorized" in done.out
    assert "canary" not in done.out + done.err


def test_a_context_carries_its_token(pipe, guarded):
    server = guarded["BUDEVAL_SERVER"]
    pipe("context", "set", "team", "--server", server, "--token-file", "-", given=VIEWER)
    assert "vera" in pipe("whoami", BUDEVAL_SERVER="").out
    assert pipe("--server", server, "whoami", BUDEVAL_SERVER="").code == 3

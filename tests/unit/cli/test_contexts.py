import os
import stat
import subprocess
import sys

import pytest
from pydantic import SecretStr, ValidationError

from budeval.cli.contexts import Context, changed_contexts, contexts_path, read_contexts
from budeval.cli.errors import UsageProblem
from budeval.cli.session import Session

TOKEN = "canary-of-a-token"
VARIABLES = ("BUDEVAL_SERVER", "BUDEVAL_TOKEN", "BUDEVAL_TOKEN_FILE", "BUDEVAL_CONTEXT")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def stored():
    with changed_contexts() as contexts:
        contexts.contexts["there"] = Context(server="https://there.example/", token=SecretStr(TOKEN))
        contexts.current = "there"


def test_the_file_is_for_its_owner_alone_whatever_the_umask(home):
    before = os.umask(0)
    try:
        with changed_contexts() as contexts:
            contexts.contexts["there"] = Context(server="https://there.example", token=SecretStr(TOKEN))
    finally:
        os.umask(before)
    assert stat.S_IMODE(contexts_path().stat().st_mode) == 0o600
    assert contexts_path() == home / "budeval" / "contexts.json"
    assert stat.S_IMODE(contexts_path().parent.stat().st_mode) == 0o700


def test_what_is_written_is_read_again(stored):
    context = read_contexts().contexts["there"]
    assert (context.server, context.token.get_secret_value()) == ("https://there.example", TOKEN)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644])
def test_a_file_that_others_reach_is_refused(stored, mode):
    contexts_path().chmod(mode)
    with pytest.raises(UsageProblem, match="chmod 600"):
        read_contexts()


def test_a_spoilt_file_is_told_without_its_token(stored):
    path = contexts_path()
    path.write_text(path.read_text().replace('"https:', '"gopher:'))
    with pytest.raises(UsageProblem, match=r"contexts\.there\.server") as refused:
        read_contexts()
    assert TOKEN not in str(refused.value)


def test_a_failed_change_changes_nothing(stored):
    before = contexts_path().read_bytes()
    with pytest.raises(ValidationError), changed_contexts() as contexts:
        contexts.contexts["other"] = Context(server="nonsense")
    assert contexts_path().read_bytes() == before
    assert not list(contexts_path().parent.glob(".contexts-*"))


def test_changes_at_the_same_time_are_all_kept():
    command = [sys.executable, "-m", "budeval.cli", "context", "set"]
    running = [subprocess.Popen([*command, f"c{number}", "--server", "http://h"], stdout=subprocess.DEVNULL)
               for number in range(6)]  # fmt: skip
    assert [process.wait(timeout=60) for process in running] == [0] * 6
    assert sorted(read_contexts().contexts) == [f"c{number}" for number in range(6)]


def test_the_current_context_is_used(stored):
    target = Session().target()
    assert (target.server, target.token) == ("https://there.example", TOKEN)


def test_the_token_of_a_context_goes_to_no_other_server(stored, monkeypatch):
    assert Session(server="https://elsewhere.example").target().token == ""
    monkeypatch.setenv("BUDEVAL_SERVER", "https://elsewhere.example")
    assert Session().target().token == ""


def test_a_token_of_the_environment_wins(stored, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("of-a-file\n")
    monkeypatch.setenv("BUDEVAL_TOKEN_FILE", str(tmp_path / "token"))
    assert Session().target().token == "of-a-file"
    monkeypatch.setenv("BUDEVAL_TOKEN", "of-a-variable")
    assert Session().target().token == "of-a-variable"


def test_an_unknown_context_is_refused_with_the_known(stored):
    with pytest.raises(UsageProblem, match="known: there"):
        Session(context="nowhere").target()


def test_without_any_configuration_this_machine_is_meant():
    assert Session().target().server == "http://127.0.0.1:8099"


def test_a_token_is_not_shown_by_a_target(stored):
    assert TOKEN not in repr(Session().target())

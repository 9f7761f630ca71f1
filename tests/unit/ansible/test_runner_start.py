import pytest

from budeval.ansible import runner
from budeval.ansible.runner import PlaybookRunner
from budeval.commons.settings import Settings, StartRefused


def refused(tmp_path, **settings):
    with pytest.raises(StartRefused) as refused:
        PlaybookRunner(Settings(**{"playbook_run_dir": tmp_path / "runs", **settings}))
    return str(refused.value)


BAD = [
    ("{", "is no kubeconfig with a current-context"),
    ("canary", "is no kubeconfig with a current-context"),
    ("{clusters: [], contexts: []}", "is no kubeconfig with a current-context"),
    ("\x00", "is no kubeconfig with a current-context"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_kubeconfig_that_is_none_ends_the_start(tmp_path, text, words):
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    assert refused(tmp_path, kubeconfig=file) == f"BUDEVAL_KUBECONFIG: {file} {words}"


def test_a_missing_kubeconfig_ends_the_start(tmp_path):
    told = refused(tmp_path, kubeconfig=tmp_path / "none")
    assert told == f"BUDEVAL_KUBECONFIG: {tmp_path}/none cannot be used: No such file or directory"


def test_a_kubeconfig_may_have_more_than_a_request_may_bring(tmp_path):
    file = tmp_path / "kubeconfig"
    file.write_text("current-context: x\nusers: [{name: x, user: {exec: {command: aws}}}]")
    PlaybookRunner(Settings(playbook_run_dir=tmp_path / "runs", kubeconfig=file))


def test_a_place_for_runs_that_cannot_be_made_ends_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    told = refused(tmp_path, playbook_run_dir=tmp_path / "file" / "runs")
    assert told == f"BUDEVAL_PLAYBOOK_RUN_DIR: {tmp_path}/file/runs cannot be used: Not a directory"


def test_an_installation_without_the_collection_ends_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "COLLECTION", tmp_path / "kubernetes")
    assert f"{tmp_path}/kubernetes; install the packages of requirements-service.lock" in refused(tmp_path)

import pytest
from cryptography.fernet import Fernet

from budeval.ansible.runner import PlaybookRunner
from budeval.commons.errors import PlaybookFailed
from budeval.commons.settings import Settings


def test_a_kubeconfig_that_an_earlier_version_took_and_this_one_does_not_is_told_in_words(tmp_path):
    settings = Settings(sealing_keys=Fernet.generate_key().decode(), playbook_run_dir=tmp_path / "runs")
    with pytest.raises(PlaybookFailed, match="kubeconfig: a mapping is needed"):
        PlaybookRunner(settings).run("ping.yml", {}, "[]", timeout_seconds=1)
    assert list((tmp_path / "runs").iterdir()) == []

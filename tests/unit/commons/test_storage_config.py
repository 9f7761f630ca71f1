import pytest

from budeval.commons.settings import get_settings
from budeval.commons.storage_config import StorageConfig


@pytest.fixture
def _fresh_settings():
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.usefixtures("_fresh_settings")
def test_the_namespace_is_the_settings(monkeypatch):
    monkeypatch.setenv("BUDEVAL_NAMESPACE", "evals")
    assert StorageConfig.get_current_namespace() == "evals"


@pytest.mark.usefixtures("_fresh_settings")
def test_the_namespace_is_the_guides_by_default(monkeypatch):
    monkeypatch.delenv("BUDEVAL_NAMESPACE", raising=False)
    assert StorageConfig.get_current_namespace() == "development"


def test_results_lie_in_one_directory_for_each_evaluation_and_run():
    assert str(StorageConfig.results_path("eval", "job")) == "results/eval/job"

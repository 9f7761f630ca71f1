"""Files of an evaluation on a mounted claim: removed without following a link, else left to a Job."""

import os

import pytest

from budeval.evals.results_processor import MountedResults
from tests.samples import EVAL_ID


class Elsewhere:
    def __init__(self):
        self.removed = []

    def remove_results(self, eval_id):
        self.removed.append(eval_id)


@pytest.fixture
def elsewhere():
    return Elsewhere()


@pytest.fixture
def mounted(tmp_path, elsewhere):
    (tmp_path / "results").mkdir()
    return MountedResults(tmp_path, elsewhere)


def test_everything_below_is_removed_and_nothing_beside_it(mounted, elsewhere, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    run = tmp_path / "results" / EVAL_ID / "run"
    run.mkdir(parents=True)
    (run / "to-a-directory").symlink_to(kept)
    (run / "to-a-file").symlink_to(kept / "file")
    os.mkfifo(run / "pipe")
    (tmp_path / "results" / "other").mkdir()
    mounted.remove_results(EVAL_ID)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["other"]
    assert (kept / "file").exists()
    assert elsewhere.removed == []


def test_what_is_not_there_is_removed(mounted, elsewhere):
    mounted.remove_results(EVAL_ID)
    assert elsewhere.removed == []


def test_a_link_in_place_of_the_directory_is_removed_itself(mounted, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "results" / EVAL_ID).symlink_to(kept)
    mounted.remove_results(EVAL_ID)
    assert (kept.exists(), (tmp_path / "results" / EVAL_ID).is_symlink()) == (True, False)


@pytest.mark.parametrize("change", ["nothing is mounted", "results is a link"])
def test_where_the_service_cannot_a_job_does(mounted, elsewhere, tmp_path, change):
    (tmp_path / "results").rmdir()
    if change == "results is a link":
        (tmp_path / "somewhere" / EVAL_ID).mkdir(parents=True)
        (tmp_path / "results").symlink_to(tmp_path / "somewhere")
    mounted.remove_results(EVAL_ID)
    assert elsewhere.removed == [EVAL_ID]
    assert change == "nothing is mounted" or (tmp_path / "somewhere" / EVAL_ID).exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../kept", f"{EVAL_ID}/../other", "*"])
def test_a_name_that_is_no_id_is_no_path(mounted, elsewhere, tmp_path, name):
    with pytest.raises(ValueError, match="no eval_id"):
        mounted.remove_results(name)
    assert (tmp_path / "results").exists()
    assert elsewhere.removed == []

import json
import subprocess
import sys

import pytest

from budeval.jobs.remover import PROGRAM, removal_error, remover_command
from tests.samples import EVAL_ID


def run(root, name):
    done = subprocess.run([sys.executable, "-I", "-c", PROGRAM, str(root), name], check=True, capture_output=True)
    return done.stdout.decode()


def test_the_command_names_the_evaluation_as_data():
    assert remover_command(EVAL_ID)[-2:] == ["/results", EVAL_ID]


@pytest.mark.parametrize("name", ["", ".", "..", "/", f"{EVAL_ID}/..", f"{EVAL_ID}\n", EVAL_ID.upper()[:-1] + "A"])
def test_what_is_no_eval_id_becomes_no_command(name):
    with pytest.raises(ValueError, match="no eval_id"):
        remover_command(name)


def test_the_program_removes_one_tree_and_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    results = tmp_path / "results"
    (results / EVAL_ID / "run").mkdir(parents=True)
    (results / EVAL_ID / "run" / "link").symlink_to(outside)
    (results / "other").mkdir()
    assert removal_error(run(results, EVAL_ID)) is None
    assert sorted(path.name for path in results.iterdir()) == ["other"]
    assert (outside / "file").exists()
    assert json.loads(run(results, EVAL_ID)) == {"removed": False}


@pytest.mark.parametrize("log", ["", "no json", "[]", "{}", '{"error": "Permission denied"}', "[" * 100_000])
def test_what_does_not_say_that_the_files_are_gone_is_an_error(log):
    assert removal_error(log)


def test_a_directory_that_is_no_directory_is_told(tmp_path):
    (tmp_path / "results").touch()
    assert "Not a directory" in removal_error(run(tmp_path / "results", EVAL_ID))

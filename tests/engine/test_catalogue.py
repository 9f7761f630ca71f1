"""The committed lists against the installed OpenCompass."""

import json
import os
import subprocess
from pathlib import Path

from dev.datasets import read_manifest
from tests.engine.running import ENGINE

COMMITTED = ENGINE.parents[1] / "budeval" / "engines" / "opencompass" / "datasets.json"

COUNT = """
import json, sys
from budeval_engine import catalogue, evaluation
counts = {}
for name in sys.argv[1:]:
    datasets = catalogue.load(catalogue.find(name, catalogue.configs_directory()))
    counts[name] = sum(evaluation.count_questions(datasets).values())
json.dump(counts, open("counts.json", "w"))
"""


def run(python: Path, arguments: list[str], folder: Path, **environment: str) -> str:
    path = f"{ENGINE}:{ENGINE / 'torch_stand_in'}"
    values = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(
        [str(python), *arguments], env=values, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_committed_list_is_what_the_installed_opencompass_says(engine_python: Path, tmp_path: Path) -> None:
    listed = json.loads(run(engine_python, [str(ENGINE / "list_datasets.py")], tmp_path))
    assert json.loads(COMMITTED.read_text()) == listed


def test_every_data_set_of_the_manifest_loads_with_the_questions_it_promises(
    engine_python: Path, data: Path, tmp_path: Path
) -> None:
    entries = read_manifest().values()
    promised = {name: entry.questions for entry in entries for name in entry.dataset_ids}
    run(engine_python, ["-c", COUNT, *promised], tmp_path, COMPASS_DATA_CACHE=str(data))
    assert json.loads((tmp_path / "counts.json").read_text()) == promised


def test_every_data_set_of_the_manifest_can_be_evaluated_with_a_chat_api() -> None:
    listed = json.loads(COMMITTED.read_text())["datasets"]
    names = [name for entry in read_manifest().values() for name in entry.dataset_ids]
    assert {name: listed[name]["kind"] for name in names} == dict.fromkeys(names, "gen")

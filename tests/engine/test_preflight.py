"""The look before an evaluation with the real OpenCompass, real data and a real model."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from budeval.engines import get_engine
from budeval.jobs.probe import Questions, Subject, parse_report
from tests.engine.running import ENGINE, KEY


@pytest.fixture
def look(engine_python: Path, data: Path, tmp_path: Path) -> Any:
    """Runs the program as a probe does; answers what the service reads out of its output."""

    def looked(questions: Questions) -> Any:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": f"{ENGINE}:{ENGINE / 'torch_stand_in'}",
            "OPENAI_API_KEY": KEY,
            "COMPASS_DATA_CACHE": str(data),
        }
        command = [str(engine_python), "-m", "budeval_engine.preflight", questions.argument()]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=120, check=True,
        )  # fmt: skip
        assert KEY not in done.stdout
        return parse_report(done.stdout)

    return looked


def test_data_sets_are_loaded_as_a_run_would(look: Any, real_model: str) -> None:
    names = ["siqa_gen", "gsm8k_gen", "humaneval_gen", "no_such_gen"]
    report = look(Questions(endpoint=Subject(model="m", endpoint=real_model), datasets=names))
    assert report.ended
    assert report.endpoint.reason is None
    assert {name: found.questions for name, found in report.datasets.items()} == {
        "siqa_gen": 1954, "gsm8k_gen": None, "humaneval_gen": 164, "no_such_gen": None,
    }  # fmt: skip
    assert report.datasets["gsm8k_gen"].reason == "DatasetMissing"
    assert report.datasets["no_such_gen"].reason == "DatasetUnknown"


def test_every_data_set_that_is_there_is_found_among_all_that_are_known(look: Any, data: Path) -> None:
    paths = get_engine("opencompass").data_paths()
    report = look(Questions(inventory=paths, datasets=["siqa_gen", "gsm8k_gen"]))
    assert {"siqa_gen", "piqa_gen", "humaneval_gen", "SuperGLUE_BoolQ_gen"} <= set(report.present)
    # Of IFBench the questions are there, and not what its scorer needs.
    assert not {"gsm8k_gen", "IFBench_gen"} & set(report.present)
    assert set(report.datasets) == {"siqa_gen"}


def test_the_committed_metrics_are_those_of_real_scores() -> None:
    described = {each.dataset_id: each.metrics for each in get_engine("opencompass").datasets()}
    assert described["siqa_gen"] == described["SuperGLUE_BoolQ_gen"] == ["accuracy"]
    assert described["humaneval_gen"] == ["humaneval_pass@1"]
    assert "Prompt-level-strict-accuracy" in described["IFBench_gen"]

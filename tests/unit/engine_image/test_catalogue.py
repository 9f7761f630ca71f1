"""Which configuration a name means, what it needs, and how it is cut; configurations are plain dictionaries here."""

from pathlib import Path
from typing import Any

import pytest
from budeval_engine import catalogue
from budeval_engine.catalogue import Kind
from budeval_engine.outcome import EngineError, Reason


def dataset(*, inferencer: str = "GenInferencer", evaluator: Any = None, **reader: Any) -> dict[str, Any]:
    return {
        "abbr": "set",
        "type": "SomeDataset",
        "reader_cfg": reader,
        "infer_cfg": {"inferencer": {"type": inferencer}},
        "eval_cfg": {"evaluator": evaluator or {"type": "AccEvaluator"}},
    }


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    for name in ("siqa/siqa_gen.py", "siqa/__init__.py", "PMMEval/mgsm_gen.py", "mgsm/mgsm_gen.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_name_is_a_file(configs: Path) -> None:
    assert catalogue.find("siqa_gen", configs) == configs / "siqa" / "siqa_gen.py"


def test_of_two_files_with_one_name_always_the_same_is_meant(configs: Path) -> None:
    assert catalogue.find("mgsm_gen", configs) == configs / "mgsm" / "mgsm_gen.py"


@pytest.mark.parametrize("name", ["SIQA_gen", "siqa_*", "siqa_gen.py", "__init__", "siqa/siqa_gen", "../siqa_gen", ""])
def test_names_are_matched_exactly(configs: Path, name: str) -> None:
    with pytest.raises(EngineError) as caught:
        catalogue.find(name, configs)
    assert caught.value.reason is Reason.DATASET_UNKNOWN


class LLMJudge:
    """Stands for an evaluator class, which configurations name by the class itself."""


@pytest.mark.parametrize(
    ("datasets", "kind"),
    [
        ([dataset()], Kind.GENERATE),
        ([dataset(inferencer="opencompass.openicl.ChatInferencer")], Kind.GENERATE),
        ([dataset(inferencer="PPLInferencer")], Kind.LOGITS),
        ([dataset(inferencer="opencompass.openicl.icl_inferencer.CLPInferencer")], Kind.LOGITS),
        ([dataset(), dataset(inferencer="LLInferencer")], Kind.LOGITS),
        ([dataset(evaluator={"type": "GenericLLMEvaluator"})], Kind.JUDGE),
        ([dataset(evaluator={"type": LLMJudge})], Kind.JUDGE),
        ([dataset(evaluator={"type": "Cascade", "parts": [{"judge_cfg": {}}]})], Kind.JUDGE),
    ],
)
def test_the_most_demanding_part_tells_the_kind(datasets: list[dict[str, Any]], kind: Kind) -> None:
    assert catalogue.kind_of(datasets) is kind


@pytest.mark.parametrize(
    ("given", "cut"),
    [(None, "[:5]"), ("[0:64]", "[0:64][:5]"), (100, 5), (3, 3), (0.5, "[:5]")],
)
def test_a_limit_takes_the_first_of_what_would_be_asked(given: Any, cut: Any) -> None:
    limited = dataset(**({} if given is None else {"test_range": given}))
    catalogue.limit([limited], 5)
    assert limited["reader_cfg"]["test_range"] == cut


def test_a_set_that_is_scored_as_a_whole_can_not_be_limited() -> None:
    with pytest.raises(EngineError) as caught:
        catalogue.limit([dataset(evaluator={"type": "opencompass.datasets.HumanEvalEvaluator"})], 5)
    assert caught.value.reason is Reason.INVALID_CONFIGURATION

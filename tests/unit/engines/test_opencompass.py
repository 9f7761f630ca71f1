import pytest

from budeval.engines import ENGINES, get_engine
from budeval.engines.base import InvalidParameters, UnknownDataset, UnknownEngine
from budeval.engines.opencompass.engine import dataset_kinds
from tests.samples import EVAL_ID, an_evaluation

ENGINE = get_engine("opencompass")


def test_the_known_engines_are_found_by_their_names():
    assert [get_engine(name).name for name in ENGINES] == ["opencompass"]


@pytest.mark.parametrize("name", ["", "OpenCompass", "lm-eval", "x" * 1000])
def test_an_unknown_engine_is_answered_with_the_known_ones(name):
    with pytest.raises(UnknownEngine) as caught:
        get_engine(name)
    assert caught.value.known == ["opencompass"]
    assert len(str(caught.value)) < 200


# ------------------------------------------------------------------ data sets


@pytest.mark.parametrize("dataset_id", ["siqa_gen", "demo_gsm8k_chat_gen"])
def test_a_data_set_that_generates_and_scores_is_taken(dataset_id):
    ENGINE.check_dataset(dataset_id)


def test_every_data_set_has_a_kind():
    kinds = dataset_kinds()
    assert set(kinds.values()) == {"gen", "judge", "ppl"}
    assert len(kinds) > 1000


@pytest.mark.parametrize(("kind", "why"), [("judge", "judge model"), ("ppl", "token probabilities")])
def test_a_data_set_that_a_chat_api_cannot_answer_says_why(kind, why):
    dataset_id = next(name for name, known in dataset_kinds().items() if known == kind)
    with pytest.raises(ValueError, match=why):
        ENGINE.check_dataset(dataset_id)


@pytest.mark.parametrize("dataset_id", ["livecodebench_gen", "taco_gen"])
def test_a_data_set_that_the_image_would_score_wrongly_says_what_is_lacking(dataset_id):
    with pytest.raises(ValueError, match="lacks: pyext"):
        ENGINE.check_dataset(dataset_id)
    assert [each.usable for each in ENGINE.datasets() if each.dataset_id == dataset_id] == [False]
    assert dataset_id not in ENGINE.data_paths()


def test_data_that_a_scorer_reads_belongs_to_the_data_set():
    assert ENGINE.data_paths()["IFBench_gen"] == [
        "data/IFBench/IFBench_test.jsonl",
        "nltk_data/corpora/stopwords",
        "nltk_data/taggers/averaged_perceptron_tagger_eng",
        "nltk_data/tokenizers/punkt_tab",
    ]


NEAR_MISSES = [
    ("siqa_gn", "siqa_gen"),
    ("demo_gsm8k_chat_gn", "demo_gsm8k_chat_gen"),
    ("SIQA_gen", "siqa_gen"),
    ("siqa-gen", "siqa_gen"),
]


@pytest.mark.parametrize(("asked", "meant"), NEAR_MISSES)
def test_a_near_miss_is_suggested(asked, meant):
    with pytest.raises(UnknownDataset) as caught:
        ENGINE.check_dataset(asked)
    assert meant in str(caught.value)


@pytest.mark.parametrize("asked", ["", "nothing-like-any-of-them", "../siqa_gen", "x" * 1000])
def test_what_is_near_nothing_is_answered_with_what_is_known(asked):
    with pytest.raises(UnknownDataset) as caught:
        ENGINE.check_dataset(asked)
    known = caught.value.known
    assert known == sorted(known)
    assert {dataset_kinds()[name] for name in known} == {"gen"}
    assert len(str(caught.value)) < 500


# ------------------------------------------------------------------ parameters

TYPED = [
    ({}, {}),
    ({"query_per_second": "50"}, {"query_per_second": 50.0}),
    ({"query_per_second": 0.5}, {"query_per_second": 0.5}),
    ({"max_out_len": "2048", "max_seq_len": "4096"}, {"max_out_len": 2048, "max_seq_len": 4096}),
    ({"batch_size": 1}, {"batch_size": 1}),
    ({"batch_size": "1024"}, {"batch_size": 1024}),
    ({"temperature": "0"}, {"temperature": 0.0}),
    ({"temperature": 2}, {"temperature": 2.0}),
    ({"timeout": "3600", "retry": "0"}, {"timeout": 3600, "retry": 0}),
]


@pytest.mark.parametrize(("given", "typed"), TYPED)
def test_parameters_get_their_types_also_from_texts(given, typed):
    parsed = ENGINE.parse_parameters(given)
    assert parsed == typed
    assert [type(parsed[name]) for name in typed] == [type(value) for value in typed.values()]


OUT_OF_BOUNDS: dict[str, list[object]] = {
    "query_per_second": ["0", -1, 10_001, "nan", "inf", "fast", ""],
    "max_out_len": [0, 1_000_001, "1.5", "1e400"],
    "max_seq_len": [0, 10_000_001, "many"],
    "batch_size": [0, 1025],
    "temperature": [-0.1, 2.1, "hot"],
    "timeout": [0, 3601],
    "retry": [-1, 101],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_BOUNDS.items() for value in values]
)
def test_a_parameter_out_of_bounds_is_named(name, value):
    with pytest.raises(InvalidParameters) as caught:
        ENGINE.parse_parameters({name: value})
    assert [(problem.field, problem.allowed) for problem in caught.value.problems] == [(name, None)]


def test_an_unknown_parameter_is_answered_with_the_known_ones():
    with pytest.raises(InvalidParameters) as caught:
        ENGINE.parse_parameters({"speed": 1, "y" * 500: 2})
    speed, other = caught.value.problems
    assert (speed.field, other.field) == ("speed", "y" * 80)
    assert set(speed.allowed) == set(OUT_OF_BOUNDS)


def test_all_wrong_parameters_are_told_at_once():
    with pytest.raises(InvalidParameters) as caught:
        ENGINE.parse_parameters({"speed": 1, "retry": "x", "timeout": 60})
    assert {problem.field for problem in caught.value.problems} == {"speed", "retry"}


# ------------------------------------------------------------------ the configuration of a run


def test_a_run_is_configured_with_all_it_needs_and_no_key():
    evaluation = an_evaluation(parameters={"query_per_second": 50.0})
    assert ENGINE.run_config(evaluation, evaluation.runs[0]) == {
        "schema": 1,
        "eval_id": EVAL_ID,
        "run_id": "run-a",
        "dataset_id": "siqa_gen",
        "model": {"name": "small-model", "endpoint": "http://127.0.0.1:13200/v1"},
        "parameters": {"query_per_second": 50.0},
        "max_questions": None,
    }

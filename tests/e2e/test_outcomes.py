"""How real evaluations end: each with the scores, or the reason, that its subscriber acts on.

All are started at once, since each mostly waits for the others' engine to start.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.system import ABSENT_DATASET, DATASET, MODEL, PATIENCE_SECONDS, Evaluation, System

KEY = "sk-e2e-the-right-key-4be1"
PWNED = Path("/tmp/budeval-e2e-pwned")
JINJA = "{{ lookup('pipe', 'touch /tmp/budeval-e2e-pwned') }}"
SHELL = "$(touch /tmp/budeval-e2e-pwned) `touch /tmp/budeval-e2e-pwned`; touch /tmp/budeval-e2e-pwned #"
HOSTILE_RUNS = ("../../x", f"{JINJA} \"'", f"模型 ünïcode 🧪 {SHELL}")

pytestmark = pytest.mark.timeout(PATIENCE_SECONDS + 60)


@dataclass(frozen=True)
class Started:
    """Evaluations that run at the same time."""

    partly_failing: Evaluation
    wrong_key: Evaluation
    right_key: Evaluation
    hostile: Evaluation


@pytest.fixture(scope="module")
def started(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """All evaluations of this module, under way."""
    PWNED.unlink(missing_ok=True)
    with system.keyed_model(tmp_path_factory.mktemp("model"), KEY) as endpoint:
        yield Started(
            wrong_key=system.evaluation(endpoint=endpoint, api_key="sk-e2e-a-wrong-key-90c7").start(),
            right_key=system.evaluation(endpoint=endpoint, api_key=KEY).start(),
            partly_failing=system.evaluation({"e2e-good": DATASET, "e2e-bad": ABSENT_DATASET}).start(),
            hostile=system.evaluation(
                dict.fromkeys(HOSTILE_RUNS, DATASET),
                questions=4,
                model_name=f"{MODEL} {JINJA} {SHELL} 模型",
                api_key="{{lookup('pipe','touch$IFS/tmp/budeval-e2e-pwned')}}'\"",
                source=f"{JINJA} {SHELL}",
            ).start(),
        )


def test_a_refused_key_fails_the_evaluation_for_good_without_useless_attempts(started: Started) -> None:
    story = started.wrong_key.story("FAILED")
    assert story.failure is not None
    assert story.failure["error_category"] == "EndpointUnauthorized"
    assert "api_key" in story.failure["error_details"][0]["message"]
    assert started.wrong_key.job()["status"]["failed"] == 1


def test_the_right_key_gives_scores(started: Started) -> None:
    (result,) = started.right_key.story("COMPLETED").results.values()
    assert 0 <= result.scores[-1].score <= 100


def test_of_two_runs_one_fails_and_the_consumer_learns_the_end_of_both(started: Started, system: System) -> None:
    story = started.partly_failing.story("COMPLETED")
    good, bad = story.results["e2e-good"], story.results["e2e-bad"]
    assert (good.status, bad.status) == ("success", "error")
    assert [line.metric for line in good.scores] == ["accuracy"]
    assert bad.error is not None
    assert bad.error.reason == "DatasetMissing"
    assert started.partly_failing.run("e2e-good")["scores"][0]["score"] == good.scores[0].score


def test_hostile_names_are_only_ever_data(started: Started, system: System) -> None:
    before = {path.name for path in system.settings.data.iterdir()}
    story = started.hostile.story("COMPLETED")
    assert [entry.status for entry in story.results.values()] == ["success"] * len(HOSTILE_RUNS)
    assert not PWNED.exists()
    names = {run["job_name"] for run in started.hostile.view()["runs"]}
    assert {path.name for path in (system.results / started.hostile.eval_id).iterdir()} == names
    assert {path.name for path in system.settings.data.iterdir()} == before

"""The README's quick tour, every line of it as it stands there."""

import re
import subprocess

import pytest

from tests.e2e.system import System

TOUR_SECONDS = 500


def tour(system: System) -> str:
    """The commands, as somebody who copies the whole block runs them."""
    readme = (system.settings.root / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^## A quick tour$.*?^```bash\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.timeout(TOUR_SECONDS + 60)
def test_the_quick_tour_leads_from_nothing_to_scores_and_back(system: System):
    commands = tour(system)
    told = {line.split()[0] for line in commands.splitlines()}
    assert told <= {"make", ".", "budeval", "EVAL=$(budeval"}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-v", "-c", commands],
        cwd=system.settings.root, capture_output=True, text=True, timeout=TOUR_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same scores among them" in done.stdout
    assert re.search(r"siqa_gen: \d+ of 24 questions", done.stdout)
    assert re.search(r"\| siqa \| \w+ \| accuracy \| gen \| \d+\.\d\d \| Succeeded \|", done.stdout)
    assert re.search(r"endpoint.*ok", done.stdout)
    assert "Cancellation requested" in done.stdout
    assert "Attempt 2 requested" in done.stdout

"""``make demo`` as a user runs it, on a stack that is up."""

import re
import subprocess

from tests.e2e.system import System

DEMO_SECONDS = 200


def test_the_demo_shows_progress_and_ends_with_scores_that_a_subscriber_received(system: System):
    command, root = ["make", "demo"], system.settings.root
    demo = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=DEMO_SECONDS, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert re.search(r"siqa_gen: \d+ of 24 questions", demo.stdout)
    assert re.search(r"siqa\t\w+\taccuracy\tgen\t\d+\.\d\d\tSucceeded", demo.stdout)
    assert "the same scores among them" in demo.stdout

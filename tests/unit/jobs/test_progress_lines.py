import json

import pytest

from budeval.jobs.progress import last_progress


def line(**changes):
    return json.dumps({"budeval": "progress", "phase": "inference", "done": 12, "total": 48, **changes})


def test_the_newest_line_counts():
    log = "\n".join(["start", line(done=1), "some log", line(done=2), "more log"])
    assert last_progress(log) == {"phase": "inference", "done": 2, "total": 48}


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "{",
        "[]",
        "{}" * 10,
        line(budeval="other"),
        line(phase="dancing"),
        line(phase=["inference"]),
        line(done=-1),
        line(done="12"),
        line(done=True),
        line(total=1e3),
        line(total=10**30),
        line(extra="x" * 1000),
        '{"a":' * 90,
        "prefix " + line(),
    ],
)
def test_what_is_no_progress_line_is_passed_over(bad):
    assert last_progress(f"{line(done=3)}\n{bad}") == {"phase": "inference", "done": 3, "total": 48}
    assert last_progress(bad) is None

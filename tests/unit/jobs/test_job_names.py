import string

import pytest

from budeval.jobs.names import evaluation_selector, is_job_name, job_name, run_label, secret_name

EVAL_ID = "444e4567-e89b-12d3-a456-426614174020"
HOSTILE_RUN_IDS = [
    "{{ lookup('pipe', 'touch /tmp/x') }}",
    "a: b\nhostNetwork: true",
    "$(reboot)",
    "`id`; rm -rf /",
    "../../etc/passwd",
    "..",
    "",
    " ",
    "naïve-überprüfung",
    "実行",
    "UPPER_case.1",
    "-leading",
    "trailing-",
    "\x00\x1b[31m",
    "x" * 300,
]


def test_a_valid_run_id_is_contained_in_the_name():
    assert job_name(EVAL_ID, "test-monitor-pattern-001").startswith("test-monitor-pattern-001-")


def test_the_longest_run_id_that_fits_is_contained():
    run_id = "a" * 52
    assert job_name(EVAL_ID, run_id).startswith(f"{run_id}-")
    assert len(job_name(EVAL_ID, run_id)) == 63


@pytest.mark.parametrize("run_id", HOSTILE_RUN_IDS)
def test_every_run_id_gives_a_dns_label(run_id):
    name = job_name(EVAL_ID, run_id)
    assert is_job_name(name)
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")


def test_run_ids_that_look_the_same_have_different_names():
    alike = ["Run 1", "run 1", "run-1", "run_1", "run.1", "RUN-1"]
    assert len({job_name(EVAL_ID, run_id) for run_id in alike}) == len(alike)


def test_the_same_run_id_in_another_evaluation_has_another_name():
    assert job_name(EVAL_ID, "run-1") != job_name(EVAL_ID.replace("4", "5"), "run-1")


def test_the_name_is_the_same_every_time():
    assert job_name(EVAL_ID, "run-1") == job_name(EVAL_ID, "run-1")


@pytest.mark.parametrize("run_id", ["run-1", "Run_1.x", "a"])
def test_a_valid_label_value_stays_itself(run_id):
    assert run_label(run_id) == run_id


@pytest.mark.parametrize("run_id", [*HOSTILE_RUN_IDS[:5], "", "x" * 64, "-x"])
def test_an_invalid_label_value_becomes_a_digest(run_id):
    assert set(run_label(run_id)) <= set(string.hexdigits)
    assert len(run_label(run_id)) <= 63


@pytest.mark.parametrize("text", ["..", "a/b", "a.b", "A", "-a", "a-", "", "a\n", "x" * 64])
def test_what_is_no_dns_label_is_no_job_name(text):
    assert not is_job_name(text)


def test_names_and_selector_of_an_evaluation_carry_its_id():
    assert secret_name(EVAL_ID) == f"budeval-{EVAL_ID}"
    assert evaluation_selector(EVAL_ID) == f"app.kubernetes.io/managed-by=budeval,budeval.io/eval-id={EVAL_ID}"

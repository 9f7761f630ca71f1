from datetime import timedelta

import pytest

from budeval.evals.models import EvaluationInput
from budeval.evals.monitoring import FIRST_ETA_MINUTES, MonitorState, judge, judge_failed_sweep
from budeval.jobs.models import JobState, JobStatus, Progress
from tests.samples import EVAL_ID, NOW

RUNNING, SUCCEEDED, FAILED = JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED
PENDING, SUSPENDED, MISSING = JobState.PENDING, JobState.SUSPENDED, JobState.MISSING


def a_state(run_ids=("run-a", "run-b"), **changes):
    first = MonitorState.first(
        EvaluationInput(eval_id=EVAL_ID, run_ids=list(run_ids), poll_interval=30, max_checks=240, progress_every=10)
    )
    return first.model_copy(update=changes)


def job(status=RUNNING, *, done=None, total=48, **changes):
    progress = None if done is None else Progress(phase="inference", done=done, total=total)
    return JobStatus(name="job", status=status, phase="Running", progress=progress, **changes)


def sweep(state, now=NOW, **runs):
    """A good sweep; ``run_a=...`` is what it showed of run-a."""
    return judge(state, {name.replace("_", "-"): status for name, status in runs.items()}, now)


def update_of(verdict, run_id="run-a"):
    return next(item for item in verdict.updates if item.run_id == run_id)


# ------------------------------------------------------------------ how runs end


def test_a_sweep_follows_every_run_that_has_not_ended():
    verdict = sweep(a_state(), run_a=job(SUCCEEDED), run_b=job(RUNNING))
    assert verdict.state.completed_jobs == ["run-a"]
    assert verdict.state.remaining == ["run-b"]
    assert (verdict.newly_completed, verdict.newly_failed, verdict.finished) == (["run-a"], [], False)
    after = sweep(verdict.state, run_b=job(SUCCEEDED))
    assert after.state.completed_jobs == ["run-a", "run-b"]
    assert [item.run_id for item in after.updates] == ["run-b"]
    assert after.finished


def test_a_failed_run_is_data_with_kubernetes_own_reason():
    status = job(FAILED, reason="DeadlineExceeded", message="active too long", resolution="Ask fewer questions.")
    verdict = sweep(a_state(), run_a=status, run_b=job())
    assert verdict.state.failed_jobs == verdict.newly_failed == ["run-a"]
    assert verdict.state.stuck_jobs == []
    assert update_of(verdict).error.model_dump() == {
        "reason": "DeadlineExceeded",
        "message": "active too long",
        "resolution": "Ask fewer questions.",
    }


def test_a_failed_run_without_a_reason_says_so():
    error = update_of(sweep(a_state(), run_a=job(FAILED), run_b=job())).error
    assert (error.reason, error.message) == ("Failed", "The Job failed without a reason.")


def test_all_runs_ended_is_the_end_whatever_they_came_to():
    verdict = sweep(a_state(), run_a=job(SUCCEEDED), run_b=job(FAILED, reason="Evicted"))
    assert (verdict.finished, verdict.timed_out, verdict.progress_message) == (True, False, None)
    assert verdict.state.eta_minutes == 0


GOES_ON = [
    ("retrying", job(PENDING, reason="EndpointUnreachable", message="x", retrying=True, failed=1), "Pending"),
    ("suspended", job(SUSPENDED), "Suspended"),
    ("pulling", job(PENDING, reason="ImagePullBackOff", message="x"), "Pending"),
    ("pending", job(PENDING), "Pending"),
    ("running", job(RUNNING), "Running"),
]


@pytest.mark.parametrize(("name", "status", "state"), GOES_ON, ids=[name for name, *_ in GOES_ON])
def test_a_run_that_may_still_succeed_goes_on(name, status, state):
    verdict = sweep(a_state(("run-a",)), run_a=status)
    assert verdict.state.remaining == ["run-a"]
    assert update_of(verdict).status == state
    assert (update_of(verdict).error is None) is (status.reason is None)


def test_the_reason_of_an_attempt_is_gone_when_the_run_succeeds():
    assert update_of(sweep(a_state(("run-a",)), run_a=job(SUCCEEDED, reason="Completed"))).error is None


def test_a_pod_that_will_never_start_fails_its_run_and_its_job_is_to_be_removed():
    status = job(PENDING, fatal=True, reason="ErrImageNeverPull", message="no image")
    verdict = sweep(a_state(("run-a",)), run_a=status)
    assert (verdict.state.failed_jobs, verdict.state.stuck_jobs) == (["run-a"], ["run-a"])
    assert update_of(verdict).error.reason == "ErrImageNeverPull"


def test_an_end_brings_its_times_and_the_digest_of_its_result():
    status = job(
        SUCCEEDED, start_time="2026-01-01T10:00:00Z", completion_time="2026-01-01T10:15:30Z", result_sha256="a"
    )
    update = update_of(sweep(a_state(("run-a",)), run_a=status))
    assert (update.started_at, update.ended_at) == (NOW, NOW + timedelta(minutes=15, seconds=30))
    assert update.result_sha256 == "a"


# ------------------------------------------------------------------ missing Jobs

NOT_SHOWN = [{}, {"run_a": job(MISSING)}]


@pytest.mark.parametrize("shown", NOT_SHOWN, ids=["absent", "missing"])
def test_a_job_is_missing_after_two_good_sweeps(shown):
    first = sweep(a_state(("run-a",)), **shown)
    assert (first.state.remaining, update_of(first).status, update_of(first).error) == (["run-a"], MISSING, None)
    second = sweep(first.state, **shown)
    assert (second.state.failed_jobs, second.finished) == (["run-a"], True)
    assert update_of(second).error.reason == "JobMissing"


def test_a_job_that_is_back_was_never_missing():
    state = sweep(a_state(("run-a",))).state
    state = sweep(state, run_a=job()).state
    assert sweep(state).state.remaining == ["run-a"]


def test_a_failed_sweep_shows_no_job_and_makes_none_missing():
    state = sweep(a_state(("run-a",))).state
    state = judge_failed_sweep(state, "x", NOW).state
    state = judge_failed_sweep(state, "x", NOW).state
    assert state.remaining == ["run-a"]
    assert sweep(state).state.failed_jobs == ["run-a"]


# ------------------------------------------------------------------ failed sweeps


def test_three_failed_sweeps_in_a_row_are_told_once():
    state, told = a_state(), []
    for _ in range(6):
        verdict = judge_failed_sweep(state, "ClusterUnreachable", NOW)
        told.append(verdict.progress_message)
        state = verdict.state
    assert [message is not None for message in told] == [False, False, True, False, False, False]
    assert "3 times in a row" in told[2] and "ClusterUnreachable" in told[2]
    assert state.remaining == ["run-a", "run-b"]


def test_a_good_sweep_ends_the_row_and_is_news_again():
    state = sweep(a_state(), run_a=job(), run_b=job()).state
    for _ in range(3):
        state = judge_failed_sweep(state, "x", NOW).state
    verdict = sweep(state, run_a=job(), run_b=job())
    assert verdict.progress_message == "Jobs: 0 completed, 2 running"
    assert verdict.state.failed_sweeps == 0
    assert judge_failed_sweep(verdict.state, "x", NOW).progress_message is None


# ------------------------------------------------------------------ time

LAST = 239


@pytest.mark.parametrize(("check_count", "timed_out"), [(0, False), (LAST - 1, False), (LAST, True)])
def test_the_time_is_up_after_the_last_check(check_count, timed_out):
    state = a_state(check_count=check_count, started_at=NOW)
    assert sweep(state, run_a=job(), run_b=job()).timed_out is timed_out
    assert judge_failed_sweep(state, "x", NOW).timed_out is timed_out


def test_what_completed_by_the_last_check_is_no_timeout():
    verdict = sweep(a_state(check_count=LAST), run_a=job(SUCCEEDED), run_b=job(SUCCEEDED))
    assert (verdict.finished, verdict.timed_out) == (True, False)


def test_a_woken_check_does_not_count():
    state = a_state(check_count=5, woken=True)
    for after in (sweep(state, run_a=job(), run_b=job()).state, judge_failed_sweep(state, "x", NOW).state):
        assert (after.check_count, after.woken) == (5, False)
    assert sweep(after, run_a=job(), run_b=job()).state.check_count == 6


def test_wakes_alone_do_not_keep_an_evaluation_alive_for_ever():
    state = sweep(a_state(woken=True), run_a=job(), run_b=job()).state
    planned = timedelta(seconds=240 * 30)

    def woken(after):
        return sweep(state.model_copy(update={"woken": True}), NOW + after, run_a=job(), run_b=job()).timed_out

    assert not woken(2 * planned - timedelta(seconds=1))
    assert woken(2 * planned)


# ------------------------------------------------------------------ what is news


def news(states, every=10):
    """Which of many sweeps were told; each item is what a sweep showed of run-a."""
    state, told = a_state(progress_every=every), []
    for status in states:
        verdict = sweep(state, run_a=status, run_b=job())
        told.append(verdict.progress_message)
        state = verdict.state
    return told


def test_progress_is_told_every_so_many_checks():
    told = news([job()] * 21)
    assert [number for number, message in enumerate(told, 1) if message] == [10, 20]
    assert set(filter(None, told)) == {"Jobs: 0 completed, 2 running"}


def test_what_is_told_before_the_first_check_is_no_news_at_it():
    assert a_state().told == "Jobs: 0 completed, 2 running"


def test_progress_is_told_on_every_change():
    told = news([job(), job(), job(SUCCEEDED), job()])
    assert told == [None, None, "Jobs: 1 completed, 1 running", None]


def shown_checks(state, checks):
    """Checks whose progress the workflow itself shows, while one run goes on."""
    shown = []
    for _ in range(checks):
        verdict = sweep(state, run_a=job())
        state = verdict.state
        shown += [state.check_count] * verdict.shown
    return shown


def test_the_workflow_shows_progress_as_often_as_it_is_told():
    assert shown_checks(a_state(["run-a"]), 30) == [10, 20, 30]


def test_the_workflow_shows_every_end_of_a_run():
    assert sweep(a_state(), run_a=job(SUCCEEDED), run_b=job()).shown
    assert sweep(a_state(), run_a=job(FAILED), run_b=job()).shown


def test_the_workflow_shows_a_hundred_of_many_checks_so_that_its_history_stays_small():
    assert len(shown_checks(a_state(["run-a"], max_checks=10_000, progress_every=1), 10_000)) == 100


def test_wakes_and_outages_are_not_shown():
    state = a_state(["run-a"], check_count=10, woken=True)
    assert not sweep(state, run_a=job()).shown
    assert not judge_failed_sweep(a_state(["run-a"], failed_sweeps=2, check_count=9), "nobody answers", NOW).shown


def test_failed_runs_are_told_where_there_are_any():
    assert news([job(FAILED)]) == ["Jobs: 0 completed, 1 running, 1 failed"]


def test_progress_can_be_told_at_every_check():
    assert all(news([job()] * 5, every=1))


# ------------------------------------------------------------------ the time left


def etas(sweeps, run_ids=("run-a",)):
    """Minutes left after each sweep, one every 30 s; each item is what it showed."""
    state, told = a_state(run_ids), []
    for number, runs in enumerate(sweeps):
        state = sweep(state, NOW + number * timedelta(seconds=30), **runs).state
        told.append(state.eta_minutes)
    return told


def test_before_anything_is_measured_half_an_hour_is_left():
    assert etas([{"run_a": job()}, {"run_a": job(done=0)}, {"run_a": job(done=0)}]) == [FIRST_ETA_MINUTES] * 3


def test_the_time_left_follows_from_the_measured_rate():
    shown = [{"run_a": job(done=done, total=100)} for done in (0, 10, 20, 30)]
    assert etas(shown) == [30, 5, 4, 4]


RATES = {
    "slower and slower": [0, 50, 55, 56, 56, 56, 57],
    "faster and faster": [0, 1, 3, 10, 50, 90],
    "an attempt that begins anew": [0, 50, 0, 0, 10, 20],
    "a standstill": [0, 10, 10, 10, 10],
}


@pytest.mark.parametrize("done", RATES.values(), ids=RATES)
def test_the_time_left_never_goes_up(done):
    told = etas([{"run_a": job(done=count, total=100)} for count in done])
    assert told == sorted(told, reverse=True)
    assert min(told) >= 1


def test_the_time_left_never_goes_up_when_runs_come_and_go():
    told = etas(
        [
            {"run_a": job(done=0, total=10), "run_b": job()},
            {"run_a": job(done=5, total=10), "run_b": job()},
            {"run_a": job(done=9, total=10), "run_b": job(done=0, total=10_000)},
            {"run_a": job(SUCCEEDED), "run_b": job(done=10, total=10_000)},
            {"run_b": job(done=20, total=10_000)},
            {"run_b": job(SUCCEEDED)},
        ],
        ("run-a", "run-b"),
    )
    assert told == sorted(told, reverse=True)
    assert told[-1] == 0


def test_a_change_of_the_time_left_is_told():
    state = sweep(a_state(("run-a",)), run_a=job(done=0, total=100)).state
    verdict = sweep(state, NOW + timedelta(seconds=30), run_a=job(done=10, total=100))
    assert verdict.eta_changed
    assert not sweep(verdict.state, NOW + timedelta(seconds=31), run_a=job(done=10, total=100)).eta_changed


# ------------------------------------------------------------------ the state


def test_the_state_goes_through_json_unchanged_and_knows_later_fields():
    state = sweep(a_state(), run_a=job(done=1), run_b=job(SUCCEEDED)).state
    assert MonitorState.model_validate_json(state.model_dump_json()) == state
    assert MonitorState.model_validate({**state.model_dump(), "of_a_later_version": 1}) == state


def test_judging_twice_comes_to_the_same():
    state = a_state()
    runs = {"run_a": job(SUCCEEDED), "run_b": job(done=3)}
    assert sweep(state, **runs) == sweep(state, **runs)
    assert state == a_state()

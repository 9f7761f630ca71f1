"""Statuses from plain dicts, in the shape a sweep brings."""

import json
from datetime import UTC, datetime

import pytest

from budeval.jobs.models import JobState
from budeval.jobs.status import job_status, missing

NOW = datetime(2026, 1, 1, 10, 0, 0, tzinfo=UTC)
LONG_AGO = "2026-01-01T09:00:00Z"
JUST_NOW = "2026-01-01T09:59:30Z"
DIGEST = "ab" * 32


def job(*conditions, **status):
    return {
        "name": "run-1",
        "uid": "uid-1",
        "created": JUST_NOW,
        "deleted": None,
        "suspend": False,
        "conditions": list(conditions),
        **status,
    }


def condition(kind, reason=None, message=None, since=JUST_NOW, status="True"):
    return {"type": kind, "status": status, "reason": reason, "message": message, "since": since}


def pod(phase="Running", *containers, conditions=(), **changes):
    made = {
        "name": "run-1-abcde",
        "job": "run-1",
        "job_uid": "uid-1",
        "created": JUST_NOW,
        "deleted": None,
        "phase": phase,
        "reason": None,
        "message": None,
        "conditions": list(conditions),
        "containers": list(containers),
    }
    return {**made, **changes}


def waiting(reason, message=""):
    return {"running": False, "ready": False, "waiting": {"reason": reason, "message": message}, "terminated": None}


def ended(reason="Error", exit_code=1, message=""):
    terminated = {"reason": reason, "exit_code": exit_code, "signal": None, "message": message}
    return {"running": False, "ready": False, "waiting": None, "terminated": terminated}


def said(reason="Completed", **changes):
    return json.dumps({"schema": 1, "reason": reason, "message": "", "done": 48, "total": 48, **changes})


COMPLETE = condition("Complete", "CompletionsReached")
UNSCHEDULABLE = condition("PodScheduled", "Unschedulable", "0/1 nodes are available", status="False")


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        (job(COMPLETE, succeeded=1), JobState.SUCCEEDED),
        (job(condition("Failed", "BackoffLimitExceeded"), failed=4), JobState.FAILED),
        # The counters below mislead whoever reads them instead of the conditions.
        (job(active=1, ready=1, failed=2), JobState.RUNNING),
        (job(active=0, failed=1), JobState.PENDING),
        (job(active=1, ready=1, succeeded=1), JobState.RUNNING),
        (job(condition("Failed", "DeadlineExceeded")), JobState.FAILED),
        (job(condition("Complete", status="False"), active=1, ready=1), JobState.RUNNING),
        (job(condition("FailureTarget", "PodFailurePolicy"), failed=1), JobState.RUNNING),
        (job(condition("SuccessCriteriaMet", "CompletionsReached"), succeeded=1), JobState.RUNNING),
        (job(active=1), JobState.PENDING),
        (job(), JobState.PENDING),
        (job(suspend=True), JobState.SUSPENDED),
        (job(COMPLETE, suspend=True), JobState.SUCCEEDED),
        (job(deleted=JUST_NOW, active=1, ready=1), JobState.MISSING),
        (job(COMPLETE, deleted=JUST_NOW), JobState.SUCCEEDED),
    ],
)
def test_conditions_decide(raw, state):
    assert job_status(raw, [], NOW).status is state


def test_the_guides_keys_are_there():
    told = job_status(job(COMPLETE, succeeded=1, startTime=LONG_AGO, completionTime=JUST_NOW), [], NOW).model_dump()
    assert (told["status"], told["startTime"], told["completionTime"]) == ("Succeeded", LONG_AGO, JUST_NOW)
    assert {"status", "phase", "message", "active", "succeeded", "failed"} <= set(told)


def test_a_job_that_was_not_seen_is_missing():
    assert missing("run-1").status is JobState.MISSING


def test_a_failed_job_tells_when_it_failed():
    assert job_status(job(condition("Failed", "DeadlineExceeded", since=LONG_AGO)), [], NOW).completion_time == LONG_AGO


def test_a_job_with_attempts_left_is_retrying():
    status = job_status(job(failed=2, active=1, ready=1), [pod()], NOW)
    assert (status.status, status.retrying, status.attempts, status.reason) == (JobState.RUNNING, True, 2, None)


def test_while_an_attempt_is_awaited_the_last_failure_is_told():
    raw = job(failed=1)
    status = job_status(raw, [pod("Failed", ended(exit_code=20, message=said("EndpointUnreachable")))], NOW)
    assert (status.status, status.reason, status.fatal) == (JobState.PENDING, "EndpointUnreachable", False)


def test_a_pod_of_an_older_job_of_the_same_name_is_left_out():
    status = job_status(job(active=1), [pod("Failed", ended(), job_uid="uid-0")], NOW)
    assert (status.phase, status.reason) == ("Pending", None)


def test_the_newest_pod_counts():
    pods = [pod("Failed", ended("OOMKilled", 137), created=LONG_AGO), pod("Running", created=JUST_NOW)]
    assert job_status(job(active=1, ready=1, failed=1), pods, NOW).phase == "Running"


def test_a_completed_run_brings_its_digest_and_counts():
    done = ended("Completed", 0, said(result_sha256=DIGEST))
    status = job_status(job(COMPLETE, succeeded=1), [pod("Succeeded", done)], NOW)
    assert status.result_sha256 == DIGEST
    assert status.progress is not None
    assert (status.progress.done, status.progress.total, status.reason) == (48, 48, None)


def test_progress_of_a_running_pod_is_brought():
    progress = {"phase": "inference", "done": 12, "total": 48}
    status = job_status(job(active=1, ready=1), [pod(progress=progress)], NOW)
    assert status.progress is not None
    assert status.progress.model_dump() == progress


@pytest.mark.parametrize(
    ("condition_reason", "container", "reason"),
    [
        ("PodFailurePolicy", ended(exit_code=10, message=said("EndpointUnauthorized")), "EndpointUnauthorized"),
        ("BackoffLimitExceeded", ended(exit_code=20, message=said("EndpointRateLimited")), "EndpointRateLimited"),
        ("BackoffLimitExceeded", ended("OOMKilled", 137), "OOMKilled"),
        ("BackoffLimitExceeded", ended("OOMKilled", 137, said("Completed")), "OOMKilled"),
        ("BackoffLimitExceeded", ended("OOMKilled", 137, said("EndpointUnreachable")), "OOMKilled"),
        ("BackoffLimitExceeded", ended("Error", 1, "Traceback ..."), "Error"),
        ("BackoffLimitExceeded", ended("StartError", 128, "exec: not found"), "StartError"),
        ("DeadlineExceeded", ended(exit_code=143), "DeadlineExceeded"),
    ],
)
def test_a_failed_job_gives_the_reason_that_says_most(condition_reason, container, reason):
    raw = job(condition("Failed", condition_reason, "Job was active longer than specified deadline"), failed=1)
    status = job_status(raw, [pod("Failed", container)], NOW)
    assert (status.status, status.reason) == (JobState.FAILED, reason)
    assert status.message
    assert status.resolution


def test_an_evicted_pod_is_told_as_evicted():
    raw = job(condition("Failed", "BackoffLimitExceeded"), failed=4)
    evicted = pod("Failed", ended("Error", 137), reason="Evicted", message="The node was low on resource: memory")
    status = job_status(raw, [evicted], NOW)
    assert status.reason == "Evicted"
    assert "low on resource" in status.message


def test_a_failed_job_whose_pods_are_gone_still_has_a_reason():
    status = job_status(job(condition("Failed", "BackoffLimitExceeded"), failed=4), [], NOW)
    assert (status.reason, status.resolution) == (
        "BackoffLimitExceeded",
        "Look into engine.log in the run's directory on the volume.",
    )


@pytest.mark.parametrize(
    ("container", "fatal_now", "fatal_later"),
    [
        (waiting("InvalidImageName", 'couldn\'t parse image name "::"'), True, True),
        (waiting("ErrImageNeverPull", "Container image is not present with pull policy of Never"), True, True),
        (waiting("CreateContainerConfigError", "couldn't find key OPENAI_API_KEY in Secret"), True, True),
        (waiting("CreateContainerConfigError", 'secret "budeval" not found'), True, True),
        (waiting("CreateContainerConfigError", "failed to sync configmap cache: timed out"), False, True),
        (waiting("ErrImagePull", "localhost/x:1: not found"), True, True),
        (waiting("ImagePullBackOff", "pull access denied, repository does not exist"), True, True),
        (waiting("ErrImagePull", "401 Unauthorized"), True, True),
        (waiting("ErrImagePull", "dial tcp: i/o timeout"), False, True),
        (waiting("ImagePullBackOff", 'Back-off pulling image "x"'), False, True),
        (waiting("CrashLoopBackOff", "back-off 5m0s"), False, True),
        (waiting("CreateContainerError", "context deadline exceeded"), False, True),
        (waiting("ContainerCreating"), False, False),
        (waiting("AReasonOfTomorrow", "that nobody knows yet"), False, False),
    ],
)
def test_a_pod_that_cannot_start_is_fatal_at_once_or_after_its_grace(container, fatal_now, fatal_later):
    for since, fatal in ((JUST_NOW, fatal_now), (LONG_AGO, fatal_later)):
        not_ready = condition("ContainersReady", "ContainersNotReady", since=since, status="False")
        status = job_status(job(active=1), [pod("Pending", container, conditions=[not_ready])], NOW)
        assert (status.status, status.fatal) == (JobState.PENDING, fatal)
        if fatal:
            assert status.reason == container["waiting"]["reason"]
            assert status.resolution


@pytest.mark.parametrize(("since", "fatal"), [(JUST_NOW, False), (LONG_AGO, True)])
def test_the_grace_of_an_unschedulable_pod_counts_from_its_condition(since, fatal):
    status = job_status(job(active=1), [pod("Pending", conditions=[{**UNSCHEDULABLE, "since": since}])], NOW)
    assert (status.reason, status.fatal) == ("Unschedulable", fatal)
    assert "0/1 nodes" in status.message


def test_the_grace_is_a_setting():
    pods = [pod("Pending", conditions=[UNSCHEDULABLE])]
    assert job_status(job(active=1), pods, NOW, grace_seconds=10).fatal


def test_a_job_for_which_no_pod_is_made_says_so_and_waits():
    status = job_status(job(created=LONG_AGO), [], NOW)
    assert (status.status, status.reason, status.fatal) == (JobState.PENDING, "FailedCreate", False)


QUOTA = 'pods "run-1" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0'


def refused(message, first=LONG_AGO):
    return job(refusal={"job_uid": "uid-1", "message": message, "first": first, "last": JUST_NOW})


@pytest.mark.parametrize(
    ("message", "fatal_later", "advice"),
    [
        (QUOTA, False, "ResourceQuota"),
        ('pods "run-1" is forbidden: failed quota: q: must specify limits.memory for: engine', True, "ResourceQuota"),
        ('pods "run-1" is forbidden: violates PodSecurity "restricted:latest": host namespaces', True, "pod security"),
        ('pods "run-1" is forbidden: [maximum cpu usage per Container is 1, but limit is 2]', True, "LimitRange"),
        ('pods "run-1" is forbidden: cpu max limit to request ratio per Pod is 2, but', True, "LimitRange"),
        ('admission webhook "policy.example" denied the request: no labels', True, "administrator"),
        ('admission webhook "policy.example" denied the request without explanation', True, "administrator"),
        ('admission webhook "quotas.example" denied the request: exceeded quota: team', False, "ResourceQuota"),
        ("pods \"run-1\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request", True, "policy"),
        ('Internal error occurred: failed calling webhook "policy.example": connection refused', False, "message"),
        ('pods "run-1" is forbidden: error looking up service account a/b: not found', False, "message"),
        ("", False, "message"),
    ],
)
def test_a_refused_pod_is_told_at_once_and_fatal_after_its_grace_where_waiting_is_useless(message, fatal_later, advice):
    for first, fatal in ((JUST_NOW, False), (LONG_AGO, fatal_later)):
        status = job_status(refused(message, first), [], NOW)
        assert (status.status, status.reason, status.fatal) == (JobState.PENDING, "FailedCreate", fatal)
        assert message in status.message
        assert advice in status.resolution


def test_words_of_a_refusal_are_redacted_and_cut():
    status = job_status(refused('webhook "w" denied the request: key sk-abcdefghijkl\x1b[2J' + "a" * 3000), [], NOW)
    assert "sk-abcdefghijkl" not in status.message
    assert "\x1b" not in status.message
    assert len(status.message) < 700


def test_a_refusal_counts_only_while_there_is_no_pod():
    raw = refused(QUOTA)
    assert job_status(raw, [pod("Running")], NOW).reason is None
    assert job_status({**raw, "suspend": True}, [], NOW).reason is None


def test_a_suspended_job_is_never_fatal():
    pods = [pod("Pending", conditions=[{**UNSCHEDULABLE, "since": LONG_AGO}])]
    assert not job_status(job(suspend=True), pods, NOW).fatal


def test_a_disrupted_pod_needs_no_action():
    disrupted = condition("DisruptionTarget", "PreemptionByScheduler", "preempted")
    status = job_status(job(), [pod("Failed", ended("Error", 143), conditions=[disrupted])], NOW)
    assert (status.reason, status.fatal) == ("PreemptionByScheduler", False)


def test_an_evicted_pod_says_so_though_it_was_disrupted_as_well():
    disrupted = condition("DisruptionTarget", "TerminationByKubelet", "the node was low on memory")
    evicted = pod("Failed", ended("Error", 137), conditions=[disrupted], reason="Evicted", message="low on memory")
    status = job_status(job(), [evicted], NOW)
    assert status.reason == "Evicted"
    assert "low on memory" in status.message


@pytest.mark.parametrize("phase", ["Pending", "Running"])
@pytest.mark.parametrize("reason", ["DeletionByTaintManager", "PreemptionByScheduler", "EvictionByEvictionAPI"])
def test_a_pod_that_its_node_gives_up_says_so_before_it_has_ended(phase, reason):
    # Of a lost node it never ends by itself, and no other pod is made before it has.
    lost = condition("DisruptionTarget", reason, "Taint manager: deleting due to NoExecute taint", since=LONG_AGO)
    running = {"running": True, "ready": True, "waiting": None, "terminated": None}
    status = job_status(job(active=0), [pod(phase, running, conditions=[lost], deleted=LONG_AGO)], NOW)
    assert (status.status, status.reason, status.fatal) == (JobState.PENDING, reason, False)
    assert "removed from the cluster" in status.resolution


@pytest.mark.parametrize(("since", "reason"), [(JUST_NOW, None), (LONG_AGO, "NodeNotReady")])
def test_a_running_pod_that_is_not_ready_has_lost_its_node(since, reason):
    running = {"running": True, "ready": True, "waiting": None, "terminated": None}
    not_ready = condition("Ready", since=since, status="False")
    status = job_status(job(active=1, ready=0), [pod("Running", running, conditions=[not_ready])], NOW)
    assert (status.reason, status.fatal) == (reason, False)


@pytest.mark.parametrize(("prepared", "words"), [("False", "sandbox"), ("True", "may still be pulled")])
def test_a_pod_without_its_sandbox_is_told_apart_from_a_slow_pull(prepared, words):
    conditions = [
        condition("PodReadyToStartContainers", since=LONG_AGO, status=prepared),
        condition("ContainersReady", "ContainersNotReady", since=LONG_AGO, status="False"),
    ]
    status = job_status(job(active=1), [pod("Pending", waiting("ContainerCreating"), conditions=conditions)], NOW)
    assert (status.reason, status.fatal) == ("ContainerCreating", False)
    assert words in f"{status.message} {status.resolution}"


@pytest.mark.parametrize(
    "message",
    [
        "not json",
        "[" * 4096,
        '{"schema": 1, "reason": ["EndpointUnauthorized"], "message": {"a": 1}}',
        '{"schema": 1, "reason": "<script>alert(1)</script>"}',
        '{"schema": 2, "reason": "EndpointUnauthorized"}',
        json.dumps({"schema": 1, "reason": "Completed", "done": -1, "total": "48", "result_sha256": "../../x"}),
        json.dumps({"schema": 1, "reason": "Completed", "done": True, "total": 48}),
        json.dumps({"schema": 1, "reason": "Completed", "done": 1, "total": 10**400}),
        "\x1b[31m\x00\u202e{{ lookup('pipe','id') }}",
        "null",
        "",
    ],
)
def test_a_hostile_termination_message_is_only_text(message):
    raw = job(condition("Failed", "BackoffLimitExceeded"), failed=1)
    status = job_status(raw, [pod("Failed", ended("Error", 1, message))], NOW)
    assert status.reason == "Error"
    assert (status.progress, status.result_sha256) == (None, None)
    assert status.message.isprintable()
    assert len(status.message) < 700


def test_a_secret_in_a_termination_message_is_masked():
    raw = job(condition("Failed", "BackoffLimitExceeded"), failed=1)
    container = ended("Error", 1, said("EngineFailed", message="key sk-abcdefghijkl was refused"))
    assert "sk-abcdefghijkl" not in job_status(raw, [pod("Failed", container)], NOW).message

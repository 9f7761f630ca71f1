import json

import pytest

from budeval.jobs.checks import CheckStatus
from budeval.jobs.permissions import OPTIONAL_PERMISSIONS
from budeval.jobs.preflight import Asked, judge_manifests, judge_probe, judge_surroundings, no_cluster, no_report
from tests.unit.jobs.test_cluster_verification import answers, failure

OK, WARNING, FAILED, SKIPPED = CheckStatus.OK, CheckStatus.WARNING, CheckStatus.FAILED, CheckStatus.SKIPPED
ASKED = Asked(image="engine:1", datasets={"siqa_gen": 0, "piqa_gen": 2}, max_questions=24)


def surroundings(**changes):
    asked = answers(**changes)
    optional = [
        {
            "permission": list(each),
            "status": 201,
            "body": {"status": {"allowed": str(each) not in changes.get("denied", [])}},
        }
        for each in OPTIONAL_PERMISSIONS
    ]
    reviews = [*asked["permissions"], *optional]
    found = judge_surroundings({**asked, "permissions": reviews}, "development", "budeval-data")
    return found, {check.id: check for check in found.checks}


def claim(phase, storage_class=""):
    body = {"status": {"phase": phase}, "spec": {"storageClassName": storage_class}}
    return {"status": 200, "body": body}


# ---------------------------------------------------------------- the cluster


def test_a_ready_cluster_has_nothing_but_good_checks():
    found, checks = surroundings()
    assert {check.status for check in checks.values()} == {OK}
    assert (found.usable, found.bound) == (True, True)


@pytest.mark.parametrize(
    ("changes", "check_id", "status", "usable", "bound"),
    [
        ({"denied": ["create jobs.batch"]}, "permissions", FAILED, False, True),
        ({"denied": ["create pods"]}, "permissions", WARNING, True, True),
        ({"denied": ["list events"]}, "permissions", WARNING, True, True),
        ({"denied": ["list events", "create jobs.batch"]}, "permissions", FAILED, False, True),
        ({"namespace": failure(404)}, "namespace", FAILED, False, True),
        (
            {"namespace": {"status": 200, "body": {"status": {"phase": "Terminating"}}}},
            "namespace",
            FAILED,
            False,
            True,
        ),
        ({"volume_claim": failure(404)}, "volume", FAILED, True, False),
        ({"volume_claim": claim("Pending")}, "volume", FAILED, True, False),
        ({"volume_claim": claim("Lost")}, "volume", FAILED, True, False),
        ({"volume_claim": claim("Pending", "local")}, "volume", WARNING, True, False),
        ({"volume_claim": failure(403)}, "volume", SKIPPED, True, False),
    ],
)
def test_what_is_missing_decides_how_far_the_rest_is_looked_at(changes, check_id, status, usable, bound):
    found, checks = surroundings(**changes)
    assert checks[check_id].status is status
    assert (found.usable, found.bound) == (usable, bound)
    assert {check.status for name, check in checks.items() if name != check_id} == {OK}


def test_what_evaluations_run_without_is_named():
    _, checks = surroundings(denied=["create pods", "list events"])
    message = checks["permissions"].message
    assert "create pods, list events" in message
    assert message.endswith(
        "run, but without dry runs of pods, and without the cluster's words where a Job gets no pod"
    )


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_server_that_does_not_answer_well_leaves_the_rest_open(status):
    found, checks = surroundings(version=failure(status, "no"))
    assert checks["cluster"].status is FAILED
    assert str(status) in checks["cluster"].message
    assert {check.status for name, check in checks.items() if name != "cluster"} == {SKIPPED}
    assert not found.usable


def test_every_failed_check_says_what_to_do():
    found, _ = surroundings(denied=["create jobs.batch"], namespace=failure(404), volume_claim=failure(404))
    assert all(check.resolution for check in [*found.checks, *no_cluster("x").checks] if check.status is FAILED)


# ---------------------------------------------------------------- the dry run


def judged(kind="Pod", status=201, message=None, reason=None, warnings=()):
    return {
        "kind": kind, "name": "run-a-1", "status": status, "reason": reason, "message": message, "warnings": [*warnings]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (judged(), OK, "all 1 objects"),
        (judged("Job", warnings=['unknown field "spec.x"']), WARNING, 'Job: unknown field "spec.x"'),
        (judged(status=403, message='pods "run-a-1" is forbidden: exceeded quota: small'), FAILED, "Pod: pods is forb"),
        (
            judged(status=403, message='pods is forbidden: User "x" cannot create resource "pods"'),
            WARNING,
            "cannot cre",
        ),
        (judged("Job", 403, 'User "x" cannot create resource "jobs"'), FAILED, "cannot create"),
        (judged("Job", 409, 'jobs "run-a-1" already exists', "AlreadyExists"), WARNING, "already exists"),
        (judged("Job", 409, "the namespace is being terminated", "Conflict"), FAILED, "terminated"),
        (judged("Job", 422, "Invalid value"), FAILED, "Invalid value"),
        (judged("Job", 500, "webhook failed"), FAILED, "webhook failed"),
        (judged("Job", 400, 'admission webhook "w" does not support dry run'), WARNING, "does not support dry run"),
        (judged("Job", 500), FAILED, "HTTP status 500"),
    ],
)
def test_an_answer_to_a_dry_run_has_its_meaning(answer, status, words):
    check = judge_manifests([answer])
    assert check.status is status
    assert words in check.message


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("exceeded quota: x", "ResourceQuota"),
        ("failed quota: x: must specify limits.cpu", "ResourceQuota"),
        ('violates PodSecurity "restricted:latest"', "pod security"),
        ("maximum memory usage per Container is 1Gi", "LimitRange"),
        ('admission webhook "policy.example" denied the request', "administrator"),
        ("something else", "overlay"),
    ],
)
def test_a_refusal_comes_with_what_to_do(message, words):
    assert words in judge_manifests([judged(status=403, message=message)]).resolution


def test_a_refusal_that_all_jobs_share_is_told_once():
    many = [{**judged("Job", 403, f'jobs.batch "run-{n}" is forbidden: exceeded quota'), "name": f"run-{n}"}
            for n in range(200)]  # fmt: skip
    assert judge_manifests(many).message == "Job: jobs.batch is forbidden: exceeded quota"


# ---------------------------------------------------------------- the probe


def pod(phase="Succeeded", *, waiting=None, exit_code=0, conditions=(), reason="Error"):
    container = {"running": False, "ready": False, "waiting": waiting, "terminated": None}
    if waiting is None and phase != "Pending":
        container["terminated"] = {
            "reason": "Completed" if exit_code == 0 else reason, "exit_code": exit_code, "signal": None, "message": ""
        }  # fmt: skip
    return {
        "name": "probe-x", "job": "probe", "job_uid": "u", "created": "2026-01-01T10:00:00Z", "deleted": None,
        "phase": phase, "reason": None, "message": None, "conditions": [*conditions], "containers": [container],
    }  # fmt: skip


def seen(*pods, log=None, refused=None):
    return {"refused": refused, "job": {}, "pods": [*pods], "log": log}


def log(*lines):
    return "\n".join(json.dumps({"budeval": "preflight", **line}) for line in lines)


GOOD_LOG = log(
    {"check": "endpoint", "reason": None, "seconds": 0.5},
    {"dataset": "siqa_gen", "reason": None, "questions": 1954},
    {"dataset": "piqa_gen", "reason": None, "questions": 10},
    {"ended": True},
)


def by_id(answer, asked=ASKED):
    return {check.id: check for check in judge_probe(answer, asked)}


def test_a_probe_that_saw_everything_tells_it():
    checks = by_id(seen(pod(), log=GOOD_LOG))
    assert {check.status for check in checks.values()} == {OK}
    assert [checks[f"dataset:{name}"].message for name in ("siqa_gen", "piqa_gen")] == [
        "24 of 1954 questions", "10 of 10 questions",
    ]  # fmt: skip
    assert checks["dataset:piqa_gen"].field == "eval_datasets.2.dataset_id"


@pytest.mark.parametrize(
    ("answer", "check_id", "status", "words"),
    [
        (seen(refused={"status": 403, "message": "exceeded quota: q"}), "scheduling", FAILED, "exceeded quota: q"),
        (seen(), "scheduling", FAILED, "FailedCreate"),
        (seen(pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                          "message": "0/1 nodes", "since": None}])),
         "scheduling", FAILED, "Unschedulable: No node takes the pod: 0/1 nodes"),
        (seen(pod("Pending", waiting={"reason": "ImagePullBackOff", "message": "no such"})), "image", FAILED,
         "ImagePullBackOff"),
        (seen(pod("Pending", waiting={"reason": "ErrImageNeverPull", "message": ""})), "image", FAILED, "NeverPull"),
        (seen(pod("Pending", waiting={"reason": "ContainerCreating", "message": ""})), "image", WARNING, "pulled"),
        (seen(pod("Pending", waiting={"reason": "CreateContainerError", "message": "x"})), "scheduling", FAILED, "x"),
    ],
)  # fmt: skip
def test_a_probe_that_did_not_start_says_why_and_leaves_the_rest_open(answer, check_id, status, words):
    checks = by_id(answer)
    assert checks[check_id].status is status
    assert words in checks[check_id].message
    assert set(checks) == {"scheduling", "image", "dataset:siqa_gen", "dataset:piqa_gen", "endpoint"}
    assert checks["endpoint"].status is checks["dataset:siqa_gen"].status is SKIPPED


def test_a_probe_without_a_pod_says_what_the_api_server_said():
    refusal = {"message": 'violates PodSecurity "restricted"', "first": None, "last": None}
    check = by_id({**seen(), "job": {"refusal": refusal}})["scheduling"]
    assert check.message.endswith(': violates PodSecurity "restricted"')
    assert "pod security" in check.resolution


def test_an_older_image_is_a_warning_with_its_last_words():
    checks = by_id(seen(pod("Failed", exit_code=1), log="x\npython: No module named budeval_engine.preflight\n"))
    assert checks["image"].status is checks["endpoint"].status is checks["dataset:siqa_gen"].status is WARNING
    assert "No module named budeval_engine.preflight" in checks["image"].message


def test_an_image_without_an_engine_fails():
    checks = by_id(seen(pod("Failed", exit_code=128, reason="StartError")))
    assert checks["image"].status is FAILED
    assert "StartError" in checks["image"].message


def test_what_was_not_reached_in_time_is_a_warning():
    told = log({"dataset": "siqa_gen", "reason": None, "questions": 5}, {"ended": False})
    checks = by_id(seen(pod(), log=told))
    assert checks["dataset:siqa_gen"].status is OK
    assert checks["dataset:piqa_gen"].status is checks["endpoint"].status is WARNING
    assert "in time" in checks["endpoint"].message


def test_an_unbound_claim_leaves_data_sets_open():
    asked = ASKED.model_copy(update={"bound": False})
    checks = by_id(seen(pod(), log=log({"check": "endpoint", "reason": None})), asked)
    assert checks["dataset:siqa_gen"].status is SKIPPED
    assert checks["endpoint"].status is OK


@pytest.mark.parametrize(
    ("reason", "status", "field"),
    [
        ("EndpointUnauthorized", FAILED, "eval_model_info.api_key"),
        ("ModelNotFound", FAILED, "eval_model_info.model_name"),
        ("EndpointUnreachable", FAILED, "eval_model_info.endpoint"),
        ("InvalidConfiguration", FAILED, "eval_model_info.endpoint"),
        ("EndpointRateLimited", WARNING, "eval_model_info.endpoint"),
        ("QuestionRefused", WARNING, "eval_model_info.endpoint"),
        ("SomethingNew", FAILED, "eval_model_info.endpoint"),
    ],
)
def test_what_the_endpoint_said_names_the_field(reason, status, field):
    told = log({"check": "endpoint", "reason": reason, "message": "words"}, {"ended": True})
    check = by_id(seen(pod(), log=told))["endpoint"]
    assert (check.status, check.field, check.message) == (status, field, f"{reason}: words")
    assert check.resolution


@pytest.mark.parametrize("reason", ["DatasetMissing", "DatasetUnknown", "EngineFailed", "SomethingNew"])
def test_a_data_set_that_cannot_be_loaded_fails(reason):
    told = log({"dataset": "siqa_gen", "reason": reason, "message": "words"})
    check = by_id(seen(pod(), log=told))["dataset:siqa_gen"]
    assert (check.status, check.message) == (FAILED, f"{reason}: words")
    assert check.resolution


def test_words_of_strangers_cannot_obey_a_terminal_or_fill_it():
    told = log({"check": "endpoint", "reason": "\x1b[31mX", "message": "\x1b[2J" + "a" * 10_000})
    check = by_id(seen(pod(), log=told))["endpoint"]
    assert "\x1b" not in check.message
    assert len(check.message) < 1001


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (seen(), "FailedCreate"),
        (seen(pod("Failed", exit_code=1), log="No module named x"), "No module named x"),
        (seen(pod(), log=log({"ended": True})), "did not say"),
    ],
)
def test_why_there_is_no_inventory_is_told(answer, words):
    assert words in str(no_report(answer))

"""Judges what a cluster answered before an evaluation begins: raw answers in, checks out. Pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from budeval.commons.errors import ClusterNotReady, ClusterUnauthorized, ClusterUnreachable, TemporaryError
from budeval.commons.redaction import printable
from budeval.jobs.checks import Check, CheckStatus, check, dataset_check_id, failed, ok, skipped, warning
from budeval.jobs.diagnosis import ENGINE_REASONS, JOB_REASONS, Diagnosis, diagnose
from budeval.jobs.models import Frozen
from budeval.jobs.permissions import PREFLIGHT_PERMISSIONS, Permission
from budeval.jobs.probe import PROBE_SECONDS, DatasetFinding, EndpointFinding, ProbeReport, parse_report
from budeval.jobs.status import newest_pod
from budeval.jobs.verification import (
    claim_problems,
    is_allowed,
    namespace_problems,
    permission_problems,
    raise_for_server,
)

JsonObject = Mapping[str, Any]

_CLUSTER = ("namespace", "permissions", "volume")
_IMAGE_REASONS = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_NO_PROGRAM = frozenset({"StartError", "ContainerCannotRun"})
"""The image was there, but has nothing that could be started."""
_CREATE_PODS = str(PREFLIGHT_PERMISSIONS[0])

_DENIED_BY_ROLE = re.compile(r"cannot create resource")
_NO_DRY_RUN = re.compile(r"does not support dry run", re.IGNORECASE)
_REFUSALS = (
    (re.compile(r"exceeded quota|must specify"), "Make room in the ResourceQuota, or set resources that fit it."),
    (re.compile(r"PodSecurity"), "Lower the pod security level of the namespace, or set what it wants in the overlay."),
    (re.compile(r"usage per (Container|Pod)|limit to request ratio"), "Set resources that the LimitRange allows."),
    (re.compile(r"admission webhook|ValidatingAdmissionPolicy"), "Ask the cluster's administrator about this policy."),
)
_REFUSED = "See the message: correct the pod template overlay, or what the cluster's administrator set."

_SUBJECT_FIELDS = {
    "EndpointUnauthorized": "eval_model_info.api_key",
    "ModelNotFound": "eval_model_info.model_name",
}
_ENDPOINT_FIELD = "eval_model_info.endpoint"
_PASSING = frozenset({"EndpointRateLimited", "QuestionRefused"})
"""The endpoint answers; whether it answers questions is for the questions to find out."""
_QUESTION_REFUSED = "The endpoint answers, but refuses a question of one token"


class Surroundings(NamedTuple):
    """What the cluster says before anything is tried out."""

    checks: list[Check]
    usable: bool
    """Whether objects can be tried out: a namespace, and every permission that evaluations need."""
    bound: bool
    """Whether the volume can be looked at."""


class Asked(Frozen):
    """What a probe was to find out."""

    image: str
    datasets: dict[str, int]
    """Position in the request of each data set that was to be loaded."""
    max_questions: int | None = None
    bound: bool = True
    """Whether the probe saw the volume."""


def judge_surroundings(answers: JsonObject, namespace: str, volume_claim: str) -> Surroundings:
    """The cluster, the namespace, every permission and the claim.

    Args:
        answers: HTTP status and body of each question, as the playbook brings them.
        namespace: the namespace that was asked about.
        volume_claim: name of the PersistentVolumeClaim that was asked about.
    """
    try:
        raise_for_server(answers["version"])
    except (ClusterUnauthorized, ClusterUnreachable, ClusterNotReady) as error:
        return no_cluster(error.detail)
    version = printable(str(answers["version"]["body"].get("gitVersion", "unknown")), 50)
    missing = [answer for answer in answers["permissions"] if not is_allowed(answer)]
    needed = [answer for answer in missing if _permission(answer) not in PREFLIGHT_PERMISSIONS]
    none_granted = len(missing) == len(answers["permissions"])
    of_namespace = namespace_problems(answers["namespace"], namespace, none_granted=none_granted)
    volume = _volume(answers["volume_claim"], namespace, volume_claim)
    checks = [
        ok("cluster", f"Kubernetes {version}"),
        _namespace(of_namespace, namespace),
        _permissions(needed, missing, namespace, volume_claim),
        volume,
    ]
    return Surroundings(checks, usable=not of_namespace and not needed, bound=volume.status is CheckStatus.OK)


def no_cluster(why: str) -> Surroundings:
    """The cluster does not answer, or not to these credentials."""
    advice = "Check the kubeconfig, and that the service reaches the API server."
    return Surroundings(
        [failed("cluster", why, advice), *skipped(_CLUSTER, "the cluster cannot be asked")], usable=False, bound=False
    )


def judge_manifests(judged: Sequence[JsonObject]) -> Check:
    """What the API server said to the dry run of each object."""
    refusals: list[str] = []
    doubts: list[str] = []
    for answer in judged:
        message = f"{answer['kind']}: {_without_name(answer)}"
        if answer["status"] != 201:
            (doubts if _is_doubt(answer) else refusals).append(message)
        doubts += [f"{answer['kind']}: {text}" for text in answer["warnings"]]
    if refusals:
        return failed("manifests", _listed(refusals), _refusal_advice(" ".join(refusals)))
    if doubts:
        advice = f"Grant {_CREATE_PODS}, so that quotas, limits and policies can be checked."
        denied = any(_DENIED_BY_ROLE.search(doubt) for doubt in doubts)
        return warning("manifests", _listed(doubts), advice if denied else None)
    return ok("manifests", f"the API server would take all {len(judged)} objects")


def judge_probe(seen: JsonObject, asked: Asked) -> list[Check]:
    """What a probe found out about scheduling, image, data sets and endpoint; or why it could not."""
    if seen["refused"] is not None:
        why = f"the cluster refuses the probe's Job: {seen['refused']['message']}"
        return _stopped(asked, failed("scheduling", why, _refusal_advice(why)))
    pod = newest_pod(seen["pods"])
    if pod is None:
        summary, advice = JOB_REASONS["FailedCreate"]
        return _stopped(asked, failed("scheduling", f"FailedCreate: {summary}", advice))
    found = diagnose(pod, datetime.now(UTC), 0.0)
    if pod["phase"] == "Pending":
        return _not_started(asked, found)
    return [ok("scheduling", "a pod started"), *_findings(asked, parse_report(seen["log"]), found)]


def no_report(seen: JsonObject) -> TemporaryError:
    """Why a probe did not say what is on the volume."""
    asked = Asked(image="the engine image", datasets={})
    told = [each for each in judge_probe(seen, asked) if each.status is not CheckStatus.OK and each.id != "endpoint"]
    words = told[0].message if told else "the probe did not say"
    return TemporaryError(words, title="The volume cannot be looked at")


def _volume(answer: JsonObject, namespace: str, name: str) -> Check:
    problems, warnings = claim_problems(answer, namespace, name)
    if problems:
        return failed(
            "volume", "; ".join(problems), "Create the claim, and give it a volume that several pods can mount."
        )
    if warnings:
        return warning("volume", "; ".join(warnings), "Nothing, where its storage class waits for the first consumer.")
    if answer["status"] != 200:
        return skipped(["volume"], "the claim may not be read; see the permissions")[0]
    return ok("volume", f"PersistentVolumeClaim {name} is bound")


def _namespace(problems: Sequence[str], namespace: str) -> Check:
    if problems:
        return failed("namespace", "; ".join(problems), "Create the namespace, or set BUDEVAL_NAMESPACE.")
    return ok("namespace", namespace)


def _permissions(needed: list[JsonObject], missing: list[JsonObject], namespace: str, volume_claim: str) -> Check:
    advice = "Apply the Role that budeval comes with: manifests/identity.yaml."
    if needed:
        return failed("permissions", "; ".join(permission_problems(needed, namespace, volume_claim)), advice)
    if missing:
        words = "; ".join(permission_problems(missing, namespace, volume_claim))
        return warning("permissions", f"{words}; evaluations run, but dry runs of pods do not", advice)
    return ok("permissions", "all are granted")


def _permission(answer: JsonObject) -> Permission:
    return Permission(*answer["permission"])


def _is_doubt(answer: JsonObject) -> bool:
    """Whether nothing is known to be wrong: what was asked could not be found out, or is there already."""
    message = answer["message"] or ""
    by_role = answer["kind"] == "Pod" and answer["status"] == 403 and _DENIED_BY_ROLE.search(message)
    exists = answer["status"] == 409 and answer["reason"] == "AlreadyExists"
    return bool(by_role or exists or _NO_DRY_RUN.search(message))


def _without_name(answer: JsonObject) -> str:
    message = str(answer["message"] or f"HTTP status {answer['status']}")
    return message.replace(f' "{answer["name"]}"', "")


def _listed(messages: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(messages))


def _refusal_advice(message: str) -> str:
    return next((advice for shape, advice in _REFUSALS if shape.search(message)), _REFUSED)


def _not_started(asked: Asked, found: Diagnosis | None) -> list[Check]:
    if found is None or found.reason in ("ContainerCreating", "PodInitializing"):
        message = f"no container started within {PROBE_SECONDS:g} s; a large image may still be being pulled"
        pulled = warning("image", f"{asked.image}: {message}", "Look at it again in some minutes.")
        return _stopped(asked, ok("scheduling", "a node took the pod"), pulled)
    told = f"{found.reason}: {found.message}"
    if found.reason in _IMAGE_REASONS:
        broken = failed("image", f"{asked.image}: {told}", found.resolution)
        return _stopped(asked, ok("scheduling", "a node took the pod"), broken)
    return _stopped(asked, failed("scheduling", told, found.resolution))


def _stopped(asked: Asked, *told: Check) -> list[Check]:
    done = {each.id for each in told}
    rest = ["scheduling", "image", *map(dataset_check_id, asked.datasets), "endpoint"]
    return [*told, *skipped([each for each in rest if each not in done], "no pod could look from inside the cluster")]


def _findings(asked: Asked, report: ProbeReport, found: Diagnosis | None) -> list[Check]:
    datasets = [_dataset(asked, name, report, found) for name in asked.datasets]
    return [_image(asked, report, found), *datasets, _endpoint(report.endpoint, _why_nothing(report, found))]


def _image(asked: Asked, report: ProbeReport, found: Diagnosis | None) -> Check:
    if report.began or found is None:
        return ok("image", f"{asked.image} is on a node or was pulled")
    if found.reason in _NO_PROGRAM:
        return failed(
            "image", f"{asked.image}: {found.reason}: {found.message}", "Set BUDEVAL_ENGINE_IMAGE to an engine."
        )
    words = report.tail.rpartition("\n")[2] or found.message
    return warning(
        "image",
        f"{asked.image} is there, but cannot look at data sets and endpoint: {words}",
        "Build the engine image of this version of budeval.",
    )


def _why_nothing(report: ProbeReport, found: Diagnosis | None) -> str:
    if found is not None:
        return f"it could not be found out: {found.reason}: {found.message}"
    return "it could not be found out in time" if report.began else "the probe said nothing about it"


def _dataset(asked: Asked, name: str, report: ProbeReport, found: Diagnosis | None) -> Check:
    check_id, field = dataset_check_id(name), f"eval_datasets.{asked.datasets[name]}.dataset_id"
    if not asked.bound:
        return check(check_id, CheckStatus.SKIPPED, "the volume cannot be looked at; see the volume claim", None, field)
    finding = report.datasets.get(name)
    if finding is None:
        return warning(check_id, _why_nothing(report, found), "Start the evaluation, or look again.", field)
    if finding.reason is None:
        return ok(check_id, _questions(finding, asked.max_questions), field)
    summary, advice = ENGINE_REASONS.get(finding.reason, ENGINE_REASONS["EngineFailed"])
    return failed(check_id, f"{finding.reason}: {finding.message or summary}", advice, field)


def _questions(finding: DatasetFinding, maximum: int | None) -> str:
    count = finding.questions or 0
    return f"{count} questions" if maximum is None else f"{min(maximum, count)} of {count} questions"


def _endpoint(finding: EndpointFinding | None, why_nothing: str) -> Check:
    if finding is None:
        return warning("endpoint", why_nothing, "Start the evaluation, or look again.", _ENDPOINT_FIELD)
    if finding.reason is None:
        took = "" if finding.seconds is None else f" after {finding.seconds:g} s"
        return ok("endpoint", f"the model answered from inside the cluster{took}")
    summary, advice = ENGINE_REASONS.get(finding.reason, (_QUESTION_REFUSED, "Check model_name and extra_args."))
    status = CheckStatus.WARNING if finding.reason in _PASSING else CheckStatus.FAILED
    field = _SUBJECT_FIELDS.get(finding.reason, _ENDPOINT_FIELD)
    return check("endpoint", status, f"{finding.reason}: {finding.message or summary}", advice, field)

"""Names and labels of the objects one evaluation makes.

The arithmetic of a Job's name: Kubernetes copies it into a label of every pod, and a label value has at most
63 characters. Of these, 10 are a digest of (eval_id, run_id) and 1 is the dash before it, which leaves 52 for
the run_id. The digest tells equal run_ids of different evaluations apart, and run_ids that look the same once
they are made fit for a name. With 10 hexadecimal digits (40 bits), 10,000 Jobs of one run_id collide with
a probability of 10,000 ** 2 / 2 / 2 ** 40 = 0.005 %; even then the second Job is refused, since a Job's pod template
cannot be changed, and nothing of the first one is touched.
"""

import hashlib
import re

MAXIMUM_JOB_NAME_LENGTH = 63
"""Characters; the length of a label value."""

DIGEST_LENGTH = 10
MAXIMUM_RUN_PART_LENGTH = MAXIMUM_JOB_NAME_LENGTH - DIGEST_LENGTH - 1

NAME_LABEL = "app.kubernetes.io/name"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
EVALUATION_LABEL = "budeval.io/eval-id"
RUN_LABEL = "budeval.io/run-id"
ATTEMPT_LABEL = "budeval.io/attempt"
"""On objects of the second attempt and later ones; those of the first have none."""
RUN_ANNOTATION = "budeval.io/run-id"

RUN_NAME = "budeval-run"
READER_NAME = "budeval-reader"
REMOVER_NAME = "budeval-remover"
MANAGER = "budeval"

MANAGED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGER}"
RUN_SELECTOR = f"{MANAGED_SELECTOR},{NAME_LABEL}={RUN_NAME}"

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_JOB_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def job_name(eval_id: str, run_id: str, attempt: int = 1) -> str:
    """The name of the Job of one run: a DNS label that contains ``run_id`` where that is a valid name itself.

    Each attempt has a Job of its own; they differ in the digest.
    """
    return f"{_run_part(run_id)}-{_digest(eval_id, run_id, attempt)[:DIGEST_LENGTH]}"


def workspace_name(eval_id: str, run_id: str) -> str:
    """The name of a run's working directory, the same in every attempt: the engine goes on from what lies there."""
    return job_name(eval_id, run_id)


def is_job_name(text: str) -> bool:
    """Whether a text can be the name of a Job, and so is safe as one path segment."""
    return _JOB_NAME.fullmatch(text) is not None


def secret_name(eval_id: str, attempt: int = 1) -> str:
    """The name of the Secret that carries the model's key for all runs of an attempt.

    A Secret is owned by the Jobs of its attempt and goes with them, so that no attempt can share one with another.
    """
    return f"budeval-{_attempt_part(eval_id, attempt)}"


def config_map_name(eval_id: str, attempt: int = 1) -> str:
    """The name of the ConfigMap that carries the engine's configuration, one key per run of an attempt."""
    return f"budeval-{_attempt_part(eval_id, attempt)}"


def config_key(name: str) -> str:
    """The key of a Job's configuration in the ConfigMap of its evaluation."""
    return f"{name}.json"


def result_path(eval_id: str, name: str) -> str:
    """The working directory of a run, relative to the root of the volume."""
    return f"results/{eval_id}/{name}"


def run_label(run_id: str) -> str:
    """A ``run_id`` as a label value: itself where that is valid, else a digest of it."""
    return run_id if _LABEL_VALUE.fullmatch(run_id) else hashlib.sha256(run_id.encode()).hexdigest()[:63]


def evaluation_selector(eval_id: str) -> str:
    """The label selector of everything that belongs to one evaluation."""
    return f"{MANAGED_SELECTOR},{EVALUATION_LABEL}={eval_id}"


def attempt_selector(eval_id: str, attempt: int) -> str:
    """The label selector of everything that belongs to one attempt of an evaluation."""
    label = f"!{ATTEMPT_LABEL}" if attempt == 1 else f"{ATTEMPT_LABEL}={attempt}"
    return f"{evaluation_selector(eval_id)},{label}"


def attempt_labels(attempt: int) -> dict[str, str]:
    """What tells the objects of an attempt from those of others."""
    return {} if attempt == 1 else {ATTEMPT_LABEL: str(attempt)}


def _attempt_part(eval_id: str, attempt: int) -> str:
    return eval_id if attempt == 1 else f"{eval_id}-{attempt}"


def _run_part(run_id: str) -> str:
    if len(run_id) <= MAXIMUM_RUN_PART_LENGTH and _DNS_LABEL.fullmatch(run_id):
        return run_id
    words = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    return words[:MAXIMUM_RUN_PART_LENGTH].strip("-") or "run"


def _digest(eval_id: str, run_id: str, attempt: int) -> str:
    # No eval_id begins with "attempt", so that no run_id can imitate another one's later attempt.
    owner = eval_id if attempt == 1 else f"attempt-{attempt}/{eval_id}"
    return hashlib.sha256(f"{owner}/{run_id}".encode()).hexdigest()

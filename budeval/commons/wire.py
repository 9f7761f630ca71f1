"""Words on the wire: events, statuses and steps, as subscribers know them (``wire-contract``)."""

from enum import StrEnum
from typing import NamedTuple

WORKFLOW_NAME = "evaluate_model"
MONITOR_WORKFLOW_NAME = "monitor_jobs"
CLOSING_WORKFLOW_NAME = "close_evaluation"
CANCEL_EVENT = "cancel"
WAKE_EVENT = "wake"
PROGRESS_EVENT = "progress"
PROGRESS_TITLE = "Evaluation in progress"
"""Title of every ``monitor_eval_job_progress`` that is not the last."""


def workflow_instance_id(eval_id: str, attempt: int = 1) -> str:
    """Instance id of the workflow of one attempt of an evaluation; of the first one, the eval_id itself."""
    return eval_id if attempt == 1 else f"{eval_id}-attempt-{attempt}"


def monitor_instance_id(eval_id: str, attempt: int = 1) -> str:
    """Instance id of the monitor child workflow of one attempt."""
    return f"{workflow_instance_id(eval_id, attempt)}-monitor"


def closing_instance_id(eval_id: str, attempt: int = 1) -> str:
    """Instance id of the workflow that ends an attempt whose own workflow ended without a last word."""
    return f"{workflow_instance_id(eval_id, attempt)}-closing"


class WorkflowStatus(StrEnum):
    """``content.status`` of a notification, and the status of an evaluation."""

    UNKNOWN = "UNKNOWN"
    STARTED = "STARTED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TERMINATED = "TERMINATED"
    PENDING = "PENDING"
    SUSPENDED = "SUSPENDED"

    @property
    def ended(self) -> bool:
        """Whether nothing comes after this status."""
        return self in (WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.TERMINATED)


class Event(StrEnum):
    """``payload.event`` of a notification."""

    STATUS = "evaluate_model_status"
    ETA = "eta"
    VERIFY_CLUSTER = "verify_cluster_connection"
    PREPARE_ENGINE = "preparing_eval_engine"
    DEPLOY = "deploy_eval_job"
    MONITOR = "monitor_eval_job_progress"
    RESULTS = "results"


class Step(NamedTuple):
    """A step of the workflow: its id is the event that tells of it."""

    event: Event
    activity: str
    title: str
    description: str


VERIFY_CLUSTER = Step(
    Event.VERIFY_CLUSTER,
    "verify_cluster_connection",
    "Verifying Cluster Connection",
    "Checks that the cluster answers and that the namespace, the permissions and the volume are there",
)
PREPARE_ENGINE = Step(
    Event.PREPARE_ENGINE,
    "create_engine_config",
    "Preparing Eval Engine",
    "Writes the configuration of the engine for each data set",
)
DEPLOY = Step(
    Event.DEPLOY,
    "deploy_eval_job_v2",
    "Deploying Evaluation Jobs",
    "Creates one Kubernetes Job for each data set",
)
MONITOR = Step(
    Event.MONITOR,
    "monitor_jobs_loop",
    "Monitoring Evaluation Job Progress",
    "Follows the Jobs until each has ended, and reads the results",
)
STEPS = (VERIFY_CLUSTER, PREPARE_ENGINE, DEPLOY, MONITOR)

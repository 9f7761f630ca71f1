"""The border to Dapr's workflow engine: registration, the client, and the one place where errors become retries."""

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from dapr.ext.workflow import DaprWorkflowClient, WorkflowRuntime
from dapr.ext.workflow._durabletask.task import NonRetryableError
from grpc import RpcError, StatusCode
from pydantic import BaseModel

from budeval.commons import wire
from budeval.commons.errors import BudEvalError, SidecarUnavailable, TemporaryError
from budeval.commons.logging import strip_foreign_handlers
from budeval.commons.redaction import printable
from budeval.commons.wire import CLOSING_WORKFLOW_NAME, MONITOR_WORKFLOW_NAME, WORKFLOW_NAME
from budeval.evals.activities import Activities
from budeval.evals.models import Closing, ErrorInfo, EvaluationInput
from budeval.evals.publisher import bound_sidecar_calls
from budeval.evals.workflows import close_evaluation, evaluate_model, monitor_jobs

logger = logging.getLogger("::EVAL:: Runtime")

HISTORY_CACHE_BYTES = 64 * 1024 * 1024
"""The SDK's cache of histories is unbounded by default; a monitor's history is a few kB."""
ENDING_SECONDS = 5.0
"""How long a workflow may take to end after its evaluation has: its last activity answers."""
SHUTDOWN_SECONDS = 3.0
"""How long activities may take to end at SIGTERM, after the three seconds of requests and the two of the pulse."""
ACTIVE_STATUSES = frozenset({"PENDING", "RUNNING", "SUSPENDED"})


class ActivityFailed(Exception):
    """An activity failed and may be tried again; the message is an :class:`ErrorInfo` as JSON."""


def boundary(activity: Callable[..., Any]) -> Callable[..., Any]:
    """Turns our errors into Dapr's: temporary ones are retried, all others are not.

    What leaves here is written into the history, so it is redacted and carries no cause: the stack trace of a cause
    would bring its message along. The whole story is in the log. The SDK knows an error that must not be retried by the
    exact class name ``NonRetryableError``; a subclass would be retried.
    """

    @functools.wraps(activity)
    def guarded(ctx: Any, request: Any) -> Any:
        try:
            return activity(ctx, request)
        except TemporaryError as error:
            logger.warning("activity %s failed and is tried again: %s", activity.__name__, error)
            failure: Exception = ActivityFailed(_told(error.category, error.detail))
        except BudEvalError as error:
            logger.error("activity %s failed: %s", activity.__name__, error)
            failure = NonRetryableError(_told(error.category, error.detail))
        except Exception as error:
            logger.exception("activity %s failed unexpectedly", activity.__name__)
            failure = ActivityFailed(_told(type(error).__name__, f"internal error in {activity.__name__}: {error}"))
        raise failure from None

    return guarded


def _told(reason: str, message: str) -> str:
    return ErrorInfo(reason=reason, message=printable(message)).model_dump_json()


class Runtime:
    """The worker that runs workflows and activities on a sidecar that may come late or go away."""

    def __init__(self, activities: Activities, workers: int) -> None:
        self._worker = WorkflowRuntime(
            maximum_thread_pool_workers=workers,
            maximum_concurrent_activity_work_items=workers,
            history_cache_max_bytes=HISTORY_CACHE_BYTES,
        )
        self._worker.register_workflow(_fresh(evaluate_model), name=WORKFLOW_NAME)
        self._worker.register_workflow(_fresh(monitor_jobs), name=MONITOR_WORKFLOW_NAME)
        self._worker.register_workflow(_fresh(close_evaluation), name=CLOSING_WORKFLOW_NAME)
        for activity in activities.all():
            self._worker.register_activity(boundary(activity), name=activity.__name__)
        strip_foreign_handlers()
        self._thread = threading.Thread(target=self._run, name="workflow-worker", daemon=True)

    def start(self) -> None:
        """Answers at once: starting waits for the sidecar, for ever if need be, in a thread of its own."""
        self._thread.start()

    def ready(self) -> bool:
        """Whether the sidecar sends work."""
        return self._worker.wait_for_worker_ready(0.05)

    def shutdown(self) -> None:
        """Takes no more work. Waits for running activities, but not for long: end their playbooks first.

        The SDK waits for as long as a sidecar takes to say something. What does not end here ends with the process, and
        runs again.
        """
        stopping = threading.Thread(target=self._worker.shutdown, name="workflow-worker-stop", daemon=True)
        stopping.start()
        stopping.join(SHUTDOWN_SECONDS)

    def _run(self) -> None:
        try:
            self._worker.start()  # type: ignore[no-untyped-call]
        except (RpcError, RuntimeError) as error:
            logger.warning("the workflow worker is not ready yet and goes on connecting: %s", printable(str(error)))


def _fresh(workflow: Callable[..., Any]) -> Callable[..., Any]:
    """The SDK marks the function it registers: a new object for every runtime, so that two can be in a process."""
    return functools.wraps(workflow)(functools.partial(workflow))


class WorkflowClient:
    """Schedules evaluations and raises events. Made at first use: the SDK's client may wait for the sidecar."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: DaprWorkflowClient | None = None

    def schedule(self, evaluation: EvaluationInput) -> None:
        """Starts the workflow of an attempt unless it exists. Raises :class:`SidecarUnavailable`."""
        instance_id = wire.workflow_instance_id(evaluation.eval_id, evaluation.attempt)
        self._schedule(WORKFLOW_NAME, evaluation, instance_id)

    def schedule_closing(self, closing: Closing) -> None:
        """Starts the workflow that ends an attempt unless it exists. Raises :class:`SidecarUnavailable`."""
        instance_id = wire.closing_instance_id(closing.evaluation.eval_id, closing.evaluation.attempt)
        self._schedule(CLOSING_WORKFLOW_NAME, closing, instance_id)

    def _schedule(self, workflow: str, value: BaseModel, instance_id: str) -> None:
        if self.status(instance_id) is not None:
            return
        try:
            self._connected().schedule_new_workflow(
                workflow, input=value.model_dump(mode="json"), instance_id=instance_id
            )
        except RpcError as error:
            if error.code() is not StatusCode.ALREADY_EXISTS and "already exists" not in (error.details() or ""):
                raise _unavailable(error) from error

    def status(self, instance_id: str) -> str | None:
        """Dapr's runtime status of an instance; none: there is no such instance."""
        try:
            state = self._connected().get_workflow_state(instance_id, fetch_payloads=False)
        except RpcError as error:
            raise _unavailable(error) from error
        return None if state is None else str(state.runtime_status.name)

    def purge(self, instance_id: str) -> None:
        """Forgets an instance that has ended, with its children; harmless when there is none.

        Raises:
            SidecarUnavailable: daprd does not answer, or the instance has not ended yet.
        """
        deadline = time.monotonic() + ENDING_SECONDS
        while (status := self.status(instance_id)) in ACTIVE_STATUSES:
            if time.monotonic() > deadline:
                raise SidecarUnavailable(f"the workflow {instance_id} is {status}; it can be purged once it has ended")
            time.sleep(0.2)
        if status is None:
            return
        try:
            self._connected().purge_workflow(instance_id)
        except RpcError as error:
            if "no such instance" not in (error.details() or ""):
                raise _unavailable(error) from error

    def raise_event(self, instance_id: str, event: str, data: dict[str, Any] | None = None) -> None:
        """Sends an event; one to an instance that is not there is lost. Raises :class:`SidecarUnavailable`."""
        try:
            self._connected().raise_workflow_event(instance_id, event, data=data or {})
        except RpcError as error:
            if "no such instance" in (error.details() or ""):
                return
            raise _unavailable(error) from error

    def resume(self, instance_id: str) -> None:
        """Lets an instance go on that somebody suspended. Raises :class:`SidecarUnavailable`."""
        try:
            self._connected().resume_workflow(instance_id)
        except RpcError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            if self._client is not None:
                self._client.close()  # type: ignore[no-untyped-call]
                self._client = None

    def _connected(self) -> DaprWorkflowClient:
        with self._lock:
            if self._client is None:
                bound_sidecar_calls()
                self._client = DaprWorkflowClient()
                strip_foreign_handlers()
            return self._client


def _unavailable(error: RpcError) -> SidecarUnavailable:
    return SidecarUnavailable(f"daprd did not take the call: {printable(error.details() or str(error.code()))}")

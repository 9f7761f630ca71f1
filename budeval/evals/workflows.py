"""The workflows, as their table of contents.

Bodies are replayed: they have no effect, read no clock, setting or record, and log only when not replaying. All effects
are activities (:mod:`budeval.evals.activities`), named here by their names.

A step that fails raises and ends in one place that tells everybody; a Job that fails is data.
"""

import json
import logging
from collections.abc import Generator
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Protocol

from dapr.ext.workflow import RetryPolicy, TaskFailedError, when_any
from pydantic import ValidationError

from budeval.commons import wire
from budeval.commons.wire import Step, WorkflowStatus
from budeval.evals.models import CANCELLED, Closing, ErrorInfo, EvaluationInput
from budeval.evals.monitoring import MonitorState

logger = logging.getLogger("::EVAL:: EvaluateModel")

Task = Any
"""A durable task of the SDK: ``is_complete`` and ``get_result()``."""
Steps = Generator[Task, Any, Any]

STEP_RETRY = RetryPolicy(
    first_retry_interval=timedelta(seconds=5),
    max_number_of_attempts=6,
    backoff_coefficient=2,
    max_retry_interval=timedelta(seconds=60),
)
"""5, 10, 20, 40 and 60 s: a cluster that is away for two minutes fails no evaluation."""
KEEP_TRYING = RetryPolicy(
    first_retry_interval=timedelta(seconds=2),
    max_number_of_attempts=10_000,
    backoff_coefficient=2,
    max_retry_interval=timedelta(seconds=60),
)
"""For what must happen in the end: telling, the record, and the monitor itself (a week at least)."""
IN_FLIGHT_GRACE = timedelta(seconds=5)
"""How long a cancelled step may take to notice; its playbook is ended within a second. A step that waits for its next
attempt is not told apart and takes this long."""


class Context(Protocol):
    """What the workflows use of the SDK's context."""

    instance_id: str
    is_replaying: bool

    def call_activity(self, activity: str, *, input: Any = None, retry_policy: Any = None) -> Task: ...  # noqa: A002
    def call_child_workflow(self, workflow: str, *, input: Any, instance_id: str) -> Task: ...  # noqa: A002
    def create_timer(self, fire_at: timedelta) -> Task: ...
    def wait_for_external_event(self, name: str) -> Task: ...
    def continue_as_new(self, new_input: Any, *, save_events: bool = False) -> None: ...
    def set_custom_status(self, custom_status: str) -> None: ...


class StepFailed(Exception):
    """A step failed for good."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.reason)
        self.error = error


class Cancelled(Exception):
    """Somebody cancelled the evaluation."""

    def __init__(self, in_flight: Task) -> None:
        super().__init__("cancelled")
        self.in_flight = in_flight


def evaluate_model(ctx: Any, evaluation: EvaluationInput) -> Steps:
    """One evaluation, from the request to the last word."""
    flow = _Flow(ctx, evaluation)
    try:
        yield from flow.begin()
        yield from flow.step(wire.VERIFY_CLUSTER)
        yield from flow.step(wire.PREPARE_ENGINE)
        yield from flow.step(wire.DEPLOY)
        outcome = yield from flow.monitor()
        yield from flow.clean_up(_still_standing(outcome))
        yield from flow.extract(outcome)
        yield from flow.finish(error=_why_unfinished(outcome))
    except StepFailed as failure:
        yield from flow.clean_up()
        yield from flow.finish(WorkflowStatus.FAILED, failure.error)
    except Cancelled as cancelled:
        yield from flow.settle(cancelled.in_flight)
        yield from flow.clean_up()
        yield from flow.finish(WorkflowStatus.TERMINATED, CANCELLED)


def close_evaluation(ctx: Any, closing: Closing) -> Steps:
    """Ends an evaluation whose workflow ended without a last word: its Jobs are removed, then everybody is told."""
    flow = _Flow(ctx, closing.evaluation, may_have_jobs=closing.may_have_jobs)
    yield from flow.clean_up()
    yield from flow.finish(closing.status, closing.error)


def monitor_jobs(ctx: Any, state: MonitorState) -> Steps:
    """Dapr's monitor pattern: check, wait for the timer, a wake or a cancel, and begin anew with a small state."""
    response = yield ctx.call_activity("monitor_jobs_loop", input=_plain(state), retry_policy=KEEP_TRYING)
    ctx.set_custom_status(response["param"]["custom_status"])
    if response["code"] != HTTPStatus.ACCEPTED:
        return response
    after = MonitorState.model_validate(response["param"]["updated_state"])
    timer = ctx.create_timer(timedelta(seconds=after.poll_interval))
    wake = ctx.wait_for_external_event(wire.WAKE_EVENT)
    cancel = ctx.wait_for_external_event(wire.CANCEL_EVENT)
    winner = yield when_any([timer, wake, cancel])
    ctx.continue_as_new(_plain(after.model_copy(update={"woken": winner != timer})), save_events=True)
    return None


class _Flow:
    """The parts of :func:`evaluate_model`; each is a generator of durable tasks."""

    def __init__(self, ctx: Context, evaluation: EvaluationInput, *, may_have_jobs: bool = False) -> None:
        self._ctx = ctx
        self._evaluation = evaluation
        self._cancel = ctx.wait_for_external_event(wire.CANCEL_EVENT)
        self._may_have_jobs = may_have_jobs

    def begin(self) -> Steps:
        yield from self._do("begin_evaluation", retry_policy=KEEP_TRYING)

    def step(self, step: Step) -> Steps:
        """Announces a step, runs it with retries, and announces how it ended."""
        self._enter(step)
        self._may_have_jobs |= step == wire.DEPLOY
        yield from self._announce(step, WorkflowStatus.RUNNING, step.description)
        try:
            response = yield from self._do(step.activity, retry_policy=STEP_RETRY)
        except StepFailed as failure:
            yield from self._announce(step, WorkflowStatus.FAILED, failure.error.sentence())
            raise
        yield from self._announce(step, WorkflowStatus.COMPLETED, response["message"])
        return response

    def monitor(self) -> Steps:
        """Follows the Jobs in a child workflow; answers the monitor's last response."""
        self._log("All jobs deployed, starting monitoring step")
        self._enter(wire.MONITOR)
        first = MonitorState.first(self._evaluation)
        yield from self._announce(wire.MONITOR, WorkflowStatus.RUNNING, first.told, title=wire.PROGRESS_TITLE)
        child = self._ctx.call_child_workflow(
            wire.MONITOR_WORKFLOW_NAME,
            input=_plain(first),
            instance_id=wire.monitor_instance_id(self._evaluation.eval_id, self._evaluation.attempt),
        )
        yield from self._show_progress(child)
        response = yield from self._wait(child)
        if response["code"] not in (HTTPStatus.OK, HTTPStatus.REQUEST_TIMEOUT):
            raise Cancelled(child)
        return response["param"]

    def extract(self, outcome: dict[str, Any]) -> Steps:
        """Reads the results of what completed; they are safe on the volume, so a cluster that is away is waited for."""
        if outcome["completed_jobs"]:
            yield from self._do("extract_job_results", {"job_ids": outcome["completed_jobs"]}, KEEP_TRYING)

    def clean_up(self, run_ids: list[str] | None = None) -> Steps:
        """Removes the Jobs of ``run_ids``, or all. Where that fails, their deadline and time to live remove them.

        Before the deployment there is nothing to remove, and a cluster that does not answer must not delay the end.
        """
        if run_ids == [] or not self._may_have_jobs:
            return
        try:
            yield from self._finally("delete_eval_jobs", {"run_ids": run_ids}, STEP_RETRY)
        except StepFailed as failure:
            self._log(f"Jobs could not be removed: {failure.error.sentence()}")

    def settle(self, in_flight: Task) -> Steps:
        """Lets a step that was cancelled in its middle come to its end, so that it makes nothing after the clean-up."""
        yield when_any([in_flight, self._ctx.create_timer(IN_FLIGHT_GRACE)])

    def finish(self, status: WorkflowStatus | None = None, error: ErrorInfo | None = None) -> Steps:
        """The last words, and the end of the secrets."""
        request = {"status": status, "error": None if error is None else _plain(error)}
        yield from self._finally("finish_evaluation", request, KEEP_TRYING)

    # ------------------------------------------------------------------ parts of parts

    def _enter(self, step: Step) -> None:
        self._ctx.set_custom_status(json.dumps({"step": step.event}))

    def _show_progress(self, child: Task) -> Steps:
        """Until the monitor has ended, or somebody cancels: it tells its progress by events."""
        while not (child.is_complete or self._cancel.is_complete):
            progress = self._ctx.wait_for_external_event(wire.PROGRESS_EVENT)
            yield when_any([child, self._cancel, progress])
            if progress.is_complete:
                self._ctx.set_custom_status(json.dumps({"step": wire.MONITOR.event, **progress.get_result()}))

    def _announce(self, step: Step, status: WorkflowStatus, message: str, *, title: str | None = None) -> Steps:
        news = {"event": step.event, "status": status, "title": title or step.title, "message": message}
        yield from self._do("announce_step", news, KEEP_TRYING)

    def _do(self, activity: str, request: dict[str, Any] | None = None, retry_policy: Any = None) -> Steps:
        """Runs an activity unless the evaluation is cancelled meanwhile."""
        return (yield from self._wait(self._call(activity, request, retry_policy)))

    def _finally(self, activity: str, request: dict[str, Any] | None = None, retry_policy: Any = None) -> Steps:
        """Runs an activity whatever happens."""
        task = self._call(activity, request, retry_policy)
        try:
            return (yield task)
        except TaskFailedError as error:
            raise StepFailed(error_info(error)) from error

    def _call(self, activity: str, request: dict[str, Any] | None, retry_policy: Any) -> Task:
        evaluation = self._evaluation
        request = {"eval_id": evaluation.eval_id, "attempt": evaluation.attempt, **(request or {})}
        return self._ctx.call_activity(activity, input=request, retry_policy=retry_policy)

    def _wait(self, task: Task) -> Steps:
        yield when_any([task, self._cancel])
        if self._cancel.is_complete:
            raise Cancelled(task)
        try:
            return task.get_result()
        except TaskFailedError as error:
            raise StepFailed(error_info(error)) from error

    def _log(self, message: str) -> None:
        if not self._ctx.is_replaying:
            logger.info("%s", message, extra={"eval_id": self._evaluation.eval_id})


def _still_standing(outcome: dict[str, Any]) -> list[str]:
    """Runs that have ended, by timeout or because a pod never started, though their Job has not."""
    return [*outcome["remaining_jobs"], *outcome["updated_state"]["stuck_jobs"]]


def _why_unfinished(outcome: dict[str, Any]) -> ErrorInfo | None:
    if not outcome["remaining_jobs"]:
        return None
    state = MonitorState.model_validate(outcome["updated_state"])
    return ErrorInfo(
        reason="MonitoringTimeout",
        message=f"The run had not ended after {state.max_checks} checks, {state.poll_interval} s apart.",
        resolution="Raise max_checks in eval_configs, or ask fewer questions with max_questions.",
    )


def error_info(error: TaskFailedError) -> ErrorInfo:
    """The reason that an activity gave (see :func:`budeval.evals.runtime.boundary`)."""
    try:
        return ErrorInfo.model_validate_json(error.details.message)
    except ValidationError:
        return ErrorInfo(reason=error.details.error_type, message=error.details.message)


def _plain(model: Any) -> dict[str, Any]:
    plain: dict[str, Any] = model.model_dump(mode="json")
    return plain

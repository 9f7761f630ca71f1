"""What the service does with an evaluation on request: start, show, cancel, try again."""

import logging
from typing import Any

from budeval.commons import wire
from budeval.commons.errors import EvaluationConflict, SidecarUnavailable
from budeval.commons.sealing import EvaluationSecrets
from budeval.commons.wire import WorkflowStatus
from budeval.evals.attempts import runs_to_retry
from budeval.evals.end_rules import END_RULES
from budeval.evals.models import CANCELLED, Closing, ErrorInfo, Evaluation, EvaluationInput
from budeval.evals.monitoring import FIRST_ETA_MINUTES
from budeval.evals.notifications import Notifier
from budeval.evals.runtime import ACTIVE_STATUSES, WorkflowClient
from budeval.jobs.names import job_name
from budeval.record import Record
from budeval.record.views import EvaluationView

logger = logging.getLogger("::EVAL:: Service")


class EvaluationService:
    """Evaluations, as the HTTP border and the pub/sub consumer use them."""

    def __init__(self, record: Record, workflows: WorkflowClient, notifier: Notifier) -> None:
        self.queries = record.queries
        self.timeline = record.timeline
        self._record = record
        self._workflows = workflows
        self._notifier = notifier

    def start(self, evaluation: Evaluation, secrets: EvaluationSecrets, request_body: bytes, by: str) -> dict[str, Any]:
        """Records a request of ``by``, then schedules its workflow. The same request again gives the same answer.

        Once recorded, an evaluation is never lost: where scheduling fails, the pulse schedules it later, and when there
        is no place for it, as soon as it has one.

        Raises:
            EvaluationConflict: the eval_id was used for another request, or its evaluation has ended.
            InvalidEvaluation: its Jobs are more than may ever run at once.
            NoPlace: there is no place, and it may not wait for one.
        """
        names = {run.run_id: job_name(evaluation.eval_id, run.run_id) for run in evaluation.runs}
        if not self._record.create(evaluation, secrets, request_body, names, by):
            self._check_same(evaluation.eval_id, request_body)
        self._schedule(evaluation)
        return workflow_metadata(evaluation.eval_id)

    def view(self, eval_id: str) -> EvaluationView:
        """Raises :class:`EvaluationNotFound`."""
        return self._record.view(eval_id)

    def cancel(self, eval_id: str, by: str) -> EvaluationView:
        """Asks an evaluation to end; harmless when it has. Its Jobs are gone in seconds; one that waits ends at once.

        The wish is in the record before the event is raised: should the event be lost, the pulse raises it again.
        """
        self._record.request_cancel(eval_id, by, END_RULES)
        view = self._record.view(eval_id)
        if view.status.ended:
            self._notifier.flush(eval_id)
            return view
        try:
            cancel_workflow(self._record, self._workflows, self._notifier, eval_id)
        except SidecarUnavailable as error:
            logger.warning("evaluation %s will be cancelled when daprd answers: %s", eval_id, error)
        return self._record.view(eval_id)

    def resend(self, eval_id: str, by: str) -> EvaluationView:
        """Publishes notifications whose fate is unknown after all: ``by`` knows that they did not arrive.

        Raises:
            EvaluationNotFound: there is no such evaluation.
            EvaluationConflict: nothing is in doubt.
        """
        self._notifier.resend(eval_id, by)
        return self._record.view(eval_id)

    def retryable(self, eval_id: str) -> tuple[Evaluation, list[str]]:
        """An evaluation as it is, and ids of the runs that its next attempt runs again.

        Raises:
            EvaluationConflict: it has not ended, or every run has its scores.
        """
        # In this order: should an attempt begin and end between the two, the next one's number is taken.
        evaluation = self._record.definition(eval_id)
        return evaluation, runs_to_retry(self._record.view(eval_id))

    def retry(self, evaluation: Evaluation, secrets: EvaluationSecrets, by: str) -> dict[str, Any]:
        """Begins the attempt that ``evaluation`` (:func:`~budeval.evals.attempts.next_attempt`) describes.

        As with :meth:`start` it is recorded first, and scheduled later where that fails.

        Raises:
            EvaluationConflict: somebody was faster.
        """
        attempt = evaluation.attempt
        run_ids = [run.run_id for run in evaluation.runs_of_attempt]
        names = {run_id: job_name(evaluation.eval_id, run_id, attempt) for run_id in run_ids}
        self._record.retry(evaluation, secrets, names, by)
        self._schedule(evaluation)
        return {**workflow_metadata(evaluation.eval_id), "attempt": attempt, "run_ids": run_ids}

    def _schedule(self, evaluation: Evaluation) -> None:
        if self._record.admission.is_waiting(evaluation.eval_id):
            return
        try:
            schedule(self._record, self._workflows, evaluation)
        except SidecarUnavailable as error:
            logger.warning("evaluation %s is recorded and starts when daprd answers: %s", evaluation.eval_id, error)

    def _check_same(self, eval_id: str, request_body: bytes) -> None:
        if self._record.view(eval_id).status.ended:
            raise EvaluationConflict(f"evaluation {eval_id} has ended; retry it, or start a new one with another id")
        if not self._record.is_same_request(eval_id, request_body):
            raise EvaluationConflict(f"eval_id {eval_id} was used for another request; choose a new one")


def evaluation_input(evaluation: Evaluation) -> EvaluationInput:
    """What the workflow is started with."""
    run_ids = [run.run_id for run in evaluation.runs_of_attempt]
    return EvaluationInput(
        eval_id=evaluation.eval_id, attempt=evaluation.attempt, run_ids=run_ids, **evaluation.monitor.model_dump()
    )


def schedule(record: Record, workflows: WorkflowClient, evaluation: Evaluation) -> None:
    """Starts the workflow of an evaluation that has its place. Raises :class:`SidecarUnavailable`."""
    workflows.schedule(evaluation_input(evaluation))
    # A cancellation that came before the workflow was sent to nobody.
    if record.cancel_requested(evaluation.eval_id):
        send_cancel(workflows, evaluation.eval_id, evaluation.attempt)


def send_cancel(workflows: WorkflowClient, eval_id: str, attempt: int) -> None:
    """Tells the workflow and its monitor, in this order: the workflow then waits for its monitor's answer."""
    workflows.raise_event(wire.workflow_instance_id(eval_id, attempt), wire.CANCEL_EVENT)
    workflows.raise_event(wire.monitor_instance_id(eval_id, attempt), wire.CANCEL_EVENT)


def cancel_workflow(record: Record, workflows: WorkflowClient, notifier: Notifier, eval_id: str) -> None:
    """Has an evaluation end that somebody cancelled, whatever became of its workflow.

    Raises :class:`SidecarUnavailable`.
    """
    evaluation = record.definition(eval_id)
    workflow_id = wire.workflow_instance_id(eval_id, evaluation.attempt)
    status = workflows.status(workflow_id)
    if status is None:
        schedule(record, workflows, evaluation)
    elif status not in ACTIVE_STATUSES:
        close(record, workflows, notifier, evaluation, status)
    else:
        send_cancel(workflows, eval_id, evaluation.attempt)
        if status == WorkflowStatus.SUSPENDED:
            workflows.resume(workflow_id)


def close(record: Record, workflows: WorkflowClient, notifier: Notifier, evaluation: Evaluation, status: str) -> None:
    """Has an evaluation end whose workflow ended as ``status`` without saying so: somebody terminated it, or it broke.

    Another workflow does what is left to do, since the cluster may be away. Where that one ended too, its Jobs stand
    until their deadline. Raises :class:`SidecarUnavailable`.
    """
    eval_id, attempt = evaluation.eval_id, evaluation.attempt
    closing_id = wire.closing_instance_id(eval_id, attempt)
    closing = workflows.status(closing_id)
    if closing in ACTIVE_STATUSES:
        workflows.raise_event(closing_id, wire.WAKE_EVENT)
        return
    view = record.view(eval_id)
    if view.status.ended:
        return
    logger.error("the workflow of evaluation %s ended as %s without a last word", eval_id, status)
    end = _closing(evaluation, view, status, cancelled=record.cancel_requested(eval_id))
    if closing is None:
        workflows.schedule_closing(end)
    else:
        record.finish(eval_id, end.status, end.error, END_RULES, attempt=attempt)
        notifier.flush(eval_id)


def _closing(evaluation: Evaluation, view: EvaluationView, status: str, *, cancelled: bool) -> Closing:
    terminated = status == WorkflowStatus.TERMINATED
    steps = {step.id: step.status for step in view.steps}
    error = ErrorInfo(
        reason="WorkflowTerminated" if terminated else "WorkflowFailed",
        message=f"The workflow ended as {status}.",
        resolution="The service's log says what it did last. Retry the evaluation.",
    )
    return Closing(
        evaluation=evaluation_input(evaluation),
        status=WorkflowStatus.TERMINATED if terminated or cancelled else WorkflowStatus.FAILED,
        error=CANCELLED if cancelled else error,
        may_have_jobs=steps[wire.DEPLOY.event] != WorkflowStatus.PENDING,
    )


def workflow_metadata(eval_id: str) -> dict[str, Any]:
    """The answer to a started evaluation, as the wire contract says."""
    steps = [{"id": step.event, "title": step.title, "description": step.description} for step in wire.STEPS]
    return {
        "object": "workflow_metadata",
        "workflow_id": eval_id,
        "workflow_name": wire.WORKFLOW_NAME,
        "steps": steps,
        "status": WorkflowStatus.PENDING,
        "eta": FIRST_ETA_MINUTES,
    }

"""The activities: everything with an effect. Each may run twice, also at the same time, and changes nothing then.

They are methods of one object that is given its clients, so that tests swap clients instead of patching. Secrets are
opened here, in the activity that needs them, and appear in no input, output or error.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from pydantic import BaseModel, SecretStr

from budeval.commons.clock import utc_now
from budeval.commons.errors import (
    AttemptSuperseded,
    BudEvalError,
    EvaluationCancelled,
    EvaluationNotFound,
    SidecarUnavailable,
    TemporaryError,
)
from budeval.commons.redaction import redactor
from budeval.commons.sealing import EvaluationSecrets
from budeval.commons.settings import Settings
from budeval.commons.storage_config import StorageConfig
from budeval.commons.wire import PROGRESS_EVENT, Event, WorkflowStatus, workflow_instance_id
from budeval.commons.words import counted
from budeval.engines import get_engine
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.evals.attempts import keeps_scores
from budeval.evals.end_rules import END_RULES
from budeval.evals.job_objects import evaluation_objects
from budeval.evals.models import Announcement, ErrorInfo, Evaluation, RunResult
from budeval.evals.monitoring import (
    FIRST_ETA_MINUTES,
    MonitorState,
    Verdict,
    judge,
    judge_failed_sweep,
)
from budeval.evals.notifications import (
    Notifier,
    eta_announcement,
    outgoing,
    progress_announcement,
    status_announcement,
)
from budeval.evals.responses import ErrorResponse, SuccessResponse
from budeval.evals.results_processor import ResultsProcessor
from budeval.jobs.models import EvaluationObjects, JobStatus
from budeval.jobs.names import job_name
from budeval.jobs.overlay import PodTemplateOverlay
from budeval.record import Record, happenings
from budeval.record.outbox import OutgoingMessage

Response = dict[str, Any]


class StepRequest(BaseModel):
    """Which evaluation an activity is about, in which attempt.

    What belongs to an attempt that is not the present one raises ``AttemptSuperseded`` and changes nothing: an activity
    may run again long after its workflow has ended.
    """

    eval_id: str
    attempt: int = 1


class StepNews(StepRequest):
    """How far a step is."""

    event: Event
    status: WorkflowStatus
    title: str
    message: str = ""


class CheckRequest(BaseModel):
    """Input of ``check_job_status``: names of Jobs, as in the guide."""

    job_ids: list[str]
    eval_id: str | None = None
    """Whose cluster to ask; none: the service's own."""


class ExtractRequest(StepRequest):
    """Input of ``extract_job_results``: run ids that completed."""

    job_ids: list[str]


class CleanUpRequest(StepRequest):
    """Which Jobs to remove: those of ``run_ids``; none: all of the evaluation."""

    run_ids: list[str] | None = None


class FinishRequest(StepRequest):
    """How an evaluation ends."""

    status: WorkflowStatus | None = None
    """None: as its results say."""
    error: ErrorInfo | None = None
    """Why it ended before its runs did."""


class Workflows(Protocol):
    """What activities tell workflows."""

    def raise_event(self, instance_id: str, event: str, data: dict[str, Any] | None = None) -> None:
        """Raises :class:`SidecarUnavailable`."""


class Activities:
    """Every activity of the workflows ``evaluate_model`` and ``monitor_jobs``."""

    def __init__(
        self,
        settings: Settings,
        record: Record,
        notifier: Notifier,
        orchestrator: AnsibleOrchestrator,
        results: ResultsProcessor,
        workflows: Workflows,
    ) -> None:
        self._settings = settings
        self._record = record
        self._notifier = notifier
        self._orchestrator = orchestrator
        self._results = results
        self._workflows = workflows
        self._overlay = PodTemplateOverlay.from_settings(settings.pod_template_overlay)

    def all(self) -> list[Callable[..., Any]]:
        """The methods to be registered, each under its own name."""
        return [
            self.begin_evaluation,
            self.announce_step,
            self.verify_cluster_connection,
            self.create_engine_config,
            self.deploy_eval_job_v2,
            self.check_job_status,
            self.monitor_jobs_loop,
            self.extract_job_results,
            self.delete_eval_jobs,
            self.finish_evaluation,
        ]

    # ------------------------------------------------------------------ telling

    def begin_evaluation(self, _ctx: Any, request: StepRequest) -> None:
        """The workflow has started: the record and the subscribers learn of it."""
        self._record.begin(request.eval_id, _first_words, attempt=request.attempt)
        self._notifier.flush(request.eval_id)

    def announce_step(self, _ctx: Any, news: StepNews) -> None:
        """A step began or ended."""
        announcement = Announcement(event=news.event, status=news.status, title=news.title, message=news.message)
        if news.status is WorkflowStatus.FAILED and keeps_scores(self._record.view(news.eval_id)):
            announcement = announcement.model_copy(update={"status": WorkflowStatus.RUNNING, "sequence": "failed"})
        self._step(news, news.event, news.status, news.message, [announcement])

    # ------------------------------------------------------------------ steps

    def verify_cluster_connection(self, _ctx: Any, request: StepRequest) -> Response:
        """Raises when the cluster cannot run this evaluation, in words a user can act on."""
        with self._secrets(request) as secrets:
            report = self._orchestrator.verify_cluster_connection(
                secrets.kubeconfig_text, cancelled=self._cancelled(request)
            )
        message = f"Kubernetes {report.server_version}, namespace {report.namespace}"
        return _success("; ".join([message, *report.warnings]), report.model_dump(mode="json"))

    def create_engine_config(self, _ctx: Any, request: StepRequest) -> Response:
        """Writes the engine's configuration of every run into the record."""
        evaluation = self._definition(request)
        engine = get_engine(evaluation.engine)
        configs = {run.run_id: engine.run_config(evaluation, run) for run in evaluation.runs_of_attempt}
        self._record.save_engine_configs(request.eval_id, configs, attempt=request.attempt)
        return _success(f"{counted(len(configs), 'configuration')} of {evaluation.engine}", {"run_ids": list(configs)})

    def deploy_eval_job_v2(self, _ctx: Any, request: StepRequest) -> Response:
        """Creates one Job for each run, or none."""
        evaluation = self._definition(request)
        cancelled = self._cancelled(request)
        if cancelled():
            raise EvaluationCancelled("cancelled before its Jobs were made")
        with self._secrets(request) as secrets:
            objects = self._objects(evaluation, secrets.api_key)
            jobs = self._orchestrator.deploy_eval_jobs(objects, secrets.kubeconfig_text, cancelled=cancelled)
            if cancelled():
                self._orchestrator.delete_eval_jobs(request.eval_id, secrets.kubeconfig_text, attempt=request.attempt)
                raise EvaluationCancelled("cancelled while its Jobs were made; they were removed again")
        return _success(
            f"{counted(len(jobs), 'Job')} deployed", {"jobs": [job.model_dump(mode="json") for job in jobs]}
        )

    def check_job_status(self, _ctx: Any, request: CheckRequest) -> Response:
        """Status of Jobs in the guide's shape."""
        eval_id = request.eval_id
        secrets = EvaluationSecrets() if eval_id is None else self._record.open_secrets(eval_id)
        with redactor.hiding(secrets.api_key.get_secret_value()):
            statuses = self._orchestrator.check_jobs_status(request.job_ids, secrets.kubeconfig_text)
            cleared = {name: _cleared(status) for name, status in statuses.items()}
        jobs = {name: status.model_dump(mode="json", by_alias=True) for name, status in cleared.items()}
        return _success("Job status retrieved", {"jobs": jobs})

    def monitor_jobs_loop(self, _ctx: Any, state: MonitorState) -> Response:
        """One check of Dapr's monitor pattern: 200 all ended, 202 go on, 408 the time is up, 499 cancelled."""
        log = logging.getLogger("::EVAL:: MonitorJobsLoop")
        log.info("Monitor check #%d: tracking %d jobs", state.check_count, len(state.remaining))
        if self._record.cancel_requested(state.eval_id, attempt=state.attempt):
            cancelled = Verdict(state=state)
            return _monitored(CLIENT_CLOSED_REQUEST, "Evaluation cancelled", cancelled, self._progress(cancelled))
        verdict = self._recorded(self._sweep(state))
        for run_id in verdict.newly_completed:
            log.info("Job %s completed successfully", run_id)
        for update in verdict.updates:
            if update.run_id in verdict.newly_failed and update.error is not None:
                log.error("Job %s failed: %s", update.run_id, redactor.redact(update.error.sentence()))
        self._tell_progress(verdict)
        progress = self._progress(verdict)
        self._show_progress(verdict, progress)
        return self._answer(log, verdict, progress)

    def extract_job_results(self, _ctx: Any, request: ExtractRequest) -> Response:
        """Reads the results of completed runs and writes scores, or why there are none, into the record."""
        log = logging.getLogger("::EVAL:: ExtractJobResults")
        log.info("Extracting results from %d completed jobs", len(request.job_ids))
        evaluation = self._definition(request)
        with self._secrets(request) as secrets:
            results = self._results.extract_all(
                evaluation,
                request.job_ids,
                self._record.result_digests(request.eval_id),
                secrets.kubeconfig_text,
            )
        self._record.save_results(request.eval_id, results, attempt=request.attempt)
        for result in results:
            if result.error is not None:
                log.error("Run %s has no result: %s", result.run_id, result.error.message)
        return _success("Results extracted", {"results": {item.run_id: _extracted(item) for item in results}})

    # ------------------------------------------------------------------ the end

    def delete_eval_jobs(self, _ctx: Any, request: CleanUpRequest) -> Response:
        """Removes Jobs of an attempt from the cluster."""
        eval_id, attempt = request.eval_id, request.attempt
        names = None if request.run_ids is None else [job_name(eval_id, run, attempt) for run in request.run_ids]
        with self._secrets(request) as secrets:
            deleted = self._orchestrator.delete_eval_jobs(
                eval_id, secrets.kubeconfig_text, job_names=names, attempt=attempt
            )
        return _success(f"{counted(len(deleted.jobs), 'Job')} removed", deleted.model_dump(mode="json"))

    def finish_evaluation(self, _ctx: Any, request: FinishRequest) -> Response:
        """Ends the evaluation in the record, erases its secrets and says the last words."""
        self._record.finish(request.eval_id, request.status, request.error, END_RULES, attempt=request.attempt)
        self._notifier.flush(request.eval_id)
        view = self._record.view(request.eval_id)
        return _success(f"Evaluation {view.status}", {"status": view.status})

    # ------------------------------------------------------------------ parts

    def _step(
        self,
        request: StepRequest | MonitorState,
        event: Event,
        status: WorkflowStatus,
        message: str,
        announcements: Sequence[Announcement],
    ) -> None:
        """The record and the subscribers learn of a step."""
        words = partial(outgoing, announcements=announcements)
        self._record.step(request.eval_id, event, status, message, words, attempt=request.attempt)
        self._notifier.flush(request.eval_id)

    def _definition(self, request: StepRequest) -> Evaluation:
        return self._record.definition(request.eval_id, attempt=request.attempt)

    @contextmanager
    def _secrets(self, request: StepRequest | MonitorState) -> Iterator[EvaluationSecrets]:
        eval_id = request.eval_id
        secrets = self._record.heard(eval_id, attempt=request.attempt)
        with redactor.hiding(secrets.api_key.get_secret_value()):
            try:
                yield secrets
            except TemporaryError as error:
                self._record.trying_again(eval_id, happenings.step_postponed(error), attempt=request.attempt)
                raise

    def _cancelled(self, request: StepRequest) -> Callable[[], bool]:
        def cancelled() -> bool:
            try:
                return self._record.cancel_requested(request.eval_id, attempt=request.attempt)
            except (AttemptSuperseded, EvaluationNotFound):
                # Whatever this attempt still makes, nobody wants any more.
                return True

        return cancelled

    def _objects(self, evaluation: Evaluation, api_key: SecretStr) -> EvaluationObjects:
        configs = self._record.engine_configs(evaluation.eval_id)
        namespace = StorageConfig.get_current_namespace()
        return evaluation_objects(self._settings, self._overlay, namespace, evaluation, configs, api_key)

    def _sweep(self, state: MonitorState) -> Verdict:
        names = {run_id: job_name(state.eval_id, run_id, state.attempt) for run_id in state.remaining}
        try:
            with self._secrets(state) as secrets:
                answer = self._orchestrator.check_jobs_status(list(names.values()), secrets.kubeconfig_text)
                found = {name: _cleared(status) for name, status in answer.items()}
        except BudEvalError as error:
            logging.getLogger("::EVAL:: MonitorJobsLoop").warning("sweep failed: %s", error)
            return judge_failed_sweep(state, str(error), utc_now())
        statuses: dict[str, JobStatus] = {run_id: found[name] for run_id, name in names.items() if name in found}
        failed_pods = {run_id: status.attempts for run_id, status in statuses.items() if status.retrying}
        self._record.pods_failed(state.eval_id, failed_pods, attempt=state.attempt)
        return judge(state, statuses, utc_now())

    def _recorded(self, verdict: Verdict) -> Verdict:
        state = verdict.state
        minutes = self._record.update_runs(state.eval_id, verdict.updates, state.eta_minutes, attempt=state.attempt)
        return verdict.model_copy(update={"state": state.model_copy(update={"eta_minutes": minutes})})

    def _tell_progress(self, verdict: Verdict) -> None:
        state, message = verdict.state, verdict.progress_message
        if message is None:
            return
        runs = self._record.view(state.eval_id).runs
        announcements = [progress_announcement(message, state.check_count, runs)]
        if state.eta_minutes < FIRST_ETA_MINUTES:
            announcements.append(eta_announcement(state.eta_minutes))
        self._step(state, Event.MONITOR, WorkflowStatus.RUNNING, message, announcements)

    def _progress(self, verdict: Verdict) -> dict[str, Any]:
        """For the custom status of workflows: numbers alone, since each stays in a history."""
        state = verdict.state
        questions = [run.progress for run in self._record.view(state.eval_id).runs]
        return {
            "check": state.check_count,
            "completed": len(state.completed_jobs),
            "failed": len(state.failed_jobs),
            "running": len(state.remaining),
            "questions_done": sum(progress.done for progress in questions),
            "questions_total": sum(progress.total for progress in questions),
            "questions": [[progress.done, progress.total] for progress in questions],
            "eta_minutes": state.eta_minutes,
        }

    def _show_progress(self, verdict: Verdict, progress: dict[str, Any]) -> None:
        if not verdict.shown:
            return
        workflow_id = workflow_instance_id(verdict.state.eval_id, verdict.state.attempt)
        try:
            self._workflows.raise_event(workflow_id, PROGRESS_EVENT, progress)
        except SidecarUnavailable as error:
            logging.getLogger("::EVAL:: MonitorJobsLoop").warning("progress is not shown this time: %s", error)

    def _answer(self, log: logging.Logger, verdict: Verdict, progress: dict[str, Any]) -> Response:
        if verdict.finished:
            log.info("All jobs completed")
            return _monitored(HTTPStatus.OK, "All jobs finished", verdict, progress)
        if verdict.timed_out:
            message = f"Monitoring timeout: exceeded {verdict.state.max_checks} checks"
            log.warning("%s", message)
            return _monitored(HTTPStatus.REQUEST_TIMEOUT, message, verdict, progress)
        message = f"Monitoring in progress: {len(verdict.state.remaining)} jobs remaining"
        log.info("%s", message)
        return _monitored(HTTPStatus.ACCEPTED, message, verdict, progress)


CLIENT_CLOSED_REQUEST = 499
"""Not in :class:`http.HTTPStatus`; widely used for a request that its client gave up."""


def _first_words(evaluation: Evaluation) -> list[OutgoingMessage]:
    runs = f"{counted(len(evaluation.runs_of_attempt), 'run')} of {evaluation.model.model_name}"
    message = runs if evaluation.attempt == 1 else f"Attempt {evaluation.attempt}: {runs}"
    started = status_announcement(WorkflowStatus.STARTED, "Evaluation started", message)
    return outgoing(evaluation, [started, eta_announcement(FIRST_ETA_MINUTES)])


def _success(message: str, param: dict[str, Any]) -> Response:
    return SuccessResponse(message=message, param=param).model_dump(mode="json")


def _cleared(status: JobStatus) -> JobStatus:
    """Without the key: an endpoint may quote it when it refuses it, and one sweep also serves other evaluations."""
    return status.model_copy(update={"message": redactor.redact(status.message)})


def _monitored(code: int, message: str, verdict: Verdict, progress: dict[str, Any]) -> Response:
    state = verdict.state
    param = {
        "completed_jobs": state.completed_jobs,
        "failed_jobs": state.failed_jobs,
        "remaining_jobs": state.remaining,
        "continue_monitoring": code == HTTPStatus.ACCEPTED,
        "monitoring_complete": code == HTTPStatus.OK,
        "updated_state": state.model_dump(mode="json"),
        "custom_status": json.dumps(progress),
    }
    kind = SuccessResponse if code in (HTTPStatus.OK, HTTPStatus.ACCEPTED) else ErrorResponse
    return kind(code=code, message=message, param=param).model_dump(mode="json")


def _extracted(result: RunResult) -> dict[str, Any]:
    if result.error is not None:
        return {"error": result.error.model_dump(mode="json")}
    headline = result.scores[-1]
    return {
        "dataset": headline.dataset,
        "metric": headline.metric,
        "score": headline.score,
        "scores": [score.model_dump() for score in result.scores],
    }

"""The record of evaluations and runs. Every write is idempotent: activities run at least once.

Written by the HTTP handler and by activities, never by the body of a workflow (which is replayed).
"""

import hashlib
import secrets as randomness
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import Engine, delete, func, select
from sqlalchemy.orm import Session

from budeval.commons.clock import utc_now
from budeval.commons.errors import AttemptSuperseded, EvaluationConflict, EvaluationNotFound, SecretsUnreadable
from budeval.commons.sealing import EvaluationSecrets, Sealer
from budeval.commons.settings import AdmissionLimits
from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.models import CANCELLED, ErrorInfo, Evaluation, RunResult
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.models import JobState
from budeval.record import happenings
from budeval.record.admission import HAS_PLACE, Admission, is_waiting
from budeval.record.database import erase_traces, insert
from budeval.record.outbox import OutgoingMessage, write_messages
from budeval.record.queries import EvaluationQueries
from budeval.record.rows import (
    apply_update,
    end,
    evaluation_view,
    fail_unfinished,
    has_ended,
    last_message,
    new_evaluation,
    new_runs,
    runs_of,
    save_result,
    start_again,
    wait_again,
)
from budeval.record.tables import EvaluationRow, EventRow, ScoreRow
from budeval.record.timeline import Happening, Timeline, note
from budeval.record.views import EvaluationView

Verdict = Callable[[EvaluationView, WorkflowStatus | None, ErrorInfo | None], tuple[WorkflowStatus, ErrorInfo | None]]


class EndRules(NamedTuple):
    """What is decided and said at the end of an evaluation, in the transaction of that end."""

    verdict: Verdict
    """How it ends, from how it stands, the status that it was told to end with (None: as its results say), and why."""
    last_words: Callable[[Evaluation, EvaluationView], Sequence[OutgoingMessage]]
    """What subscribers are told about it when it has ended."""


def _as_told(
    _view: EvaluationView, status: WorkflowStatus | None, error: ErrorInfo | None
) -> tuple[WorkflowStatus, ErrorInfo | None]:
    if status is None:
        raise ValueError("somebody must say how it ended")
    return status, error


AS_TOLD = EndRules(_as_told, lambda _evaluation, _view: [])
"""Ends with the status that is given, and says nothing."""


Words = Callable[[Evaluation], Sequence[OutgoingMessage]]
"""What subscribers are told about something, written down in the transaction of it."""


def nothing(_evaluation: Evaluation) -> Sequence[OutgoingMessage]:
    """Nobody is told."""
    return []


class ActiveEvaluation(BaseModel):
    """An evaluation that was let in and has not ended, as the pulse needs it."""

    eval_id: str
    attempt: int
    status: WorkflowStatus
    last_heard_at: datetime
    poll_interval: int
    cancel_requested_at: datetime | None = None


class Record:
    """Evaluations, runs and scores in a database.

    Where a method is told the ``attempt`` of its caller, it raises :class:`AttemptSuperseded` and changes nothing when
    another one has begun: what an old attempt still has to say comes too late. None: whatever attempt there is.
    """

    def __init__(self, database: Engine, sealer: Sealer, limits: AdmissionLimits | None = None) -> None:
        self.admission = Admission(database, limits or AdmissionLimits())
        """Who may run, and who waits for a place."""
        self.timeline = Timeline(database)
        """What happened, to be read; every method here that writes adds to it."""
        self.queries = EvaluationQueries(database)
        """Many evaluations at once."""
        self._database = database
        self._writing = database.execution_options(record_writes=True)
        self._sealer = sealer

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with Session(self._database) as session:
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with Session(self._writing) as session, session.begin():
            yield session

    def ping(self) -> None:
        """Raises SQLAlchemy's error when the database does not answer."""
        with self._read() as session:
            session.execute(select(1))

    # ------------------------------------------------------------------ the request

    def create(
        self,
        evaluation: Evaluation,
        secrets: EvaluationSecrets,
        request_body: bytes,
        job_names: dict[str, str],
        requested_by: str,
    ) -> bool:
        """Records a request once, with a place or in the queue; never changes what is there.

        Answers whether it was new.

        Raises:
            InvalidEvaluation: its Jobs are more than may ever run at once.
            NoPlace: there is no place, and it may not wait for one.
        """
        sealed = self._sealer.seal(secrets)
        row = {
            **new_evaluation(evaluation, requested_by, utc_now()),
            **_fingerprint(request_body),
            "sealed_secrets": sealed,
        }
        with self.admission.deciding() as session:
            recorded = session.scalar(
                insert(session, EvaluationRow).values(row).on_conflict_do_nothing().returning(EvaluationRow)
            )
            if recorded is None:
                return False
            session.add_all(new_runs(evaluation, job_names))
            note(session, recorded, happenings.created(evaluation, requested_by))
            self.admission.ask(session, recorded)
        return True

    def is_same_request(self, eval_id: str, request_body: bytes) -> bool:
        """Whether ``eval_id`` is running and was asked for with exactly this body."""
        with self._read() as session:
            row = _evaluation(session, eval_id)
            return row.request_salt is not None and row.request_digest == _digest(row.request_salt, request_body)

    def definition(self, eval_id: str, *, attempt: int | None = None) -> Evaluation:
        """The evaluation as it was asked for, without secrets."""
        with self._read() as session:
            return Evaluation.model_validate(_evaluation(session, eval_id, attempt).definition)

    def open_secrets(self, eval_id: str) -> EvaluationSecrets:
        """The secrets in clear: only for the activity that needs them, never stored or returned by it."""
        with self._read() as session:
            sealed = _evaluation(session, eval_id).sealed_secrets
        return self._opened(sealed)

    def _opened(self, sealed: bytes | None) -> EvaluationSecrets:
        if sealed is None:
            raise SecretsUnreadable("the secrets of this evaluation were erased when it ended")
        return self._sealer.open(sealed)

    # ------------------------------------------------------------------ another attempt

    def retry(self, evaluation: Evaluation, secrets: EvaluationSecrets, job_names: dict[str, str], by: str) -> None:
        """Begins the attempt ``evaluation.attempt``: its runs wait again, all others keep their scores.

        ``job_names``: the new Job of each run of the attempt. Whether results were told before is found out here, by
        what there is to be published: the evaluation's own ``results_told`` says nothing.

        Raises:
            EvaluationConflict: it has not ended, another attempt has begun meanwhile, or it is being deleted.
            InvalidEvaluation, NoPlace: as :meth:`create` does.
        """
        with self.admission.deciding() as session:
            row = _locked(session, evaluation.eval_id)
            _check_free(row, evaluation.attempt - 1)
            told = select(EventRow.id).where(EventRow.eval_id == row.eval_id, EventRow.event == Event.RESULTS).limit(1)
            evaluation = evaluation.model_copy(update={"results_told": session.scalar(told) is not None})
            row.attempt = evaluation.attempt
            row.definition = evaluation.model_dump(mode="json")
            row.poll_interval = evaluation.monitor.poll_interval
            row.sealed_secrets = self._sealer.seal(secrets)
            start_again(row)
            note(session, row, happenings.tried_again(evaluation, by))
            for run in runs_of(session, row.eval_id):
                if run.run_id in job_names:
                    run.attempt, run.job_name = evaluation.attempt, job_names[run.run_id]
                    wait_again(run)
            self.admission.ask(session, row)

    def begin_deletion(self, eval_id: str, by: str) -> Evaluation:
        """Marks an ended evaluation as being deleted, so that nobody tries it again meanwhile. Idempotent.

        Raises:
            EvaluationConflict: it has not ended.
        """
        with self._write() as session:
            row = _locked(session, eval_id)
            if not has_ended(row):
                raise EvaluationConflict(f"evaluation {eval_id} is {row.status}; cancel it before you delete it")
            evaluation = Evaluation.model_validate(row.definition).model_copy(update={"deleting": True})
            row.definition = evaluation.model_dump(mode="json")
            note(session, row, happenings.deletion_requested(by), once=True)
            return evaluation

    def delete(self, eval_id: str) -> None:
        """Forgets an evaluation that is being deleted (:meth:`begin_deletion`), with everything that belongs to it."""
        with self._write() as session:
            row = _locked(session, eval_id)
            if not row.definition.get("deleting"):
                raise EvaluationConflict(f"evaluation {eval_id} is not being deleted")
            session.execute(delete(EvaluationRow).where(EvaluationRow.eval_id == eval_id))
        erase_traces(self._database)

    # ------------------------------------------------------------------ what happened

    def heard(self, eval_id: str, *, attempt: int | None = None) -> EvaluationSecrets:
        """An activity of this evaluation runs: it is alive, and gets its secrets, as :meth:`open_secrets` does.

        One that waits for its place keeps it.
        """
        with self._write() as session:
            row = _locked(session, eval_id, attempt)
            if row.admitted_at is not None:
                row.last_heard_at = utc_now()
            sealed = row.sealed_secrets
        return self._opened(sealed)

    def begin(self, eval_id: str, words: Words = nothing, *, attempt: int | None = None) -> None:
        """The workflow has started. Not a word about one that has ended."""
        with self._write() as session:
            row = _locked(session, eval_id, attempt)
            row.started_at = row.started_at or utc_now()
            row.last_heard_at = utc_now()
            if row.status == WorkflowStatus.PENDING:
                row.status = WorkflowStatus.RUNNING
            if not has_ended(row):
                _tell(session, row, words)

    def step(
        self,
        eval_id: str,
        step_id: str,
        status: WorkflowStatus,
        message: str,
        words: Words = nothing,
        *,
        attempt: int | None = None,
    ) -> None:
        """A step began, came on or ended. Not a word about it when the evaluation has ended."""
        with self._write() as session:
            row = _locked(session, eval_id, attempt)
            if has_ended(row):
                return
            note(session, row, happenings.step(step_id, status, message), once=True)
            entry = {"status": status, "message": message, "at": utc_now().isoformat()}
            row.steps = {**row.steps, step_id: entry}
            row.last_heard_at = utc_now()
            _tell(session, row, words)

    def save_engine_configs(
        self, eval_id: str, configs: dict[str, dict[str, Any]], *, attempt: int | None = None
    ) -> None:
        """The engine's configuration of each run, by run id."""
        with self._write() as session:
            _locked(session, eval_id, attempt)
            for row in runs_of(session, eval_id):
                row.engine_config = configs.get(row.run_id, row.engine_config)

    def engine_configs(self, eval_id: str) -> dict[str, dict[str, Any]]:
        """What :meth:`save_engine_configs` saved."""
        with self._read() as session:
            return {row.run_id: row.engine_config or {} for row in runs_of(session, eval_id)}

    def update_runs(
        self,
        eval_id: str,
        updates: Iterable[RunUpdate],
        eta_minutes: int | None = None,
        *,
        attempt: int | None = None,
    ) -> int | None:
        """What a sweep found out. A run that ended keeps its end.

        Answers the minutes left, which never go up: a sweep that runs again may measure more than was told before.
        """
        by_id = {item.run_id: item for item in updates}
        with self._write() as session:
            evaluation = _locked(session, eval_id, attempt)
            if has_ended(evaluation):
                return evaluation.eta_minutes
            evaluation.last_heard_at = utc_now()
            told = (eta_minutes, evaluation.eta_minutes)
            evaluation.eta_minutes = min((minutes for minutes in told if minutes is not None), default=None)
            for row in runs_of(session, eval_id):
                if row.run_id in by_id and not JobState(row.status).finished:
                    before = happenings.run(row)
                    apply_update(row, by_id[row.run_id])
                    _note_change(session, evaluation, before, happenings.run(row))
            return evaluation.eta_minutes

    def trying_again(self, eval_id: str, what: Happening, *, attempt: int | None = None) -> None:
        """Something failed and is tried again. Not for an evaluation that has ended."""
        with self._write() as session:
            row = _locked(session, eval_id, attempt)
            if not has_ended(row):
                note(session, row, what)

    def pods_failed(self, eval_id: str, pods: Mapping[str, int], *, attempt: int | None = None) -> None:
        """So many pods of each run have failed, and Kubernetes starts another."""
        if not pods:
            return
        with self._write() as session:
            row = _locked(session, eval_id, attempt)
            if has_ended(row):
                return
            for run_id, count in pods.items():
                note(session, row, happenings.pods_failed(run_id, count), once=True)

    def save_results(self, eval_id: str, results: Iterable[RunResult], *, attempt: int | None = None) -> None:
        """Scores, or why there are none, of each run that was read; all others keep theirs."""
        with self._write() as session:
            evaluation = _locked(session, eval_id, attempt)
            if has_ended(evaluation):
                return
            rows = {row.run_id: row for row in runs_of(session, eval_id)}
            for result in results:
                session.execute(delete(ScoreRow).where(ScoreRow.eval_id == eval_id, ScoreRow.run_id == result.run_id))
                save_result(session, rows[result.run_id], result)
                note(session, evaluation, happenings.result(result), once=True)

    def result_digests(self, eval_id: str) -> dict[str, str | None]:
        """SHA-256 of each run's result file as its pod told it, by run id."""
        with self._read() as session:
            return {row.run_id: row.result_sha256 for row in runs_of(session, eval_id)}

    # ------------------------------------------------------------------ the end

    def request_cancel(self, eval_id: str, by: str, rules: EndRules = AS_TOLD) -> WorkflowStatus:
        """Marks an evaluation as to be cancelled; answers the status it had. Idempotent.

        One that waits for a place has no workflow that could end it: it ends here, as :meth:`finish` does it.
        """
        with self._write() as session:
            row = _locked(session, eval_id)
            status = WorkflowStatus(row.status)
            if not status.ended and row.cancel_requested_at is None:
                row.cancel_requested_at = utc_now()
                row.cancelled_by = by
                note(session, row, happenings.cancelled(by))
            waited = is_waiting(row)
            if waited:
                self._end(session, row, WorkflowStatus.TERMINATED, CANCELLED, rules)
        if waited:
            self._ended()
        return status

    def cancel_requested(self, eval_id: str, *, attempt: int | None = None) -> bool:
        """Whether somebody asked to cancel."""
        with self._read() as session:
            return _evaluation(session, eval_id, attempt).cancel_requested_at is not None

    def finish(
        self,
        eval_id: str,
        status: WorkflowStatus | None,
        error: ErrorInfo | None = None,
        rules: EndRules = AS_TOLD,
        *,
        attempt: int | None = None,
    ) -> bool:
        """Ends an evaluation and erases its secrets; answers whether it was still running. The first end stays.

        What subscribers hear of it is in the outbox when it has ended, so that nobody who dies in between leaves it
        unsaid. ``status`` None: as the results say.
        """
        with self._write() as session:
            was_running = self._end(session, _locked(session, eval_id, attempt), status, error, rules)
        self._ended()
        return was_running

    def _end(
        self,
        session: Session,
        row: EvaluationRow,
        status: WorkflowStatus | None,
        error: ErrorInfo | None,
        rules: EndRules,
    ) -> bool:
        row.sealed_secrets = row.request_digest = row.request_salt = None
        if has_ended(row):
            return False
        if error is not None:
            fail_unfinished(session, row.eval_id, error)
        status, error = rules.verdict(self._view(session, row), status, error)
        fail_unfinished(session, row.eval_id, error or ErrorInfo(reason="NotFinished", message=""))
        end(row, status, error, last_message(error, runs_of(session, row.eval_id)))
        note(session, row, happenings.ended(status, error))
        evaluation = Evaluation.model_validate(row.definition)
        write_messages(session, row.eval_id, rules.last_words(evaluation, self._view(session, row)))
        return True

    def _ended(self) -> None:
        erase_traces(self._database)
        self.admission.freed.set()

    # ------------------------------------------------------------------ reading

    def active(self) -> list[ActiveEvaluation]:
        """Every evaluation that was let in and has not ended, oldest first."""
        query = select(EvaluationRow).where(HAS_PLACE).order_by(EvaluationRow.created_at)
        with self._read() as session:
            return [ActiveEvaluation.model_validate(row, from_attributes=True) for row in session.scalars(query)]

    def count_by_status(self) -> dict[WorkflowStatus, int]:
        """How many evaluations have each status."""
        query = select(EvaluationRow.status, func.count()).group_by(EvaluationRow.status)
        with self._read() as session:
            return {WorkflowStatus(status): count for status, count in session.execute(query)}

    def view(self, eval_id: str) -> EvaluationView:
        """Everything about an evaluation that may be shown."""
        with self._read() as session:
            return self._view(session, _evaluation(session, eval_id))

    def _view(self, session: Session, row: EvaluationRow) -> EvaluationView:
        place = self.admission.place(session, row) if is_waiting(row) else None
        return evaluation_view(session, row, place)


def _fingerprint(request_body: bytes) -> dict[str, str]:
    salt = randomness.token_hex(16)
    return {"request_salt": salt, "request_digest": _digest(salt, request_body)}


def _digest(salt: str, body: bytes) -> str:
    return hashlib.sha256(salt.encode() + body).hexdigest()


def _locked(session: Session, eval_id: str, attempt: int | None = None) -> EvaluationRow:
    """The evaluation, for a writer alone: two that read first would undo each other's changes."""
    return _evaluation(session, eval_id, attempt, lock=True)


def _evaluation(session: Session, eval_id: str, attempt: int | None = None, *, lock: bool = False) -> EvaluationRow:
    # Without its key: writing down a message of the evaluation, which refers to it, need not wait.
    row = session.get(EvaluationRow, eval_id, with_for_update={"key_share": True} if lock else None)
    if row is None:
        raise EvaluationNotFound(f"no evaluation has the id {eval_id}")
    if attempt is not None and row.attempt != attempt:
        raise AttemptSuperseded(f"evaluation {eval_id} is in attempt {row.attempt}; this belongs to attempt {attempt}")
    return row


def _tell(session: Session, row: EvaluationRow, words: Words) -> None:
    write_messages(session, row.eval_id, words(Evaluation.model_validate(row.definition)))


def _check_free(row: EvaluationRow, attempt: int) -> None:
    """Raises unless the evaluation has ended with ``attempt`` and nobody does anything with it."""
    if row.definition.get("deleting"):
        raise EvaluationConflict(f"evaluation {row.eval_id} is being deleted")
    if not has_ended(row) or row.attempt != attempt:
        raise EvaluationConflict(f"evaluation {row.eval_id} is {row.status} in attempt {row.attempt}; let it end first")


def _note_change(
    session: Session, evaluation: EvaluationRow, before: Happening | None, after: Happening | None
) -> None:
    # A sweep that finds a run as it was is no news.
    if after is not None and after != before:
        note(session, evaluation, after)

"""The log of a run: from its pod while there is one, else from the volume; without secrets."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from budeval.ansible.kubeconfig import parse_kubeconfig, secrets_of
from budeval.commons.clock import utc_now
from budeval.commons.errors import EvaluationNotFound, LogGone, LogNotFound, SecretsUnreadable, TemporaryError
from budeval.commons.redaction import redactor
from budeval.commons.safe_files import file_below, last_bytes
from budeval.commons.sealing import EvaluationSecrets
from budeval.commons.storage_config import StorageConfig
from budeval.commons.wire import Event, WorkflowStatus
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.jobs.logs import (
    LOG_FILE,
    MAXIMUM_ANSWER_BYTES,
    LogFile,
    LogLine,
    LogPosition,
    PodLog,
    advanced,
    behind_seam,
    log_file,
    parse_lines,
    printable_text,
    select,
    stamped,
    unread,
)
from budeval.jobs.names import workspace_name
from budeval.record import Record

FOLLOWED_BYTES = 1024 * 1024
"""Bytes of a followed log that are read at once, and kept for those who join later."""

LAST_WORDS_SECONDS = 60.0
"""How long the pod of a run that has ended may take to end too."""


@dataclass(frozen=True)
class LoggedRun:
    """What the record says of a run whose log is wanted."""

    eval_id: str
    run_id: str
    job_name: str
    """Of the newest attempt."""
    directory: str
    """Of all attempts, below the directory of the evaluation on the volume."""
    deployed: bool
    ended: bool
    own_cluster: bool
    reason: str
    """Why it does not run; may be empty."""


class LogText(NamedTuple):
    """A part of a log, fit to show."""

    lines: list[LogLine]
    cut: bool
    """Older lines were left out because the log is too large."""


@dataclass(frozen=True)
class Following:
    """How far one log has been followed. Lives in memory alone, and so may know the evaluation's secrets."""

    position: LogPosition = field(default_factory=LogPosition)
    secrets: EvaluationSecrets | None = field(default=None, repr=False)
    end_seen: datetime | None = None
    """When the run was first seen to have ended."""


class News(NamedTuple):
    """What a look at a followed log brought."""

    following: Following
    text: LogText
    complete: bool
    """There will be no more."""


class RunLogs:
    """Logs of runs. Reads block for as long as a playbook takes."""

    def __init__(self, record: Record, orchestrator: AnsibleOrchestrator, mount: Path | None) -> None:
        """``mount``: where the claim of the service's own cluster is mounted into the service, if it is."""
        self._record = record
        self._orchestrator = orchestrator
        self._mount = mount

    def find(self, eval_id: str, run_id: str) -> LoggedRun:
        """What is known of a run.

        Raises:
            EvaluationNotFound: there is no such evaluation, or it has no such run.
        """
        view, definition = self._record.view(eval_id), self._record.definition(eval_id)
        run = next((run for run in view.runs if run.run_id == run_id), None)
        if run is None:
            known = ", ".join(run.run_id for run in view.runs[:10])
            raise EvaluationNotFound(f"evaluation {eval_id} has no run {run_id!r}; it has {known}", title="No such run")
        error = run.error or view.error
        deploy = next(step for step in view.steps if step.id == Event.DEPLOY)
        return LoggedRun(
            eval_id=eval_id,
            run_id=run_id,
            job_name=run.job_name,
            directory=workspace_name(eval_id, run_id),
            # What an earlier attempt wrote is still on the volume.
            deployed=deploy.status is not WorkflowStatus.PENDING or view.attempt > 1,
            ended=run.status.finished or view.status.ended,
            own_cluster=definition.has_kubeconfig,
            reason=error.sentence() if error else "",
        )

    def read(self, eval_id: str, run_id: str, since: timedelta | None = None, tail: int | None = None) -> LogText:
        """The log as it is now.

        Raises:
            EvaluationNotFound: see :meth:`find`.
            LogNotFound: there is none, or none yet; says why.
            LogGone: it is in the evaluation's own cluster, whose kubeconfig was erased.
            ClusterUnreachable, ClusterUnauthorized, TemporaryError: it cannot be read now.
        """
        run = self.find(eval_id, run_id)
        if not run.deployed:
            raise _no_log(run, "")
        secrets = self.open_secrets(run)
        earliest = None if since is None else utc_now() - since
        with _hiding(secrets):
            pods = self._orchestrator.read_pod_logs(run.job_name, secrets.kubeconfig_text)
            newest = pods[-1] if pods else None
            if newest is not None and newest.text is not None:
                lines, cut = parse_lines(newest.text, complete=newest.ended), newest.cut
            elif newest is not None and not newest.started:
                raise _no_log(run, newest.message)
            else:
                lines, cut = self._lines_of_file(run, secrets)
            chosen = select(lines, earliest, tail)
            return LogText(_shown(chosen), cut and len(chosen) == len(lines))

    def look(self, eval_id: str, run_id: str, following: Following) -> News:
        """What is new in a log since the last look. Raises as :meth:`read`, but not because there is no log yet."""
        run = self.find(eval_id, run_id)
        following = replace(following, end_seen=(following.end_seen or utc_now()) if run.ended else None)
        if not run.deployed:
            return News(following, LogText([], False), complete=run.ended)
        secrets = self.open_secrets(run, following.secrets)
        with _hiding(secrets):
            before = following.position
            pods = self._orchestrator.read_pod_logs(
                run.job_name, secrets.kubeconfig_text, position=before, limit=FOLLOWED_BYTES
            )
            position, fresh, cut = _joined(before, pods)
            complete = run.ended and _nothing_comes(pods, following.end_seen)
            if complete and not _has_log(pods):
                behind, found = behind_seam(position.last_texts, self._lines_of_file_or_none(run, secrets))
                fresh, cut = [*fresh, *behind], cut or not found
            return News(replace(following, position=position, secrets=secrets), LogText(_shown(fresh), cut), complete)

    def open_secrets(self, run: LoggedRun, known: EvaluationSecrets | None = None) -> EvaluationSecrets:
        """The secrets of a run's evaluation; after its end, when they are erased, those that are ``known`` or none.

        Raises:
            LogGone: without them there is no way to the cluster.
        """
        try:
            return self._record.open_secrets(run.eval_id)
        except SecretsUnreadable:
            if not self._record.view(run.eval_id).status.ended:
                raise
        if known is not None:
            return known
        if run.own_cluster:
            raise LogGone(
                f"the log of run {run.run_id!r} is in the cluster of the evaluation's own kubeconfig, which was erased "
                f"at its end; look there, at results/{run.eval_id}/{run.directory}/{LOG_FILE} on the volume"
            )
        return EvaluationSecrets()

    def _lines_of_file(self, run: LoggedRun, secrets: EvaluationSecrets) -> tuple[list[LogLine], bool]:
        found = self._file(run, secrets.kubeconfig_text, MAXIMUM_ANSWER_BYTES)
        if found.text is None:
            raise _no_log(run, found.message)
        return parse_lines(found.text), found.cut

    def _lines_of_file_or_none(self, run: LoggedRun, secrets: EvaluationSecrets) -> list[LogLine]:
        return parse_lines(self._file(run, secrets.kubeconfig_text, FOLLOWED_BYTES).text or "")

    def _file(self, run: LoggedRun, kubeconfig: str | None, limit: int) -> LogFile:
        if self._mount is None or kubeconfig is not None:
            return self._orchestrator.read_log_file(run.eval_id, run.directory, kubeconfig, limit=limit)
        place = StorageConfig.results_path(run.eval_id, run.directory)
        try:
            with file_below(self._mount, *place.parts, LOG_FILE) as file:
                return log_file(last_bytes(file, limit + 1), limit)
        except FileNotFoundError:
            return LogFile()
        except OSError as error:
            raise TemporaryError(f"{place / LOG_FILE} on the volume cannot be read: {error}") from error


def _joined(position: LogPosition, pods: Sequence[PodLog]) -> tuple[LogPosition, list[LogLine], bool]:
    """The position behind all that is new in the pods' logs, the new lines, and whether some were left out."""
    fresh: list[LogLine] = []
    for pod in pods:
        if pod.text is None:
            continue
        again = parse_lines(pod.text, complete=pod.ended)
        new = unread(position.last_second, again) if pod.name == position.pod else again
        position = advanced(position, pod.name, new)
        fresh += new
    return position, fresh, any(pod.cut for pod in pods)


def _has_log(pods: Sequence[PodLog]) -> bool:
    """Whether the file could not tell more: also where a pod never began, and so wrote none."""
    return bool(pods) and (pods[-1].text is not None or not pods[-1].started)


def _nothing_comes(pods: Sequence[PodLog], end_seen: datetime | None) -> bool:
    if not pods or pods[-1].ended:
        return True
    # A pod whose node is lost runs for ever.
    return end_seen is not None and (utc_now() - end_seen).total_seconds() > LAST_WORDS_SECONDS


def _no_log(run: LoggedRun, message: str) -> LogNotFound:
    why = message or run.reason
    if run.ended:
        what = f"run {run.run_id!r} left no log"
        advice = f"look at GET /evals/{run.eval_id}"
    else:
        what = f"run {run.run_id!r} has no log yet"
        advice = "ask again when it runs, or follow it"
    return LogNotFound(f"{what}{f' ({why})' if why else ''}; {advice}", title="No log" if run.ended else "No log yet")


@contextmanager
def _hiding(secrets: EvaluationSecrets) -> Iterator[None]:
    kubeconfig = secrets.kubeconfig_text
    inside = secrets_of(parse_kubeconfig(kubeconfig)) if kubeconfig else []
    with redactor.hiding(secrets.api_key.get_secret_value(), *inside):
        yield


def _shown(lines: Sequence[LogLine]) -> list[LogLine]:
    # All at once: a private key has several lines.
    return parse_lines(printable_text(redactor.redact(stamped(lines))))

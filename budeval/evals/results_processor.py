"""From what lies on the volume to scores: the truth check.

A run is a success only if every requested score is a number and every question was answered. Everything else is an
error that says what is missing. The file is foreign data: its size is bounded, its digest compared with the one the
engine told at its end, and its content validated.
"""

import hashlib
import logging
import math
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from budeval.commons.errors import ResultsIncomplete
from budeval.commons.redaction import printable
from budeval.commons.safe_files import NotARegularFile, file_below
from budeval.commons.storage_config import RESULTS_SUBPATH, StorageConfig
from budeval.evals.models import ErrorInfo, Evaluation, Run, RunResult, Score
from budeval.jobs.models import ResultFile
from budeval.jobs.names import is_job_name, workspace_name
from budeval.jobs.remover import is_eval_id

logger = logging.getLogger("::EVAL:: Results")

MAXIMUM_RESULT_BYTES = 1_048_576
"""Bytes of a result file: a thousand scores are about 100 kB."""
_RETRY = "Retry the evaluation; questions that were answered are not asked again."

# As much as the record's columns hold, and no control characters, which not every database takes.
_PRINTABLE = r"^\P{Cc}*$"
Text = Annotated[str, Field(max_length=256, pattern=_PRINTABLE)]
ShortText = Annotated[str, Field(max_length=64, pattern=_PRINTABLE)]
Count = Annotated[int, Field(strict=True, ge=0, le=10**12)]
# The ends of the calendar cannot be written in every time zone, and so not in every database.
Moment = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))]


class _Questions(BaseModel):
    asked: Count
    answered: Count
    failed: Count = 0


class _ScoreLine(BaseModel):
    dataset: Text
    version: ShortText
    metric: Text
    mode: ShortText
    score: Annotated[float, Field(strict=True)]


class _ResultDocument(BaseModel):
    """``result.json`` as the engine image writes it."""

    model_config = ConfigDict(extra="ignore")

    eval_id: Text
    run_id: Text
    dataset_id: Text
    scores: Annotated[list[_ScoreLine], Field(max_length=10_000)]
    questions: _Questions
    started_at: Moment
    completed_at: Moment
    duration_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ResultsReader(Protocol):
    """Brings result files from the volume."""

    def read_results(
        self, eval_id: str, job_names: Sequence[str], kubeconfig: str | None = None
    ) -> dict[str, ResultFile]:
        """The file of each named Job, or why there is none."""


class Volume(ResultsReader, Protocol):
    """Result files on a volume, to be read and to be removed."""

    def remove_results(self, eval_id: str) -> None:
        """Removes all files of an evaluation; harmless when there are none. Raises :class:`BudEvalError`."""


class MountedResults:
    """Reads from the claim where it is mounted into the service."""

    def __init__(self, mount: Path, elsewhere: Volume) -> None:
        """``elsewhere`` reads where an evaluation has a cluster of its own, whose claim is another one."""
        self._mount = mount
        self._elsewhere = elsewhere

    def read_results(
        self, eval_id: str, job_names: Sequence[str], kubeconfig: str | None = None
    ) -> dict[str, ResultFile]:
        """See :class:`ResultsReader`."""
        if kubeconfig is not None:
            return self._elsewhere.read_results(eval_id, job_names, kubeconfig)
        return {name: self._read(eval_id, name) for name in job_names}

    def remove_results(self, eval_id: str) -> None:
        """Removes an evaluation's files; where the service may not write, ``elsewhere`` does."""
        if not is_eval_id(eval_id):
            raise ValueError("no eval_id")
        try:
            _remove_below(self._mount / RESULTS_SUBPATH, eval_id)
        except OSError as error:
            logger.info("files of evaluation %s are removed by a Job: %s", eval_id, error.strerror)
            self._elsewhere.remove_results(eval_id)

    def _read(self, eval_id: str, name: str) -> ResultFile:
        if not is_job_name(name):
            return ResultFile(error=f"{name!r} is no name of a Job")
        try:
            with file_below(self._mount, *StorageConfig.results_path(eval_id, name).parts, "result.json") as file:
                return ResultFile(content=file.read(MAXIMUM_RESULT_BYTES + 1))
        except NotARegularFile:
            return ResultFile(error="result.json is no regular file")
        except FileNotFoundError:
            return ResultFile(error="there is no result.json in the run's directory on the volume")
        except OSError as error:
            return ResultFile(error=f"result.json cannot be read: {error.strerror}")


def _remove_below(directory: Path, name: str) -> None:
    """Removes a tree, or whatever has that name, without following a link; harmless when it is not there.

    Raises:
        OSError: it may not be removed, or there is no such directory: perhaps nothing is mounted.
    """
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if stat.S_ISDIR(os.lstat(name, dir_fd=place).st_mode):
            shutil.rmtree(name, dir_fd=place)
        else:
            os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        return
    finally:
        os.close(place)


class ResultsProcessor:
    """Turns result files into scores or reasons."""

    def __init__(self, reader: ResultsReader) -> None:
        self._reader = reader

    def extract_eval_results(self, evaluation: Evaluation, run_id: str, kubeconfig: str | None = None) -> RunResult:
        """The result of one completed run. Raises :class:`ResultsIncomplete` when there is no true result."""
        result = self.extract_all(evaluation, [run_id], {}, kubeconfig)[0]
        if result.error is not None:
            raise ResultsIncomplete(result.error.message)
        return result

    def extract_all(
        self,
        evaluation: Evaluation,
        run_ids: Sequence[str],
        digests: Mapping[str, str | None],
        kubeconfig: str | None = None,
    ) -> list[RunResult]:
        """The result of each completed run, in one reading. ``digests``: what the engines told, by run id."""
        runs = [run for run in evaluation.runs if run.run_id in run_ids]
        names = {run.run_id: workspace_name(evaluation.eval_id, run.run_id) for run in runs}
        files = self._reader.read_results(evaluation.eval_id, list(names.values()), kubeconfig)
        absent = ResultFile(error="the volume was read, but not this run")
        return [
            judge_result(evaluation.eval_id, run, files.get(names[run.run_id], absent), digests.get(run.run_id))
            for run in runs
        ]


def judge_result(eval_id: str, run: Run, file: ResultFile, told_digest: str | None) -> RunResult:
    """The truth check of one run."""
    if file.content is None:
        return _incomplete(run, file.error or "there is no result")
    if len(file.content) > MAXIMUM_RESULT_BYTES:
        return _incomplete(run, f"result.json is larger than {MAXIMUM_RESULT_BYTES} bytes")
    if told_digest is not None and hashlib.sha256(file.content).hexdigest() != told_digest:
        return _incomplete(run, "result.json is not the file that the engine wrote: its SHA-256 differs")
    try:
        document = _ResultDocument.model_validate_json(file.content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        return _incomplete(run, f"result.json is not valid: {where}: {problem['msg']}")
    missing = _what_is_missing(eval_id, run, document)
    if missing is not None:
        return _incomplete(run, missing, document)
    return _result(run, document, [_score(line) for line in document.scores], None)


def _what_is_missing(eval_id: str, run: Run, document: _ResultDocument) -> str | None:
    if (document.eval_id, document.run_id, document.dataset_id) != (eval_id, run.run_id, run.dataset_id):
        return "result.json belongs to another run"
    if not document.scores:
        return "there is no score"
    for line in document.scores:
        if not math.isfinite(line.score):
            return f"the score {line.dataset}/{line.metric} is no number"
    questions = document.questions
    if not questions.asked:
        return "no question was asked"
    if questions.answered != questions.asked:
        return f"{questions.answered} of {questions.asked} questions were answered"
    if questions.failed:
        return f"{questions.failed} of {questions.asked} questions failed"
    return None


def _score(line: _ScoreLine) -> Score:
    return Score.model_validate(line.model_dump())


def _incomplete(run: Run, message: str, document: _ResultDocument | None = None) -> RunResult:
    error = ErrorInfo(reason="ResultsIncomplete", message=printable(message), resolution=_RETRY)
    return RunResult(run_id=run.run_id, error=error) if document is None else _result(run, document, [], error)


def _result(run: Run, document: _ResultDocument, scores: list[Score], error: ErrorInfo | None) -> RunResult:
    return RunResult(
        run_id=run.run_id,
        scores=scores,
        error=error,
        start_time=document.started_at,
        completion_time=document.completed_at,
        duration_seconds=document.duration_seconds,
        questions=document.questions.model_dump(),
    )

"""``GET /evals/{eval_id}/results``: scores for programs (JSON) and tables (CSV)."""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel

from budeval.api.negotiation import preferred
from budeval.api.parameters import SHOWN, EvalId
from budeval.api.problem import documented, problem_response
from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import ErrorInfo, Score
from budeval.evals.services import EvaluationService
from budeval.jobs.models import JobState
from budeval.record.views import EvaluationView, RunView

Accept = Annotated[str | None, Header(include_in_schema=False)]
"""OpenAPI leaves this header to the media types of the answers."""
JSON = "application/json"
CSV = "text/csv"
CSV_COLUMNS = (
    "eval_id", "run_id", "dataset_id", "dataset", "version", "metric", "mode", "score", "status", "reason",
)  # fmt: skip


class RunScores(BaseModel):
    """How one run ended, or stands."""

    run_id: str
    dataset_id: str
    status: JobState
    scores: list[Score]
    error: ErrorInfo | None
    started_at: datetime | None
    ended_at: datetime | None
    duration_seconds: float | None


class EvaluationScores(BaseModel):
    """The scores of an evaluation, run by run."""

    eval_id: str
    status: WorkflowStatus
    results: list[RunScores]


def results_router(service: EvaluationService) -> APIRouter:
    """``/evals/{eval_id}/results``."""
    router = APIRouter(prefix="/evals", tags=["evaluations"])

    @router.get("/{eval_id}/results", response_model=EvaluationScores, responses=_documented())
    def results(request: Request, response: Response, eval_id: EvalId, accept: Accept = None) -> Any:
        """Scores of every run, and why there are none: JSON, or CSV with a line for each score, by ``Accept``."""
        view = service.view(str(eval_id))
        match preferred(accept, (JSON, CSV)):
            case "application/json":
                response.headers.update(_VARY)
                return EvaluationScores.model_validate(view_of(view))
            case "text/csv":
                return Response(table(view), media_type=CSV, headers=_VARY)
            case _:
                detail = f"This can be had as {JSON} or {CSV}, but Accept allows neither."
                return problem_response(HTTPStatus.NOT_ACCEPTABLE, "Not acceptable", detail, None, request.url.path)

    return router


_VARY = {"Vary": "Accept"}


def _documented() -> dict[int | str, dict[str, Any]]:
    refused = {HTTPStatus.NOT_ACCEPTABLE: "Accept allows neither JSON nor CSV"}
    taken: dict[int | str, dict[str, Any]] = {
        200: {"description": "The scores", "content": {CSV: {"schema": {"type": "string"}}}}
    }
    return {**taken, **documented({**SHOWN, **refused})}


def view_of(view: EvaluationView) -> dict[str, Any]:
    """What the JSON has, as plain values."""
    fields = set(RunScores.model_fields)
    runs = [run.model_dump(include=fields) for run in view.runs]
    return {"eval_id": view.eval_id, "status": view.status, "results": runs}


def table(view: EvaluationView) -> str:
    """RFC 4180, with a heading; a run without scores has one line, with its reason."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for run in view.runs:
        writer.writerows(_lines(view.eval_id, run))
    return text.getvalue()


def _lines(eval_id: str, run: RunView) -> Iterator[list[str | float]]:
    begin = (eval_id, run.run_id, run.dataset_id)
    end = (run.status, run.error.reason if run.error else "")
    for score in run.scores:
        yield [*begin, score.dataset, score.version, score.metric, score.mode, score.score, *end]
    if not run.scores:
        yield [*begin, "", "", "", "", "", *end]

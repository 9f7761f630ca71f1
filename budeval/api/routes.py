"""Routes of evaluations."""

from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Response

from budeval.api.intake import Intake
from budeval.api.problem import documented
from budeval.api.schemas import StartEvaluationRequest, WorkflowMetadata
from budeval.commons.settings import MonitorSettings
from budeval.evals.services import EvaluationService
from budeval.record.views import EvaluationView

EvalId = Annotated[UUID, Path(description="The eval_id of the request")]


_SHOWN = {
    HTTPStatus.NOT_FOUND: "No evaluation has this id",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The id is no UUID",
    HTTPStatus.SERVICE_UNAVAILABLE: "The record does not answer",
}
_STARTED = {
    HTTPStatus.CONFLICT: "The eval_id is taken by another request, or its evaluation has ended",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The request cannot be run; nothing was created",
    HTTPStatus.SERVICE_UNAVAILABLE: "The record does not answer",
}


def evaluation_router(service: EvaluationService, defaults: MonitorSettings) -> APIRouter:
    """``/evals``."""
    router = APIRouter(prefix="/evals", tags=["evaluations"])

    @router.post("/start", response_model=WorkflowMetadata, responses=documented(_STARTED))
    def start(request: StartEvaluationRequest, response: Response) -> Any:
        """Start an evaluation. The same request again gives the same answer and starts nothing."""
        intake = Intake(request, defaults)
        answer = service.start(intake.evaluation, intake.secrets, intake.body)
        response.headers["Location"] = f"/evals/{intake.evaluation.eval_id}"
        return answer

    @router.get("/{eval_id}", responses=documented(_SHOWN))
    def show(eval_id: EvalId) -> EvaluationView:
        """Status, steps, and each run with its progress, reason and scores."""
        return service.view(str(eval_id))

    @router.post("/{eval_id}/cancel", responses=documented(_SHOWN))
    def cancel(eval_id: EvalId) -> EvaluationView:
        """Cancel an evaluation: its Jobs are removed and subscribers are told. Harmless when it has ended."""
        return service.cancel(str(eval_id), by="api")

    return router

"""Routes of evaluations."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Response

from budeval.api.intake import Intake
from budeval.api.schemas import Problem, StartEvaluationRequest, WorkflowMetadata
from budeval.commons.settings import MonitorSettings
from budeval.evals.services import EvaluationService
from budeval.record.views import EvaluationView

EvalId = Annotated[UUID, Path(description="The eval_id of the request")]


def _problems(**meanings: str) -> dict[int | str, dict[str, Any]]:
    return {
        int(code.removeprefix("status_")): {
            "description": meaning,
            "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
        }
        for code, meaning in meanings.items()
    }


_INVALID = "The request is not valid; nothing was created"
_UNKNOWN = "No evaluation has this id"


def evaluation_router(service: EvaluationService, defaults: MonitorSettings) -> APIRouter:
    """``/evals``."""
    router = APIRouter(prefix="/evals", tags=["evaluations"])

    @router.post(
        "/start",
        response_model=WorkflowMetadata,
        responses=_problems(status_409="eval_id is taken, or its evaluation has ended", status_422=_INVALID),
    )
    def start(request: StartEvaluationRequest, response: Response) -> Any:
        """Start an evaluation. The same request again gives the same answer and starts nothing."""
        intake = Intake(request, defaults)
        answer = service.start(intake.evaluation, intake.secrets, intake.body)
        response.headers["Location"] = f"/evals/{intake.evaluation.eval_id}"
        return answer

    @router.get("/{eval_id}", responses=_problems(status_404=_UNKNOWN, status_422=_INVALID))
    def show(eval_id: EvalId) -> EvaluationView:
        """Status, steps, and each run with its progress, reason and scores."""
        return service.view(str(eval_id))

    @router.post("/{eval_id}/cancel", responses=_problems(status_404=_UNKNOWN, status_422=_INVALID))
    def cancel(eval_id: EvalId) -> EvaluationView:
        """Cancel an evaluation: its Jobs are removed and subscribers are told. Harmless when it has ended."""
        return service.cancel(str(eval_id), by="api")

    return router

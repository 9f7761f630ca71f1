"""``POST /evals/validate``, and ``?validate=true`` where an evaluation is started."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from budeval.api.intake import Intake
from budeval.api.parameters import UNREADABLE
from budeval.api.problem import documented
from budeval.api.schemas import CreateEvaluationRequest
from budeval.commons.errors import EvaluationNotFound, InvalidEvaluation
from budeval.commons.settings import MonitorSettings
from budeval.evals.preflight import Preflight, Validation
from budeval.evals.services import EvaluationService

_VALIDATED = {
    HTTPStatus.BAD_REQUEST: UNREADABLE,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The body is not of the shape of a request",
    HTTPStatus.SERVICE_UNAVAILABLE: "Too many preflights are running, or the service is stopping",
}

ValidateFirst = Annotated[
    bool, Query(description="Look first at everything the evaluation needs, and start it only where nothing is wrong")
]


def validation_router(preflight: Preflight, defaults: MonitorSettings) -> APIRouter:
    """``/evals/validate``."""
    router = APIRouter(prefix="/evals", tags=["evaluations"])

    @router.post("/validate", responses=documented(_VALIDATED))
    def validate(request: CreateEvaluationRequest) -> Validation:
        """Look at everything an evaluation needs, without making anything of it. Takes some seconds.

        A Job of its own runs in the cluster meanwhile, and is gone afterwards: it looks whether the image, the data
        sets and the endpoint are reachable from there.
        """
        try:
            intake = Intake(request.completed(), defaults)
        except InvalidEvaluation as refusal:
            text = request.kubeconfig.get_secret_value().strip() if request.kubeconfig else ""
            return preflight.validate_refused(refusal, text or None)
        return preflight.validate(intake.evaluation, intake.secrets)

    return router


def require_valid(service: EvaluationService, preflight: Preflight, intake: Intake) -> None:
    """Raises :class:`PreflightFailed` where a new evaluation could not run; a known one is not looked at again."""
    try:
        service.view(intake.evaluation.eval_id)
    except EvaluationNotFound:
        preflight.require(intake.evaluation, intake.secrets)

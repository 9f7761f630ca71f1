"""Routes of evaluations."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response

from budeval.api.catalogue import catalogue_router
from budeval.api.history import history_router
from budeval.api.intake import Intake
from budeval.api.listing import listing_router
from budeval.api.parameters import FULL, SHOWN, UNREADABLE, Actor, EvalId
from budeval.api.problem import documented
from budeval.api.results import results_router
from budeval.api.schemas import CreatedEvaluation, CreateEvaluationRequest, StartEvaluationRequest, WorkflowMetadata
from budeval.api.validation import ValidateFirst, require_valid, validation_router
from budeval.commons.settings import MonitorSettings
from budeval.evals.inventory import InventoryKeeper
from budeval.evals.preflight import Preflight
from budeval.evals.services import EvaluationService
from budeval.record.views import EvaluationView

_STARTED = {
    HTTPStatus.BAD_REQUEST: UNREADABLE,
    HTTPStatus.CONFLICT: "The eval_id is taken by another request, or its evaluation has ended",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The request cannot be run, or its preflight failed; nothing was created",
    HTTPStatus.TOO_MANY_REQUESTS: FULL,
    HTTPStatus.SERVICE_UNAVAILABLE: "The record does not answer, or too many preflights are running",
}
_SENT_AGAIN = {**SHOWN, HTTPStatus.CONFLICT: "There is no notification whose fate is unknown"}


def evaluation_router(
    service: EvaluationService, defaults: MonitorSettings, preflight: Preflight, keeper: InventoryKeeper
) -> APIRouter:
    """Everything that a client asks for: ``/evals``, and what can be evaluated."""
    router = APIRouter()
    for part in (
        validation_router(preflight, defaults),
        _requests(service, defaults, preflight),
        listing_router(service),
        results_router(service),
        history_router(service),
        catalogue_router(keeper),
    ):
        router.include_router(part)
    return router


def _requests(service: EvaluationService, defaults: MonitorSettings, preflight: Preflight) -> APIRouter:
    router = APIRouter(prefix="/evals", tags=["evaluations"])

    @router.post("", status_code=HTTPStatus.CREATED, responses=documented(_STARTED))
    def create(
        request: CreateEvaluationRequest, response: Response, actor: Actor, validate: ValidateFirst = False
    ) -> CreatedEvaluation:
        """Start an evaluation without having to think of ids: the answer has those that were made."""
        intake = Intake(request.completed(), defaults)
        if validate:
            require_valid(service, preflight, intake)
        answer = service.start(intake.evaluation, intake.secrets, intake.body, by=actor)
        response.headers["Location"] = f"/evals/{intake.evaluation.eval_id}"
        return CreatedEvaluation(**answer, run_ids=intake.evaluation.run_ids)

    @router.post("/start", response_model=WorkflowMetadata, responses=documented(_STARTED))
    def start(
        request: StartEvaluationRequest, response: Response, actor: Actor, validate: ValidateFirst = False
    ) -> Any:
        """Start an evaluation. The same request again gives the same answer and starts nothing."""
        intake = Intake(request, defaults)
        if validate:
            require_valid(service, preflight, intake)
        answer = service.start(intake.evaluation, intake.secrets, intake.body, by=actor)
        response.headers["Location"] = f"/evals/{intake.evaluation.eval_id}"
        return answer

    @router.get("/{eval_id}", responses=documented(SHOWN))
    def show(eval_id: EvalId) -> EvaluationView:
        """Status, steps, its place in the queue, and each run with its progress, reason and scores."""
        return service.view(str(eval_id))

    @router.post("/{eval_id}/cancel", responses=documented(SHOWN))
    def cancel(eval_id: EvalId, actor: Actor) -> EvaluationView:
        """Cancel an evaluation: its Jobs are removed and subscribers are told. Harmless when it has ended."""
        return service.cancel(str(eval_id), by=actor)

    @router.post("/{eval_id}/notifications/resend", responses=documented(_SENT_AGAIN))
    def resend(eval_id: EvalId, actor: Actor) -> EvaluationView:
        """Publish the notifications whose fate is unknown (`notifications.unknown`) after all.

        Only for those who have looked, and know that the subscriber did not get them: it would count them twice.
        """
        return service.resend(str(eval_id), by=actor)

    return router

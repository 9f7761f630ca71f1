"""``POST /evals/{eval_id}/retry`` and ``DELETE /evals/{eval_id}``: another attempt, and the end of everything."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import SecretStr

from budeval.ansible.kubeconfig import InvalidKubeconfig, parse_kubeconfig
from budeval.api.intake import parse_configs
from budeval.api.parameters import FULL, SHOWN, UNREADABLE, Actor, EvalId
from budeval.api.problem import documented
from budeval.api.schemas import RetriedEvaluation, RetryEvaluationRequest
from budeval.commons.errors import FieldProblem, InvalidEvaluation
from budeval.commons.sealing import EvaluationSecrets
from budeval.commons.settings import MonitorSettings
from budeval.evals.attempts import RetryChanges, RetryScope, next_attempt
from budeval.evals.models import AskedResources, Evaluation
from budeval.evals.removal import EvaluationRemoval
from budeval.evals.services import EvaluationService

_RETRIED = {
    **SHOWN,
    HTTPStatus.BAD_REQUEST: UNREADABLE,
    HTTPStatus.CONFLICT: "The evaluation has not ended, every run has its scores, or somebody was faster",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The request cannot be run, or a secret is missing; nothing was begun",
    HTTPStatus.TOO_MANY_REQUESTS: FULL,
}
_DELETED = {
    **SHOWN,
    HTTPStatus.CONFLICT: "The evaluation has not ended",
    HTTPStatus.SERVICE_UNAVAILABLE: "Something could not be removed yet; the same request goes on",
}
_FIXED = {"max_questions": "cannot be changed: the questions would be others"}


def attempts_router(service: EvaluationService, removal: EvaluationRemoval) -> APIRouter:
    """What can be done with an evaluation that has ended."""
    router = APIRouter(prefix="/evals", tags=["evaluations"])

    @router.post("/{eval_id}/retry", status_code=HTTPStatus.ACCEPTED, responses=documented(_RETRIED))
    def retry(
        eval_id: EvalId,
        response: Response,
        actor: Actor,
        only: Annotated[RetryScope, Query(description="Which runs")] = RetryScope.FAILED,  # noqa: ARG001
        request: RetryEvaluationRequest | None = None,
    ) -> RetriedEvaluation:
        """Run the runs without scores again: each goes on where it stopped, and completed runs keep their scores."""
        evaluation, run_ids = service.retryable(str(eval_id))
        intake = RetryIntake(request or RetryEvaluationRequest(), evaluation)
        answer = service.retry(next_attempt(evaluation, run_ids, intake.changes), intake.secrets, by=actor)
        response.headers["Location"] = f"/evals/{eval_id}"
        return RetriedEvaluation.model_validate(answer)

    @router.delete(
        "/{eval_id}", status_code=HTTPStatus.NO_CONTENT, response_class=Response, responses=documented(_DELETED)
    )
    def delete(eval_id: EvalId, actor: Actor) -> None:
        """Delete an evaluation that has ended: its Jobs, its files on the volume, and all that is known of it."""
        removal.delete(str(eval_id), by=actor)

    return router


class RetryIntake:
    """A checked retry: what is to be otherwise, and the secrets."""

    def __init__(self, request: RetryEvaluationRequest, evaluation: Evaluation) -> None:
        """Raises :class:`InvalidEvaluation` with every problem."""
        self._problems: list[FieldProblem] = []
        api_key = request.api_key.get_secret_value()
        if evaluation.has_api_key and not api_key:
            self._problem("api_key", "must be given again: the key was erased when the evaluation ended")
        kubeconfig = self._kubeconfig(request.kubeconfig, evaluation)
        monitor = self._monitor(request, evaluation)
        if self._problems:
            raise InvalidEvaluation(self._problems)
        asked = request.resources
        self.secrets = EvaluationSecrets.model_validate({"api_key": api_key, "kubeconfig": kubeconfig})
        self.changes = RetryChanges(
            has_api_key=bool(api_key),
            monitor=monitor,
            resources=None if asked is None else AskedResources.model_validate(asked.model_dump()),
        )

    def _kubeconfig(self, given: SecretStr | None, evaluation: Evaluation) -> str | None:
        text = given.get_secret_value() if given else ""
        if bool(text.strip()) != evaluation.has_kubeconfig:
            erased = "must be given again: it was erased when the evaluation ended"
            other = "must be left out: the evaluation's files are in the service's own cluster"
            self._problem("kubeconfig", erased if evaluation.has_kubeconfig else other)
            return None
        if not evaluation.has_kubeconfig:
            return None
        try:
            parse_kubeconfig(text)
        except InvalidKubeconfig as error:
            self._problem("kubeconfig", str(error))
        return text

    def _monitor(self, request: RetryEvaluationRequest, evaluation: Evaluation) -> MonitorSettings:
        changes = parse_configs(request.eval_configs, evaluation.monitor, self._problems, _FIXED)
        return evaluation.monitor.model_copy(update=changes)

    def _problem(self, field: str, message: str) -> None:
        self._problems.append(FieldProblem(field, message))

"""Requests that come by pub/sub: daprd asks for subscriptions at its start and then posts messages here."""

import json
import logging
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from budeval.api.intake import Intake
from budeval.api.problem import field_problems
from budeval.api.schemas import StartEvaluationRequest
from budeval.commons.errors import PermanentError, TemporaryError
from budeval.commons.settings import Settings
from budeval.evals.services import EvaluationService

logger = logging.getLogger("::EVAL:: Subscription")

SUBSCRIBE_PATH = "/dapr/subscribe"
DELIVERY_PATH = "/events/evaluations"
SIDECAR_PATHS = ("/dapr/", DELIVERY_PATH)
"""Beginnings of paths that daprd alone calls."""

REQUESTER = "pubsub"
"""Who asks, in the record: a message on a topic has no name that could be checked."""
SUCCESS = {"status": "SUCCESS"}
RETRY = {"status": "RETRY"}
DROP = {"status": "DROP"}
"""Dapr moves a dropped message to the dead letter topic."""


def subscription_router(service: EvaluationService, settings: Settings) -> APIRouter:
    """What daprd calls; not part of the public API."""
    router = APIRouter(include_in_schema=False)

    @router.get(SUBSCRIBE_PATH)
    async def subscriptions() -> list[dict[str, Any]]:
        """Dapr's programmatic subscription."""
        if settings.request_topic is None:
            return []
        return [
            {
                "pubsubname": settings.pubsub_name,
                "topic": settings.request_topic,
                "route": DELIVERY_PATH,
                "deadLetterTopic": f"{settings.request_topic}-dead-letter",
            }
        ]

    @router.post(DELIVERY_PATH)
    async def deliver(request: Request) -> dict[str, str]:
        """One request; a repetition is harmless, since its eval_id is known."""
        body = await request.body()
        return await run_in_threadpool(_deliver, service, settings, body)

    return router


def _deliver(service: EvaluationService, settings: Settings, body: bytes) -> dict[str, str]:
    try:
        request = StartEvaluationRequest.model_validate(unwrap(json.loads(body)))
        intake = Intake(request, settings.monitor)
        service.start(intake.evaluation, intake.secrets, intake.body, by=REQUESTER)
    except ValidationError as error:
        problems = [f"{problem.field}: {problem.message}" for problem in field_problems(error.errors())]
        logger.error("request refused: %s", "; ".join(problems))
        return DROP
    except (PermanentError, ValueError, RecursionError) as error:
        logger.error("request refused: %s", error)
        return DROP
    except TemporaryError as error:
        logger.warning("request postponed: %s", error)
        return RETRY
    return SUCCESS


def unwrap(message: Any) -> Any:
    """The request inside a CloudEvent: under ``data``, as a mapping or a text, or the envelope itself."""
    if not isinstance(message, dict) or "eval_id" in message:
        return message
    data = message.get("data")
    return json.loads(data) if isinstance(data, str) else data

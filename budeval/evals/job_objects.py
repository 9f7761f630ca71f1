"""From an evaluation to what is applied for it: the same objects, whether they are deployed or only tried out."""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from budeval.commons.settings import Settings
from budeval.evals.models import Evaluation
from budeval.jobs.manifest import build_evaluation
from budeval.jobs.models import EvaluationObjects, JobSpecInput
from budeval.jobs.overlay import PodTemplateOverlay


def evaluation_objects(
    settings: Settings,
    overlay: PodTemplateOverlay,
    namespace: str,
    evaluation: Evaluation,
    configs: Mapping[str, dict[str, Any]],
    api_key: SecretStr,
) -> EvaluationObjects:
    """All objects of the current attempt of an evaluation; ``configs`` has the engine's configuration of each run."""
    runs = [
        JobSpecInput(
            eval_id=evaluation.eval_id,
            run_id=run.run_id,
            attempt=evaluation.attempt,
            engine_config=configs[run.run_id],
            image=settings.engine_image,
            image_pull_policy=settings.image_pull_policy,
            namespace=namespace,
            volume_claim=settings.pvc_name,
            has_api_key=evaluation.has_api_key,
            overlay=overlay,
            active_deadline_seconds=evaluation.monitor.max_checks * evaluation.monitor.poll_interval,
            ttl_seconds=settings.job_ttl,
            backoff_limit=settings.job_backoff_limit,
            asked_resources=evaluation.resources,
        )
        for run in evaluation.runs_of_attempt
    ]
    return build_evaluation(runs, api_key if evaluation.has_api_key else None)

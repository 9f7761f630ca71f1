"""Deleting an evaluation: everything that it left anywhere."""

import logging

from budeval.commons import wire
from budeval.commons.errors import DeletionUnfinished, PermanentError
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.evals.models import Evaluation
from budeval.evals.results_processor import Volume
from budeval.evals.runtime import WorkflowClient
from budeval.record import Record

logger = logging.getLogger("::EVAL:: Removal")


class EvaluationRemoval:
    """Removes evaluations that have ended."""

    def __init__(
        self, record: Record, workflows: WorkflowClient, orchestrator: AnsibleOrchestrator, volume: Volume
    ) -> None:
        self._record = record
        self._workflows = workflows
        self._orchestrator = orchestrator
        self._volume = volume

    def delete(self, eval_id: str, by: str) -> None:
        """Removes Jobs, files, workflows and the record, in this order, so that what failed can be done again.

        Of an evaluation with a cluster of its own nothing is removed there: its kubeconfig was erased when it ended.

        Raises:
            EvaluationNotFound: there is none, or no more.
            EvaluationConflict: it has not ended.
            TemporaryError: something could not be removed yet; no other attempt begins until it is.
        """
        evaluation = self._record.begin_deletion(eval_id, by)
        if not evaluation.has_kubeconfig:
            self._empty_cluster(evaluation)
        for attempt in range(1, evaluation.attempt + 1):
            for instance_id in (wire.monitor_instance_id, wire.workflow_instance_id, wire.closing_instance_id):
                self._workflows.purge(instance_id(eval_id, attempt))
        self._record.delete(eval_id)
        logger.info("evaluation %s was deleted by %s", eval_id, by)

    def _empty_cluster(self, evaluation: Evaluation) -> None:
        try:
            self._orchestrator.remove_evaluation(evaluation.eval_id, evaluation.attempt)
            self._volume.remove_results(evaluation.eval_id)
        except PermanentError as error:
            raise DeletionUnfinished(f"{error}. Put that right, then delete the evaluation again.") from error

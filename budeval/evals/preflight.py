"""What is in the way of an evaluation, found out before anything of it exists."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import BaseModel

from budeval.commons.errors import (
    BudEvalError,
    ClusterUnauthorized,
    ClusterUnreachable,
    FieldProblem,
    InvalidEvaluation,
    PlaybookFailed,
    PlaybookTimeout,
    TemporaryError,
)
from budeval.commons.redaction import redactor
from budeval.commons.sealing import EvaluationSecrets
from budeval.commons.settings import Settings
from budeval.commons.words import counted
from budeval.engines import get_engine
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.evals.job_objects import evaluation_objects
from budeval.evals.models import Evaluation
from budeval.jobs.checks import TITLES, Check, CheckStatus, dataset_check_id, failed, ok, skipped
from budeval.jobs.models import EvaluationObjects, JsonObject
from budeval.jobs.overlay import PodTemplateOverlay
from budeval.jobs.preflight import Asked, judge_manifests, judge_probe
from budeval.jobs.probe import Questions, Subject, Trial, trial_pod

_CLUSTER = ("cluster", "namespace", "permissions", "volume")


class PreflightBusy(TemporaryError):
    """As many preflights run as may: each is a Job in a cluster."""

    title = "Too many preflights"


class PreflightFailed(InvalidEvaluation):
    """An evaluation was not started, because it could not run; ``checks`` has all that was looked at."""

    title = "Preflight failed"

    def __init__(self, checks: list[Check]) -> None:
        broken = [each for each in checks if each.status is CheckStatus.FAILED]
        super().__init__([FieldProblem(each.id, _sentence(each)) for each in broken])
        self.checks = checks


class Validation(BaseModel):
    """What a preflight found out."""

    ok: bool
    """Whether no check failed; warnings do not count."""
    checks: list[Check]

    @classmethod
    def of(cls, checks: Iterable[Check]) -> "Validation":
        """From checks, put into their order."""
        listed = list(checks)
        return cls(ok=all(each.status is not CheckStatus.FAILED for each in listed), checks=sorted(listed, key=_place))


class Preflight:
    """Looks at everything that an evaluation needs. A few at once, since each runs a Job for some seconds."""

    def __init__(self, settings: Settings, orchestrator: AnsibleOrchestrator) -> None:
        self._settings = settings
        self._orchestrator = orchestrator
        self._overlay = PodTemplateOverlay.from_settings(settings.pod_template_overlay)
        self._places = threading.BoundedSemaphore(settings.preflight_concurrency)

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the few; raises :class:`PreflightBusy` where none is free."""
        if not self._places.acquire(blocking=False):
            raise PreflightBusy(f"{self._settings.preflight_concurrency} are running; ask again in some seconds")
        try:
            yield
        finally:
            self._places.release()

    def validate(self, evaluation: Evaluation, secrets: EvaluationSecrets) -> Validation:
        """Every check of a request that is right in itself. Nothing is stored; takes seconds, about a minute at most.

        Raises:
            PreflightBusy: too many are running.
            TemporaryError: the service is stopping.
        """
        with self.place(), redactor.hiding(secrets.api_key.get_secret_value()):
            around = self._orchestrator.inspect_cluster(secrets.kubeconfig_text)
            request = ok("request", f"{counted(len(evaluation.runs), 'run')} of {evaluation.model.model_name}")
            if not around.usable:
                rest = [*_inner_ids(evaluation), "manifests"]
                return Validation.of([request, *around.checks, *skipped(rest, "the cluster is not ready for it")])
            return Validation.of([request, *around.checks, *self._tried(evaluation, secrets, bound=around.bound)])

    def require(self, evaluation: Evaluation, secrets: EvaluationSecrets) -> None:
        """The same as :meth:`validate`; raises :class:`PreflightFailed` where a check fails."""
        validation = self.validate(evaluation, secrets)
        if not validation.ok:
            raise PreflightFailed(validation.checks)

    def validate_refused(self, refusal: InvalidEvaluation, kubeconfig: str | None) -> Validation:
        """The checks of a request that is wrong in itself: its problems, and the cluster where that can be asked."""
        problems = [failed("request", each.message, "Correct this field.", each.field) for each in refusal.problems]
        if any(problem.field == "kubeconfig" for problem in refusal.problems):
            around = skipped(_CLUSTER, "the kubeconfig cannot be used")
        else:
            with self.place():
                around = self._orchestrator.inspect_cluster(kubeconfig).checks
        rest = skipped(("manifests", "scheduling", "image", "endpoint"), "the request has to be right first")
        return Validation.of([*problems, *around, *rest])

    def _tried(self, evaluation: Evaluation, secrets: EvaluationSecrets, *, bound: bool) -> list[Check]:
        asked = _asked(evaluation, self._settings.engine_image, bound=bound)
        subject = Subject(model=evaluation.model.model_name, endpoint=evaluation.model.endpoint)
        trial = Trial(
            objects=_tried_objects(self._objects(evaluation, secrets)),
            questions=Questions(endpoint=subject, datasets=list(asked.datasets) if bound else []),
            bound=bound,
            api_key=secrets.api_key if evaluation.has_api_key else None,
        )
        try:
            answer = self._orchestrator.validate_evaluation(trial, secrets.kubeconfig_text)
        except (ClusterUnauthorized, ClusterUnreachable, PlaybookFailed, PlaybookTimeout) as error:
            return _no_answer(error, evaluation)
        return [judge_manifests(answer["judged"]), *judge_probe(answer["probe"], asked)]

    def _objects(self, evaluation: Evaluation, secrets: EvaluationSecrets) -> EvaluationObjects:
        engine = get_engine(evaluation.engine)
        configs = {run.run_id: engine.run_config(evaluation, run) for run in evaluation.runs}
        namespace = self._settings.namespace
        return evaluation_objects(self._settings, self._overlay, namespace, evaluation, configs, secrets.api_key)


def _tried_objects(objects: EvaluationObjects) -> list[JsonObject]:
    # The pods of all runs are alike but for names, so that one stands for all.
    secret = [objects.secret] if objects.secret else []
    return [*secret, objects.config_map, *objects.jobs, trial_pod(objects.jobs[0])]


def _asked(evaluation: Evaluation, image: str, *, bound: bool) -> Asked:
    positions: dict[str, int] = {}
    for position, run in enumerate(evaluation.runs):
        positions.setdefault(run.dataset_id, position)
    return Asked(image=image, datasets=positions, max_questions=evaluation.max_questions, bound=bound)


def _no_answer(error: BudEvalError, evaluation: Evaluation) -> list[Check]:
    broken = failed("manifests", str(error), "Look again; the service's log says more.")
    return [broken, *skipped(_inner_ids(evaluation), "there is no answer of the cluster")]


def _inner_ids(evaluation: Evaluation) -> list[str]:
    datasets = dict.fromkeys(dataset_check_id(run.dataset_id) for run in evaluation.runs)
    return ["scheduling", "image", *datasets, "endpoint"]


def _place(check: Check) -> int:
    known = list(TITLES)
    return known.index(check.id) if check.id in known else known.index("endpoint")


def _sentence(check: Check) -> str:
    return f"{check.message}. {check.resolution}" if check.resolution else check.message

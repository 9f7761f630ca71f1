"""The error tree: retry or not is the top split.

::

    BudEvalError(title, detail)
    ├─ TemporaryError            a retry helps
    │  ├─ ClusterUnreachable     the API server does not answer
    │  ├─ PlaybookTimeout        a playbook ran out of time and was ended
    │  ├─ SidecarUnavailable     daprd does not answer
    │  ├─ DeletionUnfinished     a part of an evaluation is still there
    │  ├─ PublishFailed          the broker did not take a message
    │  │  └─ PublishUncertain    nobody can know whether it did
    │  ├─ LogsBusy               too many logs are being read
    │  └─ NoPlace                too much runs and waits already (429)
    └─ PermanentError            a retry is useless
       ├─ InvalidEvaluation      the request cannot be run (422)
       ├─ EvaluationNotFound     no such evaluation (404)
       ├─ LogNotFound            there is no log, or none yet (404)
       ├─ LogGone                the log is where the service has no way to any more (410)
       ├─ EvaluationConflict     same eval_id, other request or ended (409)
       ├─ AttemptSuperseded      another attempt of the evaluation has begun
       ├─ ClusterUnauthorized    the credentials were refused
       ├─ ClusterNotReady        namespace, permission or claim is missing
       ├─ PlaybookFailed         a playbook ended with an error
       ├─ PlaybookCancelled      a playbook was ended because its evaluation was cancelled
       ├─ DeploymentFailed       the Jobs of an evaluation could not all be made
       ├─ EvaluationCancelled    somebody cancelled while a step was running
       ├─ ResultsIncomplete      scores or answers are missing
       └─ SecretsUnreadable      sealed secrets cannot be opened with the keys at hand

HTTP status codes are not here: ``budeval.api.problem`` has one table for them.
"""

from dataclasses import dataclass

from budeval.commons.redaction import printable

MAXIMUM_DETAIL_LENGTH = 2000
"""Characters of a detail that are kept; pod messages and playbook output can be of any size."""


class BudEvalError(Exception):
    """Something went wrong that a user can be told about.

    ``title`` is the same for every occurrence; ``detail`` says what happened here and what to do next.
    """

    title = "Internal error"

    def __init__(self, detail: str, *, title: str | None = None) -> None:
        # Redacted here, where secrets are still in use and known; it is told later, when they may not be any more.
        self.detail = printable(detail, MAXIMUM_DETAIL_LENGTH)
        super().__init__(self.detail)
        self.title = title or type(self).title

    def __str__(self) -> str:
        return f"{self.title}: {self.detail}"

    @property
    def category(self) -> str:
        """The error's name on the wire, e.g. ``ClusterUnreachable``."""
        return type(self).__name__


class TemporaryError(BudEvalError):
    """A retry helps."""

    title = "Temporary failure"


class ClusterUnreachable(TemporaryError):
    """The Kubernetes API server does not answer."""

    title = "Cluster unreachable"


class PlaybookTimeout(TemporaryError):
    """A playbook ran out of time and was ended."""

    title = "Playbook timed out"


class SidecarUnavailable(TemporaryError):
    """daprd does not answer."""

    title = "Dapr sidecar unavailable"


class DeletionUnfinished(TemporaryError):
    """A part of an evaluation could not be removed; deleting it again goes on."""

    title = "Deletion unfinished"


class PublishFailed(TemporaryError):
    """The broker behind daprd did not take a message."""

    title = "Publishing failed"


class PublishUncertain(PublishFailed):
    """The broker may have taken a message, or not: its answer did not arrive."""

    title = "Publishing may have failed"


class LogsBusy(TemporaryError):
    """Too many logs are being read or followed."""

    title = "Too many logs at once"


class NoPlace(TemporaryError):
    """Too much runs, and too much waits, to take another evaluation. Nothing was recorded."""

    title = "Too many evaluations"
    retry_after = 30
    """Seconds: a place comes free when an evaluation ends, which its monitor sees every 30 s by default."""


class PermanentError(BudEvalError):
    """A retry is useless."""

    title = "Permanent failure"


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one field of a request."""

    field: str
    """Path of the field, e.g. ``eval_datasets.0.dataset_id``."""
    message: str
    allowed: list[str] | None = None
    """Values that would have been accepted, where they can be listed."""


class InvalidEvaluation(PermanentError):
    """The request cannot be run as it is; each problem names its field."""

    title = "Invalid evaluation"

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


class EvaluationNotFound(PermanentError):
    """No evaluation has this id."""

    title = "Evaluation not found"


class LogNotFound(PermanentError):
    """There is no log, or none yet."""

    title = "No log"


class LogGone(PermanentError):
    """The log is in a cluster to which the service has no way any more."""

    title = "Log out of reach"


class EvaluationConflict(PermanentError):
    """The state of the evaluation does not allow this, or its eval_id is taken by another request."""

    title = "Evaluation conflict"


class AttemptSuperseded(PermanentError):
    """What belongs to an attempt of an evaluation comes after another attempt has begun: it must change nothing."""

    title = "Attempt superseded"


class ClusterUnauthorized(PermanentError):
    """The cluster refused the credentials."""

    title = "Cluster refused the credentials"


class ClusterNotReady(PermanentError):
    """The cluster answers, but a namespace, permission or claim is missing."""

    title = "Cluster not ready"


class PlaybookFailed(PermanentError):
    """A playbook ended with an error."""

    title = "Playbook failed"


class PlaybookCancelled(PermanentError):
    """A playbook was ended because its evaluation was cancelled."""

    title = "Playbook cancelled"


class DeploymentFailed(PermanentError):
    """The Jobs of an evaluation could not all be made; those already made were removed."""

    title = "Deployment failed"


class EvaluationCancelled(PermanentError):
    """Somebody cancelled the evaluation while a step was running."""

    title = "Evaluation cancelled"


class ResultsIncomplete(PermanentError):
    """Scores or answers are missing."""

    title = "Results incomplete"


class SecretsUnreadable(PermanentError):
    """Sealed secrets cannot be opened with the keys at hand."""

    title = "Secrets unreadable"

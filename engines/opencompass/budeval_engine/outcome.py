"""How a run can end: reasons, the error that carries one, and exit codes.

EngineError(reason, message)
    permanent=True   the same run would fail again: exit code 10, the Job is failed at once
    permanent=False  worth a retry: exit code 20, the Job starts another pod, which goes on where this one stopped
"""

from enum import StrEnum

EXIT_COMPLETED = 0
EXIT_PERMANENT = 10
EXIT_RETRY = 20


class Reason(StrEnum):
    """The machine-readable reasons of the termination message."""

    COMPLETED = "Completed"
    ENDPOINT_UNAUTHORIZED = "EndpointUnauthorized"
    ENDPOINT_UNREACHABLE = "EndpointUnreachable"
    ENDPOINT_RATE_LIMITED = "EndpointRateLimited"
    MODEL_NOT_FOUND = "ModelNotFound"
    DATASET_MISSING = "DatasetMissing"
    DATASET_UNKNOWN = "DatasetUnknown"
    OUT_OF_MEMORY = "OutOfMemory"
    RESULTS_INCOMPLETE = "ResultsIncomplete"
    INVALID_CONFIGURATION = "InvalidConfiguration"
    ENGINE_FAILED = "EngineFailed"


_WORTH_A_RETRY = frozenset(
    {
        Reason.ENDPOINT_UNREACHABLE,
        Reason.ENDPOINT_RATE_LIMITED,
        Reason.OUT_OF_MEMORY,
        Reason.RESULTS_INCOMPLETE,
        Reason.ENGINE_FAILED,
    }
)


class EngineError(Exception):
    """The run cannot go on.

    `message` is one or two sentences for the person who started the evaluation. `permanent` says that a retry is
    useless; left out, the reason decides.
    """

    def __init__(self, reason: Reason, message: str, *, permanent: bool | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.permanent = reason not in _WORTH_A_RETRY if permanent is None else permanent

    @property
    def exit_code(self) -> int:
        """The container's exit code."""
        return EXIT_PERMANENT if self.permanent else EXIT_RETRY

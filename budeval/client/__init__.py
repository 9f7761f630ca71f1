"""Typed client of the budeval service; needs nothing of the service itself.

>>> from budeval.client import Client
>>> with Client("http://127.0.0.1:8099") as client:  # doctest: +SKIP
...     for evaluation in client.watch(eval_id):
...         print(evaluation.status, evaluation.eta_minutes)
"""

from budeval.client.client import DEFAULT_SERVER, DEFAULT_TIMEOUT, SERVER_VARIABLE, TOKEN_VARIABLE, Client
from budeval.client.errors import (
    BudevalClientError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProblemError,
    ServerFailed,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from budeval.client.models import (
    Check,
    Dataset,
    DatasetRun,
    EngineInfo,
    ErrorInfo,
    Evaluation,
    EvaluationRequest,
    EvaluationSummary,
    FieldProblem,
    Problem,
    Progress,
    Readiness,
    Results,
    Run,
    RunResult,
    Score,
    StartedEvaluation,
    Step,
    TimelineEntry,
)

__all__ = [
    "DEFAULT_SERVER",
    "DEFAULT_TIMEOUT",
    "SERVER_VARIABLE",
    "TOKEN_VARIABLE",
    "BudevalClientError",
    "Check",
    "Client",
    "Conflict",
    "Dataset",
    "DatasetRun",
    "EngineInfo",
    "ErrorInfo",
    "Evaluation",
    "EvaluationRequest",
    "EvaluationSummary",
    "FieldProblem",
    "Forbidden",
    "InvalidRequest",
    "NotFound",
    "Problem",
    "ProblemError",
    "Progress",
    "Readiness",
    "Results",
    "Run",
    "RunResult",
    "Score",
    "ServerFailed",
    "StartedEvaluation",
    "Step",
    "TimelineEntry",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
]

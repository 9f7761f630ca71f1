"""Logging: one JSON object a line (or plain text for people), every line redacted."""

import logging
import sys
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from budeval.commons.redaction import redactor

_NOISY = (
    "ansible_runner", "httpx", "httpcore", "urllib3", "alembic", "uvicorn.access",
    "durabletask-worker", "durabletask-client", "WorkflowRuntime", "DaprWorkflowContext",
)  # fmt: skip
"""Loggers of libraries that tell of every single thing they do."""


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _redacted(value) for key, value in event.items()}


def _redacted(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return {str(key): _redacted(item) for key, item in value.items()}
        case list() | tuple():
            return [_redacted(item) for item in value]
    return redactor.redact(str(value))


def _message_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {"message": event.pop("event", ""), **event}


def configure_logging(log_format: Literal["json", "console"], level: str) -> None:
    """Sends every logger of the process through one redacting handler to standard error."""
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: list[Processor] = (
        [_message_first, structlog.processors.JSONRenderer(ensure_ascii=False)]
        if log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    formatter = structlog.stdlib.ProcessorFormatter
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        formatter(foreign_pre_chain=shared, processors=[formatter.remove_processors_meta, _redact, *renderer])
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def strip_foreign_handlers() -> None:
    """Removes handlers that libraries added to their own loggers: each would print every line a second time."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers.clear()
            logger.propagate = True

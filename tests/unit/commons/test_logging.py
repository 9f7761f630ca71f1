import json
import logging

import pytest
import structlog

from budeval.commons.logging import configure_logging, strip_foreign_handlers
from budeval.commons.redaction import redactor


@pytest.fixture
def logged(capsys):
    """Configures logging anew; answers a function that gives the lines written since."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield lambda: [line for line in capsys.readouterr().err.split("\n") if line]
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def entries(lines):
    return [json.loads(line) for line in lines]


def test_a_line_is_one_json_object_with_its_message_first(logged):
    configure_logging("json", "INFO")
    logging.getLogger("::EVAL:: Test").info("Job %s completed", "run-a", extra={"eval_id": "1"})
    (line,) = logged()
    entry = json.loads(line)
    assert next(iter(entry)) == "message"
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"message": "Job run-a completed", "logger": "::EVAL:: Test", "level": "info", "eval_id": "1"}


def test_text_of_any_kind_stays_on_its_line(logged):
    configure_logging("json", "INFO")
    logging.getLogger("test").info('two\nlines \x1b[31m 实验 \u2028 "quoted"')
    (entry,) = entries(logged())
    assert entry["message"] == 'two\nlines \x1b[31m 实验 \u2028 "quoted"'


def test_loggers_of_structlog_write_the_same_lines(logged):
    configure_logging("json", "INFO")
    structlog.get_logger("budeval.test").warning("clearing", directory="/x")
    (entry,) = entries(logged())
    assert (entry["message"], entry["level"], entry["logger"], entry["directory"]) == (
        "clearing", "warning", "budeval.test", "/x",
    )  # fmt: skip


def test_an_exception_is_told_in_its_line(logged):
    configure_logging("json", "INFO")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("test").exception("failed")
    (entry,) = entries(logged())
    assert "RuntimeError: broken" in entry["exception"]


SECRET_PLACES = {
    "message": lambda log: log.info("canary-secret"),
    "argument": lambda log: log.info("said %s", "canary-secret"),
    "extra": lambda log: log.info("x", extra={"detail": "canary-secret"}),
    "nested extra": lambda log: log.info("x", extra={"detail": {"list": ["canary-secret", ("canary-secret",)]}}),
    "object": lambda log: log.info("x", extra={"detail": ValueError("canary-secret")}),
    "exception": lambda log: log.info("x", exc_info=ValueError("canary-secret")),
    "shape": lambda log: log.info("Authorization: Bearer canary-secret"),
}


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("place", SECRET_PLACES)
def test_no_secret_is_written_wherever_it_stands(logged, place, log_format):
    configure_logging(log_format, "INFO")
    with redactor.hiding("canary-secret"):
        SECRET_PLACES[place](logging.getLogger("test"))
    lines = logged()
    assert lines
    assert [line for line in lines if "canary-secret" in line] == []


def test_configuring_twice_writes_each_line_once(logged):
    configure_logging("json", "INFO")
    configure_logging("json", "INFO")
    logging.getLogger("test").info("once")
    assert len(logged()) == 1


def test_handlers_of_libraries_are_removed_so_that_each_line_is_written_once(logged):
    configure_logging("json", "INFO")
    library = logging.getLogger("a.library")
    library.addHandler(logging.StreamHandler())
    library.propagate = False
    strip_foreign_handlers()
    library.warning("once")
    assert [entry["message"] for entry in entries(logged())] == ["once"]


@pytest.mark.parametrize(("level", "count"), [("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)])
def test_a_level_silences_what_is_below_it(logged, level, count):
    configure_logging("json", level)
    for method in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("test"), method)("x")
    assert len(logged()) == count


def test_libraries_that_tell_of_every_single_thing_are_quiet(logged):
    configure_logging("json", "DEBUG")
    logging.getLogger("httpx").info("GET")
    assert logged() == []


def test_people_get_plain_text(logged):
    configure_logging("console", "INFO")
    logging.getLogger("test").info("hello")
    (line,) = logged()
    assert "hello" in line and not line.startswith("{")

import inspect

import pytest

from budeval.commons import errors
from budeval.commons.errors import BudEvalError, FieldProblem, InvalidEvaluation, PermanentError, TemporaryError
from budeval.commons.redaction import redactor

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BudEvalError) and kind is not BudEvalError
]


def an_error(kind, text):
    return kind([FieldProblem("field", text)]) if kind is InvalidEvaluation else kind(text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_says_whether_a_retry_helps(kind):
    assert issubclass(kind, TemporaryError) is not issubclass(kind, PermanentError)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_in_the_tree_of_the_modules_docstring(kind):
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_tells_its_title_its_detail_and_its_name(kind):
    error = an_error(kind, "what happened")
    assert str(error).startswith(f"{kind.title}: ")
    assert "what happened" in error.detail
    assert error.category == kind.__name__


@pytest.mark.parametrize("kind", KINDS)
def test_a_detail_is_cut_and_redacted_where_it_is_made(kind):
    with redactor.hiding("canary-secret"):
        error = an_error(kind, "canary-secret" + "x" * 5000)
    assert len(error.detail) <= errors.MAXIMUM_DETAIL_LENGTH
    assert "canary" not in f"{error} {error!r} {error.args}"


def test_a_title_can_be_said_better():
    assert str(TemporaryError("later", title="Service is stopping")) == "Service is stopping: later"


def test_an_invalid_evaluation_names_every_field():
    problems = [FieldProblem("a", "is bad"), FieldProblem("b.0", "is worse", ["c"])]
    error = InvalidEvaluation(problems)
    assert (error.detail, error.problems) == ("a: is bad; b.0: is worse", problems)

"""The ``extra_args`` that OpenCompass takes; numbers may arrive as strings."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from budeval.commons.errors import FieldProblem
from budeval.engines.base import InvalidParameters


class Parameters(BaseModel):
    """Each is optional: the engine image has the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_per_second: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """Requests sent to the endpoint in a second, at most."""
    max_out_len: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Tokens of an answer, at most."""
    max_seq_len: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Tokens of a question and its answer together, at most."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Questions in flight at once."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sampling temperature; 0 for the most likely answer."""
    timeout: Annotated[int, Field(ge=1, le=3600)] | None = None
    """Seconds to wait for one answer."""
    retry: Annotated[int, Field(ge=0, le=100)] | None = None
    """Times a question is asked again after an error of the endpoint."""


def parse_parameters(extra_args: dict[str, Any]) -> dict[str, Any]:
    """Raises :class:`InvalidParameters` naming each wrong argument; an unknown one gets the list of the known."""
    try:
        return Parameters.model_validate(extra_args).model_dump(exclude_none=True)
    except ValidationError as error:
        raise InvalidParameters([_problem(item) for item in error.errors(include_url=False)]) from error


def _problem(item: Any) -> FieldProblem:
    name = str(item["loc"][0])[:80]
    if item["type"] != "extra_forbidden":
        return FieldProblem(name, str(item["msg"]))
    known = list(Parameters.model_fields)
    return FieldProblem(name, f"unknown; known: {', '.join(known)}", known)

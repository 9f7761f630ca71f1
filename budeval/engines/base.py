"""The protocol of an engine: what it knows, what it accepts, and the configuration of one run."""

from difflib import get_close_matches
from typing import Any, Protocol

from pydantic import BaseModel, Field

from budeval.commons.errors import FieldProblem
from budeval.evals.models import Evaluation, Run


class UnknownEngine(ValueError):
    """No engine has this name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"unknown engine {name[:80]!r}; known: {', '.join(known)}")
        self.known = known


class UnknownDataset(ValueError):
    """The engine has no such data set."""

    def __init__(self, name: str, known: list[str]) -> None:
        spellings = {spelling.lower(): spelling for spelling in known}
        near = [spellings[match] for match in get_close_matches(name.lower(), spellings, n=5, cutoff=0.6)]
        hint = f"did you mean {', '.join(near)}?" if near else f"{len(known)} are known"
        super().__init__(f"unknown data set {name[:80]!r}; {hint}")
        self.known = known


class InvalidParameters(ValueError):
    """Engine parameters that are unknown or of the wrong type; each problem's field is a parameter's name."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


class DatasetInfo(BaseModel):
    """A data set that an engine knows."""

    dataset_id: str
    engine: str
    kind: str
    """``gen``: asks and scores; ``judge``: needs a judge model; ``ppl``: needs token probabilities."""
    usable: bool
    """Whether it can be run offline against a chat API."""
    whole: bool
    """Whether it can only be scored with all of its questions, so not with ``max_questions``."""
    metrics: list[str] = Field(default_factory=list)
    """Names of its scores, as far as the engine's code tells them."""
    present: bool | None = None
    """Whether its files are on the volume; null: not known, e.g. not looked at yet."""
    questions: int | None = None
    """How many it has on the volume; null: not known."""


class Engine(Protocol):
    """An evaluation engine, as the service sees it. All methods are pure."""

    name: str

    @property
    def version(self) -> str:
        """Version of the engine in the image."""

    def datasets(self) -> list[DatasetInfo]:
        """Every data set that the image knows, by name."""

    def data_paths(self) -> dict[str, list[str]]:
        """Files and folders, below the root of the data, that each usable data set is read from, where known."""

    def parameters_schema(self) -> dict[str, Any]:
        """JSON schema of ``extra_args``."""

    def check_dataset(self, dataset_id: str) -> None:
        """Raises :class:`UnknownDataset`, or ``ValueError`` when the data set cannot be run against a chat API."""

    def is_scored_whole(self, dataset_id: str) -> bool:
        """Whether a data set cannot be limited by ``max_questions``."""

    def parse_parameters(self, extra_args: dict[str, Any]) -> dict[str, Any]:
        """``extra_args`` of a request with their types; raises :class:`InvalidParameters`."""

    def run_config(self, evaluation: Evaluation, run: Run) -> dict[str, Any]:
        """The configuration file of one run, as data; without secrets."""

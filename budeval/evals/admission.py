"""Who may run now: the decisions alone, from what runs and who waits.

Places are given in the order of asking. Whoever is over a limit of *all* holds everybody behind it, so that an
evaluation with many Jobs gets its turn however many small ones come. Whoever is over a limit of its *requester* holds
only the later ones of the same requester. One that could not even run alone, because a limit was lowered while it
waited, stands aside and holds nobody.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from budeval.commons.settings import AdmissionLimits


class Scope(StrEnum):
    """Whom a limit is for."""

    ALL = "all"
    REQUESTER = "requester"


class Resource(StrEnum):
    """What is limited."""

    EVALUATIONS = "evaluations"
    JOBS = "jobs"


class Obstacle(NamedTuple):
    """Why there is no place."""

    waiting_for: Resource
    scope: Scope
    limit: int

    def sentence(self) -> str:
        """For a person."""
        return f"at most {self.limit} {self.waiting_for} at once {self.whose}"

    @property
    def whose(self) -> str:
        """Whom the limit is for, in words."""
        return "in all" if self.scope is Scope.ALL else "for each requester"


class Asking(NamedTuple):
    """An evaluation that runs or wants to."""

    eval_id: str
    requester: str
    jobs: int


class Load(NamedTuple):
    """What runs."""

    evaluations: int = 0
    jobs: int = 0

    def plus(self, asking: Asking) -> "Load":
        """With one more evaluation."""
        return Load(self.evaluations + 1, self.jobs + asking.jobs)


class Usage:
    """What runs, in all and of each requester."""

    def __init__(self, running: Sequence[Asking] = ()) -> None:
        self.total = Load()
        self._requesters: dict[str, Load] = {}
        for asking in running:
            self.add(asking)

    def of(self, requester: str) -> Load:
        """What runs for one requester."""
        return self._requesters.get(requester, Load())

    def add(self, asking: Asking) -> None:
        """One more runs."""
        self.total = self.total.plus(asking)
        self._requesters[asking.requester] = self.of(asking.requester).plus(asking)


class Deciding:
    """Takes those who wait one by one, in their order."""

    def __init__(self, limits: AdmissionLimits, running: Sequence[Asking]) -> None:
        self._limits = limits
        self._usage = Usage(running)
        self._held: dict[str, Obstacle] = {}
        self._closed: Obstacle | None = None

    @property
    def closed(self) -> bool:
        """Whether nobody gets a place any more: from now on only others of one's own requester matter."""
        return self._closed is not None

    def settled(self, requester: str) -> bool:
        """Whether nobody who is still to be taken can change what this requester waits for."""
        alone = self._limits.evaluations_per_requester is None and self._limits.jobs_per_requester is None
        return requester in self._held or (self.closed and alone)

    def take(self, asking: Asking) -> Obstacle | None:
        """What the next one still waits for; none: it has a place from now on."""
        if (never := too_large(self._limits, asking)) is not None:
            return never
        obstacle = self._of_requester(asking)
        if obstacle is not None:
            self._held[asking.requester] = obstacle
        else:
            obstacle = self._closed = self._closed or _of_all(self._limits, self._usage.total, asking)
        if obstacle is None:
            self._usage.add(asking)
        return obstacle

    def _of_requester(self, asking: Asking) -> Obstacle | None:
        held = self._held.get(asking.requester)
        return held or _of_requester(self._limits, self._usage.of(asking.requester), asking)


def too_large(limits: AdmissionLimits, asking: Asking) -> Obstacle | None:
    """The limit for which an evaluation could not run even alone."""
    nothing = Load()
    return _of_requester(limits, nothing, asking) or _of_all(limits, nothing, asking)


def queue_obstacle(limits: AdmissionLimits, waiting: int, of_requester: int) -> Obstacle | None:
    """The limit for which nobody else may join those who wait, so many in all and so many of the same requester."""
    for scope, count, limit in (
        (Scope.REQUESTER, of_requester, limits.waiting_per_requester),
        (Scope.ALL, waiting, limits.waiting),
    ):
        if limit is not None and count >= limit:
            return Obstacle(Resource.EVALUATIONS, scope, limit)
    return None


def _of_requester(limits: AdmissionLimits, load: Load, asking: Asking) -> Obstacle | None:
    return _exceeded(Scope.REQUESTER, load.plus(asking), limits.evaluations_per_requester, limits.jobs_per_requester)


def _of_all(limits: AdmissionLimits, load: Load, asking: Asking) -> Obstacle | None:
    return _exceeded(Scope.ALL, load.plus(asking), limits.evaluations, limits.jobs)


def _exceeded(scope: Scope, load: Load, evaluations: int | None, jobs: int | None) -> Obstacle | None:
    if evaluations is not None and load.evaluations > evaluations:
        return Obstacle(Resource.EVALUATIONS, scope, evaluations)
    if jobs is not None and load.jobs > jobs:
        return Obstacle(Resource.JOBS, scope, jobs)
    return None

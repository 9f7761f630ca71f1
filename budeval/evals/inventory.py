"""Which data sets lie on the volume of the service's own cluster, and how many questions they have."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from budeval.commons.clock import utc_now
from budeval.commons.errors import BudEvalError, PermanentError, TemporaryError
from budeval.engines import ENGINES, DatasetInfo
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.evals.preflight import Preflight
from budeval.jobs.models import JsonObject
from budeval.jobs.preflight import no_report
from budeval.jobs.probe import Questions, Trial, parse_report

logger = logging.getLogger("::EVAL:: Inventory")

RETRY_SECONDS = 60.0
"""After a look that failed, before the next one that nobody asked for."""


class Inventory(NamedTuple):
    """What is known of the volume."""

    present: frozenset[str] | None = None
    """Names of data sets whose files are there; None: it is not known yet."""
    looked_for: frozenset[str] = frozenset()
    """Names of data sets of which it is known where their files would be."""
    questions: dict[str, int] = {}  # noqa: RUF012 - a value that nobody changes
    """Of those that could be loaded."""
    broken: frozenset[str] = frozenset()
    """Those whose files are there, and which yet cannot be loaded."""
    checked_at: datetime | None = None
    problem: str | None = None
    """Why the newest look failed."""

    def described(self, dataset: DatasetInfo) -> DatasetInfo:
        """A data set with what is known of it."""
        name = dataset.dataset_id
        present = None
        if self.present is not None and name in self.looked_for:
            present = name in self.present and name not in self.broken
        return dataset.model_copy(update={"present": present, "questions": self.questions.get(name)})


class InventoryKeeper:
    """Keeps what was seen on the volume, and looks again in the background when it is old."""

    def __init__(
        self,
        orchestrator: AnsibleOrchestrator,
        preflight: Preflight,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._orchestrator = orchestrator
        self._preflight = preflight
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._known = Inventory()
        self._next_look = 0.0

    def known(self) -> Inventory:
        """What is known now. Where that is old, a look begins in the background."""
        with self._lock:
            due = self._refresh_seconds > 0 and self._clock() >= self._next_look
            if due:
                self._next_look = self._clock() + max(self._refresh_seconds, RETRY_SECONDS)
            known = self._known
        if due:
            threading.Thread(target=self._look_quietly, name="inventory", daemon=True).start()
        return known

    def refreshed(self) -> Inventory:
        """What a look shows that begins now, or one that is under way; takes seconds.

        Raises:
            PreflightBusy: too many are running.
            BudEvalError: the volume cannot be looked at.
        """
        with self._looking:
            self._look(anew=True)
        return self._known

    def _look_quietly(self) -> None:
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._look(anew=False)
        except BudEvalError as error:
            logger.warning("the data sets on the volume cannot be listed: %s", error)
            with self._lock:
                self._known = self._known._replace(problem=str(error))
                self._next_look = min(self._next_look, self._clock() + RETRY_SECONDS)
        finally:
            self._looking.release()

    def _look(self, *, anew: bool) -> None:
        known = Inventory() if anew else self._known
        paths = {name: found for engine in ENGINES.values() for name, found in engine.data_paths().items()}
        wanted = [name for name in paths if name not in known.questions]
        trial = Trial(questions=Questions(inventory=paths, datasets=wanted))
        seen = self._seen(trial)
        report = parse_report(seen.get("log"))
        if report.present is None:
            raise no_report(seen)
        found = {name: finding for name, finding in report.datasets.items() if name in paths}
        broken = frozenset(name for name, finding in found.items() if finding.reason is not None)
        counts = {name: finding.questions for name, finding in found.items() if finding.questions is not None}
        with self._lock:
            self._known = Inventory(
                present=frozenset(report.present) & paths.keys(),
                looked_for=frozenset(paths),
                questions=_kept(known.questions, report.present) | counts,
                broken=(known.broken & frozenset(report.present)) - found.keys() | broken,
                checked_at=utc_now(),
            )
            self._next_look = self._clock() + self._refresh_seconds

    def _seen(self, trial: Trial) -> JsonObject:
        with self._preflight.place():
            try:
                return dict(self._orchestrator.validate_evaluation(trial)["probe"])
            except PermanentError as error:
                raise TemporaryError(str(error), title="The volume cannot be looked at") from error


def _kept(questions: dict[str, int], present: Iterable[str]) -> dict[str, int]:
    there = set(present)
    return {name: count for name, count in questions.items() if name in there}

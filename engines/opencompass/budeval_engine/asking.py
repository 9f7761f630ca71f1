"""Putting the questions: answers from the journal where they are there, else from the endpoint, with the count kept."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from budeval_engine.endpoint import Completion, EndpointClient, Message, QuestionRefused
from budeval_engine.journal import Journal
from budeval_engine.outcome import EngineError, Reason

# So many refusals before any answer are about the run, not about its questions.
_REFUSALS_WITHOUT_ANSWER = 10


class ProgressReport(Protocol):
    """Where progress is told."""

    def __call__(self, done: int) -> None:
        """Tell how many questions of this run are answered."""


def _tell_nobody(done: int) -> None:
    """Report to nobody."""


@dataclass
class Tally:
    """What became of the questions of this attempt."""

    answered: int = 0
    empty: int = 0
    """Answers, among those, in which the model said nothing and meant it."""
    failed: int = 0
    first_failure: str = ""


class Asking:
    """Answers the questions of one attempt. Thread-safe.

    A question that gets no answer is counted and left empty, and the others are asked all the same; an endpoint that
    can't be used ends the asking for all threads.
    """

    def __init__(
        self, client: EndpointClient, journal: Journal, wait_for_turn: Callable[[], None], tally: Tally
    ) -> None:
        """Ask through `client`; `wait_for_turn` blocks until the rate allows one more question."""
        self._client = client
        self._journal = journal
        self._wait_for_turn = wait_for_turn
        self._lock = threading.Lock()
        self._stopped: EngineError | None = None
        self.tally = tally
        self.report: ProgressReport = _tell_nobody

    def answer(self, messages: Sequence[Message], *, max_tokens: int, temperature: float) -> str:
        """Return the answer to `messages`, or nothing when this question got none.

        Raises EngineError when the endpoint can't be used, at this question or before.
        """
        request = self._client.request(messages, max_tokens=max_tokens, temperature=temperature)
        place = self._journal.number(request)
        known = self._journal.find(place)
        if known is not None:
            return self._count(known)
        try:
            completion = self._ask(request)
        except QuestionRefused as refusal:
            return self.leave_out(str(refusal))
        if not completion.generated:
            return self.leave_out("The endpoint gave an empty answer, and nothing shows that the model meant it.")
        try:
            self._journal.keep(place, completion.text)
        except OSError as error:
            self._stopped = EngineError(Reason.ENGINE_FAILED, f"The answers can't be kept: {error.strerror}.")
            raise self._stopped from error
        return self._count(completion.text)

    def _ask(self, request: dict[str, object]) -> Completion:
        self._refuse_if_stopped()
        self._wait_for_turn()
        self._refuse_if_stopped()
        try:
            return self._client.complete(request, give_up=lambda: self._stopped is not None)
        except EngineError as error:
            self._stopped = self._stopped or error
            raise

    def _refuse_if_stopped(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    def _count(self, text: str) -> str:
        with self._lock:
            self.tally.answered += 1
            self.tally.empty += not text.strip()
            self.report(self.tally.answered)
        return text

    def leave_out(self, message: str) -> str:
        """Count a question that gets no answer and return the empty one; raises EngineError when none gets any."""
        with self._lock:
            self.tally.failed += 1
            self.tally.first_failure = self.tally.first_failure or message
            hopeless = self.tally.answered == 0 and self.tally.failed >= _REFUSALS_WITHOUT_ANSWER
        if hopeless:
            self._stopped = EngineError(Reason.RESULTS_INCOMPLETE, f"No question was answered. {message}")
            raise self._stopped
        return ""

"""The model that OpenCompass asks: an OpenAI-compatible endpoint, through the journal."""

from typing import Any

from opencompass.models import OpenAI  # type: ignore[import-not-found]

from budeval_engine import session
from budeval_engine.asking import Asking

_UNUSED = "session"


class EndpointModel(OpenAI):  # type: ignore[misc]  # OpenCompass has no types
    """OpenCompass' chat model, with the sending left to `asking`.

    OpenCompass' part is what it does best: from templates to chat messages, cut to the room there is, and batches over
    threads. Its own sending is not used: it repeats a refused key for ever, loses a batch for one failed question, and
    cannot tell one failure from another.
    """

    def __init__(self, **settings: Any) -> None:
        """Take OpenCompass' settings of a chat model; name, address and key come from the session."""
        super().__init__(path=_UNUSED, key=_UNUSED, openai_api_base=_UNUSED, **settings)
        attempt = session.current()
        self._asking = Asking(attempt.client, attempt.journal, self.acquire, attempt.tally)
        self._asking.report = attempt.report

    def _generate(self, input: Any, max_out_len: int, temperature: float) -> str:  # noqa: A002  (OpenCompass' name)
        try:
            messages, room = self._preprocess_messages(
                input, max_out_len, self.max_seq_len, self.mode, self.get_token_len
            )
        except ValueError as error:
            return self._asking.leave_out(f"A question does not fit into max_seq_len: {error}")
        return self._asking.answer(
            self._messages_to_chat_completions(messages), max_tokens=room, temperature=temperature
        )

"""Masking of secrets in text that leaves the process: logs, errors, notifications, pod logs."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MASK = "[redacted]"
MINIMUM_SECRET_LENGTH = 4
"""Shorter values are not looked for: they would mask half of every sentence."""
LINGER_SECONDS = 60.0
"""A value stays masked so long after its last use: an error that mentions it is told after the block that used it."""

_SHAPES = (
    re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{6,}"),
    re.compile(r"\bbudeval_[A-Za-z0-9_-]{40,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?i)(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?i)\b(token|client-key-data|password|api[_-]?key)(['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]{4,}"),
)


class Redactor:
    """Masks what looks like a secret, and every value that is in use as one right now or was a moment ago."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._uses: Counter[str] = Counter()
        self._hidden_until: dict[str, float] = {}

    @contextmanager
    def hiding(self, *values: str | None) -> Iterator[None]:
        """Masks ``values`` while the block runs and some seconds more; nests and may be used from many threads."""
        secrets = [value for value in values if value and len(value) >= MINIMUM_SECRET_LENGTH]
        with self._lock:
            self._uses.update(secrets)
        try:
            yield
        finally:
            with self._lock:
                self._uses.subtract(secrets)
                self._hidden_until.update(dict.fromkeys(secrets, self._clock() + LINGER_SECONDS))

    def redact(self, text: str) -> str:
        """``text`` with every known or likely secret masked."""
        for value in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(value, MASK)
        for shape in _SHAPES:
            text = shape.sub(MASK, text)
        return text

    def _secrets(self) -> set[str]:
        now = self._clock()
        with self._lock:
            self._uses = +self._uses
            self._hidden_until = {value: until for value, until in self._hidden_until.items() if until > now}
            return {*self._uses, *self._hidden_until}


redactor = Redactor()
"""The process's redactor: logs, errors and notifications all pass it."""


def printable(text: str, maximum: int = 1000) -> str:
    """Foreign text made fit to show: redacted, without control characters, cut to ``maximum`` characters."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in redactor.redact(text))
    clean = clean.strip()
    return clean if len(clean) <= maximum else clean[: maximum - 1] + "…"

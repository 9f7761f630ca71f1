"""Masking of secrets in text that leaves the process: logs, errors, notifications, pod logs."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

MASK = "[redacted]"
MINIMUM_SECRET_LENGTH = 4
"""Shorter values are not looked for: they would mask half of every sentence."""

_SHAPES = (
    re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{6,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?i)(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?i)\b(token|client-key-data|password|api[_-]?key)(['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]{4,}"),
)


class Redactor:
    """Masks what looks like a secret, and every value that is in use as one right now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}

    @contextmanager
    def hiding(self, *values: str | None) -> Iterator[None]:
        """Masks ``values`` while the block runs; nests and may be used from many threads."""
        secrets = [value for value in values if value and len(value) >= MINIMUM_SECRET_LENGTH]
        with self._lock:
            for value in secrets:
                self._values[value] = self._values.get(value, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                for value in secrets:
                    self._values[value] -= 1
                    if not self._values[value]:
                        del self._values[value]

    def redact(self, text: str) -> str:
        """``text`` with every known or likely secret masked."""
        with self._lock:
            values = sorted(self._values, key=len, reverse=True)
        for value in values:
            text = text.replace(value, MASK)
        for shape in _SHAPES:
            text = shape.sub(MASK, text)
        return text


redactor = Redactor()
"""The process's redactor: logs, errors and notifications all pass it."""


def printable(text: str, maximum: int = 1000) -> str:
    """Foreign text made fit to show: redacted, without control characters, cut to ``maximum`` characters."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in redactor.redact(text))
    clean = clean.strip()
    return clean if len(clean) <= maximum else clean[: maximum - 1] + "…"

"""Masking of secrets in text that leaves the process: logs, errors, notifications, pod logs."""

import base64
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from urllib.parse import quote, quote_plus

MASK = "[redacted]"
MINIMUM_SECRET_LENGTH = 4
"""Shorter values are not looked for: they would mask half of every sentence."""
MINIMUM_ENCODED_LENGTH = 8
"""The code of a shorter value is a word like any other, and so is the value itself inside a longer word."""
OWN_WORDS = frozenset(
    {"unknown", "started", "running", "completed", "failed", "terminated", "pending", "suspended", "succeeded",
     "missing", "jobs", "evaluation"}
)  # fmt: skip
"""Words of our own sentences: they stand there whatever the key is, so one that is such a word is not given away."""
LINGER_SECONDS = 60.0
"""A value stays masked so long after its last use: an error that mentions it is told after the block that used it."""

_TIME = r"(?:\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) )?"
"""What a node puts before each line."""
_BEGIN = re.compile(_TIME)
_BREAK = rf"(?:(?:[ \t\r]*\n{_TIME})+[ \t]*)?"
"""Where a console breaks a long line, and what stands before the next one."""
_SHAPES = (
    re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{6,}"),
    re.compile(r"\bbudeval_[A-Za-z0-9_-]{40,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?i)(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?i)\b(token|client-key-data|password|api[_-]?key)(['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]{4,}"),
)


@lru_cache(maxsize=64)
def spellings(secret: str) -> tuple[str, ...]:
    """How a secret may stand in a text: plain, or for JSON, URLs, HTML or Python, as hexadecimal or inside base64."""
    if len(secret) < MINIMUM_SECRET_LENGTH or secret.casefold() in OWN_WORDS:
        return ()
    found = {secret: None}
    if len(secret) >= MINIMUM_ENCODED_LENGTH:
        plain = secret.encode(errors="replace")
        texts = [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
        texts += [json.dumps(text)[1:-1] for text in texts]
        texts += [quote(plain), quote(plain, safe=""), quote_plus(plain), escape(secret), repr(secret)[1:-1]]
        texts += [repr(plain)[2:-1], plain.hex(), plain.hex().upper()]
        codes = [_inside_base64(plain, before) for before in range(3)]
        texts += [*codes, *(code.translate(_URL_SAFE) for code in codes)]
        found |= dict.fromkeys(texts)
    return tuple(found)


_URL_SAFE = str.maketrans("+/", "-_")


def _inside_base64(plain: bytes, before: int) -> str:
    """The part of the code that does not depend on what is around; ``before`` bytes, modulo 3, come first."""
    whole = (before + len(plain)) // 3 * 3
    return base64.b64encode(b"\0" * before + plain)[4 if before else 0 : whole // 3 * 4].decode()


@lru_cache(maxsize=256)
def _as_word(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])")


@lru_cache(maxsize=256)
def _over_lines(value: str) -> re.Pattern[str]:
    return re.compile(_BREAK.join(map(re.escape, value)))


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
        secrets = [text for value in values if value for text in spellings(value)]
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
        secrets = sorted(self._secrets(), key=len, reverse=True)
        for value in secrets:
            short = len(value) < MINIMUM_ENCODED_LENGTH
            text = _as_word(value).sub(MASK, text) if short else text.replace(value, MASK)
        text = _mask_over_lines(text, secrets)
        for shape in _SHAPES:
            text = shape.sub(MASK, text)
        return text

    def _secrets(self) -> set[str]:
        now = self._clock()
        with self._lock:
            self._uses = +self._uses
            self._hidden_until = {value: until for value, until in self._hidden_until.items() if until > now}
            return {*self._uses, *self._hidden_until}


def _mask_over_lines(text: str, secrets: list[str]) -> str:
    if not secrets or "\n" not in text:
        return text
    # Not by one expression: it would try every space of a line anew.
    whole = "".join(_BEGIN.sub("", line, count=1).strip(" \t\r") for line in text.split("\n"))
    for value in secrets:
        if len(value) >= MINIMUM_ENCODED_LENGTH and value in whole:
            text = _over_lines(value).sub(MASK, text)
    return text


redactor = Redactor()
"""The process's redactor: logs, errors and notifications all pass it."""


def printable(text: str, maximum: int = 1000) -> str:
    """Foreign text made fit to show: redacted, without control characters, cut to ``maximum`` characters."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in redactor.redact(text))
    clean = clean.strip()
    return clean if len(clean) <= maximum else clean[: maximum - 1] + "…"

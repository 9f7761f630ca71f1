"""Bearer tokens as they are kept: by their hash.

SHA-256 without salt or stretching is right here, unlike for passwords: a token is 256 random bits, so there is nothing
to guess and no table to make, and every request pays for the hash.
"""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from budeval.access.callers import MAXIMUM_NAME_LENGTH, RESERVED_NAMES, Caller, Unrecognised
from budeval.commons.roles import Role

MAXIMUM_DOCUMENT_BYTES = 1_048_576
NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._@+-]{{0,{MAXIMUM_NAME_LENGTH - 1}}}$"


def _free(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"must not be {name!r}, which the record uses itself")
    return name


class TokenEntry(BaseModel):
    """One token. Two entries may have the same name: that is how a token is replaced without a gap."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=NAME_PATTERN), AfterValidator(_free)]
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hash of the token, in lower-case hexadecimal."""
    expires_at: AwareDatetime | None = None


class TokenSet:
    """All tokens that are known at one time."""

    def __init__(self, entries: Sequence[TokenEntry]) -> None:
        self._entries = [(bytes.fromhex(entry.sha256), entry) for entry in entries]

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, token: str, now: datetime) -> Caller | None:
        """Who has this token; none: nobody. Raises :class:`Unrecognised` where it has expired."""
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, entry in self._entries:
            # Without an early end: the time tells nothing of which entry fits.
            if hmac.compare_digest(known, digest):
                found = entry
        if found is None:
            return None
        if found.expires_at is not None and found.expires_at <= now:
            raise Unrecognised(f"the token {found.name!r} has expired")
        return Caller(found.name, found.role, found.expires_at)


_ENTRIES: TypeAdapter[list[TokenEntry]] = TypeAdapter(list[TokenEntry])


def parse_tokens(document: bytes) -> TokenSet:
    """The tokens of a YAML or JSON document, a list of entries. Raises ``ValueError``, which shows no value."""
    if len(document) > MAXIMUM_DOCUMENT_BYTES:
        raise ValueError(f"is larger than {MAXIMUM_DOCUMENT_BYTES} bytes")
    try:
        entries = _ENTRIES.validate_python(_plain(_loaded(document)))
    except ValidationError as error:
        raise ValueError("; ".join(_words(problem) for problem in error.errors(include_url=False))) from error
    twice = [entry for entry, count in Counter(entry.sha256 for entry in entries).items() if count > 1]
    if twice:
        names = sorted({entry.name for entry in entries if entry.sha256 in twice})
        raise ValueError(f"has the same sha256 more than once: {', '.join(names)}")
    return TokenSet(entries)


def _loaded(document: bytes) -> Any:
    try:
        return yaml.safe_load(document)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        # The parser's own words quote the line, which may be a token that somebody has put there by mistake.
        mark = getattr(error, "problem_mark", None)
        raise ValueError("is neither YAML nor JSON" + (f" (line {mark.line + 1})" if mark else "")) from error


def _plain(value: Any) -> Any:
    """No entries at all are an empty list; YAML makes times of some texts, which are to be read as JSON has them."""
    try:
        return json.loads(json.dumps([] if value is None else value, default=_text))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("is no list of tokens") from error


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(type(value).__name__)


def _words(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    words = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {words}" if place else f"is no list of tokens: {words}"

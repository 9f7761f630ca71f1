"""Tokens for tests, and files of them as operators keep them."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

PAST = datetime(2020, 1, 1, tzinfo=UTC)
VIEWER, OPERATOR, ADMIN, EXPIRED = (
    f"canary-{role}-0123456789abcdef" for role in ("viewer", "operator", "admin", "old")
)
STRANGER = "canary-of-a-stranger-0123456789"


def entry(name, role, token, expires_at=None):
    """An entry of a token file."""
    more = {} if expires_at is None else {"expires_at": expires_at.isoformat()}
    return {"name": name, "role": role, "sha256": hashlib.sha256(token.encode()).hexdigest(), **more}


def in_seconds(seconds):
    """A time from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


ENTRIES = [
    entry("vera", "viewer", VIEWER),
    entry("oscar", "operator", OPERATOR),
    entry("ada", "admin", ADMIN),
    entry("rip", "admin", EXPIRED, PAST),
]


def write_tokens(path, entries=ENTRIES):
    """A token file with these entries; answers its path."""
    path.write_text(json.dumps(entries))
    return path


def bearer(token):
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}

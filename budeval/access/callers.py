"""A caller that was recognised, and why one was not."""

from dataclasses import dataclass
from datetime import datetime

from budeval.commons.errors import TemporaryError
from budeval.commons.roles import Role

MAXIMUM_NAME_LENGTH = 128
"""Characters of a caller's name, which is written into the record with everything it changes."""
NOBODY = "api"
"""The caller's name where access is off."""
RESERVED_NAMES = frozenset({NOBODY, "pubsub"})
"""Names by which the record calls those who have none: nobody may take them."""


@dataclass(frozen=True)
class Caller:
    """Who calls, and what it may do."""

    name: str
    role: Role
    expires_at: datetime | None = None
    """When its token ends to be valid; none: never."""


EVERYBODY = Caller(NOBODY, Role.ADMIN)
"""The caller where access is off."""


class Unrecognised(Exception):
    """No caller has this token. The message is for the caller and the log: it never has anything of the token."""


class Roleless(Exception):
    """The token is good, but gives no role here."""


class RecognitionUnavailable(TemporaryError):
    """What tells callers apart does not answer, so that nobody can say whether the token is good."""

    title = "Tokens cannot be checked"

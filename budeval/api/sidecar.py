"""Which calls are the sidecar's own."""

import hmac

from pydantic import SecretStr
from starlette.types import Scope

from budeval.api.subscriptions import SIDECAR_PATHS

TOKEN_HEADER = b"dapr-api-token"
RELAYED_HEADER = b"dapr-caller-app-id"
"""daprd says with it for which application it calls."""


def for_sidecar(path: str) -> bool:
    """Whether a path is for daprd alone."""
    return path.startswith(SIDECAR_PATHS)


class SidecarToken:
    """Calls that come from the sidecar carry ``APP_API_TOKEN``: the SDK does not check it, so this does.

    Paths for the sidecar alone need the token; elsewhere a wrong one is refused, and none is fine. What another
    application sends through the sidecars carries the token too, but is no word of the sidecar itself.
    """

    def __init__(self, token: SecretStr | None, required: bool) -> None:
        """``required``: where there is no token, paths for the sidecar are for nobody."""
        self._token = None if token is None else token.get_secret_value().encode()
        self._required = required

    def allows(self, scope: Scope) -> bool:
        """Whether a call may go on; it may still need a token of its own."""
        headers, sidecars = dict(scope["headers"]), for_sidecar(scope["path"])
        if self._token is None:
            return not (sidecars and self._required)
        given = headers.get(TOKEN_HEADER)
        if given is None:
            return not sidecars
        return hmac.compare_digest(given, self._token) and not (sidecars and RELAYED_HEADER in headers)

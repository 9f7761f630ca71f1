"""Callers of an identity provider: OpenID Connect's JSON Web Tokens, checked with its published keys."""

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt

from budeval.access.callers import (
    MAXIMUM_NAME_LENGTH,
    RESERVED_NAMES,
    Caller,
    RecognitionUnavailable,
    Roleless,
    Unrecognised,
)
from budeval.commons.roles import Role

logger = logging.getLogger("::EVAL:: Access")

PROVIDER_TIMEOUT_SECONDS = 3.0
KEYS_LIFESPAN_SECONDS = 300.0
KEYS_COOLDOWN_SECONDS = 10.0
"""An unknown key makes the provider be asked again, but not more often: anybody can make up key ids."""
PAUSE_SECONDS = 2.0
"""So long after the provider did not answer, nobody waits for it again."""
DISCOVERY_PATH = "/.well-known/openid-configuration"
REQUIRED_CLAIMS = ["exp", "iss", "aud"]


@dataclass(frozen=True)
class OidcRules:
    """What is trusted, and what it means."""

    issuer: str
    audience: str
    jwks_url: str | None
    """None: the issuer's discovery document names it."""
    algorithms: tuple[str, ...]
    leeway: float
    """Seconds by which clocks may differ."""
    role_claim: str
    roles: dict[str, Role]
    name_claim: str


class OidcCallers:
    """Recognises the callers of one provider. Blocks while it asks the provider for its keys; for any thread."""

    def __init__(self, rules: OidcRules, *, cooldown: float = KEYS_COOLDOWN_SECONDS) -> None:
        self._rules = rules
        self._cooldown = cooldown
        self._client: jwt.PyJWKClient | None = None
        self._lock = threading.Lock()
        self._silent_until = 0.0

    def find(self, token: str) -> Caller:
        """Who has this token.

        Raises:
            Unrecognised: the token is not one of the provider's for this service, or not valid any more.
            Roleless: it is, but none of its roles means anything here.
            RecognitionUnavailable: the provider does not answer.
        """
        claims = self._claims(token)
        role = role_of(claims, self._rules)
        name = _name(claims, self._rules.name_claim)
        if role is None:
            raise Roleless(f"no value of the claim {self._rules.role_claim!r} gives a role here")
        return Caller(name, role, _end(claims))

    def _claims(self, token: str) -> dict[str, Any]:
        rules = self._rules
        # Before a key is looked for: what can never be valid must not make the provider be asked.
        key = self._key(_key_id(token, rules.algorithms))
        try:
            return jwt.decode(
                token,
                key,
                algorithms=rules.algorithms,
                issuer=rules.issuer,
                audience=rules.audience,
                leeway=rules.leeway,
                options={"require": REQUIRED_CLAIMS},
            )
        except jwt.PyJWTError as error:
            raise Unrecognised(_reason(error)) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise Unrecognised("the token's claims are not of the right kind") from error

    def _key(self, kid: str) -> jwt.PyJWK:
        # One at a time: those who waited learn that the provider is silent instead of waiting for it once more.
        with self._lock:
            if time.monotonic() < self._silent_until:
                raise RecognitionUnavailable("the identity provider did not answer a moment ago; try again")
            try:
                client = self._keys()
                client.get_signing_keys()
            except (jwt.PyJWKClientConnectionError, httpx.HTTPError, OSError) as error:
                raise self._silent(f"does not answer: {type(error).__name__}") from error
            except (jwt.PyJWTError, ValueError) as error:
                raise self._silent("does not publish keys as it should") from error
            return self._matching(client, kid)

    def _matching(self, client: jwt.PyJWKClient, kid: str) -> jwt.PyJWK:
        try:
            return client.get_signing_key(kid)
        except jwt.PyJWKClientConnectionError as error:
            raise self._silent(f"does not answer: {type(error).__name__}") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise Unrecognised("the token's key is not one of the identity provider's") from error

    def _silent(self, what: str) -> RecognitionUnavailable:
        self._silent_until = time.monotonic() + PAUSE_SECONDS
        logger.error("the identity provider %s %s", self._rules.issuer, what)
        return RecognitionUnavailable(f"the identity provider {what}; try again")

    def _keys(self) -> jwt.PyJWKClient:
        if self._client is None:
            url = self._rules.jwks_url or discovered(self._rules.issuer)
            self._client = jwt.PyJWKClient(
                url,
                lifespan=KEYS_LIFESPAN_SECONDS,
                timeout=PROVIDER_TIMEOUT_SECONDS,
                cooldown_duration=self._cooldown,
            )
        return self._client


def discovered(issuer: str) -> str:
    """Where an issuer publishes its keys. Raises ``httpx.HTTPError``, or ``ValueError`` for an answer that is none."""
    answer = httpx.get(issuer.rstrip("/") + DISCOVERY_PATH, timeout=PROVIDER_TIMEOUT_SECONDS)
    answer.raise_for_status()
    document = answer.json()
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise ValueError("the discovery document is of another issuer")
    return checked_url(str(document.get("jwks_uri")))


def checked_url(url: str) -> str:
    """A URL from which keys may be taken. Raises ``ValueError``: whoever can change the keys can be anybody."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError("must be an https URL") from error
    if parts.scheme == "https" and parts.host:
        return url
    if parts.scheme == "http" and parts.host in ("127.0.0.1", "::1", "localhost"):
        return url
    raise ValueError("must be an https URL (http is for this machine alone)")


def role_of(claims: dict[str, Any], rules: OidcRules) -> Role | None:
    """The highest role that the claim's values give; none: there is none."""
    value = _at(claims, rules.role_claim)
    values = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    given = {rules.roles[item] for item in values if isinstance(item, str) and item in rules.roles}
    return max(given, key=list(Role).index, default=None)


def _at(claims: dict[str, Any], path: str) -> Any:
    """The claim with this name, which may itself have dots in it; else what a path of names leads to."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _name(claims: dict[str, Any], claim: str) -> str:
    name = _at(claims, claim)
    if not isinstance(name, str) or not name or len(name) > MAXIMUM_NAME_LENGTH or not name.isprintable():
        raise Unrecognised(f"the claim {claim!r} is no name of 1 to {MAXIMUM_NAME_LENGTH} printable characters")
    if name in RESERVED_NAMES:
        raise Unrecognised(f"the claim {claim!r} is a name that the record uses itself")
    return name


def _end(claims: dict[str, Any]) -> datetime:
    try:
        return datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Unrecognised("the token's end is no time") from error


def _key_id(token: str, algorithms: tuple[str, ...]) -> str:
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise Unrecognised("the token is not known") from error
    if header.get("alg") not in algorithms:
        raise Unrecognised("the token is signed by an algorithm that is not allowed")
    if not isinstance(header.get("kid"), str):
        raise Unrecognised("the token does not say by which key it is signed")
    return str(header["kid"])


_REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidIssuerError, "the token is of another issuer"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.MissingRequiredClaimError, "the token lacks a claim that is needed: exp, iss or aud"),
    (jwt.InvalidSignatureError, "the token's signature is wrong"),
)


def _reason(error: jwt.PyJWTError) -> str:
    """In our own words: the library's may quote the token."""
    return next((words for kind, words in _REASONS if isinstance(error, kind)), "the token is not valid")

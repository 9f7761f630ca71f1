"""Recognising callers by everything that is configured, and refusing a configuration that would let anybody in."""

import ipaddress

from budeval.access.callers import Caller, RecognitionUnavailable, Unrecognised
from budeval.access.oidc import OidcCallers, OidcRules, checked_url
from budeval.access.sources import FileTokens, SecretStoreTokens, TokenSource
from budeval.commons.clock import utc_now
from budeval.commons.settings import Settings, StartRefused, setting

MAXIMUM_TOKEN_LENGTH = 8192
"""Characters; a JWT with hundreds of groups fits."""


class Authenticator:
    """Tells who has a token."""

    def __init__(self, sources: list[TokenSource], oidc: OidcCallers | None) -> None:
        self._sources = sources
        self._oidc = oidc

    def start(self) -> None:
        """Begins to look for changed tokens."""
        for source in self._sources:
            source.start()

    def stop(self) -> None:
        """Ends what :meth:`start` began."""
        for source in self._sources:
            source.stop()

    def may_wait(self, token: str) -> bool:
        """Whether :meth:`find` may wait for the identity provider: the token has the shape of a JWT."""
        return self._oidc is not None and len(token) <= MAXIMUM_TOKEN_LENGTH and token.count(".") == 2

    def find(self, token: str) -> Caller:
        """Who has this token.

        Raises:
            Unrecognised: nobody, or it has expired.
            Roleless: the identity provider knows it, but it has no role here.
            RecognitionUnavailable: whoever might know cannot be asked.
        """
        if not token or len(token) > MAXIMUM_TOKEN_LENGTH:
            raise Unrecognised(f"the token is empty or longer than {MAXIMUM_TOKEN_LENGTH} characters")
        missing: RecognitionUnavailable | None = None
        for source in self._sources:
            try:
                caller = source.current().find(token, utc_now())
            except RecognitionUnavailable as error:
                missing = error
                continue
            if caller is not None:
                return caller
        if self._oidc is not None and self.may_wait(token):
            return self._oidc.find(token)
        raise missing or Unrecognised("the token is not known")

    def check_sources(self) -> str:
        """Why tokens cannot be checked; empty: they can."""
        for source in self._sources:
            try:
                source.current()
            except RecognitionUnavailable as error:
                return error.detail
        return ""


def authenticator_for(settings: Settings) -> Authenticator | None:
    """What the settings ask for; none: access is off. Raises :class:`StartRefused`."""
    if settings.access == "off":
        if not is_loopback(settings.host):
            raise StartRefused(
                f"BUDEVAL_ACCESS=off is for a service on this machine alone, but BUDEVAL_HOST is {settings.host}. "
                "Set BUDEVAL_HOST=127.0.0.1, or unset BUDEVAL_ACCESS and name the tokens: BUDEVAL_TOKENS_FILE, "
                "BUDEVAL_TOKENS_SECRET_STORE or BUDEVAL_OIDC_ISSUER."
            )
        return None
    sources, oidc = _sources(settings), _oidc(settings)
    if not sources and oidc is None:
        raise StartRefused(
            "Nobody could call this service. Set BUDEVAL_TOKENS_FILE (budeval token new makes an entry), "
            "BUDEVAL_TOKENS_SECRET_STORE or BUDEVAL_OIDC_ISSUER; or, for a service on 127.0.0.1 that everybody on this "
            "machine may use, BUDEVAL_ACCESS=off."
        )
    if settings.request_topic is not None and settings.app_api_token is None:
        raise StartRefused(
            "BUDEVAL_REQUEST_TOPIC is set, but APP_API_TOKEN is not: anybody could deliver requests in the sidecar's "
            "name. Set APP_API_TOKEN to the same value for the service and for daprd."
        )
    return Authenticator(sources, oidc)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sources(settings: Settings) -> list[TokenSource]:
    sources: list[TokenSource] = []
    if settings.tokens_file is not None:
        with setting("BUDEVAL_TOKENS_FILE", settings.tokens_file):
            sources.append(FileTokens(settings.tokens_file))
    if settings.tokens_secret_store is not None:
        url = f"{settings.dapr_http_url}/v1.0/secrets/{settings.tokens_secret_store}/{settings.tokens_secret_name}"
        refresh = settings.tokens_refresh
        sources.append(SecretStoreTokens(url, settings.tokens_secret_key, settings.dapr_api_token, refresh))
    return sources


def _oidc(settings: Settings) -> OidcCallers | None:
    if settings.oidc_issuer is None:
        if settings.oidc_audience is not None or settings.oidc_jwks_url is not None:
            raise StartRefused("BUDEVAL_OIDC_AUDIENCE and BUDEVAL_OIDC_JWKS_URL need BUDEVAL_OIDC_ISSUER.")
        return None
    if settings.oidc_audience is None:
        raise StartRefused(
            "BUDEVAL_OIDC_ISSUER is set, but BUDEVAL_OIDC_AUDIENCE is not: tokens that the issuer makes for other "
            "services would be good here. Set it to the audience (often the client id) of this service."
        )
    urls = {"BUDEVAL_OIDC_ISSUER": settings.oidc_issuer, "BUDEVAL_OIDC_JWKS_URL": settings.oidc_jwks_url}
    for variable, url in urls.items():
        try:
            checked_url(url or settings.oidc_issuer)
        except ValueError as error:
            raise StartRefused(f"{variable} {error}") from error
    return OidcCallers(
        OidcRules(
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            jwks_url=settings.oidc_jwks_url,
            algorithms=settings.oidc_algorithms,
            leeway=settings.oidc_leeway,
            role_claim=settings.oidc_role_claim,
            roles=settings.oidc_roles,
            name_claim=settings.oidc_name_claim,
        )
    )

import base64
import dataclasses
import hashlib
import hmac
import json
import threading
import time

import jwt
import pytest

from budeval.access.callers import RecognitionUnavailable, Roleless, Unrecognised
from budeval.access.oidc import OidcCallers, OidcRules, checked_url, role_of
from budeval.commons.roles import Role
from tests.unit.access.provider import AUDIENCE, EC_KEY, OTHER_KEY, RSA_KEY, Provider, public_text, published


@pytest.fixture(scope="module")
def running():
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
def provider(running):
    """The identity provider, as at its start."""
    running.keys = [published("one", RSA_KEY), published("curve", EC_KEY)]
    running.status, running.body, running.delay = 200, None, 0.0
    running.discovered = {"issuer": running.issuer, "jwks_uri": running.jwks_url}
    running.asked.clear()
    return running


def rules(provider, **changes):
    good = OidcRules(
        issuer=provider.issuer,
        audience=AUDIENCE,
        jwks_url=provider.jwks_url,
        algorithms=("RS256", "ES256"),
        leeway=5,
        role_claim="roles",
        roles={f"budeval-{role}": role for role in Role},
        name_claim="sub",
    )
    return dataclasses.replace(good, **changes)


@pytest.fixture
def callers(provider):
    return OidcCallers(rules(provider), cooldown=0.0)


def test_a_good_token_is_recognised(callers, provider):
    end = int(time.time()) + 60
    caller = callers.find(provider.token(exp=end))
    assert (caller.name, caller.role, caller.expires_at.timestamp()) == ("user-1", Role.OPERATOR, end)


def test_other_kinds_of_keys_are_good_too(callers, provider):
    assert callers.find(provider.token(EC_KEY, "curve", "ES256")).name == "user-1"


def test_keys_are_fetched_once_for_many_tokens(callers, provider):
    for _ in range(5):
        callers.find(provider.token())
    assert provider.asked == ["/realms/test/keys"]


def seconds(**shifts):
    now = int(time.time())
    return {name: now + shift for name, shift in shifts.items()}


BAD_CLAIMS = [
    (lambda: seconds(exp=-10), "expired"),
    (lambda: seconds(nbf=60), "not valid yet"),
    (lambda: seconds(iat=60), "not valid yet"),
    (lambda: {"exp": None}, "lacks a claim"),
    (lambda: {"exp": "tomorrow"}, "token"),
    (lambda: {"exp": 10**40}, "token"),
    (lambda: {"exp": []}, "token"),
    (lambda: {"iss": "https://elsewhere.example"}, "another issuer"),
    (lambda: {"iss": None}, "lacks a claim"),
    (lambda: {"iss": [1]}, "token"),
    (lambda: {"aud": "another"}, "another audience"),
    (lambda: {"aud": ["another", "budeval2"]}, "another audience"),
    (lambda: {"aud": None}, "lacks a claim"),
    (lambda: {"aud": {}}, "token"),
    (lambda: {"sub": None}, "'sub' is no name"),
    (lambda: {"sub": ""}, "'sub' is no name"),
    (lambda: {"sub": "x" * 129}, "'sub' is no name"),
    (lambda: {"sub": "two\nlines"}, "'sub' is no name"),
    (lambda: {"sub": "api"}, "the record uses itself"),
]


@pytest.mark.parametrize(("changes", "words"), BAD_CLAIMS)
def test_claims_that_are_not_good(callers, provider, changes, words):
    with pytest.raises(Unrecognised, match=words):
        callers.find(provider.token(**changes()))


@pytest.mark.parametrize("changes", [{"exp": -3}, {"nbf": 3}, {"iat": 3}])
def test_clocks_may_differ_a_little(callers, provider, changes):
    assert callers.find(provider.token(**seconds(**changes))).name == "user-1"


@pytest.mark.parametrize("aud", [AUDIENCE, ["another", AUDIENCE]])
def test_a_token_may_be_for_several(callers, provider, aud):
    assert callers.find(provider.token(aud=aud)).name == "user-1"


def encoded(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def unsigned(provider):
    return f"{encoded({'alg': 'none', 'kid': 'one'})}.{encoded(provider.claims())}."


def by_public_key(provider):
    """Signed with the public key as if it were a shared one; the library refuses to make this itself."""
    signed = f"{encoded({'alg': 'HS256', 'kid': 'one'})}.{encoded(provider.claims())}"
    return f"{signed}.{encoded(hmac.digest(public_text(RSA_KEY), signed.encode(), hashlib.sha256))}"


def altered(provider):
    head, _, tail = provider.token().split(".")
    return f"{head}.{encoded(provider.claims(roles=['budeval-admin']))}.{tail}"


def with_its_own_key(provider):
    headers = {"jwk": published("one", OTHER_KEY), "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/x"}
    return provider.token(OTHER_KEY, headers=headers)


FORGED = {
    "unsigned": (unsigned, "not allowed"),
    "signed by the public key": (by_public_key, "not allowed"),
    "altered": (altered, "signature is wrong"),
    "of another key": (lambda provider: provider.token(OTHER_KEY), "signature is wrong"),
    "with its own key": (with_its_own_key, "signature is wrong"),
    "of an unknown key": (lambda provider: provider.token(OTHER_KEY, "nobody"), "not one of the identity provider's"),
    "without a key id": (lambda provider: provider.token(kid=None), "by which key"),
    "of another kind of key": (lambda provider: provider.token(EC_KEY, "one", "ES256"), "token"),
    "by an algorithm that is not allowed": (lambda provider: provider.token(algorithm="RS512"), "not allowed"),
    "with critical extensions": (lambda provider: provider.token(headers={"crit": ["b64"], "b64": False}), "token"),
    "not JSON": (lambda _: f"{encoded(b'{')}.{encoded(b'{')}.x", "not known"),
    "deep": (lambda _: f"{encoded(b'[' * 3000)}.{encoded(b'{}')}.x", "not known"),
    "empty": (lambda _: "..", "not known"),
    "claims that are no object": (lambda _: jwt.api_jws.encode(b"[]", RSA_KEY, "RS256", {"kid": "one"}), "token"),
    "not base64": (lambda _: "ä.ö.ü", "not known"),
}


@pytest.mark.parametrize(("forge", "words"), FORGED.values(), ids=FORGED)
def test_a_forged_token_is_refused(callers, provider, forge, words):
    token = forge(provider)
    with pytest.raises(Unrecognised, match=words) as refused:
        callers.find(token)
    assert not [part for part in token.split(".") if len(part) > 3 and part in str(refused.value)]


def test_a_token_that_can_never_be_good_does_not_ask_the_provider(callers, provider):
    for forge in (unsigned, by_public_key):
        with pytest.raises(Unrecognised):
            callers.find(forge(provider))
    assert provider.asked == []


def test_a_shared_key_in_the_published_set_signs_nothing(callers, provider):
    secret = b"a-shared-secret-of-32-bytes-or-so"
    provider.keys.append({"kty": "oct", "k": encoded(secret), "kid": "shared", "alg": "HS256"})
    with pytest.raises(Unrecognised, match="not allowed"):
        callers.find(provider.token(secret, "shared", "HS256"))


def test_new_keys_are_found_and_old_ones_forgotten(callers, provider):
    callers.find(provider.token())
    provider.keys = [published("two", OTHER_KEY)]
    assert callers.find(provider.token(OTHER_KEY, "two")).name == "user-1"
    with pytest.raises(Unrecognised, match="not one of the identity provider's"):
        callers.find(provider.token())


def test_made_up_key_ids_do_not_make_the_provider_be_asked_each_time(provider):
    callers = OidcCallers(rules(provider), cooldown=60.0)
    for number in range(20):
        with pytest.raises(Unrecognised):
            callers.find(provider.token(OTHER_KEY, f"made-up-{number}"))
    assert len(provider.asked) == 1


OUTAGES = [
    (500, None),
    (404, None),
    (302, None),
    (200, b"<html>"),
    (200, b"[]"),
    (200, b'{"keys": []}'),
    (200, b"\xff"),
]


@pytest.mark.parametrize(("status", "body"), OUTAGES)
def test_a_provider_that_does_not_answer_well_is_no_fault_of_the_token(callers, provider, status, body):
    provider.status, provider.body = status, body
    with pytest.raises(RecognitionUnavailable, match="identity provider"):
        callers.find(provider.token())


def test_a_provider_that_is_away_is_not_waited_for_by_everybody(provider, monkeypatch):
    callers = OidcCallers(rules(provider, jwks_url="http://127.0.0.1:1/keys"))
    for _ in range(3):
        with pytest.raises(RecognitionUnavailable):
            callers.find(provider.token())
    monkeypatch.setattr("budeval.access.oidc.PROVIDER_TIMEOUT_SECONDS", 0.2)
    provider.delay = 1.0
    slow = OidcCallers(rules(provider))
    began = time.monotonic()
    threads = [threading.Thread(target=_unavailable, args=(slow, provider.token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 1.0
    assert len(provider.asked) == 1


def _unavailable(callers, token):
    with pytest.raises(RecognitionUnavailable):
        callers.find(token)


def test_a_provider_that_comes_back_is_asked_again(callers, provider, monkeypatch):
    monkeypatch.setattr("budeval.access.oidc.PAUSE_SECONDS", 0.0)
    provider.status = 503
    _unavailable(callers, provider.token())
    provider.status = 200
    assert callers.find(provider.token()).name == "user-1"


def test_known_keys_outlive_an_outage(callers, provider):
    callers.find(provider.token())
    provider.status = 503
    assert callers.find(provider.token()).name == "user-1"


# ------------------------------------------------------------------ discovery


def test_the_issuer_says_where_its_keys_are(provider):
    callers = OidcCallers(rules(provider, jwks_url=None))
    assert callers.find(provider.token()).name == "user-1"
    assert provider.asked == ["/realms/test/.well-known/openid-configuration", "/realms/test/keys"]


@pytest.mark.parametrize(
    "document",
    [[], {}, {"issuer": "https://another.example", "jwks_uri": "https://another.example"}, {"jwks_uri": "file:///etc"}],
)
def test_a_discovery_document_of_another_is_not_believed(provider, document):
    provider.discovered = document
    _unavailable(OidcCallers(rules(provider, jwks_url=None)), provider.token())
    provider.discovered = {"issuer": provider.issuer, "jwks_uri": "http://keys.example/"}
    _unavailable(OidcCallers(rules(provider, jwks_url=None)), provider.token())
    assert [path for path in provider.asked if path.endswith("/keys")] == []


@pytest.mark.parametrize(
    "url", ["https://id.example/keys", "http://127.0.0.1:8080/keys", "http://localhost/x", "http://[::1]/"]
)
def test_where_keys_may_come_from(url):
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url", ["http://id.example", "file:///etc/passwd", "ftp://127.0.0.1", "", "keys", "https://", "x" * 70_000]
)
def test_where_keys_may_not_come_from(url):
    with pytest.raises(ValueError, match="must be an https URL"):
        checked_url(url)


# ------------------------------------------------------------------ roles and names


@pytest.mark.parametrize(
    ("path", "claims", "role"),
    [
        ("roles", {"roles": ["budeval-viewer"]}, Role.VIEWER),
        ("roles", {"roles": ["budeval-viewer", "other", "budeval-admin", "budeval-operator"]}, Role.ADMIN),
        ("roles", {"roles": "budeval-operator"}, Role.OPERATOR),
        ("scope", {"scope": "openid budeval-viewer email"}, Role.VIEWER),
        ("realm_access.roles", {"realm_access": {"roles": ["budeval-viewer"]}}, Role.VIEWER),
        ("https://x.example/roles", {"https://x.example/roles": ["budeval-viewer"]}, Role.VIEWER),
        ("roles", {}, None),
        ("roles", {"roles": []}, None),
        ("roles", {"roles": ["admin", "BUDEVAL-ADMIN", "budeval-admin "]}, None),
        ("roles", {"roles": [["budeval-admin"], {"budeval-admin": 1}, 1, None]}, None),
        ("roles", {"roles": {"budeval-admin": True}}, None),
        ("roles", {"roles": 1}, None),
        ("realm_access.roles", {"realm_access": ["budeval-viewer"]}, None),
        ("a.b.c", {"a": {"b": "budeval-viewer"}}, None),
    ],
)
def test_the_role_comes_from_the_claim(provider, path, claims, role):
    assert role_of(claims, rules(provider, role_claim=path)) == role


def test_a_good_token_without_a_role_is_told_apart_from_a_bad_one(callers, provider):
    with pytest.raises(Roleless, match="'roles'"):
        callers.find(provider.token(roles=["other"]))


def test_the_name_may_be_another_claim(provider):
    callers = OidcCallers(rules(provider, name_claim="user.email"))
    assert callers.find(provider.token(user={"email": "a@b.example"})).name == "a@b.example"

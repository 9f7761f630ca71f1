import pytest
from pydantic import ValidationError

from budeval.access.authentication import StartRefused, authenticator_for, is_loopback
from budeval.access.callers import RecognitionUnavailable, Unrecognised
from budeval.commons.roles import Role
from budeval.commons.settings import Settings
from tests.tokens import ADMIN, STRANGER, write_tokens
from tests.unit.access.provider import Provider

ISSUER = {"oidc_issuer": "https://id.example", "oidc_audience": "budeval"}


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "tokens.json")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False),  # noqa: S104
        ("10.0.0.1", False), ("", False), ("host.example", False),
        ("localhost.example", False), ("127.0.0.1.example", False),
    ],
)  # fmt: skip
def test_access_can_be_off_on_loopback_alone(host, loopback):
    assert is_loopback(host) is loopback
    settings = Settings(access="off", host=host)
    if loopback:
        assert authenticator_for(settings) is None
    else:
        with pytest.raises(StartRefused, match="BUDEVAL_HOST"):
            authenticator_for(settings)


def test_access_is_required_where_nothing_is_said(monkeypatch):
    monkeypatch.delenv("BUDEVAL_ACCESS")
    with pytest.raises(StartRefused, match=r"BUDEVAL_TOKENS_FILE.*BUDEVAL_TOKENS_SECRET_STORE.*BUDEVAL_OIDC_ISSUER"):
        authenticator_for(Settings())


REFUSED = [
    ({"request_topic": "requests"}, "APP_API_TOKEN"),
    ({"oidc_issuer": "https://id.example"}, "BUDEVAL_OIDC_AUDIENCE"),
    ({"oidc_audience": "budeval"}, "BUDEVAL_OIDC_ISSUER"),
    ({"oidc_jwks_url": "https://id.example"}, "BUDEVAL_OIDC_ISSUER"),
    ({**ISSUER, "oidc_issuer": "http://id.example"}, "BUDEVAL_OIDC_ISSUER must be an https URL"),
    ({**ISSUER, "oidc_jwks_url": "file:///keys"}, "BUDEVAL_OIDC_JWKS_URL must be an https URL"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_settings_that_leave_a_door_open_are_refused(tokens, changes, words):
    with pytest.raises(StartRefused, match=words):
        authenticator_for(Settings(access="required", tokens_file=tokens, **changes))


def test_a_token_file_that_is_no_good_is_refused(tmp_path):
    for content in (None, "{", "[{name: canary}]"):
        if content is not None:
            (tmp_path / "tokens").write_text(content)
        with pytest.raises(StartRefused, match="BUDEVAL_TOKENS_FILE") as refused:
            authenticator_for(Settings(access="required", tokens_file=tmp_path / "tokens"))
        assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        {"oidc_algorithms": "none"},
        {"oidc_algorithms": "HS256"},
        {"oidc_algorithms": "RS256,HS256"},
        {"oidc_roles": {"x": "root"}},
        {"oidc_roles": {}},
        {"access": "on"},
        {"rate_limit": "many"},
        {"rate_limit": "0/never"},
        {"tokens_secret_store": "../x"},
        {"tokens_secret_name": "a/b"},
        {"tokens_refresh": 0},
        {"oidc_leeway": 3600},
    ],
)
def test_values_that_are_none_are_refused(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        Settings(**values)


def test_algorithms_are_words_and_roles_are_json_in_the_environment(monkeypatch):
    monkeypatch.setenv("BUDEVAL_OIDC_ALGORITHMS", "ES256, PS512")
    monkeypatch.setenv("BUDEVAL_OIDC_ROLES", '{"evaluators": "operator"}')
    monkeypatch.setenv("BUDEVAL_RATE_LIMIT", "none")
    settings = Settings()
    assert settings.oidc_algorithms == ("ES256", "PS512")
    assert settings.oidc_roles == {"evaluators": Role.OPERATOR}
    assert settings.rate_limit is None


def test_tokens_of_every_source_are_good(tokens):
    provider = Provider()
    try:
        issuer = {"oidc_issuer": provider.issuer, "oidc_audience": "budeval"}
        authenticator = authenticator_for(Settings(access="required", tokens_file=tokens, **issuer))
        assert authenticator.find(ADMIN).name == "ada"
        assert authenticator.find(provider.token()).name == "user-1"
        for token in (STRANGER, "", "x" * 8193, "a.b.c", "x" * 9000 + ".b.c"):
            with pytest.raises(Unrecognised):
                authenticator.find(token)
        assert authenticator.check_sources() == ""
    finally:
        provider.close()


def test_a_store_that_was_not_read_yet_hides_no_other_source(tokens):
    store = {"tokens_secret_store": "kubernetes", "dapr_http_port": 1}
    authenticator = authenticator_for(Settings(access="required", tokens_file=tokens, **store))
    assert authenticator.find(ADMIN).name == "ada"
    assert "not asked yet" in authenticator.check_sources()
    with pytest.raises(RecognitionUnavailable):
        authenticator.find(STRANGER)

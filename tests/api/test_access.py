"""Who may do what: every route, with every kind of caller."""

import logging
import re
import time
from types import SimpleNamespace

import pytest
from cryptography.fernet import Fernet
from fastapi.routing import iter_route_contexts
from prometheus_client.parser import text_string_to_metric_families

from budeval.commons.settings import Settings
from budeval.main import create_app
from tests.api.conftest import MAXIMUM_BODY_BYTES
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, a_request
from tests.tokens import ADMIN, ENTRIES, EXPIRED, OPERATOR, STRANGER, VIEWER, bearer, entry, write_tokens
from tests.unit.access.provider import AUDIENCE, OTHER_KEY, Provider

SIDECAR = "canary-of-a-sidecar-token"
OPEN, VIEWERS, OPERATORS, ADMINS, SIDECARS = "everybody", "viewers", "operators", "admins", "the sidecar"
ROUTES = {
    ("GET", "/livez"): (OPEN, 200),
    ("GET", "/readyz"): (OPEN, 503),
    ("GET", "/metrics"): (OPEN, 200),
    ("GET", "/docs"): (OPEN, 200),
    ("GET", "/docs/start.js"): (OPEN, 200),
    ("GET", "/docs/swagger-ui-bundle.js"): (OPEN, 200),
    ("GET", "/docs/swagger-ui.css"): (OPEN, 200),
    ("GET", "/docs/favicon-32x32.png"): (OPEN, 200),
    ("GET", "/openapi.json"): (OPEN, 200),
    ("GET", "/whoami"): (VIEWERS, 200),
    ("GET", "/evals"): (VIEWERS, 200),
    ("GET", "/evals/{eval_id}"): (VIEWERS, 404),
    ("GET", "/evals/{eval_id}/results"): (VIEWERS, 404),
    ("GET", "/evals/{eval_id}/timeline"): (VIEWERS, 404),
    ("GET", "/evals/{eval_id}/events"): (VIEWERS, 404),
    ("GET", "/engines"): (VIEWERS, 200),
    ("GET", "/datasets"): (VIEWERS, 200),
    ("GET", "/evals/{eval_id}/runs/{run_id}/logs"): (VIEWERS, 404),
    ("POST", "/evals"): (OPERATORS, 422),
    ("POST", "/evals/validate"): (OPERATORS, 422),
    ("POST", "/evals/start"): (OPERATORS, 422),
    ("POST", "/evals/{eval_id}/cancel"): (OPERATORS, 404),
    ("POST", "/datasets/refresh"): (OPERATORS, 503),
    ("POST", "/evals/{eval_id}/notifications/resend"): (OPERATORS, 404),
    ("POST", "/evals/{eval_id}/retry"): (OPERATORS, 404),
    ("DELETE", "/evals/{eval_id}"): (ADMINS, 404),
    ("GET", "/dapr/subscribe"): (SIDECARS, 200),
    ("POST", "/events/evaluations"): (SIDECARS, 200),
}
"""Each route: who may use it, and what it answers them here, where there is no evaluation and the body is empty."""
CALLERS = {
    "nobody": None,
    "viewer": VIEWER,
    "operator": OPERATOR,
    "admin": ADMIN,
    "expired": EXPIRED,
    "wrong": STRANGER,
}
ALLOWED = {
    OPEN: set(CALLERS),
    VIEWERS: {"viewer", "operator", "admin"},
    OPERATORS: {"operator", "admin"},
    ADMINS: {"admin"},
    SIDECARS: set(),
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens.json")


@pytest.fixture(scope="module")
def guarded(serve, tokens):
    """A service that wants tokens, with a sidecar's token."""
    return serve(access="required", tokens_file=tokens, APP_API_TOKEN=SIDECAR, failure_limit="none")


def call(service, method, path, token=None, **options):
    headers = {**(bearer(token) if token is not None else {}), **options.pop("headers", {})}
    return service.client.request(method, path, headers=headers, **options)


def expected(guard, status, caller):
    if caller in ALLOWED[guard]:
        return status
    return 403 if guard != SIDECARS and caller in ("viewer", "operator") else 401


TABLE = [(*route, caller) for route in ROUTES for caller in CALLERS]


@pytest.mark.parametrize(("method", "path", "caller"), TABLE)
def test_every_route_is_for_whom_it_is_meant(guarded, method, path, caller):
    guard, status = ROUTES[method, path]
    body = {"json": {}} if method == "POST" else {}
    response = call(guarded, method, path.format(eval_id=EVAL_ID, run_id="run-a"), CALLERS[caller], **body)
    assert response.status_code == expected(guard, status, caller)
    if response.status_code in (401, 403):
        is_problem(response, response.status_code)
        assert response.headers["WWW-Authenticate"]
        assert "canary" not in response.text + str(response.headers)


def test_no_route_is_missing_in_the_table(tmp_path):
    """A new route: add it with who may use it, after having thought about it."""
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/record.sqlite",
        sealing_keys=Fernet.generate_key().decode(),
        playbook_run_dir=tmp_path / "runs",
    )
    found = {
        (method, context.path.replace(":path}", "}"))
        for context in iter_route_contexts(create_app(settings).routes)
        for method in context.methods or ()
    }
    assert {route for route in found if route[0] != "HEAD"} == set(ROUTES)


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if ROUTES[route][0] != OPEN])
def test_the_sidecars_token_opens_the_sidecars_paths_alone(guarded, method, path):
    guard, status = ROUTES[method, path]
    body = {"json": {}} if method == "POST" else {}
    answer = call(
        guarded, method, path.format(eval_id=EVAL_ID, run_id="run-a"), headers={"dapr-api-token": SIDECAR}, **body
    )
    assert answer.status_code == (status if guard == SIDECARS else 401)


def test_what_another_application_sends_through_the_sidecar_is_not_the_sidecars_word(guarded):
    headers = {"dapr-api-token": SIDECAR, "dapr-caller-app-id": "somebody"}
    is_problem(call(guarded, "POST", "/events/evaluations", headers=headers, json=a_request()), 401)
    assert call(guarded, "GET", "/evals", VIEWER, headers=headers).status_code == 200


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if ROUTES[route][0] == SIDECARS])
def test_without_a_sidecars_token_the_sidecars_paths_are_for_nobody(serve, tokens, method, path):
    service = serve(access="required", tokens_file=tokens)
    for headers in ({}, {"dapr-api-token": ""}, {"dapr-api-token": "x"}, bearer(ADMIN)):
        is_problem(service.client.request(method, path, headers=headers), 401)


# ------------------------------------------------------------------ what is no route

STRANGE = [
    ("GET", "/no/such/path", {"nobody": 401, "viewer": 404, "admin": 404}),
    ("GET", "/livez/", {"nobody": 401, "viewer": 307}),
    ("GET", "//livez", {"nobody": 401, "viewer": 404}),
    ("POST", "/livez", {"nobody": 405}),
    ("PUT", "/evals/start", {"nobody": 401, "operator": 403, "admin": 405}),
    ("DELETE", "/evals", {"nobody": 401, "operator": 403, "admin": 405}),
    ("BREW", "/evals", {"nobody": 401, "operator": 403, "admin": 405}),
    ("HEAD", "/evals", {"nobody": 401, "viewer": 405}),
    ("GET", "/dapr/config", {"nobody": 401, "admin": 401}),
    ("GET", "/evals/%2e%2e/livez", {"nobody": 401}),
]


@pytest.mark.parametrize(("method", "path", "answers"), STRANGE)
def test_what_is_not_there_is_guarded_too(guarded, method, path, answers):
    told = {caller: call(guarded, method, path, CALLERS[caller]).status_code for caller in answers}
    assert told == answers


HEADERS = [
    ["Bearer"],
    ["bearer"],
    [ADMIN],
    [f"Basic {ADMIN}"],
    [f"Bearer {ADMIN} x"],
    [f"Bearer {ADMIN}", f"Bearer {ADMIN}"],
    [f"Bearer {STRANGER}", f"Bearer {ADMIN}"],
    [f"Bearer {ADMIN[:-1]}"],
    [f"Bearer {ADMIN}x"],
    [f"Bearer {ADMIN.upper()}"],
    ["Bearer " + "x" * 9000],
    ["Bearer a.b.c"],
    ["Bearer é".encode()],
    ["Bearer \x01"],
    [f"Bearer {ENTRIES[2]['sha256']}"],
]


@pytest.mark.parametrize("values", HEADERS)
def test_a_header_that_is_no_good_token_is_refused(guarded, values):
    response = guarded.client.get("/evals", headers=[("Authorization", value) for value in values])
    is_problem(response, 401)
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="budeval", error="invalid_token"'


def test_without_a_token_the_challenge_names_no_error(guarded):
    assert guarded.client.get("/evals").headers["WWW-Authenticate"] == 'Bearer realm="budeval"'


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer ", "Bearer   "])
def test_the_scheme_is_read_as_http_has_it(guarded, scheme):
    assert guarded.client.get("/evals", headers={"Authorization": f"{scheme} {VIEWER}"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Basic x"}, bearer(STRANGER), bearer(EXPIRED), bearer(VIEWER)]
)
def test_the_redactor_leaves_the_words_of_a_refusal_whole(guarded, headers):
    assert "redacted" not in guarded.client.post("/evals/start", headers=headers).text


def test_nobody_is_told_whether_an_evaluation_exists(guarded):
    assert guarded.start(a_request(), headers=bearer(OPERATOR)).status_code == 200
    there = guarded.client.get(f"/evals/{EVAL_ID}")
    away = guarded.client.get(f"/evals/{EVAL_ID[:-1]}1")
    assert there.json() | {"instance": ""} == away.json() | {"instance": ""}


def test_a_body_is_not_looked_at_before_its_sender(guarded):
    assert call(guarded, "POST", "/evals/start", content=b"{").status_code == 401
    assert call(guarded, "POST", "/evals/start", VIEWER, content=b"{").status_code == 403


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_route_reads_a_body_that_is_too_large(guarded, method, path):
    headers = {"dapr-api-token": SIDECAR}
    body = b" " * (MAXIMUM_BODY_BYTES + 1)
    answer = call(guarded, method, path.format(eval_id=EVAL_ID, run_id="run-a"), ADMIN, headers=headers, content=body)
    is_problem(answer, 413)


# ------------------------------------------------------------------ who it was


def test_the_record_names_the_caller_in_everything_it_changes(service_with):
    service = service_with()
    service.start(a_request(), headers=bearer(OPERATOR))
    cancelled = call(service, "POST", f"/evals/{EVAL_ID}/cancel", ADMIN).json()
    assert (cancelled["requested_by"], cancelled["cancelled_by"], cancelled["source"]) == ("oscar", "ada", "budapp")
    timeline = call(service, "GET", f"/evals/{EVAL_ID}/timeline", VIEWER).json()["items"]
    actors = {item["kind"]: item["actor"] for item in timeline}
    assert (actors["created"], actors["cancel"]) == ("oscar", "ada")
    found = call(service, "GET", "/evals?requested_by=oscar", VIEWER).json()["items"]
    assert [item["requested_by"] for item in found] == ["oscar"]


def test_callers_can_ask_who_they_are(guarded):
    assert call(guarded, "GET", "/whoami", VIEWER).json() == {"name": "vera", "role": "viewer", "expires_at": None}


def test_where_access_is_off_everybody_is_the_same(shared):
    assert shared.client.get("/whoami").json() == {"name": "api", "role": "admin", "expires_at": None}
    assert shared.client.get("/whoami", headers=bearer(STRANGER)).status_code == 200


@pytest.fixture
def service_with(serve, tmp_path):
    """Starts a service that wants tokens; its token file can be changed."""

    def start(**changes):
        path = write_tokens(tmp_path / "tokens.yaml")
        service = serve(access="required", **{"tokens_file": path, "failure_limit": "none", **changes})
        service.tokens = path
        return service

    return start


def test_a_token_is_good_and_bad_again_without_a_restart(service_with, monkeypatch):
    monkeypatch.setattr("budeval.access.sources.LOOK_SECONDS", 0.0)
    service = service_with()
    assert call(service, "GET", "/evals", STRANGER).status_code == 401
    write_tokens(service.tokens, [entry("new", "viewer", STRANGER)])
    assert [call(service, "GET", "/evals", token).status_code for token in (STRANGER, ADMIN)] == [200, 401]
    service.tokens.write_text("[")
    assert call(service, "GET", "/evals", STRANGER).status_code == 200
    write_tokens(service.tokens, [])
    assert call(service, "GET", "/evals", STRANGER).status_code == 401


# ------------------------------------------------------------------ what is written down


def refusals(service):
    text = service.client.get("/metrics").text
    return {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "budeval_http_refused_total"
    }


def test_refusals_are_logged_and_counted_without_the_token(service_with, caplog):
    caplog.set_level(logging.INFO)
    service = service_with(APP_API_TOKEN=SIDECAR)
    call(service, "GET", "/evals", STRANGER)
    call(service, "GET", "/evals", EXPIRED)
    call(service, "GET", "/evals")
    call(service, "POST", "/evals/start", VIEWER)
    call(service, "GET", "/dapr/subscribe", headers={"dapr-api-token": STRANGER})
    assert refusals(service) == {"unauthorized": 3, "forbidden": 1, "sidecar": 1}
    told = [record.getMessage() for record in caplog.records if record.name == "::EVAL:: Access"]
    assert told[:4] == [
        "refused GET /evals from 127.0.0.1: The token is not known.",
        "refused GET /evals from 127.0.0.1: The token 'rip' has expired.",
        "refused GET /evals from 127.0.0.1: Send a token in the header Authorization, as: Bearer TOKEN.",
        "refused POST /evals/start from 127.0.0.1: POST here needs the role operator; the token of 'vera' has viewer.",
    ]
    assert "canary" not in caplog.text


# ------------------------------------------------------------------ how often


def test_a_caller_who_asks_too_often_has_to_wait_and_others_have_not(service_with):
    service = service_with(rate_limit="3/minute")
    statuses = [call(service, "GET", "/evals", VIEWER).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refused = call(service, "GET", "/evals", VIEWER)
    is_problem(refused, 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert call(service, "GET", "/evals", OPERATOR).status_code == 200
    assert call(service, "GET", "/livez", VIEWER).status_code == 200
    assert refusals(service) == {"rate": 3}


def test_after_the_wait_that_was_told_it_goes_on(service_with):
    service = service_with(rate_limit="1/second")
    answers = [call(service, "GET", "/evals", VIEWER) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    time.sleep(float(answers[1].headers["Retry-After"]))
    assert call(service, "GET", "/evals", VIEWER).status_code == 200


def test_where_access_is_off_addresses_are_limited(serve):
    service = serve(rate_limit="2/minute")
    assert [service.client.get("/evals").status_code for _ in range(3)] == [200, 200, 429]


def test_who_guesses_tokens_is_slowed_down_and_good_tokens_are_not(service_with, caplog):
    service = service_with(failure_limit="2/minute")
    answers = [call(service, "GET", "/evals", f"{STRANGER}-{number}") for number in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert call(service, "GET", "/evals", VIEWER).status_code == 200
    assert len(re.findall(r"refused GET", caplog.text)) == 2
    assert refusals(service) == {"unauthorized": 2, "failures": 2}


# ------------------------------------------------------------------ this machine's own names

HOSTS = {
    "127.0.0.1": 200, "127.0.0.1:8099": 200, "localhost:1": 200, "LOCALHOST": 200, "[::1]": 200, "[::1]:80": 200,
    "budeval.localhost:80": 200, "evil.example": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example:80": 421,
    "10.0.0.1": 421, "[::2]:80": 421, "[": 421, "": 421, "0.0.0.0": 421, "xlocalhost": 421,  # noqa: S104
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_where_access_is_off_other_names_are_not_answered_to(shared, host):
    """A page whose name was made to point to this machine, or a proxy that brings strangers."""
    response = shared.client.get("/evals", headers={"Host": host})
    assert response.status_code == HOSTS[host]
    if host not in ("[", ""):
        assert shared.client.get("/livez", headers={"Host": host}).status_code == 200
    if response.status_code == 421:
        is_problem(response, 421)


def test_where_access_is_required_every_name_is_good(guarded):
    assert call(guarded, "GET", "/evals", VIEWER, headers={"Host": "budeval.example"}).status_code == 200


def test_who_guesses_the_sidecars_token_is_slowed_down(service_with):
    service = service_with(APP_API_TOKEN=SIDECAR, failure_limit="2/minute")
    guesses = [{"dapr-api-token": f"{STRANGER}-{number}"} for number in range(3)]
    answers = [call(service, "POST", "/events/evaluations", headers=guess).status_code for guess in guesses]
    assert answers == [401, 401, 429]
    assert call(service, "GET", "/dapr/subscribe", headers={"dapr-api-token": SIDECAR}).status_code == 200


# ------------------------------------------------------------------ the document


def test_the_document_says_what_is_needed(guarded):
    document = guarded.client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            guard = ROUTES[method.upper(), path][0]
            needed = SimpleNamespace(security=operation.get("security"), codes=set(operation["responses"]))
            assert (needed.security == [{"bearer": []}]) is (guard != OPEN)
            assert ({"401", "403", "429"} <= needed.codes) is (guard != OPEN)
            assert operation.get("x-required-role", OPEN) == (OPEN if guard == OPEN else guard.removesuffix("s"))


def test_the_document_of_an_open_service_asks_for_nothing(shared):
    assert "bearer" not in shared.client.get("/openapi.json").text


# ------------------------------------------------------------------ an identity provider


@pytest.fixture(scope="module")
def provider():
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def federated(serve, tokens, provider):
    """A service that knows an identity provider beside its own tokens."""
    issuer = {"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE, "oidc_name_claim": "email"}
    return serve(access="required", tokens_file=tokens, **issuer)


def test_callers_of_the_identity_provider_have_their_role_and_name(federated, provider):
    token = provider.token(email="eve@id.example", roles=["budeval-operator"])
    told = call(federated, "GET", "/whoami", token).json()
    assert (told["name"], told["role"]) == ("eve@id.example", "operator")
    assert told["expires_at"].endswith("Z")
    assert call(federated, "POST", "/evals/start", token, json=a_request()).status_code == 200
    assert call(federated, "GET", f"/evals/{EVAL_ID}", VIEWER).json()["requested_by"] == "eve@id.example"


def test_a_good_token_without_a_role_is_forbidden_and_a_forged_one_is_not_recognised(federated, provider):
    nobody = provider.token(email="eve@id.example", roles=["another"])
    is_problem(call(federated, "GET", "/evals", nobody), 403)
    forged = provider.token(OTHER_KEY, email="eve@id.example")
    problem = is_problem(call(federated, "GET", "/evals", forged), 401)
    assert problem["detail"] == "The token's signature is wrong."


def test_a_provider_that_is_away_stops_its_own_callers_alone(serve, tokens, provider):
    issuer = {"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE, "oidc_jwks_url": "http://127.0.0.1:1/keys"}
    service = serve(access="required", tokens_file=tokens, **issuer)
    refused = call(service, "GET", "/evals", provider.token())
    is_problem(refused, 503)
    assert refused.headers["Retry-After"] == "5"
    assert "WWW-Authenticate" not in refused.headers
    assert call(service, "GET", "/evals", VIEWER).status_code == 200


def test_tokens_that_could_not_be_read_yet_are_unavailable_and_readiness_says_so(serve):
    service = serve(access="required", tokens_secret_store="nowhere", DAPR_HTTP_PORT=1)
    is_problem(call(service, "GET", "/evals", VIEWER), 503)
    assert call(service, "GET", "/evals").status_code == 401
    assert service.client.get("/livez").status_code == 200
    checks = {check["name"]: check for check in service.client.get("/readyz").json()["checks"]}
    assert "secret store" in checks["access"]["detail"]

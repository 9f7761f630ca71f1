import json
from datetime import UTC, datetime, timedelta

import pytest

from budeval.access.callers import Caller, Unrecognised
from budeval.access.tokens import parse_tokens
from budeval.commons.roles import Role
from tests.tokens import ADMIN, ENTRIES, EXPIRED, STRANGER, VIEWER, entry

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def parsed(entries):
    return parse_tokens(json.dumps(entries).encode())


def test_a_token_is_found_by_its_hash():
    tokens = parsed(ENTRIES)
    assert len(tokens) == 4
    assert tokens.find(ADMIN, NOW) == Caller("ada", Role.ADMIN)
    assert tokens.find(VIEWER, NOW) == Caller("vera", Role.VIEWER)
    assert tokens.find(STRANGER, NOW) is None


def test_an_expired_token_is_told_as_such():
    with pytest.raises(Unrecognised, match="'rip' has expired"):
        parsed(ENTRIES).find(EXPIRED, NOW)


@pytest.mark.parametrize(("seconds", "good"), [(1, True), (0, False), (-1, False)])
def test_a_token_is_good_until_its_end(seconds, good):
    end = NOW + timedelta(seconds=seconds)
    tokens = parsed([entry("t", "viewer", VIEWER, end)])
    if good:
        assert tokens.find(VIEWER, NOW) == Caller("t", Role.VIEWER, end)
    else:
        with pytest.raises(Unrecognised):
            tokens.find(VIEWER, NOW)


def test_every_entry_is_compared_however_early_one_fits(monkeypatch):
    compared = []
    monkeypatch.setattr("budeval.access.tokens.hmac.compare_digest", lambda a, b: compared.append(a) or a == b)
    tokens = parsed(ENTRIES)
    tokens.find(VIEWER, NOW)
    tokens.find(STRANGER, NOW)
    assert len(compared) == 2 * len(ENTRIES)


@pytest.mark.parametrize("document", [b"", b"[]", b"# nothing yet\n"])
def test_no_tokens_are_tokens_too(document):
    assert len(parse_tokens(document)) == 0


@pytest.mark.parametrize("end", ["2026-12-31T00:00:00Z", "2026-12-31T01:00:00+01:00", "'2026-12-31T00:00:00Z'"])
def test_a_document_may_be_yaml(end):
    document = f"- name: a\n  role: viewer\n  sha256: {ENTRIES[0]['sha256']}\n  expires_at: {end}\n"
    found = parse_tokens(document.encode()).find(VIEWER, NOW)
    assert found.expires_at == datetime(2026, 12, 31, tzinfo=UTC)


def test_a_token_may_be_replaced_under_its_name():
    tokens = parsed([entry("ci", "viewer", VIEWER), entry("ci", "operator", ADMIN)])
    assert [tokens.find(token, NOW).name for token in (VIEWER, ADMIN)] == ["ci", "ci"]


GOOD = entry("canary", "viewer", VIEWER)
BROKEN = [
    (b"{", "neither YAML nor JSON"),
    (b"\xff\xfe\xff", "neither YAML nor JSON"),
    (b"- a: [\n- canary", r"line 2"),
    (b"[" * 5000, "neither YAML nor JSON"),
    (b"&a [*a]", "no list of tokens"),
    (b"1: {2: 3}", "no list of tokens"),
    (b"canary", "no list of tokens"),
    (b"!!python/object/apply:os.getpid []", "neither YAML nor JSON"),
    (b"x" * 1_048_577, "larger than"),
]
ENTRY_CHANGES = [
    ({"name": ""}, "0.name"),
    ({"name": "api"}, "the record uses itself"),
    ({"name": "pubsub"}, "the record uses itself"),
    ({"name": "two words"}, "0.name"),
    ({"name": "a\n"}, "0.name"),
    ({"name": "a" * 129}, "0.name"),
    ({"name": None}, "0.name"),
    ({"role": "root"}, "0.role"),
    ({"role": None}, "0.role"),
    ({"sha256": VIEWER}, "0.sha256"),
    ({"sha256": "A" * 64}, "0.sha256"),
    ({"sha256": "a" * 63}, "0.sha256"),
    ({"expires_at": "canary"}, "0.expires_at"),
    ({"expires_at": "2026-12-31"}, "0.expires_at"),
    ({"expires_at": "2026-12-31T00:00:00"}, "0.expires_at"),
    ({"token": VIEWER}, "0.token"),
]


@pytest.mark.parametrize(("document", "words"), BROKEN)
def test_a_document_that_is_no_list_is_refused_and_not_shown(document, words):
    with pytest.raises(ValueError, match=words) as refused:
        parse_tokens(document)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(("changes", "words"), ENTRY_CHANGES)
def test_an_entry_that_is_wrong_is_refused_and_not_shown(changes, words):
    with pytest.raises(ValueError, match=words) as refused:
        parsed([{**GOOD, **changes}])
    assert "canary" not in str(refused.value)


def test_the_same_token_twice_is_refused():
    with pytest.raises(ValueError, match="more than once: a, b"):
        parsed([entry("a", "viewer", VIEWER), entry("b", "admin", VIEWER)])


@pytest.mark.parametrize(
    ("role", "includes"),
    [(Role.VIEWER, {"viewer"}), (Role.OPERATOR, {"viewer", "operator"}), (Role.ADMIN, {"viewer", "operator", "admin"})],
)
def test_each_role_includes_those_before(role, includes):
    assert {other for other in Role if role.includes(other)} == includes

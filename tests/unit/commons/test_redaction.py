import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from html import escape
from urllib.parse import quote, quote_plus

import pytest

from budeval.commons.redaction import MASK, Redactor, printable, redactor

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl"

LIKELY_SECRETS = [
    ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
    ("authorization: basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA"),
    ("the key sk-BudLiteLLMMasterKey_123 was refused", "sk-BudLiteLLMMasterKey_123"),
    (f"token {JWT} expired", JWT),
    (f"got budeval_{'a1-_' * 10}abc here", "budeval_a1"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\nAAAA\n-----END RSA PRIVATE KEY-----", "MIIB"),
    ("-----BEGIN PRIVATE KEY-----\nMIIB cut off", "MIIB"),
    ("GET http://user:hunter2@host/v1", "hunter2"),
    ("postgresql+psycopg://budeval:s3cr3t@db/record", "s3cr3t"),
    ("password=correct-horse", "correct-horse"),
    ('{"api_key": "abcdefgh"}', "abcdefgh"),
    ("token: abcdefgh", "abcdefgh"),
    ("client-key-data: LS0tLS1CRUdJTg", "LS0tLS1CRUdJTg"),
]


@pytest.mark.parametrize(("text", "secret"), LIKELY_SECRETS)
def test_what_looks_like_a_secret_is_masked(text, secret):
    masked = Redactor().redact(text)
    assert secret not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    "text",
    [
        "48 of 48 questions were answered",
        "pod demo-risk-adjusted-7f4 is Pending",
        "Job token-bucket-run completed successfully",
        "http://127.0.0.1:13200/v1",
        "max_out_len must be at most 1000000 tokens",
        "the basic idea",
    ],
)
def test_ordinary_words_stay(text):
    assert Redactor().redact(text) == text


def test_a_secret_in_use_is_masked_whatever_it_looks_like():
    redacting = Redactor()
    with redacting.hiding("an ordinary word"):
        assert redacting.redact("it said: an ordinary word!") == f"it said: {MASK}!"


ODD = 'a b/c+d"e\\f=ü>?~'


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(ODD),
        json.dumps(ODD, ensure_ascii=False),
        quote(ODD),
        quote(ODD, safe=""),
        quote_plus(ODD),
        escape(ODD),
        repr(ODD),
        repr(ODD.encode()),
        json.dumps(json.dumps({"key": ODD})),
        ODD.encode().hex(),
        ODD.encode().hex().upper(),
        base64.urlsafe_b64encode(b"u:" + ODD.encode() + b" and more").decode(),
        *(base64.b64encode(b"u:"[:before] + ODD.encode() + b" and more").decode() for before in range(3)),
    ],
)
def test_a_secret_is_masked_however_it_is_written(written):
    redacting = Redactor()
    with redacting.hiding(ODD):
        masked = redacting.redact(f"it said {written}!")
    assert MASK in masked
    # What is left of a code is at most what the secret shares with its neighbours.
    assert len(masked.replace(MASK, "")) <= len("it said !") + len(base64.b64encode(b"u: and more")) + 8


@pytest.mark.parametrize(
    "wrapped",
    [
        "the key canary-of-\na-long-key was refused",
        "| the key canary-of-   \r\n    a-long-key |",
        "2026-01-01T10:00:00.123456789Z the key canary-of-\n2026-01-01T10:00:00.123456790Z     a-long-key",
        "the key canary-of-\n \n\n  a-long-key",
        "c\na\nn\na\nr\ny\n-\no\nf\n-\na\n-\nl\no\nn\ng\n-\nk\ne\ny",
    ],
)
def test_a_secret_that_a_console_broke_into_lines_is_masked(wrapped):
    redacting = Redactor()
    with redacting.hiding("canary-of-a-long-key"):
        masked = redacting.redact(wrapped)
    assert MASK in masked
    assert "canary" not in masked
    assert "long" not in masked


def test_lines_without_a_secret_stay_as_they_are():
    redacting = Redactor()
    text = "canary-of-\nanother key\n  indented  \n\n"
    with redacting.hiding("canary-of-a-long-key"):
        assert redacting.redact(text) == text


def test_a_short_secret_is_masked_as_a_word_and_leaves_longer_words_alone():
    redacting = Redactor()
    with redacting.hiding("test"):
        assert redacting.redact("the latest tests refused 'test': test_2") == (
            f"the latest tests refused '{MASK}': {MASK}_2"
        )


@pytest.mark.parametrize("word", ["completed", "COMPLETED", "running", "Jobs"])
def test_a_key_that_is_a_word_of_ours_does_not_spoil_what_others_are_told(word):
    redacting = Redactor()
    with redacting.hiding(word):
        assert redacting.redact("Jobs: 1 completed, 2 running") == "Jobs: 1 completed, 2 running"


def test_the_code_of_a_short_secret_is_a_word_like_any_other():
    redacting = Redactor()
    with redacting.hiding("test"):
        assert redacting.redact("dGVzdA== 74657374 test") == f"dGVzdA== 74657374 {MASK}"


def test_a_secret_stays_masked_for_the_errors_that_are_told_after_its_use():
    redacting = Redactor()
    with redacting.hiding("an ordinary word"):
        pass
    assert redacting.redact("an ordinary word") == MASK


def test_a_secret_is_forgotten_some_time_after_its_use():
    now = 1000.0
    redacting = Redactor(clock=lambda: now)
    with redacting.hiding("an ordinary word"):
        now += 10_000
        assert redacting.redact("an ordinary word") == MASK
    now += 61
    assert redacting.redact("an ordinary word") == "an ordinary word"


def test_of_two_uses_the_last_one_counts():
    now = 1000.0
    redacting = Redactor(clock=lambda: now)
    with redacting.hiding("an ordinary word"):
        with redacting.hiding("an ordinary word"):
            pass
        now += 61
        assert redacting.redact("an ordinary word") == MASK


def test_of_two_secrets_the_longer_one_is_masked_first():
    redacting = Redactor()
    with redacting.hiding("canary", "canary-and-more"):
        assert redacting.redact("canary-and-more") == MASK


@pytest.mark.parametrize("nothing", [None, "", "abc"])
def test_what_is_too_short_to_be_a_secret_is_not_looked_for(nothing):
    redacting = Redactor()
    with redacting.hiding(nothing):
        assert redacting.redact("abc None") == "abc None"


def test_secrets_are_hidden_from_every_thread():
    redacting, ready = Redactor(), threading.Event()

    def look():
        ready.wait(timeout=10)
        return redacting.redact("canary")

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        with redacting.hiding("canary"):
            ready.set()
            assert looking.result(timeout=10) == MASK


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines", "two\nlines"),
        ("bell\x07 and \x1b[31mred", "bell  and  [31mred"),
        ("  around  ", "around"),
        ("实验 ü", "实验 ü"),
        ("x\u202ey", "x y"),
        ("\ud800", ""),
        ("sk-abcdefghij", MASK),
        ("x" * 2000, "x" * 999 + "…"),
    ],
)
def test_foreign_text_is_made_fit_to_show(text, shown):
    assert printable(text) == shown


def test_a_secret_at_the_cut_is_masked_before_it_is_cut():
    with redactor.hiding("canary-of-a-key"):
        assert "canary" not in printable("x" * 995 + "canary-of-a-key")

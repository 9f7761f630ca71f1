import base64

import pytest
from pydantic import SecretStr

from budeval.commons.errors import SecretsUnreadable
from budeval.commons.sealing import EvaluationSecrets, Sealer
from budeval.commons.settings import StartRefused
from tests.samples import API_KEY, KUBECONFIG, SECRETS, TOKEN

# Fixed: they are in the names of tests, which every process must give alike.
OLD, NEW = (base64.urlsafe_b64encode(letter * 32).decode() for letter in (b"o", b"n"))


def test_what_is_sealed_opens_again():
    sealer = Sealer([NEW])
    opened = sealer.open(sealer.seal(SECRETS))
    assert (opened.api_key.get_secret_value(), opened.kubeconfig_text) == (API_KEY, KUBECONFIG)


def test_nothing_to_keep_secret_is_fine():
    sealer = Sealer([NEW])
    opened = sealer.open(sealer.seal(EvaluationSecrets()))
    assert (opened.api_key.get_secret_value(), opened.kubeconfig_text) == ("", None)


def test_a_seal_shows_nothing_and_is_never_the_same():
    sealer = Sealer([NEW])
    first, second = sealer.seal(SECRETS), sealer.seal(SECRETS)
    assert first != second
    assert API_KEY.encode() not in first and TOKEN.encode() not in first


def test_secrets_do_not_show_themselves():
    assert API_KEY not in f"{SECRETS!r} {SECRETS} {SECRETS.model_dump()} {SECRETS.model_dump_json()}"


def test_keys_rotate_a_new_one_seals_and_the_old_one_still_opens():
    before = Sealer([OLD]).seal(SECRETS)
    rotated = Sealer([NEW, OLD])
    assert rotated.open(before) == SECRETS
    assert Sealer([NEW]).open(rotated.seal(SECRETS)) == SECRETS


@pytest.mark.parametrize("sealed", [Sealer([OLD]).seal(SECRETS), b"", b"not sealed", Sealer([NEW]).seal(SECRETS)[:-4]])
def test_what_cannot_be_opened_says_what_to_do(sealed):
    with pytest.raises(SecretsUnreadable, match="put the old key back"):
        Sealer([NEW]).open(sealed)


def test_keys_come_from_the_environment_and_from_a_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"{OLD}\n")
    sealer = Sealer.from_settings(SecretStr(f" {NEW} "), file)
    assert sealer.open(Sealer([OLD]).seal(SECRETS)) == SECRETS
    assert Sealer([NEW]).open(sealer.seal(SECRETS)) == SECRETS


BAD = [
    (None, None, "BUDEVAL_SEALING_KEYS or BUDEVAL_SEALING_KEYS_FILE: there is no key"),
    ("", None, "BUDEVAL_SEALING_KEYS: there is no key"),
    ("canary", None, "BUDEVAL_SEALING_KEYS: key 1 is no Fernet key"),
    (f"{NEW} canary", None, "BUDEVAL_SEALING_KEYS: key 2 is no Fernet key"),
    ("canäry", None, "BUDEVAL_SEALING_KEYS: key 1 is no Fernet key"),
    (None, b"", "BUDEVAL_SEALING_KEYS_FILE: there is no key"),
    (None, b"\xff\x00canary", "BUDEVAL_SEALING_KEYS_FILE: key 1 is no Fernet key"),
    (NEW, b"canary", "BUDEVAL_SEALING_KEYS and BUDEVAL_SEALING_KEYS_FILE: key 2 is no Fernet key"),
]


@pytest.mark.parametrize(("keys", "content", "words"), BAD)
def test_no_key_or_a_wrong_one_ends_the_start_and_says_how_to_make_one(tmp_path, keys, content, words):
    file = None if content is None else tmp_path / "keys"
    if file is not None:
        file.write_bytes(content)
    with pytest.raises(StartRefused) as refused:
        Sealer.from_settings(None if keys is None else SecretStr(keys), file)
    told = str(refused.value)
    assert told.startswith(words)
    assert "make one: python -c '" in told
    assert "can" not in told.replace("cannot", "")


def test_a_missing_file_of_keys_ends_the_start(tmp_path):
    with pytest.raises(StartRefused, match=r"^BUDEVAL_SEALING_KEYS_FILE: .*/keys cannot be used: No such file"):
        Sealer.from_settings(None, tmp_path / "keys")

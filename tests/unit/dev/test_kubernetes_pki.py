"""The cluster's keys: complete, private, renewed in time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from dev.kubernetes import pki
from dev.kubernetes.pki import Pki, ensure_pki

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path: Path) -> Pki:
    made = Pki(tmp_path)
    assert ensure_pki(made, NOW)
    return made


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_every_certificate_is_signed_by_the_authority(keys: Pki) -> None:
    authority = load(keys.authority)

    for identity in pki.IDENTITIES:
        load(keys.certificate(identity)).verify_directly_issued_by(authority)


def test_the_node_is_who_the_node_authorizer_expects(keys: Pki) -> None:
    subject = load(keys.certificate(pki.KUBELET)).subject

    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:localhost"
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"


def test_keys_are_readable_by_their_owner_only(keys: Pki) -> None:
    modes = {path.stat().st_mode & 0o777 for path in keys.folder.glob("*.key")}

    assert modes == {0o600}


def test_current_keys_are_kept(keys: Pki) -> None:
    before = keys.authority.read_bytes()

    assert not ensure_pki(keys, NOW + timedelta(days=700))
    assert keys.authority.read_bytes() == before


def test_ageing_keys_are_renewed_but_tokens_stay_valid(keys: Pki) -> None:
    signing_key = keys.service_account_key.read_bytes()

    assert ensure_pki(keys, NOW + pki.VALIDITY - timedelta(days=20))
    assert keys.service_account_key.read_bytes() == signing_key


def test_a_kubeconfig_refers_to_no_file_and_runs_no_program(keys: Pki) -> None:
    document = yaml.safe_load(pki.certificate_kubeconfig(keys, pki.ADMIN, "https://127.0.0.1:1"))

    assert set(document["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
    assert set(document["clusters"][0]["cluster"]) == {"server", "certificate-authority-data"}

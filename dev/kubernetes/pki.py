"""The cluster's own certificate authority, its certificates and kubeconfigs."""

import base64
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dev import files

VALIDITY = timedelta(days=825)
# A stack that is brought up with less than this left gets new certificates.
RENEWAL = timedelta(days=30)
NODE_NAME = "localhost"


@dataclass(frozen=True)
class Identity:
    """Who a certificate is for: `user` and `group` are what Kubernetes' RBAC sees."""

    name: str
    user: str
    group: str = ""


APISERVER = Identity("apiserver", "kube-apiserver")
ETCD = Identity("etcd", "etcd")
KUBELET_CLIENT = Identity("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
ADMIN = Identity("admin", "kubernetes-admin", "system:masters")
CONTROLLER_MANAGER = Identity("controller-manager", "system:kube-controller-manager")
SCHEDULER = Identity("scheduler", "system:kube-scheduler")
KUBELET = Identity("kubelet", f"system:node:{NODE_NAME}", "system:nodes")
IDENTITIES = (APISERVER, ETCD, KUBELET_CLIENT, ADMIN, CONTROLLER_MANAGER, SCHEDULER, KUBELET)


@dataclass(frozen=True)
class Pki:
    """The folder with all keys; file names are derived from identities."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def service_account_key(self) -> Path:
        """Signs and verifies ServiceAccount tokens."""
        return self.folder / "service-account.key"

    def certificate(self, identity: Identity) -> Path:
        return self.folder / f"{identity.name}.crt"

    def key(self, identity: Identity) -> Path:
        return self.folder / f"{identity.name}.key"


def ensure_pki(pki: Pki, now: datetime | None = None) -> bool:
    """Make all keys and certificates unless they are there and last; return whether they are new."""
    moment = now or datetime.now(UTC)
    if _is_current(pki, moment):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _sign_authority(key, moment)
    for identity in IDENTITIES:
        own = ec.generate_private_key(ec.SECP256R1())
        files.write(pki.key(identity), _pem(own), files.SECRET_MODE)
        files.write(pki.certificate(identity), _public(_sign(identity, own, authority, key, moment)))
    if not pki.service_account_key.exists():
        files.write(pki.service_account_key, _pem(ec.generate_private_key(ec.SECP256R1())), files.SECRET_MODE)
    # Last, because it is what says that the others are complete. The authority's key is not kept: nothing signs later.
    files.write(pki.authority, _public(authority))
    return True


def _is_current(pki: Pki, moment: datetime) -> bool:
    if not pki.authority.exists():
        return False
    expiry = x509.load_pem_x509_certificate(pki.authority.read_bytes()).not_valid_after_utc
    return expiry - moment > RENEWAL


def _builder(subject: x509.Name, issuer: x509.Name, moment: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        # Clocks of a virtual machine may step back a little after a resume.
        .not_valid_before(moment - timedelta(hours=1))
        .not_valid_after(moment + VALIDITY)
    )


def _sign_authority(key: ec.EllipticCurvePrivateKey, moment: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "budeval local stack")])
    return (
        _builder(name, name, moment)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signing=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _sign(
    identity: Identity,
    own: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    moment: datetime,
) -> x509.Certificate:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, identity.user)]
    if identity.group:
        names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.group))
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    return (
        _builder(x509.Name(names), authority.subject, moment)
        .public_key(own.public_key())
        .add_extension(x509.SubjectAlternativeName(_alternative_names()), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signing=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _alternative_names() -> Sequence[x509.GeneralName]:
    hosts = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    return [*(x509.DNSName(host) for host in hosts), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signing,
        crl_sign=signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # The API server does not read a ServiceAccount key in PKCS #8.
    encoding, format_ = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(encoding, format_, serialization.NoEncryption())


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_kubeconfig(pki: Pki, identity: Identity, server: str) -> str:
    """A kubeconfig with the client certificate of this identity inside."""
    user = {
        "client-certificate-data": _encode(pki.certificate(identity).read_bytes()),
        "client-key-data": _encode(pki.key(identity).read_bytes()),
    }
    return render_kubeconfig(server, pki.authority.read_bytes(), identity.name, user)


def token_kubeconfig(authority: bytes, server: str, name: str, token: str, namespace: str) -> str:
    """A kubeconfig with a bearer token inside."""
    return render_kubeconfig(server, authority, name, {"token": token}, namespace)


def render_kubeconfig(
    server: str, authority: bytes, name: str, user: dict[str, str], namespace: str = "default"
) -> str:
    """A complete kubeconfig: it refers to no other file and runs no program."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "budeval", "cluster": cluster_entry(server, authority)}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": "budeval", "user": name, "namespace": namespace}}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)


def cluster_entry(server: str, authority: bytes) -> dict[str, str]:
    """How a kubeconfig names a cluster."""
    return {"server": server, "certificate-authority-data": _encode(authority)}


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()

"""The cell's own certificate authority: made at the first start in the state directory, so that agents can verify whom they talk to.

ca.pem           for every agent (public)
ca.key           only here
manager.pem      key and certificate of the control plane, issued for MANAGER_NAME, renewed before it ends
join.secret      for every agent that is to join (secret)
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tashi.files import read_secret, write_whole

MANAGER_NAME: Final = "tashi-cluster-manager"
"""The DNS name in the control plane's certificate; agents verify it whatever address they dial."""

_AUTHORITY_DAYS: Final = 20 * 365
_DAYS: Final = 2 * 365
_RENEW_DAYS: Final = 60


class Authority:
    """A certificate and the key that signs others with it."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def new(cls, name: str, now: datetime.datetime) -> Authority:
        """One that nobody has seen before."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        certificate = (
            _builder(subject, subject, key.public_key(), now, _AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Authority:
        """The one that was written as these two PEM texts."""
        loaded = serialization.load_pem_private_key(key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        return cls(x509.load_pem_x509_certificate(certificate), loaded)

    @property
    def pem(self) -> bytes:
        """The certificate, for those who are to trust it."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The signing key."""
        return _pem(self._key)

    def issue(self, names: Sequence[str], now: datetime.datetime, days: int = _DAYS, *, peer: bool = False) -> tuple[bytes, bytes]:
        """A new key and its certificate for a server with these DNS names or IP addresses, both as PEM; a ``peer`` is a client, too."""
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if peer else [])]
        certificate = (
            _builder(_named(names[0]), self._certificate.subject, key.public_key(), now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False, enciphers_keys=peer), critical=True)  # libvirt asks that of its peers
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _pem(key), certificate.public_bytes(serialization.Encoding.PEM)


def prepare(directory: Path, now: float) -> Path:
    """Make what is missing or about to end, and return the path of the control plane's key and certificate.

    ``now`` is in seconds since the epoch. Raises OSError when the directory cannot be written.
    """
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    ca_file, ca_key_file, manager_file = (directory / name for name in ("ca.pem", "ca.key", "manager.pem"))
    if not ca_file.exists() or not ca_key_file.exists():
        made = Authority.new("Tashi cell", moment)
        write_whole(ca_key_file, made.key_pem)
        write_whole(ca_file, made.pem, 0o644)
        manager_file.unlink(missing_ok=True)
    if not manager_file.exists() or _ends_soon(manager_file, moment):
        key, certificate = Authority.load(ca_file.read_bytes(), ca_key_file.read_bytes()).issue([MANAGER_NAME], moment)
        write_whole(manager_file, key + certificate)
    return manager_file


def join_secret(directory: Path) -> str:
    """Return the secret with which a new agent joins the cell, made when there is none. OurFault when it is unusable."""
    path = directory / "join.secret"
    if not path.exists() and not path.is_symlink():
        write_whole(path, secrets.token_hex(32).encode() + b"\n")
    return read_secret(path, "remove it and start again: a new one is made, which agents that have yet to join need")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool, enciphers_keys: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=enciphers_keys,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _ends_soon(path: Path, now: datetime.datetime) -> bool:
    certificate = x509.load_pem_x509_certificate(path.read_bytes().split(b"-----END PRIVATE KEY-----\n", 1)[1])
    return certificate.not_valid_after_utc < now + datetime.timedelta(days=_RENEW_DAYS)

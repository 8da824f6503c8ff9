"""The cell's own certificate authority: made at the first start in the state directory, so that agents can verify whom they talk to.

ca.pem           for every agent (public)
ca.key           only here
manager.pem      key and certificate of the control plane, issued for MANAGER_NAME, renewed before it ends
join.secret      for every agent that is to join (secret)
"""

from __future__ import annotations

import datetime
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

MANAGER_NAME: Final = "tashi-cluster-manager"
"""The DNS name in the control plane's certificate; agents verify it whatever address they dial."""

_CA_DAYS: Final = 20 * 365
_DAYS: Final = 2 * 365
_RENEW_DAYS: Final = 60


def prepare(directory: Path, now: float) -> Path:
    """Make what is missing or about to end, and return the path of the control plane's key and certificate.

    ``now`` is in seconds since the epoch. Raises OSError when the directory cannot be written.
    """
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    ca_file, ca_key_file, manager_file = (directory / name for name in ("ca.pem", "ca.key", "manager.pem"))
    if not ca_file.exists() or not ca_key_file.exists():
        ca_key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tashi cell")])
        ca = (
            _builder(name, name, ca_key.public_key(), moment, _CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        write_secret(ca_key_file, _pem(ca_key))
        _write(ca_file, ca.public_bytes(serialization.Encoding.PEM), 0o644)
        manager_file.unlink(missing_ok=True)
    if not manager_file.exists() or _ends_soon(manager_file, moment):
        ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
        loaded = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, MANAGER_NAME)])
        certificate = (
            _builder(name, ca.subject, key.public_key(), moment, _DAYS)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(MANAGER_NAME)]), critical=False)
            .sign(loaded, hashes.SHA256())
        )
        write_secret(manager_file, _pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
    return manager_file


def join_secret(directory: Path) -> str:
    """The secret with which a new agent joins the cell; made when there is none."""
    path = directory / "join.secret"
    if not path.exists():
        write_secret(path, secrets.token_hex(32).encode() + b"\n")
    return path.read_text().strip()


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    _write(path, content, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _ends_soon(path: Path, now: datetime.datetime) -> bool:
    certificate = x509.load_pem_x509_certificate(path.read_bytes().split(b"-----END PRIVATE KEY-----\n", 1)[1])
    return certificate.not_valid_after_utc < now + datetime.timedelta(days=_RENEW_DAYS)

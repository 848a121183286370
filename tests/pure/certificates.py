"""A CA, users, proxies and certificate requests, made with `cryptography`; OpenSSL judges them.

Nothing of `arcbackend.x509` is used: ProxyCertInfo is written byte by byte here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Kind: TypeAlias = Literal["rsa", "ec"]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = 24 * HOUR
VALID = (NOW - DAY, NOW + DAY)

PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
DRAFT_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
VOMS = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
INHERIT_ALL = bytes.fromhex("06082b06010505071501")
INDEPENDENT = bytes.fromhex("06082b06010505071502")
LIMITED = bytes.fromhex("060b2b060104019b5001010109")

PREFIX = ((NameOID.DOMAIN_COMPONENT, "org"), (NameOID.DOMAIN_COMPONENT, "example"))


def der(tag: int, content: bytes) -> bytes:
    """One short element of DER."""
    assert len(content) < 128
    return bytes([tag, len(content)]) + content


def proxy_cert_info(policy: bytes = INHERIT_ALL, path_length: int | None = None) -> bytes:
    """ProxyCertInfo as RFC 3820 writes it."""
    length = b"" if path_length is None else der(0x02, bytes([path_length]))
    return der(0x30, length + der(0x30, policy))


@cache
def key(kind: Kind = "ec", number: int = 0) -> Key:
    """One key for each number, made once."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(private: Any, form: str = "PKCS8", password: bytes | None = None) -> bytes:
    """A private key in PEM, as one of OpenSSL's formats."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    kind = getattr(serialization.PrivateFormat, form)
    pem: bytes = private.private_bytes(serialization.Encoding.PEM, kind, encryption)
    return pem


def usage(**bits: bool) -> x509.KeyUsage:
    """Key usage with these bits and no others."""
    nothing = dict.fromkeys(signature(x509.KeyUsage).parameters, False)
    return x509.KeyUsage(**{**nothing, **bits})


USER_USAGE = usage(digital_signature=True, content_commitment=True, key_encipherment=True)


@dataclass(frozen=True)
class Credential:
    """A certificate, its key, and the certificates behind it, without the CA's."""

    certificate: x509.Certificate
    key: Key
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        return (self.certificate, *self.above)

    def pem(self, form: str = "PKCS8") -> bytes:
        """As voms-proxy-init and arcproxy write it: certificate, key, chain."""
        first, *others = certificates_pem(self.chain)
        return b"".join((first, key_pem(self.key, form), *others))


def certificates_pem(certificates: Sequence[x509.Certificate]) -> list[bytes]:
    return [each.public_bytes(serialization.Encoding.PEM) for each in certificates]


def name(*pairs: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in (*PREFIX, *pairs)])


def issue(
    subject: x509.Name,
    public_key: Any,
    issuer: x509.Name,
    issuer_key: Key,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    *,
    valid: tuple[datetime, datetime] = VALID,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())


@cache
def authority() -> Credential:
    subject = name((NameOID.COMMON_NAME, "CA"))
    private = key("rsa", 1000)
    extensions = [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (usage(key_cert_sign=True, crl_sign=True), True),
    ]
    valid = (NOW - 1000 * DAY, NOW + 1000 * DAY)
    public = private.public_key()
    return Credential(issue(subject, public, subject, private, extensions, valid=valid), private)


def user(
    private: Key | None = None,
    *,
    subject: x509.Name | None = None,
    key_usage: x509.KeyUsage | None = USER_USAGE,
    valid: tuple[datetime, datetime] = (NOW - 30 * DAY, NOW + 30 * DAY),
) -> Credential:
    """An end entity's certificate."""
    private = private or key()
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True)
    ]
    if key_usage is not None:
        extensions.append((key_usage, True))
    subject = subject or name((NameOID.COMMON_NAME, "Ann"))
    ca = authority()
    certificate = issue(
        subject, private.public_key(), ca.certificate.subject, ca.key, extensions, valid=valid
    )
    return Credential(certificate, private)


def proxy(
    parent: Credential | None = None,
    private: Key | None = None,
    *,
    info: bytes | None = None,
    oid: x509.ObjectIdentifier = PROXY_CERT_INFO,
    common_name: str = "12345",
    key_usage: x509.KeyUsage | None = None,
    valid: tuple[datetime, datetime] = VALID,
    voms: bytes | None = None,
) -> Credential:
    """A proxy by RFC 3820; ``info=b""``: without ProxyCertInfo, as Globus' legacy ones."""
    parent = parent or user()
    private = private or key("ec", 1 + len(parent.chain))
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    if info is None:
        info = proxy_cert_info()
    if info:
        extensions.append((x509.UnrecognizedExtension(oid, info), True))
    if key_usage is not None:
        extensions.append((key_usage, True))
    if voms is not None:
        extensions.append((x509.UnrecognizedExtension(VOMS, voms), False))
    own = x509.NameAttribute(NameOID.COMMON_NAME, common_name)
    subject = x509.Name([*parent.certificate.subject.rdns, x509.RelativeDistinguishedName([own])])
    certificate = issue(
        subject,
        private.public_key(),
        parent.certificate.subject,
        parent.key,
        extensions,
        valid=valid,
    )
    return Credential(certificate, private, parent.chain)


def with_ca(credential: Credential) -> Credential:
    """The same with the CA's certificate at the end of its chain."""
    return replace(credential, above=(*credential.above, authority().certificate))


def request(
    private: Any = None,
    *,
    encoding: serialization.Encoding = serialization.Encoding.PEM,
    extensions: Sequence[x509.ExtensionType] = (),
    subject: x509.Name | None = None,
) -> bytes:
    """A certificate request, as A-REX's: without a subject, for an RSA key."""
    private = private or key("rsa", 2000)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    algorithm = hashes.SHA256() if isinstance(private, Key) else None
    return builder.sign(private, algorithm).public_bytes(encoding)


def openssl_says(chain: bytes, folder: Path, at: datetime = NOW) -> str:
    """What ``openssl verify`` says to a chain whose first certificate comes first, e.g. ``OK``."""
    if shutil.which("openssl") is None:
        assert os.environ.get("CI") != "true", "openssl is missing"
        pytest.skip("openssl is not installed")
    (folder / "ca.pem").write_bytes(certificates_pem([authority().certificate])[0])
    (folder / "chain.pem").write_bytes(chain)
    done = subprocess.run(
        [
            *("openssl", "verify", "-allow_proxy_certs", "-attime", f"{at.timestamp():.0f}"),
            *("-CAfile", "ca.pem", "-untrusted", "chain.pem", "chain.pem"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.removeprefix("chain.pem: ").strip() or done.stderr

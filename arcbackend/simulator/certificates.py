"""Certificates, proxies and certificate requests, made with `cryptography`. No I/O, no clock.

Nothing of `arcbackend.x509` is used, which is tested against it: ProxyCertInfo is written byte by
byte here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from inspect import signature
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

__all__ = [
    "INHERIT_ALL",
    "LIMITED",
    "PROXY_CERT_INFO",
    "USER_USAGE",
    "Credential",
    "Key",
    "certificates_pem",
    "hashed_name",
    "issue",
    "issue_proxy",
    "issue_user",
    "key_pem",
    "proxy_cert_info",
    "request_for",
    "usage",
]

Key: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
"""RFC 3820, section 3.8."""
INHERIT_ALL = bytes.fromhex("06082b06010505071501")
"""The policy of a proxy that may all that its signer may, in DER."""
LIMITED = bytes.fromhex("060b2b060104019b5001010109")
"""Globus' policy of a proxy that may start no jobs, in DER."""


@dataclass(frozen=True, repr=False)
class Credential:
    """A certificate, its key, and the certificates behind it, without the CA's."""

    certificate: x509.Certificate
    key: Key
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificate and those behind it."""
        return (self.certificate, *self.above)

    def pem(self, form: str = "PKCS8") -> bytes:
        """As voms-proxy-init and arcproxy write it: certificate, key, chain."""
        first, *others = certificates_pem(self.chain)
        return b"".join((first, key_pem(self.key, form), *others))


def certificates_pem(certificates: Sequence[x509.Certificate]) -> list[bytes]:
    """Each in PEM."""
    return [each.public_bytes(serialization.Encoding.PEM) for each in certificates]


def key_pem(private: Any, form: str = "PKCS8", password: bytes | None = None) -> bytes:
    """A private key in PEM, as one of OpenSSL's formats."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    kind = getattr(serialization.PrivateFormat, form)
    pem: bytes = private.private_bytes(serialization.Encoding.PEM, kind, encryption)
    return pem


def hashed_name(certificate: x509.Certificate) -> str:
    """The name of an authority's file in a directory of them (``openssl x509 -subject_hash``).

    Of what OpenSSL makes of names to compare them, only that is done which our own names need.
    """
    canonical = x509.Name(
        x509.NameAttribute(each.oid, " ".join(str(each.value).lower().split()))
        for each in certificate.subject
    )
    # SHA-1 of the names one behind the other, without what holds them together.
    digest = hashes.Hash(hashes.SHA1())  # noqa: S303 - it is OpenSSL's
    for rdn in canonical.rdns:
        digest.update(x509.Name([rdn]).public_bytes()[2:])
    return f"{int.from_bytes(digest.finalize()[:4], 'little'):08x}.0"


def proxy_cert_info(policy: bytes = INHERIT_ALL, path_length: int | None = None) -> bytes:
    """ProxyCertInfo as RFC 3820 writes it.

    Args:
        policy: the language of its policy, in DER.
        path_length: how many proxies may follow; None: any number.
    """
    length = b"" if path_length is None else _der(0x02, bytes([path_length]))
    return _der(0x30, length + _der(0x30, policy))


def usage(**bits: bool) -> x509.KeyUsage:
    """Key usage with these bits and no others."""
    nothing = dict.fromkeys(signature(x509.KeyUsage).parameters, False)
    return x509.KeyUsage(**{**nothing, **bits})


USER_USAGE = usage(digital_signature=True, content_commitment=True, key_encipherment=True)
"""What a user's certificate is for."""


def issue(
    subject: x509.Name,
    public_key: Any,
    issuer: x509.Name,
    issuer_key: Key,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    *,
    valid: tuple[datetime, datetime],
) -> x509.Certificate:
    """Sign a certificate.

    Args:
        subject: whose it is.
        public_key: of the subject.
        issuer: who signs.
        issuer_key: with which key.
        extensions: each with whether it is critical.
        valid: from when to when.
    """
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


def issue_user(
    subject: x509.Name,
    private: Key,
    ca: Credential,
    *,
    valid: tuple[datetime, datetime],
    key_usage: x509.KeyUsage | None = USER_USAGE,
) -> Credential:
    """An end entity's certificate."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True)
    ]
    if key_usage is not None:
        extensions.append((key_usage, True))
    certificate = issue(
        subject, private.public_key(), ca.certificate.subject, ca.key, extensions, valid=valid
    )
    return Credential(certificate, private)


def issue_proxy(
    parent: Credential,
    private: Key,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    *,
    valid: tuple[datetime, datetime],
    common_name: str,
) -> Credential:
    """A certificate that a user or a proxy signs.

    Args:
        parent: who signs.
        private: the new key.
        extensions: of the proxy; `proxy_cert_info` makes the one that RFC 3820 asks for.
        valid: from when to when.
        common_name: what its subject has in addition to the parent's.
    """
    own = x509.NameAttribute(NameOID.COMMON_NAME, common_name)
    above = parent.certificate.subject
    certificate = issue(
        x509.Name([*above.rdns, x509.RelativeDistinguishedName([own])]),
        private.public_key(),
        above,
        parent.key,
        extensions,
        valid=valid,
    )
    return Credential(certificate, private, parent.chain)


def request_for(
    private: Any,
    *,
    encoding: serialization.Encoding = serialization.Encoding.PEM,
    extensions: Sequence[x509.ExtensionType] = (),
    subject: x509.Name | None = None,
) -> bytes:
    """A certificate request; without a subject it is like A-REX's own (DelegationInterface.cpp)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    algorithm = hashes.SHA256() if isinstance(private, Key) else None
    return builder.sign(private, algorithm).public_bytes(encoding)


def _der(tag: int, content: bytes) -> bytes:
    """One short element of DER."""
    assert len(content) < 128  # noqa: PLR2004  (longer ones have another form)
    return bytes([tag, len(content)]) + content

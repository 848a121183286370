"""A CA, users, proxies and certificate requests, made with `cryptography`; OpenSSL judges them.

Nothing of `arcbackend.x509` is used, which they are to test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from arcbackend.simulator import certificates as shared
from arcbackend.simulator.certificates import (
    INHERIT_ALL,
    LIMITED,
    PROXY_CERT_INFO,
    USER_USAGE,
    Credential,
    Key,
    certificates_pem,
    issue_proxy,
    issue_user,
    key_pem,
    proxy_cert_info,
    request_for,
    usage,
)

__all__ = [
    "DAY",
    "DRAFT_PROXY_CERT_INFO",
    "HOUR",
    "INDEPENDENT",
    "INHERIT_ALL",
    "LIMITED",
    "NOW",
    "PROXY_CERT_INFO",
    "USER_USAGE",
    "VALID",
    "Credential",
    "authority",
    "certificates_pem",
    "issue",
    "key",
    "key_pem",
    "name",
    "openssl_says",
    "proxy",
    "proxy_cert_info",
    "request",
    "usage",
    "user",
    "with_ca",
]

Kind: TypeAlias = Literal["rsa", "ec"]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = 24 * HOUR
VALID = (NOW - DAY, NOW + DAY)

DRAFT_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
VOMS = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
INDEPENDENT = bytes.fromhex("06082b06010505071502")

PREFIX = ((NameOID.DOMAIN_COMPONENT, "org"), (NameOID.DOMAIN_COMPONENT, "example"))


@cache
def key(kind: Kind = "ec", number: int = 0) -> Key:
    """One key for each number, made once."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


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
    """Sign a certificate."""
    return shared.issue(subject, public_key, issuer, issuer_key, extensions, valid=valid)


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
    subject = subject or name((NameOID.COMMON_NAME, "Ann"))
    return issue_user(subject, private or key(), authority(), valid=valid, key_usage=key_usage)


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
    return issue_proxy(parent, private, extensions, valid=valid, common_name=common_name)


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
    return request_for(
        private or key("rsa", 2000), encoding=encoding, extensions=extensions, subject=subject
    )


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

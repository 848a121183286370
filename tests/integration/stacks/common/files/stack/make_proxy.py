#!/usr/bin/python3
"""Make a user certificate and an RFC 3820 proxy of it: JSON on standard input, PEM on the output.

Runs inside, where the CA's key and `cryptography` are. What may be asked: stacklib/proxies.py.
"""

import datetime
import json
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

_GRID = Path("/etc/grid-security")
_CA = _GRID / "certificates" / "ARC-TestCA-stack.pem"
_CA_KEY = _GRID / "certificates" / "ARC-TestCA-stack-key.pem"
_ALLOWED = _GRID / "testCA.allowed-subjects"
# As `arcctl test-ca` names its users.
_PREFIX = (
    (NameOID.DOMAIN_COMPONENT, "org"),
    (NameOID.DOMAIN_COMPONENT, "nordugrid"),
    (NameOID.DOMAIN_COMPONENT, "ARC"),
    (NameOID.ORGANIZATION_NAME, "TestCA"),
)

# RFC 3820, 3.8: id-pe-proxyCertInfo, and what id-ppl-inheritAll is in DER.
_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_INHERIT_ALL = bytes.fromhex("06082b06010505071501")
# 1.3.6.1.4.1.3536.1.1.1.9, of the Globus toolkit: may not start jobs.
_LIMITED = bytes.fromhex("060b2b060104019b5001010109")

_Key = Any
_Validity = tuple[datetime.datetime, datetime.datetime]
_SLACK = datetime.timedelta(minutes=5)
_CERTIFICATE_LIFETIME = datetime.timedelta(days=30)


def main() -> None:
    """Do what standard input says."""
    asked = json.load(sys.stdin)
    now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 (the suite's Python)
    lifetime = datetime.timedelta(seconds=asked["lifetime"])
    ca, ca_key = _foreign_ca(now) if asked["foreign_ca"] else _ca()
    name, key = _name(asked["user"]), _new_key("rsa", None)
    validity = now - _CERTIFICATE_LIFETIME, now + max(lifetime, _CERTIFICATE_LIFETIME)
    chain = [_user_certificate(name, key, ca, ca_key, validity)]
    for more in reversed(range(asked["depth"])):
        proxy_key = _new_key(asked["key"], asked["bits"])
        start = min(now, now + lifetime) - _SLACK
        length = asked["path_length"]
        info = _proxy_cert_info(None if length is None else length + more, asked["limited"])
        proxy = _proxy(chain[0], key, proxy_key, (start, now + lifetime), info)
        chain.insert(0, proxy)
        key = proxy_key
    if asked["listed"]:
        with _ALLOWED.open("a") as allowed:
            allowed.write(f'"{_subject(name)}"\n')
    first, *others = [each.public_bytes(serialization.Encoding.PEM).decode() for each in chain]
    sys.stdout.write("".join([first, _pem(key), *others]))


def _name(user: str) -> x509.Name:
    pairs = (*_PREFIX, (NameOID.COMMON_NAME, user))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _subject(name: x509.Name) -> str:
    """Return a name as ARC writes it."""
    return "".join(f"/{part.rfc4514_attribute_name}={part.value!s}" for part in name)


def _ca() -> tuple[x509.Certificate, _Key]:
    certificate = x509.load_pem_x509_certificate(_CA.read_bytes())
    return certificate, serialization.load_pem_private_key(_CA_KEY.read_bytes(), None)


def _foreign_ca(now: datetime.datetime) -> tuple[x509.Certificate, _Key]:
    """Make a CA that nobody trusts."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Foreign CA")])
    key = _new_key("rsa", None)
    validity = now - 2 * _CERTIFICATE_LIFETIME, now + _CERTIFICATE_LIFETIME
    usage = _key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(name, name, key, validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _user_certificate(
    name: x509.Name,
    key: _Key,
    ca: x509.Certificate,
    ca_key: _Key,
    validity: _Validity,
) -> x509.Certificate:
    usage = _key_usage(digital_signature=True, content_commitment=True, key_encipherment=True)
    return (
        _builder(name, ca.subject, key, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        .add_extension(usage, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _proxy(
    issuer: x509.Certificate,
    issuer_key: _Key,
    key: _Key,
    validity: _Validity,
    info: bytes,
) -> x509.Certificate:
    serial = x509.random_serial_number() >> 96
    own = x509.NameAttribute(NameOID.COMMON_NAME, str(serial))
    usage = _key_usage(digital_signature=True, key_encipherment=True)
    name = x509.Name([*issuer.subject, own])
    return (
        _builder(name, issuer.subject, key, validity, serial)
        .add_extension(x509.UnrecognizedExtension(_PROXY_CERT_INFO, info), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _proxy_cert_info(path_length: int | None, limited: bool) -> bytes:
    policy = _der(0x30, _LIMITED if limited else _INHERIT_ALL)
    length = b"" if path_length is None else _der(0x02, bytes([path_length]))
    return _der(0x30, length + policy)


def _der(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content


def _builder(
    name: x509.Name,
    issuer: x509.Name,
    key: _Key,
    validity: _Validity,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
    )


def _key_usage(**usages: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: usages.get(name, False) for name in names})


def _new_key(kind: str, bits: int | None) -> _Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=bits or 2048)
    curves = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
    return ec.generate_private_key(curves[bits or 256])


def _pem(key: _Key) -> str:
    encoding, no = serialization.Encoding.PEM, serialization.NoEncryption()
    # RSA keys as every tool of the grid writes and reads them.
    old = serialization.PrivateFormat.TraditionalOpenSSL
    pem: bytes = key.private_bytes(encoding, old, no)
    return pem.decode()


main()

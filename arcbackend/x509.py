"""X.509 proxies: read one, and sign a CE's certificate request with it. No I/O, no clock.

The rules are those of RFC 3820 (proxies) and RFC 5280 (certificates). Where they leave a choice it
is made as ARC's own client does (``DelegationProvider::Delegate`` in
``src/hed/libs/delegation/DelegationInterface.cpp``), so that a CE sees what it is used to.

`cryptography` takes 0.04 s to import: who does not always need this module imports it late.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NoReturn, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from arcbackend.errors import AuthenticationError, ConfigurationError, ProtocolError

__all__ = [
    "CLOCK_SKEW",
    "CertificateChain",
    "Proxy",
    "ProxyInfo",
    "check_signer",
    "earliest_end",
    "read_chain",
    "sign_request",
]

CLOCK_SKEW = timedelta(minutes=5)
"""How far a CE's clock may be behind ours: proxies begin so much earlier, as ARC's client's do."""

_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_INHERIT_ALL = x509.ObjectIdentifier("1.3.6.1.5.5.7.21.1")
_LIMITED = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.1.1.9")
_COMMENT = x509.ObjectIdentifier("2.16.840.1.113730.1.13")
_VOMS = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
# An OCTET STRING, its length in one byte or two, as it stands in an attribute certificate's
# IetfAttrSyntax (OGSA-AuthZ, VOMS attribute certificate format, GFD.182).
_FQAN = re.compile(rb"\x04([\x01-\x7f]|\x81[\x80-\xff])(?=/)([!-~]{1,255})")
# What Globus made before there was RFC 3820.
_DRAFT_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
_LEGACY_NAMES = frozenset({"proxy", "limited proxy"})

_KEY_BEGINS = re.compile(rb"-----BEGIN ((?:[A-Z]{1,20} )?PRIVATE KEY)-----")
_MOST_BYTES = 2**20  # A-REX reads no more of a chain (processDelegation in rest.cpp)
_MOST_CERTIFICATES = 50
_MOST_REQUEST_BYTES = 2**16
_LEAST_RSA_BITS = 2048
_LEAST_EC_BITS = 256
_MALFORMED = (
    TypeError,
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises of what it cannot read."""

_Key: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
_Certificates: TypeAlias = tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    """What the ProxyCertInfo of a proxy says.

    Attributes:
        path_length: how many proxies may be signed below it; None: any number.
        is_limited: True if it is limited in Globus' sense: services start no jobs for it.
    """

    path_length: int | None
    is_limited: bool


@dataclass(frozen=True, slots=True, repr=False)
class CertificateChain:
    """Certificates, each signed by the next: proxies, the end entity they stand for, its CAs.

    Attributes:
        certificates: from the last proxy, or the end entity if there is none, upwards.
        infos: of each of the proxies, in the same order.
    """

    certificates: _Certificates
    infos: tuple[ProxyInfo, ...]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.subject} until {self.expiry.isoformat()}>"

    @property
    def subject(self) -> str:
        """Subject of the first certificate, as ARC writes it: ``/DC=org/CN=…``."""
        return _distinguished_name(self.certificates[0].subject)

    @property
    def identity(self) -> str:
        """Subject of the end entity: whom the proxies stand for, and a CE maps."""
        return _distinguished_name(self.certificates[len(self.infos)].subject)

    @property
    def begin(self) -> datetime:
        """From when on all of it is valid."""
        return max(certificate.not_valid_before_utc for certificate in self.certificates)

    @property
    def expiry(self) -> datetime:
        """When the first of its certificates ends."""
        return min(certificate.not_valid_after_utc for certificate in self.certificates)

    @property
    def is_limited(self) -> bool:
        """True if one of the proxies is limited: then so is all that it signs."""
        return any(info.is_limited for info in self.infos)

    @property
    def path_length(self) -> int | None:
        """How many proxies may be signed below the last one; None: any number."""
        lengths = [
            info.path_length - below
            for below, info in enumerate(self.infos)
            if info.path_length is not None
        ]
        return min(lengths, default=None)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The VOMS attributes (FQANs) that the proxies carry, in their order.

        For telling one role from another only: no signature is verified.
        """
        found: dict[str, None] = {}
        for certificate in self.certificates[: len(self.infos)]:
            try:
                extension = certificate.extensions.get_extension_for_oid(_VOMS)
            except (x509.ExtensionNotFound, *_MALFORMED):
                continue
            for size, text in _FQAN.findall(extension.value.public_bytes()):
                found[text[: size[-1]].decode("ascii")] = None
        return tuple(found)

    @property
    def comment(self) -> str | None:
        """The comment that `sign_request` put into the first certificate; None if it has none."""
        try:
            extension = self.certificates[0].extensions.get_extension_for_oid(_COMMENT)
            return asn1.decode_der(asn1.IA5String, extension.value.public_bytes()).as_str()
        except (x509.ExtensionNotFound, *_MALFORMED):
            return None

    def public_pem(self) -> bytes:
        """The certificates in PEM."""
        encoding = serialization.Encoding.PEM
        return b"".join(certificate.public_bytes(encoding) for certificate in self.certificates)


@dataclass(frozen=True, slots=True, repr=False)
class Proxy(CertificateChain):
    """A proxy with its key; or a user's own certificate with its key, which signs proxies as well.

    Attributes:
        key: the private key of the first certificate. No representation shows it.
    """

    key: _Key = field(compare=False)

    @classmethod
    def from_pem(cls, pem: bytes) -> Proxy:
        """Read a private key, its certificate and the chain behind it, in any order.

        Certificates in it that are no part of the chain are left out.

        Raises:
            ConfigurationError: this is no usable proxy; the message says why.
        """
        found = _read(pem)
        del pem  # a traceback that shows local variables must not show it
        if isinstance(found, str):
            raise _unusable(found)
        return cls(*found)

    def __reduce__(self) -> NoReturn:
        raise TypeError("private keys are not pickled")


def read_chain(pem: bytes) -> CertificateChain | None:
    """Read a chain whose first certificate comes first, as a CE returns what it has stored.

    Returns:
        The chain; None if this is not a whole one.
    """
    try:
        certificates = _certificates(pem)
        chain, infos = _linked(certificates[0], certificates)
    except _MALFORMED:
        return None
    return None if _fault(chain, infos) else CertificateChain(chain, infos)


def earliest_end(pem: bytes) -> datetime | None:
    """When the first of the certificates in some PEM ends; None if that cannot be told."""
    try:
        return min(certificate.not_valid_after_utc for certificate in _certificates(pem))
    except _MALFORMED:
        return None


def check_signer(proxy: Proxy, now: datetime) -> None:
    """Check that `sign_request` will not fail for its signer: before a CE is asked for a request.

    Raises:
        AuthenticationError, ConfigurationError: as `sign_request`.
    """
    _validity(proxy, now, None)
    _inherited(proxy)
    _usage(proxy.certificates[0])


def sign_request(
    request: bytes,
    proxy: Proxy,
    now: datetime,
    *,
    lifetime: timedelta | None = None,
    comment: str | None = None,
) -> bytes:
    """Sign a certificate request, as a proxy that inherits all that the signer may.

    Of the request only the public key is used. The new proxy is limited if the signer is, may sign
    one proxy less than it, and is valid within the signer's whole chain. That chain follows it, so
    that VOMS attributes in it stay what they are.

    Args:
        request: PKCS #10, PEM or DER.
        proxy: the signer.
        now: the time. The proxy begins `CLOCK_SKEW` earlier.
        lifetime: how long it is valid from now on; None: as long as the signer.
        comment: ASCII that `CertificateChain.comment` gives back, to tell one's own proxies from
            others' (``nsComment``, not critical).

    Returns:
        PEM: the new certificate, and the signer's chain.

    Raises:
        ProtocolError: the request is none, is not signed with its own key, or has a weak one.
        AuthenticationError: the signer has expired, or is not valid yet.
        ConfigurationError: the signer may not sign proxies.
    """
    public_key = _requested_key(request)
    issuer = proxy.certificates[0]
    begin, end = _validity(proxy, now, lifetime)
    serial = secrets.randbelow(2**63 - 1) + 1  # a CE renews with the same key: no hash of it
    own_name = x509.NameAttribute(x509.NameOID.COMMON_NAME, str(serial))
    name = x509.Name([*issuer.subject.rdns, x509.RelativeDistinguishedName([own_name])])
    builder = (
        x509.CertificateBuilder()
        .serial_number(serial)
        .issuer_name(issuer.subject)
        .subject_name(name)
        .not_valid_before(begin)
        .not_valid_after(end)
        .public_key(public_key)
        .add_extension(_key_usage(issuer, public_key), critical=True)
        .add_extension(_encoded(_PROXY_CERT_INFO, _inherited(proxy)), critical=True)
    )
    if comment is not None:
        builder = builder.add_extension(_encoded(_COMMENT, asn1.IA5String(comment)), critical=False)
    certificate = builder.sign(proxy.key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM) + proxy.public_pem()


@asn1.sequence
class _ProxyPolicy:
    """RFC 3820, section 3.8."""

    language: x509.ObjectIdentifier
    policy: bytes | None


@asn1.sequence
class _ProxyCertInfo:
    """RFC 3820, section 3.8."""

    path_length: int | None
    policy: _ProxyPolicy


# Reading


def _read(pem: bytes) -> tuple[_Certificates, tuple[ProxyInfo, ...], _Key] | str:
    """The chain, what its proxies say, and the key; or what is wrong, without quoting any of it."""
    key = _private_key(pem)
    if isinstance(key, str):
        return key
    try:
        certificates = _certificates(pem)
        own = key.public_key()
        first = next((each for each in certificates if each.public_key() == own), None)
        if first is None:
            return "its private key belongs to none of its certificates"
        chain, infos = _linked(first, certificates)
    except _MALFORMED as exc:
        return f"its certificates cannot be read ({type(exc).__name__})"
    return _fault(chain, infos) or (chain, infos, key)


def _private_key(pem: bytes) -> _Key | str:
    found = list(_KEY_BEGINS.finditer(pem, 0, _MOST_BYTES))
    if len(found) != 1:
        return f"it has {len(found) or 'no'} private key{'s' * (len(found) > 1)}"
    marker = b"-----END " + found[0][1] + b"-----"
    block, ended, _ = pem[found[0].start() :].partition(marker)
    if b"ENCRYPTED" in block[:200]:  # in the label, or in a header (RFC 1421)
        return "its private key is encrypted, as a proxy's never is"
    try:
        key = serialization.load_pem_private_key(block + ended, password=None)
    except _MALFORMED:
        return "its private key cannot be read" if ended else "its private key is cut off"
    return key if isinstance(key, _Key) else "its private key is neither RSA nor elliptic"


def _certificates(pem: bytes) -> Sequence[x509.Certificate]:
    """The certificates, at least one; raises some of `_MALFORMED`."""
    if len(pem) > _MOST_BYTES:
        raise ValueError(f"longer than {_MOST_BYTES} bytes")
    certificates = x509.load_pem_x509_certificates(pem)
    if len(certificates) > _MOST_CERTIFICATES:
        raise ValueError(f"more than {_MOST_CERTIFICATES} certificates")
    return certificates


def _linked(
    first: x509.Certificate, pool: Sequence[x509.Certificate]
) -> tuple[_Certificates, tuple[ProxyInfo, ...]]:
    """The chain from the first certificate upwards, as far as it goes, and what its proxies say."""
    chain = [first]
    infos: list[ProxyInfo] = []
    while (issuer := next((each for each in pool if _issued(chain[-1], each)), None)) is not None:
        if issuer in chain:  # it signed itself
            break
        chain.append(issuer)
    for certificate in chain:
        if (info := _proxy_info(certificate)) is None:
            break
        infos.append(info)
    return tuple(chain), tuple(infos)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if certificate.issuer != issuer.subject:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_MALFORMED):
        return False
    return True


def _proxy_info(certificate: x509.Certificate) -> ProxyInfo | None:
    """What the certificate says if it is a proxy by RFC 3820; None if it is none."""
    try:
        extension = certificate.extensions.get_extension_for_oid(_PROXY_CERT_INFO)
    except x509.ExtensionNotFound:
        return None
    info = asn1.decode_der(_ProxyCertInfo, extension.value.public_bytes())
    return ProxyInfo(info.path_length, info.policy.language == _LIMITED)


def _fault(chain: _Certificates, infos: tuple[ProxyInfo, ...]) -> str | None:
    """Why the chain is not one from proxies, or none, to an end entity."""
    if len(infos) == len(chain):
        return "a certificate of its chain is missing: the one behind its last proxy"
    end_entity = chain[len(infos)]
    if _is_legacy(end_entity):
        return (
            "it is a legacy Globus proxy, which ARC 7 does not accept; make one by RFC 3820 "
            "(arcproxy, voms-proxy-init -rfc)"
        )
    try:
        basic = end_entity.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None
    return "its certificate is a CA's, not a user's" if basic.ca else None


def _is_legacy(certificate: x509.Certificate) -> bool:
    names = certificate.subject.rdns
    own = {str(attribute.value) for last in names[-1:] for attribute in last}
    is_named = names[:-1] == certificate.issuer.rdns and not own.isdisjoint(_LEGACY_NAMES)
    return is_named or any(each.oid == _DRAFT_PROXY_CERT_INFO for each in certificate.extensions)


def _distinguished_name(name: x509.Name) -> str:
    return "".join(f"/{_label(part)}={part.value!s}" for part in name)


def _label(part: x509.NameAttribute[str | bytes]) -> str:
    if part.oid == x509.NameOID.EMAIL_ADDRESS:
        return "emailAddress"  # OpenSSL's, and so ARC's; RFC 4514 has none
    return part.rfc4514_attribute_name


def _unusable(why: str) -> ConfigurationError:
    return ConfigurationError(f"the X.509 proxy is of no use: {why}")


# Signing


def _requested_key(request: bytes) -> _PublicKey:
    def refused(why: str) -> ProtocolError:
        return ProtocolError(f"the CE's certificate request {why}", excerpt=request)

    if len(request) > _MOST_REQUEST_BYTES:
        raise refused(f"is longer than {_MOST_REQUEST_BYTES} bytes")
    is_pem = b"-----BEGIN" in request
    try:
        asked = x509.load_pem_x509_csr(request) if is_pem else x509.load_der_x509_csr(request)
        key, is_signed = asked.public_key(), asked.is_signature_valid
    except _MALFORMED:
        raise refused("is none") from None
    if not is_signed:
        raise refused("is not signed with its own key")
    if isinstance(key, rsa.RSAPublicKey):
        is_strong = key.key_size >= _LEAST_RSA_BITS
    elif isinstance(key, ec.EllipticCurvePublicKey):
        is_strong = key.key_size >= _LEAST_EC_BITS
    else:
        raise refused("has a key that is neither RSA nor elliptic")
    if not is_strong:
        raise refused(f"has a weak key, of {key.key_size} bits")
    return key


def _validity(proxy: Proxy, now: datetime, lifetime: timedelta | None) -> tuple[datetime, datetime]:
    now = now.replace(microsecond=0)  # certificates have whole seconds
    begin, end = max(now - CLOCK_SKEW, proxy.begin), proxy.expiry
    if end <= now:
        raise AuthenticationError(
            f"the X.509 proxy {proxy.subject} expired at {end.isoformat()}: renew it"
        )
    if lifetime is not None:
        if lifetime <= timedelta():
            raise ValueError(f"a lifetime of {lifetime}")
        end = min(now + lifetime, end)
    if begin > now + CLOCK_SKEW or begin >= end:
        raise AuthenticationError(
            f"the X.509 proxy {proxy.subject} is not valid before {begin.isoformat()}: is the "
            "clock right?"
        )
    return begin, end


def _inherited(proxy: Proxy) -> _ProxyCertInfo:
    allowed = proxy.path_length
    if allowed is not None and allowed < 1:
        raise _unusable("its path length allows no proxy below it, so it cannot be delegated")
    return _ProxyCertInfo(
        path_length=None if allowed is None else allowed - 1,
        policy=_ProxyPolicy(language=_LIMITED if proxy.is_limited else _INHERIT_ALL, policy=None),
    )


def _key_usage(issuer: x509.Certificate, public_key: _PublicKey) -> x509.KeyUsage:
    """RFC 3820 asks for none; software older than it does, and no more than the issuer has."""
    usage = _usage(issuer)
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        # RFC 5480, section 3: not with elliptic curves.
        key_encipherment=isinstance(public_key, rsa.RSAPublicKey)
        and (usage is None or usage.key_encipherment),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _usage(issuer: x509.Certificate) -> x509.KeyUsage | None:
    """The signer's key usage, if it has any."""
    try:
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
    if not usage.digital_signature:
        raise _unusable("its key usage lacks digital signatures, so it may sign no proxies")
    return usage


def _encoded(oid: x509.ObjectIdentifier, value: object) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(oid, asn1.encode_der(value))

"""Proxies are read, and sign requests, by the rules of RFC 3820; OpenSSL is the judge."""

from __future__ import annotations

import base64
import copy
import itertools
import pickle
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from arcbackend.errors import (
    AuthenticationError,
    ConfigurationError,
    InterCEdeError,
    ProtocolError,
)
from arcbackend.x509 import CLOCK_SKEW, Proxy, earliest_end, read_chain, sign_request
from tests.pure.certificates import (
    DAY,
    DRAFT_PROXY_CERT_INFO,
    HOUR,
    INDEPENDENT,
    INHERIT_ALL,
    LIMITED,
    NOW,
    PROXY_CERT_INFO,
    USER_USAGE,
    VALID,
    Credential,
    authority,
    certificates_pem,
    issue,
    key,
    key_pem,
    name,
    openssl_says,
    proxy,
    proxy_cert_info,
    request,
    usage,
    user,
    with_ca,
)

REQUEST = request()
USER = "/DC=org/DC=example/CN=Ann"


def _read(credential: Credential) -> Proxy:
    return Proxy.from_pem(credential.pem())


def _signed(
    credential: Credential,
    asked: bytes = REQUEST,
    now: datetime = NOW,
    lifetime: timedelta | None = None,
) -> x509.Certificate:
    pem = sign_request(asked, _read(credential), now, lifetime=lifetime)
    first, *others = x509.load_pem_x509_certificates(pem)
    assert others == list(credential.chain)
    return first


def _info(certificate: x509.Certificate) -> bytes:
    extension = certificate.extensions.get_extension_for_oid(PROXY_CERT_INFO)
    assert extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    return extension.value.value


# Reading


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_keys_of_both_kinds_and_forms(kind: str, form: str) -> None:
    credential = proxy(private=key(kind, 1))
    read = Proxy.from_pem(credential.pem(form))
    assert read.certificates == credential.chain
    assert read.key.private_numbers() == credential.key.private_numbers()


def test_blocks_in_any_order_and_text_between_them() -> None:
    credential = with_ca(proxy(proxy()))
    blocks = [*certificates_pem(credential.chain), key_pem(credential.key)]
    for order in itertools.permutations(blocks):
        read = Proxy.from_pem(b"subject=/CN=x\r\n".join(order).replace(b"\n", b"\r\n"))
        assert read.certificates == credential.chain
        assert read.public_pem() == b"".join(certificates_pem(credential.chain))


def test_openssls_parameters_of_a_curve_do_no_harm() -> None:
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    credential = proxy()
    assert Proxy.from_pem(parameters + credential.pem()).certificates == credential.chain


def test_what_is_no_part_of_the_chain_is_left_out() -> None:
    credential = proxy()
    bob = user(key("ec", 77), subject=name((NameOID.COMMON_NAME, "Bob")))
    other = proxy(bob, key("ec", 79))
    # The same names, but not signed by one another.
    impostor = user(key("ec", 78))
    pem = b"".join(certificates_pem([*other.chain, impostor.certificate])) + credential.pem()
    assert Proxy.from_pem(pem).certificates == credential.chain
    assert Proxy.from_pem(pem + credential.pem().split(b"-----BEGIN PRIVATE")[0]).subject


def test_a_users_own_certificate_will_do() -> None:
    read = _read(user())
    assert (read.subject, read.identity, read.infos) == (USER, USER, ())
    assert read.path_length is None
    assert not read.is_limited


def test_subject_and_identity() -> None:
    read = _read(proxy(proxy(common_name="1"), common_name="2"))
    assert read.subject == f"{USER}/CN=1/CN=2"
    assert read.identity == USER
    odd = name(
        (NameOID.EMAIL_ADDRESS, "ann@example.org"), (NameOID.USER_ID, "a"), (NameOID.TITLE, "Dr")
    )
    assert _read(user(subject=odd)).subject == (
        "/DC=org/DC=example/emailAddress=ann@example.org/UID=a/2.5.4.12=Dr"
    )


def test_a_chain_ends_when_the_first_of_it_does() -> None:
    for place in range(3):
        ends = [NOW + 5 * DAY] * 3
        ends[place] = NOW + DAY
        begins = [NOW - 5 * DAY] * 3
        begins[place] = NOW - DAY
        credential = user(valid=(begins[0], ends[0]))
        for valid in zip(begins[1:], ends[1:], strict=True):
            credential = proxy(credential, valid=valid)
        read = _read(credential)
        assert (read.begin, read.expiry) == (NOW - DAY, NOW + DAY)
        assert earliest_end(credential.pem()) == NOW + DAY


def test_limited_is_who_has_a_limited_one_above() -> None:
    plain, limited = proxy_cert_info(), proxy_cert_info(LIMITED)
    for infos in itertools.product((plain, limited), repeat=3):
        credential = user()
        for info in infos:
            credential = proxy(credential, info=info)
        assert _read(credential).is_limited is (limited in infos)


@pytest.mark.parametrize(
    ("lengths", "left"),
    [
        ([None], None),
        ([0], 0),
        ([5], 5),
        ([5, None], 4),
        ([5, None, None], 3),
        ([5, 1], 1),
        ([1, 5], 0),
        ([None, 0], 0),
        ([0, None], -1),
    ],
)
def test_path_length(lengths: list[int | None], left: int | None) -> None:
    credential = user()
    for length in lengths:
        credential = proxy(credential, info=proxy_cert_info(path_length=length))
    assert _read(credential).path_length == left


def _repeated(pem: bytes) -> bytes:
    return pem + key_pem(key("ec", 5))


def _ed25519() -> bytes:
    private = ed25519.Ed25519PrivateKey.generate()
    ca = authority()
    certificate = issue(
        name(), private.public_key(), ca.certificate.subject, ca.key, [(USER_USAGE, True)]
    )
    return certificates_pem([certificate])[0] + key_pem(private)


def _malformed_info() -> bytes:
    return proxy(info=b"\x30\x03\x02\x01\x05").pem()


def _more_behind_info() -> bytes:
    return proxy(info=proxy_cert_info() + b"\0").pem()


def _illegible_name() -> bytes:
    """A PrintableString that is none: old CAs made such."""
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, "Ann+B", _type=_ASN1Type.PrintableString)]
    credential = user(subject=x509.Name(parts))
    whole = credential.certificate.public_bytes(serialization.Encoding.DER)
    broken = base64.encodebytes(whole.replace(b"Ann+B", b"Ann*B"))
    return (b"-----BEGIN CERTIFICATE-----\n" + broken + b"-----END CERTIFICATE-----\n") + key_pem(
        credential.key
    )


def _legacy(common_name: str) -> Credential:
    return proxy(info=b"", common_name=common_name, key_usage=USER_USAGE)


CHAIN = proxy(proxy())
PUBLIC = b"".join(certificates_pem(CHAIN.chain))
UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "no private key"),
    "garbage": (lambda: b"\0garbage" * 99, "no private key"),
    "no key": (lambda: PUBLIC, "no private key"),
    "another's key": (lambda: PUBLIC + key_pem(key("ec", 99)), "none of its certificates"),
    "two keys": (lambda: _repeated(CHAIN.pem()), "2 private keys"),
    "only a key": (lambda: key_pem(CHAIN.key), "certificates cannot be read"),
    "encrypted": (
        lambda: PUBLIC + key_pem(CHAIN.key, password=b"hush"),
        "is encrypted",
    ),
    "encrypted as of old": (
        lambda: PUBLIC + key_pem(CHAIN.key, "TraditionalOpenSSL", b"hush"),
        "is encrypted",
    ),
    "key cut off": (lambda: PUBLIC + key_pem(CHAIN.key)[:-40], "is cut off"),
    "key broken": (
        lambda: PUBLIC + key_pem(CHAIN.key).replace(b"\n", b"\nA", 1),
        "private key cannot be read",
    ),
    "certificate broken": (
        lambda: CHAIN.pem().replace(
            b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN CERTIFICATE-----\nA"
        ),
        "certificates cannot be read",
    ),
    "Ed25519": (_ed25519, "neither RSA nor elliptic"),
    "the user's is missing": (
        lambda: b"".join(certificates_pem(CHAIN.chain[:2])) + key_pem(CHAIN.key),
        "certificate of its chain is missing",
    ),
    "one in the middle is missing": (
        lambda: b"".join(certificates_pem(CHAIN.chain[::2])) + key_pem(CHAIN.key),
        "certificate of its chain is missing",
    ),
    "chain cut off": (lambda: CHAIN.pem()[:-60], "certificate of its chain is missing"),
    "legacy": (lambda: _legacy("proxy").pem(), "legacy"),
    "legacy limited": (lambda: _legacy("limited proxy").pem(), "legacy"),
    "RFC 3820 on legacy": (lambda: proxy(_legacy("proxy")).pem(), "legacy"),
    "draft": (lambda: proxy(oid=DRAFT_PROXY_CERT_INFO).pem(), "legacy"),
    "a CA's": (lambda: authority().pem(), "a CA's"),
    "malformed ProxyCertInfo": (_malformed_info, "certificates cannot be read"),
    "illegible name": (_illegible_name, "certificates cannot be read"),
    "more behind ProxyCertInfo": (_more_behind_info, "certificates cannot be read"),
    "too long": (lambda: b"\n" * 2**20 + CHAIN.pem(), "no private key"),
    "too long behind": (lambda: CHAIN.pem() + b"\n" * 2**20, "certificates cannot be read"),
    "too many": (lambda: CHAIN.pem() + PUBLIC * 20, "certificates cannot be read"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_is_no_proxy_says_why_and_shows_no_key(case: str) -> None:
    make, why = UNUSABLE[case]
    with pytest.raises(ConfigurationError, match=why) as caught:
        Proxy.from_pem(make())
    assert caught.value.__cause__ is None
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # The frames of this test hold none of it either.
    text = "".join(shown.format()) + repr(vars(caught.value))
    assert "PRIVATE KEY" not in text
    assert "BEGIN" not in text


def test_keys_are_in_no_representation_and_not_pickled() -> None:
    read = _read(CHAIN)
    assert repr(read) == f"<Proxy {USER}/CN=12345/CN=12345 until 2026-01-03T03:04:05+00:00>"
    assert str(read) == f"{read}" == repr(read)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            leave(read)


def test_proxies_are_equal_by_their_certificates() -> None:
    assert _read(CHAIN) == _read(CHAIN)
    assert len({_read(CHAIN), _read(CHAIN), _read(proxy(user(key("ec", 9))))}) == 2


# Chains without a key


def test_a_stored_chain() -> None:
    chain = read_chain(b"\n" + PUBLIC + b"\n\n")
    assert chain is not None
    assert chain.certificates == CHAIN.chain
    assert repr(chain).startswith("<CertificateChain /DC=org")
    assert chain == read_chain(PUBLIC)
    assert pickle.dumps(chain.infos)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\n",
        b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        certificates_pem(CHAIN.chain)[0],
        certificates_pem([authority().certificate])[0],
        _legacy("proxy").pem(),
        _malformed_info(),
    ],
    ids=range(7),
)
def test_no_stored_chain(pem: bytes) -> None:
    assert read_chain(pem) is None


@pytest.mark.parametrize("pem", [b"", b"\0", key_pem(key()), b"\n" * 2**20 + PUBLIC], ids=range(4))
def test_an_end_that_cannot_be_told(pem: bytes) -> None:
    assert earliest_end(pem) is None


# Signing


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("depth", range(4))
def test_openssl_accepts_what_is_signed(kind: str, depth: int, tmp_path: Path) -> None:
    credential = user(key(kind, 0))
    for level in range(depth):
        info = proxy_cert_info(LIMITED if level == 1 else INHERIT_ALL, 9 if level == 2 else None)
        credential = proxy(credential, key(kind, 1 + level), info=info)
    pem = sign_request(REQUEST, _read(credential), NOW, comment="mine")
    assert openssl_says(pem, tmp_path) == "OK"
    # And one signed by that, as the CE may for its own services.
    below = Credential(x509.load_pem_x509_certificate(pem), key("rsa", 2000), credential.chain)
    pem = sign_request(request(key("ec", 3000)), _read(below), NOW)
    assert openssl_says(pem, tmp_path) == "OK"
    assert openssl_says(pem, tmp_path, NOW + DAY + HOUR) != ("OK" if depth else "")


def test_openssl_agrees_that_legacy_proxies_are_of_no_use(tmp_path: Path) -> None:
    for credential in (_legacy("proxy"), proxy(_legacy("proxy")), proxy(oid=DRAFT_PROXY_CERT_INFO)):
        assert "verification failed" in openssl_says(credential.pem(), tmp_path)


def test_names_and_numbers() -> None:
    credential = proxy()
    first, second = _signed(credential), _signed(credential)
    assert first.version is x509.Version.v3
    assert 0 < first.serial_number < 2**63
    assert first.serial_number != second.serial_number  # for one and the same key
    assert first.issuer == credential.certificate.subject
    *above, last = first.subject
    assert above == list(credential.certificate.subject)
    assert (last.oid, last.value) == (NameOID.COMMON_NAME, str(first.serial_number))
    asked = x509.load_pem_x509_csr(REQUEST)
    assert first.public_key() == asked.public_key()


def test_encodings_of_the_issuers_name_stay(tmp_path: Path) -> None:
    parts = [
        x509.RelativeDistinguishedName(
            [x509.NameAttribute(NameOID.LOCALITY_NAME, "a,b+c=d/e", _type=_ASN1Type.BMPString)]
        ),
        x509.RelativeDistinguishedName(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ünï"),
                x509.NameAttribute(NameOID.USER_ID, "ann"),
            ]
        ),
        x509.RelativeDistinguishedName(
            [x509.NameAttribute(NameOID.COMMON_NAME, "Ann  B", _type=_ASN1Type.PrintableString)]
        ),
    ]
    odd = x509.Name(parts)
    credential = user(subject=odd)
    pem = sign_request(REQUEST, _read(credential), NOW)
    assert odd.public_bytes()[4:] in x509.load_pem_x509_certificate(pem).tbs_certificate_bytes
    assert openssl_says(pem, tmp_path) == "OK"


@pytest.mark.parametrize(
    ("infos", "expected"),
    [
        ([], proxy_cert_info()),
        ([proxy_cert_info()], proxy_cert_info()),
        ([proxy_cert_info(LIMITED)], proxy_cert_info(LIMITED)),
        ([proxy_cert_info(LIMITED), proxy_cert_info()], proxy_cert_info(LIMITED)),
        ([proxy_cert_info(INDEPENDENT)], proxy_cert_info()),
        ([proxy_cert_info(path_length=7)], proxy_cert_info(path_length=6)),
        ([proxy_cert_info(path_length=1)], proxy_cert_info(path_length=0)),
        ([proxy_cert_info(LIMITED, 2), proxy_cert_info()], proxy_cert_info(LIMITED, 0)),
    ],
)
def test_rights_are_inherited(infos: list[bytes], expected: bytes, tmp_path: Path) -> None:
    credential = user()
    for info in infos:
        credential = proxy(credential, info=info)
    assert _info(_signed(credential)) == expected
    assert openssl_says(sign_request(REQUEST, _read(credential), NOW), tmp_path) == "OK"


@pytest.mark.parametrize("lengths", [[0], [1, None], [None, 0], [5, 0], [0, 5]])
def test_a_path_length_that_is_used_up(lengths: list[int | None]) -> None:
    credential = user()
    for length in lengths:
        credential = proxy(credential, info=proxy_cert_info(path_length=length))
    with pytest.raises(ConfigurationError, match="path length"):
        sign_request(REQUEST, _read(credential), NOW)


@pytest.mark.parametrize("asked", ["rsa", "ec"])
@pytest.mark.parametrize(
    ("issuers", "encipherment"),
    [
        (None, True),
        (USER_USAGE, True),
        (usage(digital_signature=True), False),
        (usage(digital_signature=True, key_cert_sign=True, crl_sign=True), False),
    ],
)
def test_key_usage(issuers: x509.KeyUsage | None, encipherment: bool, asked: str) -> None:
    signed = _signed(proxy(key_usage=issuers), request(key(asked, 2000)))
    extension = signed.extensions.get_extension_for_class(x509.KeyUsage)
    assert extension.critical
    expected = usage(digital_signature=True, key_encipherment=encipherment and asked == "rsa")
    assert extension.value == expected


@pytest.mark.parametrize("issuer", [user, lambda key_usage: proxy(key_usage=key_usage)])
def test_who_may_not_sign_signs_no_proxies(issuer: Callable[..., Credential]) -> None:
    with pytest.raises(ConfigurationError, match="key usage"):
        sign_request(REQUEST, _read(issuer(key_usage=usage(key_encipherment=True))), NOW)


def test_of_a_request_only_its_key_is_used() -> None:
    extensions = [
        x509.BasicConstraints(ca=True, path_length=None),
        usage(key_cert_sign=True),
        x509.SubjectAlternativeName([x509.DNSName("ce.example.org")]),
    ]
    asked = request(extensions=extensions, subject=name((NameOID.COMMON_NAME, "root")))
    signed = _signed(proxy(), asked)
    assert {each.oid for each in signed.extensions} == {PROXY_CERT_INFO, x509.KeyUsage.oid}
    assert "root" not in signed.subject.rfc4514_string()


def test_a_request_in_der() -> None:
    asked = request(encoding=serialization.Encoding.DER)
    assert _signed(proxy(), asked).public_key() == key("rsa", 2000).public_key()


def test_attributes_of_vos_stay_where_they_are() -> None:
    credential = proxy(proxy(voms=b"\x30\x03abc"))
    pem = sign_request(REQUEST, _read(credential), NOW)
    assert pem.endswith(b"".join(certificates_pem(credential.chain)))
    assert b"".join(certificates_pem(with_ca(CHAIN).chain)) in sign_request(
        REQUEST, _read(with_ca(CHAIN)), NOW
    )


def test_a_comment() -> None:
    pem = sign_request(REQUEST, _read(CHAIN), NOW, comment="arcbackend of ours")
    chain = read_chain(pem)
    assert chain is not None
    assert chain.comment == "arcbackend of ours"
    # Of the first certificate only: what is signed by it is not ours.
    below = Credential(chain.certificates[0], key("rsa", 2000), chain.certificates[1:])
    chain = read_chain(sign_request(REQUEST, _read(below), NOW))
    assert chain is not None
    assert chain.comment is None
    broken = proxy(oid=x509.ObjectIdentifier("2.16.840.1.113730.1.13"), info=b"\x0c\x01a")
    read = read_chain(b"".join(certificates_pem(broken.chain)))
    assert read is not None
    assert read.comment is None
    with pytest.raises(ValueError, match="IA5String"):
        sign_request(REQUEST, _read(CHAIN), NOW, comment="é")


# Validity


def test_as_long_as_the_signer() -> None:
    signed = _signed(proxy())
    assert signed.not_valid_before_utc == NOW - CLOCK_SKEW
    assert signed.not_valid_after_utc == VALID[1]


def test_no_longer_than_asked() -> None:
    signed = _signed(proxy(), lifetime=HOUR)
    assert signed.not_valid_after_utc == NOW + HOUR
    assert _signed(proxy(), lifetime=9 * DAY).not_valid_after_utc == VALID[1]
    with pytest.raises(ValueError, match="lifetime"):
        _signed(proxy(), lifetime=timedelta())


def test_not_before_the_signer() -> None:
    fresh = proxy(valid=(NOW - timedelta(minutes=1), NOW + DAY))
    assert _signed(fresh).not_valid_before_utc == NOW - timedelta(minutes=1)
    # The clock of who made the proxy may be ahead.
    ahead = proxy(valid=(NOW + CLOCK_SKEW, NOW + DAY))
    assert _signed(ahead).not_valid_before_utc == NOW + CLOCK_SKEW


def test_an_expired_signer() -> None:
    credential = proxy(user(valid=(NOW - DAY, NOW)))
    with pytest.raises(
        AuthenticationError, match=r"CN=12345 expired at 2026-01-02T03:04:05\+00:00"
    ):
        _signed(credential)
    assert _signed(credential, now=NOW - timedelta(seconds=1))


def test_a_signer_that_is_not_valid_yet() -> None:
    late = proxy(valid=(NOW + CLOCK_SKEW + timedelta(seconds=1), NOW + DAY))
    with pytest.raises(AuthenticationError, match="not valid before"):
        _signed(late)
    with pytest.raises(AuthenticationError, match="not valid before"):
        _signed(proxy(valid=(NOW + timedelta(minutes=2), NOW + DAY)), lifetime=timedelta(minutes=1))


seconds = st.integers(-10_000, 10_000)


@settings(max_examples=60)
@given(
    spans=st.lists(st.tuples(seconds, seconds), min_size=1, max_size=3),
    micro=st.integers(0, 999_999),
    lifetime=st.none() | st.integers(1, 20_000),
)
@example([(-10_000, 0)], 0, None)
@example([(-10_000, 1)], 999_999, None)
@example([(-10_000, 1)], 0, 1)
def test_always_within_every_certificate_of_the_chain(
    spans: list[tuple[int, int]], micro: int, lifetime: int | None
) -> None:
    assume(all(begin < end for begin, end in spans))
    now = NOW + timedelta(microseconds=micro)
    credential = user()
    for begin, end in spans:
        valid = NOW + timedelta(seconds=begin), NOW + timedelta(seconds=end)
        credential = proxy(credential, valid=valid)
    asked = None if lifetime is None else timedelta(seconds=lifetime)
    try:
        signed = _signed(credential, now=now, lifetime=asked)
    except AuthenticationError:
        return
    begin_, end_ = signed.not_valid_before_utc, signed.not_valid_after_utc
    assert begin_ < end_
    for certificate in credential.chain:
        assert certificate.not_valid_before_utc <= begin_
        assert end_ <= certificate.not_valid_after_utc
    assert now - CLOCK_SKEW - timedelta(seconds=1) < begin_
    assert asked is None or end_ <= now + asked


# Requests


def _bad_signature() -> bytes:
    asked = bytearray(request(encoding=serialization.Encoding.DER))
    asked[-1] ^= 1
    return bytes(asked)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is none"),
    "garbage": (lambda: b"<html>no</html>", "is none"),
    "a certificate": (lambda: PUBLIC, "is none"),
    "cut off": (lambda: REQUEST[:-60], "is none"),
    "signed by another": (_bad_signature, "not signed with its own key"),
    "RSA of 1024 bits": (
        lambda: request(rsa.generate_private_key(65537, 1024)),
        "weak key, of 1024 bits",
    ),
    "P-224": (
        lambda: request(ec.generate_private_key(ec.SECP224R1())),
        "weak key, of 224 bits",
    ),
    "Ed25519": (lambda: request(ed25519.Ed25519PrivateKey.generate()), "neither RSA nor elliptic"),
    "too long": (lambda: b"\n" * 2**16 + REQUEST, "longer than"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_is_none_is_the_ces_fault(case: str) -> None:
    make, why = REFUSED[case]
    with pytest.raises(ProtocolError, match=why) as caught:
        sign_request(make(), _read(CHAIN), NOW)
    assert caught.value.excerpt == make()[:200] or case in ("RSA of 1024 bits", "P-224", "Ed25519")


@settings(max_examples=200)
@given(
    data=st.binary(max_size=300),
    at=st.integers(0, 4000),
    length=st.integers(0, 300),
    base=st.sampled_from(
        [CHAIN.pem(), PUBLIC, REQUEST, request(encoding=serialization.Encoding.DER)]
    ),
)
@example(b"", 0, 0, b"-----BEGIN CERTIFICATE-----" * 1000)
@example(b"", 0, 0, b"-----BEGIN PRIVATE KEY-----")
def test_whatever_the_bytes_errors_are_ours(data: bytes, at: int, length: int, base: bytes) -> None:
    pem = base[:at] + data + base[at + length :]
    earliest_end(pem)
    chain = read_chain(pem)
    if chain is not None:
        assert chain.subject
        assert chain.comment is None
    for call in (lambda: Proxy.from_pem(pem), lambda: sign_request(pem, _read(CHAIN), NOW)):
        try:
            call()
        except InterCEdeError as error:
            assert "PRIVATE" not in repr(error)  # noqa: PT017

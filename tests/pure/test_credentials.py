"""Credentials: expiry, kinds, and the provider that ships."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr, ValidationError

from arcbackend import (
    BearerToken,
    CredentialKind,
    CredentialProvider,
    CredentialRequirements,
    CredentialSet,
    StaticCredentials,
    X509Proxy,
)
from arcbackend.credentials import lacking
from tests.pure import certificates
from tests.pure.certificates import DAY, NOW

EXP = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = BearerToken(value=SecretStr("t"))
PROXY = X509Proxy(pem=SecretBytes(b"p"))
ASKED = CredentialRequirements(
    resource="https://ce.example.org:443", kinds=frozenset({CredentialKind.TOKEN})
)


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(payload: bytes | str) -> BearerToken:
    middle = payload if isinstance(payload, str) else _segment(payload)
    return BearerToken(value=SecretStr(f"{_segment(b'{}')}.{middle}.sig"))


def _jwt(claims: Any) -> BearerToken:
    return _token(json.dumps(claims).encode())


# expiry


@pytest.mark.parametrize("padding", range(4))
def test_the_expiry_of_a_jwt(padding: int) -> None:
    token = _jwt({"sub": "x" * padding, "exp": int(EXP.timestamp())})
    assert token.expiry() == EXP


def test_a_fractional_expiry() -> None:
    assert _jwt({"exp": EXP.timestamp() + 0.5}).expiry() == EXP + timedelta(seconds=0.5)


def test_an_expiry_that_was_told_is_believed() -> None:
    token = BearerToken(value=_jwt({"exp": 1}).value, expires_at=EXP)
    assert token.expiry() == EXP


GARBAGE = [
    "",
    "opaque",
    "a.b.c",
    "..",
    "a..c",
    "é.é.é",
    ".\0.",
    "a." + "!" * 100 + ".c",
]
NO_EXPIRY: list[Any] = [
    {},
    [],
    7,
    None,
    "exp",
    {"exp": None},
    {"exp": "2030-01-01"},
    {"exp": "1"},
    {"exp": []},
    {"exp": True},
    {"exp": 1e300},
    {"exp": -1e300},
    {"exp": 10**30},
    {"exp": float("nan")},
    {"exp": float("inf")},
]


@pytest.mark.parametrize("value", GARBAGE)
def test_what_is_no_jwt_has_no_expiry(value: str) -> None:
    assert BearerToken(value=SecretStr(value)).expiry() is None


@pytest.mark.parametrize("claims", NO_EXPIRY, ids=repr)
def test_a_jwt_without_a_usable_expiry(claims: Any) -> None:
    assert _jwt(claims).expiry() is None


@pytest.mark.parametrize("payload", [b"[" * 100_000, b'{"exp":' + b"9" * 10_000 + b"}", b"\xff"])
def test_a_hostile_jwt(payload: bytes) -> None:
    assert _token(payload).expiry() is None


@given(st.text() | st.binary().map(lambda data: f"a.{_segment(data)}.c"))
@example("a.e30.c")
def test_any_text_has_an_aware_expiry_or_none(value: str) -> None:
    expiry = BearerToken(value=SecretStr(value)).expiry()
    assert expiry is None or expiry.tzinfo is not None


def test_the_expiry_of_a_proxy() -> None:
    """The first end of its chain's, whichever certificate it is of."""
    chain = certificates.proxy(valid=(NOW - DAY, NOW + 2 * DAY))
    longer = certificates.proxy(chain, valid=(NOW - DAY, NOW + 5 * DAY))
    pem = longer.pem()
    assert X509Proxy(pem=SecretBytes(pem)).expiry() == NOW + 2 * DAY
    assert X509Proxy(pem=SecretBytes(pem), expires_at=EXP).expiry() == EXP


@pytest.mark.parametrize("pem", [b"", b"\xff\0", b"garbage"])
def test_what_is_no_proxy_has_no_expiry(pem: bytes) -> None:
    assert X509Proxy(pem=SecretBytes(pem)).expiry() is None


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError):
        BearerToken(value=SecretStr("t"), expires_at=datetime(2030, 1, 1))
    with pytest.raises(ValidationError):
        X509Proxy(pem=SecretBytes(b"p"), expires_at=datetime(2030, 1, 1))


def test_the_first_of_a_set_to_end_counts() -> None:
    early = EXP.astimezone(timezone(timedelta(hours=5)))
    token = BearerToken(value=SecretStr("t"), expires_at=EXP + timedelta(seconds=1))
    proxy = X509Proxy(pem=SecretBytes(b"p"), expires_at=early)
    assert CredentialSet(token=token, proxy=proxy).expiry() == EXP
    assert CredentialSet(token=token, proxy=PROXY).expiry() == token.expires_at
    assert CredentialSet(token=TOKEN, proxy=PROXY).expiry() is None
    assert CredentialSet().expiry() is None


# sets


def test_a_set_gives_by_kind() -> None:
    both = CredentialSet(token=TOKEN, proxy=PROXY)
    assert both.get(CredentialKind.TOKEN) is TOKEN
    assert both.get(CredentialKind.PROXY) is PROXY
    assert CredentialSet().get(CredentialKind.TOKEN) is None
    assert CredentialSet().get(CredentialKind.PROXY) is None


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        (CredentialSet(), ["proxy", "token"]),
        (CredentialSet(token=TOKEN), ["proxy"]),
        (CredentialSet(proxy=PROXY), ["token"]),
        (CredentialSet(token=TOKEN, proxy=PROXY), []),
    ],
)
def test_what_a_set_lacks(held: CredentialSet, missing: list[str]) -> None:
    assert lacking(held, CredentialKind) == missing
    assert lacking(held, []) == []


# the static provider


@pytest.mark.parametrize("given_", [TOKEN, PROXY, CredentialSet(token=TOKEN, proxy=PROXY)])
async def test_static_credentials(given_: BearerToken | X509Proxy | CredentialSet) -> None:
    provider = StaticCredentials(given_)
    assert isinstance(provider, CredentialProvider)
    async with provider as entered:
        found = await entered.get(ASKED)
    assert given_ in (found, found.token, found.proxy)


def test_static_credentials_print_no_secret() -> None:
    provider = StaticCredentials(BearerToken(value=SecretStr("hunter2")))
    assert "hunter2" not in repr(provider)
    assert "hunter2" not in str(vars(provider))

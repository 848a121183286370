"""The throw-away authority: what it signs is good, and what is not good it knows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jwt
import pytest
from cryptography import x509

from arcbackend.simulator.authority import ALL_SCOPES, Authority
from arcbackend.simulator.traps import Trap, Traps
from arcbackend.x509 import CertificateChain, Proxy, read_chain

TRAPS = Traps("7.2.0", "slurm")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(clock: Clock) -> Authority:
    return Authority("test", "7.2.0", clock)


def test_a_token_says_what_was_asked(authority: Authority) -> None:
    claims = authority.claims(authority.token("Ann", scopes=["compute.read", "x"], audience="ce"))
    assert claims is not None
    assert claims["iss"] == authority.issuer
    assert claims["sub"] == "Ann"
    assert claims["scope"] == "compute.read x"
    assert claims["aud"] == "ce"


def test_scopes_of_7_0_0_are_a_list(clock: Clock) -> None:
    old = Authority("test", "7.0.0", clock)
    assert (old.claims(old.token()) or {})["scope"] == list(ALL_SCOPES)
    assert (old.claims(old.token(scopes=["one"])) or {})["scope"] == "one"


def test_tokens_differ(authority: Authority) -> None:
    ids = {(authority.claims(authority.token()) or {})["jti"] for _ in range(10)}
    assert len(ids) == 10


def test_a_token_holds_by_the_clock_of_the_ce(authority: Authority, clock: Clock) -> None:
    token = authority.token(lifetime=100)
    clock.now += 99
    assert authority.claims(token) is not None
    clock.now += 2
    assert authority.claims(token) is None
    clock.now -= 500
    assert authority.claims(token) is None, "it is not valid yet"


def test_what_is_no_good_token(authority: Authority, clock: Clock) -> None:
    good = authority.token()
    head, body, _ = good.split(".")
    unsigned = jwt.encode({"iss": authority.issuer, "sub": "user"}, "", algorithm="none")
    for token in (
        "",
        "garbage",
        "a.b.c",
        unsigned,
        f"{head}.{body}.",
        f"{good}x",
        "x" * 100_000,
        authority.token(forged=True),
        authority.token(issuer="https://elsewhere.invalid"),
        authority.token(lifetime=-1),
        Authority("test", "7.2.0", clock).token(),
    ):
        assert authority.claims(token) is None, token[:60]


def test_a_token_can_be_verified_by_anybody(authority: Authority) -> None:
    (key,) = jwt.PyJWKSet.from_dict(authority.jwks).keys
    told = jwt.decode(
        authority.token(audience=None),
        key,
        algorithms=["ES256"],
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )
    assert told["sub"] == "user"


def test_a_proxy_stands_for_its_user(authority: Authority) -> None:
    first, second = (Proxy.from_pem(authority.proxy("Ann", 60)) for _ in range(2))
    assert first.identity == second.identity == authority.subject("Ann")
    assert first.subject != second.subject
    assert authority.lets_in(first.identity)
    assert not authority.lets_in(Proxy.from_pem(authority.proxy("Ann", listed=False)).identity)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_openssl_agrees(authority: Authority, depth: int, tmp_path: Path) -> None:
    chain = Proxy.from_pem(authority.proxy(depth=depth, limited=True, path_length=5))
    assert len(chain.infos) == depth
    assert chain.is_limited is (depth > 0)
    assert chain.path_length == (5 if depth else None)
    (tmp_path / authority.ca_file_name).write_bytes(authority.ca_pem)
    (tmp_path / "chain.pem").write_bytes(chain.public_pem())
    done = subprocess.run(
        [
            *("openssl", "verify", "-allow_proxy_certs", "-CApath", "."),
            *("-untrusted", "chain.pem", "chain.pem"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("OK"), done


@pytest.mark.parametrize(
    ("odd", "alert"),
    [
        ({}, None),
        ({"depth": 0}, None),
        ({"key": "rsa"}, None),
        ({"key": "ec", "bits": 521}, None),
        ({"key": "ec"}, "ILLEGAL_PARAMETER"),
        ({"listed": False}, None),
        ({"lifetime": -60}, "CERTIFICATE_EXPIRED"),
        ({"foreign_ca": True}, "UNKNOWN_CA"),
        ({"bits": 256}, "ILLEGAL_PARAMETER"),
        ({"bits": 384}, "ILLEGAL_PARAMETER"),
    ],
)
def test_what_tls_says_of_a_chain(
    authority: Authority, odd: dict[str, object], alert: str | None
) -> None:
    chain = Proxy.from_pem(authority.proxy(**odd))  # type: ignore[arg-type]
    said = authority.alert(chain, TRAPS)
    assert (said and said.partition("_ALERT_")[2]) == alert


def test_without_the_trap_any_curve_is_good(authority: Authority) -> None:
    chain = Proxy.from_pem(authority.proxy(bits=256))
    assert authority.alert(chain, Traps("7.2.0", "slurm", {Trap.ONE_CURVE_ONLY})) is None


def test_a_chain_that_ends_in_the_ca_is_good(authority: Authority) -> None:
    pem = Proxy.from_pem(authority.proxy()).public_pem() + authority.ca_pem
    chain = read_chain(pem)
    assert isinstance(chain, CertificateChain)
    assert authority.alert(chain, TRAPS) is None


def test_users_are_of_the_ca(authority: Authority) -> None:
    ca = x509.load_pem_x509_certificate(authority.ca_pem)
    proxy = Proxy.from_pem(authority.proxy())
    assert proxy.certificates[-1].issuer == ca.subject


def test_no_secret_is_shown(authority: Authority) -> None:
    authority.proxy()
    shown = repr(authority) + repr(authority._users)
    assert "PRIVATE" not in shown
    assert "key" not in shown

"""A throw-away authority: its CA, the host's certificate, users' proxies, and tokens.

Keys are made when they are needed first, and are in memory only.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import jwt
import trustme
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from jwt.types import Options

from arcbackend.simulator.certificates import (
    INHERIT_ALL,
    LIMITED,
    PROXY_CERT_INFO,
    Credential,
    Key,
    hashed_name,
    issue_proxy,
    issue_user,
    proxy_cert_info,
)
from arcbackend.simulator.traps import ArcVersion, Trap, Traps
from arcbackend.x509 import CertificateChain

__all__ = ["ALL_SCOPES", "Authority", "Claims"]

Claims = Mapping[str, Any]
"""What a token says."""

ALL_SCOPES = ("compute.read", "compute.create", "compute.modify", "compute.cancel")
"""The scopes of the WLCG profile for computing."""

_SLACK = timedelta(minutes=5)
_CERTIFICATE_LIFETIME = timedelta(days=30)
_KEPT_TOKENS = 1000
_LONGEST_TOKEN = 2**16
_ALGORITHM = "ES256"
_KEY_ID = "simulator"
# PyJWT has no clock but the machine's.
_UNCHECKED: Options = {
    "verify_aud": False,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}
# RFC 4492: the curve that A-REX asks for unless the site says otherwise (``tlscurve``).
_CURVE, _BITS = "secp521r1", 521
_CURVES = {256: ec.SECP256R1(), 384: ec.SECP384R1(), _BITS: ec.SECP521R1()}
_USERS, _STRANGERS = "users", "strangers"


class Authority:
    """Whom a simulated CE believes.

    Args:
        name: of the CE.
        version: of ARC: some want lists of scopes in another form.
        now: the CE's clock, in seconds since 1970.
    """

    def __init__(self, name: str, version: ArcVersion, now: Callable[[], float]) -> None:
        self.issuer = f"https://{name}.simulator.invalid/issuer"
        """Who signs the tokens."""
        self._name = name
        self._scopes_as_list = version == "7.0.0"
        self._now = now
        self._tokens = 0
        self._users: dict[tuple[str, str, bool], Credential] = {}
        self._verified: OrderedDict[str, Claims] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Authority {self._name}>"

    # Certificates

    @cached_property
    def _ca(self) -> trustme.CA:
        return trustme.CA(organization_name="simulator", organization_unit_name=self._name)

    @cached_property
    def _foreign_ca(self) -> trustme.CA:
        return trustme.CA(organization_name="elsewhere", organization_unit_name=self._name)

    @property
    def ca_pem(self) -> bytes:
        """The CA's certificate."""
        return self._ca.cert_pem.bytes()

    @property
    def ca_file_name(self) -> str:
        """The name of its file in a directory of authorities, for OpenSSL."""
        return hashed_name(x509.load_pem_x509_certificate(self.ca_pem))

    def server_context(self, traps: Traps, names: Sequence[str] = ()) -> ssl.SSLContext:
        """What TLS is on the CE's side.

        A client may show a certificate, and then has to show a good one; proxies are among them.

        Args:
            traps: of the CE.
            names: the host's, besides ``localhost`` and ``127.0.0.1``.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if Trap.TLS_1_2_ONLY in traps:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if Trap.ONE_CURVE_ONLY in traps:
            context.set_ecdh_curve(_CURVE)
        context.options |= ssl.OP_NO_TICKET
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
        # As OpenSSL's default is: what it adds refuses proxies, which have no key identifiers.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._ca.configure_trust(context)
        self._ca.issue_cert(*dict.fromkeys(("localhost", "127.0.0.1", *names))).configure_cert(
            context
        )
        return context

    def subject(self, user: str, *, listed: bool = True) -> str:
        """The subject of a user's certificate, as A-REX writes it."""
        unit = _USERS if listed else _STRANGERS
        return f"/DC=org/DC=simulator/OU={unit}/CN={user}"

    def lets_in(self, subject: str) -> bool:
        """Whether this is the subject of somebody whom the CE lets in."""
        return subject.startswith(f"/DC=org/DC=simulator/OU={_USERS}/")

    def proxy(
        self,
        user: str = "user",
        lifetime: float = 36_000,
        *,
        limited: bool = False,
        key: Literal["rsa", "ec"] | None = None,
        bits: int | None = None,
        depth: int = 1,
        path_length: int | None = None,
        listed: bool = True,
        foreign_ca: bool = False,
    ) -> bytes:
        """A fresh proxy by RFC 3820.

        Args:
            user: the last part of the user's subject; the same name is the same user.
            lifetime: seconds from now on; negative: one that has expired.
            limited: with Globus' limited policy.
            key: kind of the proxy's key; None: one on the curve that A-REX takes.
            bits: its size; None: of RSA 2048, of elliptic curves 256.
            depth: how many proxies there are, one of the other; 0: the user's certificate.
            path_length: how many more may follow, as the last says itself; None: it does not.
            listed: whether the CE lets the subject in.
            foreign_ca: whether the certificate is of a CA that the CE does not know.

        Returns:
            PEM: certificate, key and chain.
        """
        # TLS compares with the time of day, whatever the CE's clock shows.
        now = datetime.now(UTC)
        end = now + timedelta(seconds=lifetime)
        valid = (min(now, end) - _SLACK, end)
        made = self._user(user, listed=listed, foreign_ca=foreign_ca)
        for more in reversed(range(depth)):
            length = None if path_length is None else path_length + more
            info = proxy_cert_info(LIMITED if limited else INHERIT_ALL, length)
            made = issue_proxy(
                made,
                _new_key(key, bits),
                [(x509.UnrecognizedExtension(PROXY_CERT_INFO, info), True)],
                valid=valid,
                common_name=str(x509.random_serial_number() % 2**31),
            )
        return made.pem("TraditionalOpenSSL")

    def _user(self, user: str, *, listed: bool, foreign_ca: bool) -> Credential:
        unit = _USERS if listed else _STRANGERS
        if (found := self._users.get((unit, user, foreign_ca))) is not None:
            return found
        parts = (
            (NameOID.DOMAIN_COMPONENT, "org"),
            (NameOID.DOMAIN_COMPONENT, "simulator"),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            (NameOID.COMMON_NAME, user),
        )
        now = datetime.now(UTC)
        made = issue_user(
            x509.Name([x509.NameAttribute(oid, value) for oid, value in parts]),
            _new_key(None, None),
            _credential(self._foreign_ca if foreign_ca else self._ca),
            valid=(now - _CERTIFICATE_LIFETIME, now + _CERTIFICATE_LIFETIME),
        )
        self._users[(unit, user, foreign_ca)] = made
        return made

    def alert(self, chain: CertificateChain, traps: Traps) -> str | None:
        """What alert ends TLS if a client shows this chain, as OpenSSL names it; None: none."""
        ends = chain.certificates
        ca = x509.load_pem_x509_certificate(self.ca_pem)
        try:
            ends[-1].verify_directly_issued_by(ca)
        except (InvalidSignature, ValueError, TypeError):
            return "TLSV1_ALERT_UNKNOWN_CA"
        if not chain.begin <= datetime.now(UTC) <= chain.expiry:
            return "SSLV3_ALERT_CERTIFICATE_EXPIRED"
        key = ends[0].public_key()
        if isinstance(key, ec.EllipticCurvePublicKey) and Trap.ONE_CURVE_ONLY in traps:
            return None if key.curve.name == _CURVE else "SSLV3_ALERT_ILLEGAL_PARAMETER"
        return None

    # Tokens

    @cached_property
    def _token_key(self) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(ec.SECP256R1())

    @cached_property
    def _other_key(self) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(ec.SECP256R1())

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys of the tokens (RFC 7517)."""
        public = jwt.algorithms.ECAlgorithm.to_jwk(self._token_key.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": _KEY_ID, "alg": _ALGORITHM, "use": "sig"}]}

    def token(
        self,
        subject: str = "user",
        *,
        scopes: Sequence[str] | None = None,
        lifetime: float = 36_000,
        audience: str | None = "arc",
        issuer: str | None = None,
        forged: bool = False,
    ) -> str:
        """A fresh token.

        Args:
            subject: whose.
            scopes: None: all of them.
            lifetime: seconds from now on, by the CE's clock; negative: one that has expired.
            audience: None: it has none.
            issuer: None: the one that the CE believes.
            forged: signed with a key that is not the issuer's.
        """
        now = self._now()
        self._tokens += 1
        granted = list(ALL_SCOPES if scopes is None else scopes)
        claims = {
            "iss": issuer or self.issuer,
            "sub": subject,
            "scope": granted if self._scopes_as_list and len(granted) > 1 else " ".join(granted),
            "jti": f"{self._tokens:08x}",
            "iat": int(min(now, now + lifetime)),
            "nbf": int(min(now, now + lifetime) - _SLACK.total_seconds()),
            "exp": int(now + lifetime),
        }
        if audience is not None:
            claims["aud"] = audience
        key = self._other_key if forged else self._token_key
        return jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"kid": _KEY_ID})

    def claims(self, token: str) -> Claims | None:
        """What a token says; None if it is none of ours, or not of now (``JWSE::Input``).

        Audience and scopes are not looked at.
        """
        found = self._verified.get(token)
        if found is None:
            if len(token) > _LONGEST_TOKEN:
                return None
            try:
                found = jwt.decode(
                    token,
                    self._token_key.public_key(),
                    algorithms=[_ALGORITHM],
                    issuer=self.issuer,
                    options=_UNCHECKED,
                )
            except jwt.InvalidTokenError:
                return None
            self._verified[token] = found
            if len(self._verified) > _KEPT_TOKENS:
                self._verified.popitem(last=False)
        now = self._now()
        begin, end = found.get("nbf", now), found.get("exp", now)
        numbers = isinstance(begin, int | float) and isinstance(end, int | float)
        return found if numbers and begin <= now <= end else None


def _new_key(kind: Literal["rsa", "ec"] | None, bits: int | None) -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(65537, bits or 2048)
    return ec.generate_private_key(_CURVES[bits or (_BITS if kind is None else 256)])


def _credential(ca: trustme.CA) -> Credential:
    certificate = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(key, Key)
    return Credential(certificate, key)

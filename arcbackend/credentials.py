"""Credentials: values, what an operation requires, and providers.

A provider is the consumer's: arcbackend asks it and never stores what it says anywhere but in
memory. Secrets are in pydantic's secret types, which print as asterisks.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Literal, Protocol, Self, overload, runtime_checkable

from pydantic import AwareDatetime, SecretBytes, SecretStr

from arcbackend.models import Value

__all__ = [
    "B64TOKEN",
    "BearerToken",
    "CredentialKind",
    "CredentialProvider",
    "CredentialRequirements",
    "CredentialSet",
    "StaticCredentials",
    "X509Proxy",
]


# RFC 6750, section 2.1: b64token. Anything else could forge header fields.
B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class CredentialKind(StrEnum):
    """What kinds of credentials there are."""

    TOKEN = "token"  # noqa: S105  (the name of a kind)
    PROXY = "proxy"


class BearerToken(Value):
    """A bearer token (RFC 6750), e.g. a WLCG JWT."""

    value: SecretStr
    """The token itself."""
    expires_at: AwareDatetime | None = None
    """When it ends; None: unknown, then a JWT's own ``exp`` is used, for freshness only."""

    def expiry(self) -> datetime | None:
        """When it ends, as told or as the JWT says; None if neither tells."""
        return self.expires_at or _jwt_expiry(self.value.get_secret_value())


class X509Proxy(Value):
    """An X.509 proxy: certificate, key and full chain."""

    pem: SecretBytes
    """PEM: proxy certificate, its private key, and the chain behind it."""
    expires_at: AwareDatetime | None = None
    """When it ends; None: unknown, then the first end of its certificates' is used, for freshness
    only."""

    def expiry(self) -> datetime | None:
        """When it ends, as told or as its certificates say; None if neither tells."""
        return self.expires_at or _certificates_end(self.pem)


class CredentialSet(Value):
    """The credentials for one operation."""

    token: BearerToken | None = None
    """The bearer token, if there is one."""
    proxy: X509Proxy | None = None
    """The X.509 proxy, if there is one."""

    @overload
    def get(self, kind: Literal[CredentialKind.TOKEN]) -> BearerToken | None: ...
    @overload
    def get(self, kind: Literal[CredentialKind.PROXY]) -> X509Proxy | None: ...
    def get(self, kind: CredentialKind) -> BearerToken | X509Proxy | None:
        """The credential of this kind, or None."""
        return self.token if kind is CredentialKind.TOKEN else self.proxy

    def expiry(self) -> datetime | None:
        """When the first of the set ends; None if nothing tells."""
        ends = [item.expiry() for item in (self.token, self.proxy) if item is not None]
        return min((end for end in ends if end is not None), default=None)


class CredentialRequirements(Value):
    """What one operation on one CE needs."""

    resource: str
    """The CE, as the audience of a token for it: ``https://host:port``, or what the configuration
    says instead (``audience``)."""
    kinds: frozenset[CredentialKind]
    """Which kinds are needed: all of these together."""
    scopes: frozenset[str] = frozenset()
    """Token scopes of the operation (WLCG: compute.read, compute.create, …)."""


@runtime_checkable
class CredentialProvider(Protocol):
    """Where credentials come from. An async context manager that the consumer owns."""

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        """Return credentials that meet the requirements, valid for as long as can be had."""
        ...

    async def __aenter__(self) -> Self:
        """Open what the provider needs."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        ...


class StaticCredentials:
    """A provider that always gives the same credentials.

    Args:
        credentials: the set, or a single credential.
    """

    def __init__(self, credentials: CredentialSet | BearerToken | X509Proxy) -> None:
        if isinstance(credentials, BearerToken):
            credentials = CredentialSet(token=credentials)
        elif isinstance(credentials, X509Proxy):
            credentials = CredentialSet(proxy=credentials)
        self._credentials = credentials

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        """Return the set."""
        return self._credentials

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to close."""


def lacking(credentials: CredentialSet, kinds: Iterable[CredentialKind]) -> list[CredentialKind]:
    """Which of the kinds the set does not hold."""
    held = {
        CredentialKind.TOKEN: credentials.token is not None,
        CredentialKind.PROXY: credentials.proxy is not None,
    }
    return sorted(kind for kind in kinds if not held[kind])


def _certificates_end(pem: SecretBytes) -> datetime | None:
    # cryptography takes 0.04 s to import: not for tokens alone.
    from arcbackend.x509 import earliest_end  # noqa: PLC0415

    return earliest_end(pem.get_secret_value())


def _jwt_expiry(token: str) -> datetime | None:
    """The ``exp`` of a JWT (RFC 7519), not verified: good enough for freshness."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        seconds = claims["exp"]
        return None if isinstance(seconds, bool) else datetime.fromtimestamp(seconds, UTC)
    except (
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        OSError,
        RecursionError,
        binascii.Error,
    ):
        return None

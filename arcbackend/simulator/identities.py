"""Who a request is of, and what that one may do.

A-REX decides whom a connection belongs to when it gets the first request on it
(``ARexConfigContext::GetRutimeConfiguration`` in job.cpp, ``LegacySecHandler``), and what a request
may do by that request (``CheckOperationAllowed`` in authop.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from arcbackend.simulator.authority import Authority, Claims
from arcbackend.simulator.connection import Connection
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.traps import Trap, Traps

__all__ = ["OWN", "Caller", "Identities", "Permission"]


class Permission(StrEnum):
    """What A-REX may allow, as ``tokenscopes`` in arc.conf names it."""

    INFO = "jobinfo"
    CREATE = "jobcreate"
    CANCEL = "jobcancel"
    DELETE = "jobdelete"
    DATA_INFO = "datainfo"
    DATA_READ = "dataread"
    DATA_WRITE = "datawrite"


# ``tokenscopes = wlcg`` (CoreConfig.cpp).
_WLCG: Mapping[Permission, str] = MappingProxyType(
    {
        Permission.INFO: "compute.read",
        Permission.CREATE: "compute.create",
        Permission.CANCEL: "compute.cancel",
        Permission.DELETE: "compute.cancel",
        Permission.DATA_INFO: "compute.read",
        Permission.DATA_READ: "compute.read",
        Permission.DATA_WRITE: "compute.modify",
    }
)
_BEARER = "bearer "

OWN = "{endpoint}"
"""Among the audiences: the CE's own address."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        owner: whose jobs and delegations these are.
        claims: of the token of this request; None: it has none that is good.
        certified: whether the connection shows a certificate.
        scopes: of the token; None: they are not looked at.
    """

    owner: str
    claims: Claims | None
    certified: bool
    scopes: frozenset[str] | None

    def refusal(self, permission: Permission) -> str | None:
        """Why a request is refused; None: it is not."""
        if self.claims is not None:
            if self.scopes is None or _WLCG[permission] in self.scopes:
                return None
            return "Token scopes do not match requires scopes"
        return None if self.certified else "No supported identity found"


class Identities:
    """Tells who asks.

    Args:
        settings: whom the CE lets in.
        traps: what it does that nobody expects.
        authority: whom it believes.
        endpoint: tells where it is.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        traps: Traps,
        authority: Authority,
        endpoint: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._traps = traps
        self._authority = authority
        self._endpoint = endpoint

    def audiences(self) -> tuple[str, ...]:
        """The audiences that it is content with; none: any."""
        here = self._endpoint()
        return tuple(here if each == OWN else each for each in self._settings.audiences)

    def caller(self, connection: Connection, authorization: str | None) -> Caller | None:
        """Who asks; None: somebody who is not let in. To be asked for each request, once.

        Args:
            connection: that the request came on.
            authorization: the header field; None: there is none.
        """
        claims = self._claims(authorization)
        each_anew = Trap.STICKY_IDENTITY not in self._traps and not connection.spoilt
        if not connection.judged or each_anew:
            connection.owner = self._owner(connection, claims)
        if not connection.judged:
            refused = connection.owner is None
            connection.spoilt = refused and Trap.SPOILT_CONNECTION in self._traps
            connection.judged = not refused or connection.spoilt
        if connection.owner is None:
            return None
        return Caller(connection.owner, claims, connection.chain is not None, self._granted(claims))

    def _claims(self, authorization: str | None) -> Claims | None:
        if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
            return None
        return self._authority.claims(authorization[len(_BEARER) :])

    def _owner(self, connection: Connection, claims: Claims | None) -> str | None:
        """Whose the connection is: either credential is enough to be let in."""
        certificate = None if connection.chain is None else connection.chain.identity
        token = claims is not None and self._is_welcome(claims)
        proxy = (
            certificate is not None
            and "proxy" in self._settings.auth
            and self._authority.lets_in(certificate)
        )
        if not token and not proxy:
            return None
        named = None if claims is None else f"{claims.get('iss', '')}/{claims.get('sub', '')}"
        if Trap.CERTIFICATE_OUTRANKS_TOKEN in self._traps:
            return certificate or named
        return named if token else certificate

    def _is_welcome(self, claims: Claims) -> bool:
        if "token" not in self._settings.auth:
            return False
        if not self._settings.audiences:
            return True
        audience = claims.get("aud")
        given = audience if isinstance(audience, list) else [audience]
        return any(wanted in given for wanted in self.audiences())

    def _granted(self, claims: Claims | None) -> frozenset[str] | None:
        if claims is None or self._settings.token_scopes is None:
            return None
        scope = claims.get("scope")
        if isinstance(scope, list):
            return frozenset(each for each in scope if isinstance(each, str))
        if not isinstance(scope, str):
            return frozenset()
        if Trap.SCOPE_STRING_IS_ONE in self._traps:
            return frozenset({scope})
        return frozenset(scope.split())

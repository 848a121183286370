"""A CE in memory that keeps delegations, and a provider whose proxies are renewed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import trio
from pydantic import SecretBytes, SecretStr

from arcbackend import (
    BearerToken,
    CredentialKind,
    CredentialRequirements,
    CredentialSet,
    X509Proxy,
)
from arcbackend.delegations import Delegations
from arcbackend.protocol.messages import TOKEN_DELEGATION, Operation, Request, Response
from arcbackend.protocol.requests import RestVersion
from arcbackend.wallet import Wallet
from arcbackend.x509 import CLOCK_SKEW
from tests.pure.certificates import HOUR, NOW, Credential, proxy, request
from tests.pure.fake_session import FakeSession, config
from tests.pure.replies import CE, reply

REQUEST = request()


class Provider:
    """Gives a proxy that lasts ``lifetime`` from now on; the same one until it is renewed.

    Attributes:
        lifetime: of the next proxy.
        renews: whether each question is answered with a new proxy.
        parent: what the proxies are signed with; None: the user.
        failing: how many questions to fail.
    """

    def __init__(self, lifetime: timedelta = 12 * HOUR) -> None:
        self._passed = timedelta()
        self.lifetime = lifetime
        self.renews = False
        self.parent: Credential | None = None
        self.failing = 0
        self.token = "token-number-0"
        self.asked: list[frozenset[str]] = []
        self._began = trio.current_time()
        self._held: X509Proxy | None = None

    @property
    def now(self) -> datetime:
        """The time: it goes on with trio's clock, and by `pass_by`, in whole seconds."""
        return NOW + self._passed + timedelta(seconds=int(trio.current_time() - self._began))

    def pass_by(self, time: timedelta) -> None:
        self._passed += time

    def renew(self, **how: Any) -> None:
        """Make the proxy that is given from now on."""
        valid = (self.now - CLOCK_SKEW, self.now + self.lifetime)
        made = proxy(self.parent, valid=valid, **how)
        self._held = X509Proxy(pem=SecretBytes(made.pem()), expires_at=valid[1])

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        self.asked.append(requirements.scopes)
        if self.failing:
            self.failing -= 1
            raise OSError("the provider is away")
        if self._held is None or self.renews:
            self.renew()
        return CredentialSet(token=BearerToken(value=SecretStr(self.token)), proxy=self._held)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class DelegatingCE(FakeSession):
    """Keeps delegations as A-REX does.

    Attributes:
        stored: id → chain, or token; None: a key pair without a chain.
        needed: ids that a job needs, which are not deleted.
        types: ids of tokens.
    """

    def __init__(self, provider: Provider, version: RestVersion = "1.1") -> None:
        super().__init__(version)
        self.provider = provider
        self.restart()
        self.stored: dict[str, bytes | None] = {}
        self.needed: set[str] = set()
        self.tokens: set[str] = set()
        self.destroyed: list[str] = []

    def clock(self) -> datetime:
        return self.provider.now

    def restart(self) -> None:
        """Forget the credentials, as a new process does."""
        kinds = frozenset(CredentialKind)
        self._wallet = Wallet(self.provider, CE, kinds, timedelta(seconds=60), self.clock)

    def answer(  # noqa: PLR0911  (one for each operation)
        self, request: Request, sent: bytes = b""
    ) -> Response:
        name = request.target.partition("?")[0].rpartition("/")[2]
        match request.operation:
            case Operation.DELEGATIONS_LIST:
                listed = [
                    {"id": each, "type": "jwt" if each in self.tokens else "x509"}
                    for each in self.stored
                ]
                return reply({"delegation": listed}, 200)
            case Operation.DELEGATIONS_NEW:
                name = f"d{len(self.stored) + len(self.destroyed)}"
                token = request.headers.get(TOKEN_DELEGATION)
                self.stored[name] = token.encode() if token else None
                if token:
                    self.tokens.add(name)
                location = {"location": f"/arex/rest/1.1/delegations/{name}"}
                return Response(201, "Created", location, b"" if token else REQUEST)
            case Operation.DELEGATIONS_RENEW:
                assert name not in self.tokens
                self.stored.setdefault(name, None)
                return Response(201, "Created", {}, REQUEST)
            case Operation.DELEGATIONS_PUT:
                self.stored[name] = request.body
                return Response(200, "OK")
            case Operation.DELEGATIONS_GET:
                chain = self.stored.get(name)
                return Response(404, "No") if chain is None else Response(200, "OK", {}, chain)
            case Operation.DELEGATIONS_DELETE:
                if name not in self.stored:
                    return Response(404, "No")
                if name in self.needed:
                    return Response(500, "Failed deleting delegation")
                del self.stored[name]
                self.destroyed.append(name)
                return Response(200, "OK")
        return super().answer(request, sent)


def delegations_of(ce: DelegatingCE, **settings: Any) -> Delegations:
    """Those of a new process on the CE, with ``auth = "proxy"`` unless told."""
    ce.restart()
    return Delegations(ce, config(**{"auth": "proxy", **settings}), ce.clock)


def operations(ce: FakeSession) -> Sequence[Operation]:
    return [call.request.operation for call in ce.calls]

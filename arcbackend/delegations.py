"""Delegations: what jobs work with on the CE, made once, found again, renewed, and removed.

One proxy is delegated for each identity, and shared by its jobs, also those of other processes: it
bears a comment by which it is found. docs/explanation/delegations.md tells the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
import trio

from arcbackend.config import ARCConfig
from arcbackend.credentials import CredentialSet
from arcbackend.errors import (
    AuthenticationError,
    ConfigurationError,
    InterCEdeError,
    ProtocolError,
    TransportError,
)
from arcbackend.moments import utc_now
from arcbackend.protocol.delegation import (
    Delegating,
    converse,
    delegate_token,
    parse_deleted,
    parse_list,
    parse_stored,
    stored_chains,
)
from arcbackend.protocol.messages import Scope
from arcbackend.protocol.requests import RequestBuilder
from arcbackend.session import Session

if TYPE_CHECKING:
    from arcbackend.x509 import Proxy

__all__ = ["Delegations", "Renewed"]

_log = structlog.get_logger("arcbackend")

_SCOPES = frozenset({Scope.CREATE.value})
# A delegation seen on the CE so many seconds ago is taken to be there still.
_SEEN_LATELY = 10.0
# A proxy that lasts hardly longer is not worth a renewal.
_LEAST_GAIN = timedelta(seconds=30)
# Looked at, from the newest, for one that a lost reply tells of.
_RECENT = 5
_SHORTEST_WAIT = 5.0
_PAST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Renewed:
    """A delegation that has got a new proxy.

    Attributes:
        id: the CE's id of it.
        expires_at: when its proxy ends.
    """

    id: str
    expires_at: datetime


class Delegations:
    """The delegations of one backend's identity on one CE.

    Args:
        session: the CE.
        config: whether there are any, and when they are renewed.
        now: the clock.
    """

    def __init__(
        self, session: Session, config: ARCConfig, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._session = session
        self._now = now
        self._settings = config.delegation
        self._of_proxy = config.auth != "token"
        self._margin = timedelta(seconds=config.freshness_margin)
        self._renew_before = timedelta(seconds=self._settings.renew_before)
        self._turn = trio.Lock()
        # What the CE has of ours: id → when it ends. None: not asked yet.
        self._ours: dict[str, datetime] | None = None
        # How long each was to last when it was made, or found.
        self._spans: dict[str, timedelta] = {}
        self._mark: str | None = None
        self._seen_at = float("-inf")
        # Made on the CE, but nothing stored yet.
        self._unfinished: str | None = None
        self._reply_lost = False
        self._parsed: tuple[CredentialSet, Proxy] | None = None
        # Of a token: which one, by its digest, and the CE's id of it.
        self._token: tuple[bytes, str] | None = None

    @property
    def renewable(self) -> bool:
        """Whether there are delegations that `maintain` keeps valid."""
        return self._of_proxy

    async def for_jobs(self) -> str | None:
        """The id of the delegation that new jobs get; None where nothing is delegated.

        Raises:
            AuthenticationError, ConfigurationError, TransportError, ProtocolError: there is none,
                and none could be made.
        """
        if not self._of_proxy and not self._settings.token:
            return None
        async with self._turn:
            builder = await self._session.builder()
            if not self._of_proxy:
                return await self._token_for_jobs(builder)
            return await self._proxy_for_jobs(builder)

    async def maintain(self) -> list[Renewed]:
        """Renew what ends soon, or is lost on the CE, and remove what no job needs any more.

        Raises:
            AuthenticationError: a delegation ends soon, and there is no proxy that lasts longer; or
                as `for_jobs`.
        """
        async with self._turn:
            builder = await self._session.builder()
            ours = await self._found(builder, await self._proxy())
            await self._drop_others(builder, ours)
            renewed = []
            for delegation in list(ours):
                if not await self._is_there(builder, delegation):
                    # The jobs that use it know it by this id, under which it is made anew.
                    ours[delegation] = _PAST
                if await self._renew(builder, ours, delegation):
                    renewed.append(Renewed(delegation, ours[delegation]))
            return renewed

    def pause(self) -> float:
        """Seconds until `maintain` is to be called again."""
        longest = self._settings.check
        if not self._ours:
            return longest
        left = min(self._ours.values()) - self._now()
        if left > self._renew_before:
            wait = (left - self._renew_before).total_seconds()
        else:
            wait = left.total_seconds() / 4
        return min(longest, max(wait, _SHORTEST_WAIT))

    # --- a proxy ---

    async def _proxy_for_jobs(self, builder: RequestBuilder) -> str:
        ours = await self._found(builder, await self._proxy())
        if (current := _last(ours)) is None:
            return await self._delegate(builder, ours, await self._proxy())
        lately = trio.current_time() - self._seen_at < _SEEN_LATELY
        if not lately and not await self._is_there(builder, current):
            _log.warning("delegation.lost", ce=self._session.endpoint, delegation=current)
            ours[current] = _PAST
        try:
            await self._renew(builder, ours, current)
        except InterCEdeError as error:
            if ours[current] - self._now() <= self._margin:
                if not isinstance(error, ProtocolError):
                    raise
                # The CE has it and cannot renew it: others can still be made.
                del ours[current]
                return await self._delegate(builder, ours, await self._proxy())
            _log.warning(
                "delegation.renewal_failed",
                ce=self._session.endpoint,
                delegation=current,
                why=error.message,
                valid_until=ours[current].isoformat(),
            )
        return current

    async def _proxy(self, *, renewed: bool = False) -> Proxy:
        """The provider's proxy, read."""
        wallet = self._session.wallet
        held = await (wallet.renewed(_SCOPES) if renewed else wallet.get(_SCOPES))
        if self._parsed is None or self._parsed[0] is not held:
            from arcbackend.x509 import Proxy  # noqa: PLC0415  (who uses tokens need not load it)

            assert held.proxy is not None  # (the wallet has checked the kinds)
            try:
                self._parsed = held, Proxy.from_pem(held.proxy.pem.get_secret_value())
            except ConfigurationError as error:
                error.ce = self._session.endpoint
                raise
        return self._parsed[1]

    async def _found(self, builder: RequestBuilder, proxy: Proxy) -> dict[str, datetime]:
        """Our delegations on the CE, asked once for each identity."""
        mark = _mark_of(proxy)
        if self._ours is None or mark != self._mark:
            from arcbackend.x509 import read_chain  # noqa: PLC0415

            steps = stored_chains(builder, self._session.endpoint)
            stored = await converse(steps, self._session.call)
            chains = {delegation: read_chain(pem) for delegation, pem in stored.items()}
            self._ours = {
                delegation: chain.expiry
                for delegation, chain in chains.items()
                if chain is not None and chain.comment == mark
            }
            now = self._now()
            self._spans = {delegation: end - now for delegation, end in self._ours.items()}
            self._mark = mark
            self._unfinished = None
            self._seen_at = trio.current_time()
        return self._ours

    async def _is_there(self, builder: RequestBuilder, delegation: str) -> bool:
        response = await self._session.call(builder.get_delegation(delegation))
        self._seen_at = trio.current_time()
        return parse_stored(response) is not None

    async def _renew(
        self, builder: RequestBuilder, ours: dict[str, datetime], delegation: str
    ) -> bool:
        """Renew a delegation if it ends soon and there is a proxy that lasts longer.

        Raises:
            AuthenticationError: there is none, and little time is left.
        """
        end = ours[delegation]
        left = end - self._now()
        if left > self._renew_before:
            return False
        worth = end + max(_LEAST_GAIN, left / 4)
        proxy = await self._proxy()
        if proxy.expiry <= worth:
            proxy = await self._proxy(renewed=True)
        if proxy.expiry <= worth:
            # (of a proxy that is a short one anyway, most of its time must have gone)
            if left < min(self._renew_before, self._spans.get(delegation, timedelta())) / 4:
                raise AuthenticationError(
                    f"the delegation {delegation} ends at {end.isoformat()}, and the credential "
                    "provider has no proxy that lasts longer: renew the proxy",
                    ce=self._session.endpoint,
                )
            return False
        await self._delegate(builder, ours, proxy, delegation)
        return True

    async def _delegate(
        self,
        builder: RequestBuilder,
        ours: dict[str, datetime],
        proxy: Proxy,
        delegation: str | None = None,
    ) -> str:
        """Give the CE a proxy, as a new delegation or for one that exists; returns its id."""
        from arcbackend.x509 import check_signer, sign_request  # noqa: PLC0415

        mark = _mark_of(proxy)
        try:
            check_signer(proxy, self._now())
        except InterCEdeError as error:
            error.ce = self._session.endpoint
            raise

        def sign(request: bytes) -> bytes:
            return sign_request(request, proxy, self._now(), comment=mark)

        is_new = delegation is None
        if is_new:
            delegation = self._unfinished or await self._from_lost_reply(builder, ours)
        delegating = Delegating(builder, sign, self._session.endpoint, delegation)
        try:
            made = await converse(delegating.steps(), self._session.call)
        except TransportError as error:
            self._reply_lost = self._reply_lost or (delegating.id is None and error.maybe_done)
            raise
        finally:
            if is_new:
                self._unfinished = delegating.id
        if is_new:
            self._unfinished = None
        ours[made] = proxy.expiry
        self._spans[made] = proxy.expiry - self._now()
        _log.info(
            "delegation.made" if is_new else "delegation.renewed",
            ce=self._session.endpoint,
            delegation=made,
            valid_until=proxy.expiry.isoformat(),
        )
        return made

    async def _from_lost_reply(
        self, builder: RequestBuilder, ours: dict[str, datetime]
    ) -> str | None:
        """What the CE made when its reply was lost: a recent one that holds nothing yet."""
        if not self._reply_lost:
            return None
        response = await self._session.call(builder.list_delegations())
        listed = parse_list(response, self._session.endpoint)
        for each in reversed(listed[-_RECENT:]):
            if each.type != "x509" or each.id in ours:
                continue
            response = await self._session.call(builder.get_delegation(each.id))
            if parse_stored(response) is None:
                self._reply_lost = False
                return each.id
        self._reply_lost = False
        return None

    async def _drop_others(self, builder: RequestBuilder, ours: dict[str, datetime]) -> None:
        """Remove all but the one that lasts longest; A-REX keeps those that jobs need."""
        current = _last(ours)
        for delegation in list(ours):
            if delegation != current and await self._delete(builder, delegation):
                del ours[delegation]

    async def _delete(self, builder: RequestBuilder, delegation: str) -> bool:
        response = await self._session.call(builder.delete_delegation(delegation))
        gone = parse_deleted(response)
        if gone:
            _log.info("delegation.removed", ce=self._session.endpoint, delegation=delegation)
        return gone

    # --- a token ---

    async def _token_for_jobs(self, builder: RequestBuilder) -> str:
        """The delegation of the provider's token: one for each token, since none can be renewed."""
        if builder.version == "1.0":
            raise ConfigurationError(
                "delegation.token needs ARC REST 1.1, which this CE does not speak",
                ce=self._session.endpoint,
            )
        held = await self._session.wallet.get(frozenset(self._settings.token_scopes))
        assert held.token is not None  # (the wallet has checked the kinds)
        digest = hashlib.sha256(held.token.value.get_secret_value().encode()).digest()
        if self._token is not None and self._token[0] == digest:
            lately = trio.current_time() - self._seen_at < _SEEN_LATELY
            if lately or await self._is_there(builder, self._token[1]):
                return self._token[1]
        former, self._token = self._token, None
        made = await converse(
            delegate_token(builder, held.token.value.get_secret_value(), self._session.endpoint),
            self._session.call,
        )
        self._token, self._seen_at = (digest, made), trio.current_time()
        if former is not None:
            await self._delete(builder, former[1])
        return made


def _last(ours: dict[str, datetime]) -> str | None:
    """The delegation that lasts longest."""
    return max(ours, key=lambda delegation: ours[delegation], default=None)


def _mark_of(proxy: Proxy) -> str:
    """The comment of a delegation that any backend of this identity may use."""
    identity = "\0".join((proxy.identity, str(proxy.is_limited), *proxy.attributes))
    return f"arcbackend {hashlib.sha256(identity.encode()).hexdigest()[:32]}"

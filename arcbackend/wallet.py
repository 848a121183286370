"""Fresh credentials for each operation: the one place that asks the provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
import trio

from arcbackend.credentials import (
    CredentialKind,
    CredentialProvider,
    CredentialRequirements,
    CredentialSet,
    lacking,
)
from arcbackend.errors import AuthenticationError, ConfigurationError, InterCEdeError
from arcbackend.moments import utc_now

__all__ = ["Wallet"]

_log = structlog.get_logger("arcbackend")

_LIVE_WITH_FAILURE = timedelta(seconds=10)


def _reason(error: Exception) -> str:
    """Why a provider failed: in its own words only where those hold no secret, as in our errors."""
    name = type(error).__name__
    return f"{name}: {error.message}" if isinstance(error, InterCEdeError) else name


@dataclass(slots=True)
class _Pocket:
    """The credentials for one set of scopes."""

    held: CredentialSet | None = None
    expiry: datetime | None = None
    lock: trio.Lock = field(default_factory=trio.Lock)
    refreshes: int = 0
    outcome: CredentialSet | _Failure | None = None
    # Why the last refresh failed, if what was held could be lived with.
    lived_with: _Failure | None = None
    quiet_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a refresh gave nothing; every asker that waited for it raises one of its own."""

    kind: type[AuthenticationError | ConfigurationError]
    message: str
    cause: Exception | None = None

    def error(self, ce: str) -> AuthenticationError | ConfigurationError:
        error = self.kind(self.message, ce=ce)
        error.__cause__ = self.cause
        return error


class Wallet:
    """Asks the provider when its set is missing or nearly expired; concurrent askers share one ask.

    Args:
        provider: the consumer's provider.
        ce: the CE's endpoint.
        kinds: the kinds that the configuration needs.
        margin: credentials are asked anew this long before they end.
        now: the clock.
        resource: the audience of tokens for the CE; None: its endpoint.
    """

    def __init__(
        self,
        provider: CredentialProvider,
        ce: str,
        kinds: frozenset[CredentialKind],
        margin: timedelta,
        now: Callable[[], datetime] = utc_now,
        *,
        resource: str | None = None,
    ) -> None:
        self._provider = provider
        self._ce = ce
        self._resource = resource or ce
        self._kinds = kinds
        self._margin = margin
        self._now = now
        self._pockets: dict[frozenset[str], _Pocket] = {}

    def requirements(self, scopes: frozenset[str] = frozenset()) -> CredentialRequirements:
        """What an operation with these scopes needs."""
        return CredentialRequirements(resource=self._resource, kinds=self._kinds, scopes=scopes)

    async def get(
        self, scopes: frozenset[str], *, refused: CredentialSet | None = None
    ) -> CredentialSet:
        """Return credentials for an operation with these scopes.

        Args:
            scopes: the operation's scopes.
            refused: a set that the CE has just refused: another one is wanted if there is one.

        Raises:
            AuthenticationError: the provider failed and nothing valid is held.
            ConfigurationError: the provider's set lacks a kind that the configuration needs.
        """
        pocket = self._pockets.setdefault(scopes, _Pocket())
        if (held := self._usable(pocket, refused)) is not None:
            return held
        return await self._asked(pocket, scopes, refused)

    async def renewed(self, scopes: frozenset[str]) -> CredentialSet:
        """Ask the provider for credentials though what is held is valid: others may last longer.

        Raises:
            AuthenticationError: the provider failed. What is held goes on being good for `get`.
            ConfigurationError: as `get`.
        """
        pocket = self._pockets.setdefault(scopes, _Pocket())
        held = await self._asked(pocket, scopes, None)
        if pocket.lived_with is not None:
            raise pocket.lived_with.error(self._ce)
        return held

    async def _asked(
        self, pocket: _Pocket, scopes: frozenset[str], refused: CredentialSet | None
    ) -> CredentialSet:
        seen = pocket.refreshes
        async with pocket.lock:
            # Whoever waited for another's refresh takes its outcome, whatever it is.
            if pocket.refreshes == seen:
                pocket.outcome = await self._refresh(pocket, scopes, refused)
                pocket.refreshes += 1
            outcome = pocket.outcome
        if isinstance(outcome, CredentialSet):
            return outcome
        assert outcome is not None
        raise outcome.error(self._ce)

    def _usable(self, pocket: _Pocket, refused: CredentialSet | None) -> CredentialSet | None:
        held = pocket.held
        if held is None or held is refused:
            return None
        now = self._now()
        expiry = pocket.expiry  # read out of the credentials once: this is asked for each request
        if expiry is None or expiry - now > self._margin:
            return held
        quiet = pocket.quiet_until is not None and now < pocket.quiet_until
        return held if quiet and expiry > now else None

    async def _refresh(
        self, pocket: _Pocket, scopes: frozenset[str], refused: CredentialSet | None
    ) -> CredentialSet | _Failure:
        try:
            fresh = await self._provider.get(self.requirements(scopes))
        except Exception as error:
            return self._without(pocket, refused, error)
        if missing := lacking(fresh, self._kinds):
            return _Failure(
                ConfigurationError,
                f"the credential provider gave no {' and no '.join(missing)}, which this "
                "configuration needs",
            )
        pocket.quiet_until = pocket.lived_with = None
        # The same again is kept as the same object: `refused` is compared by identity.
        if pocket.held is None or fresh != pocket.held:
            pocket.held, pocket.expiry = fresh, fresh.expiry()
        return pocket.held

    def _without(
        self, pocket: _Pocket, refused: CredentialSet | None, error: Exception
    ) -> CredentialSet | _Failure:
        """What to do when the provider failed: live with what is held, if it is still valid."""
        now = self._now()
        held = pocket.held
        expiry = held.expiry() if held is not None else None
        if held is None or held is refused or (expiry is not None and expiry <= now):
            return _Failure(
                AuthenticationError,
                f"the credential provider failed ({_reason(error)}) and no valid credentials are "
                "held: see the exception that caused this",
                error,
            )
        pocket.quiet_until = now + _LIVE_WITH_FAILURE
        pocket.lived_with = _Failure(
            AuthenticationError, f"the credential provider failed ({_reason(error)})", error
        )
        _log.warning(
            "credentials.refresh_failed",
            ce=self._ce,
            error=_reason(error),
            valid_until=expiry and expiry.isoformat(),
        )
        return held

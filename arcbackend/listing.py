"""The live listing: what the CE's job manager says now, and how often to ask it."""

from __future__ import annotations

from typing import Literal

import structlog
import trio

from arcbackend.errors import TransportError
from arcbackend.protocol import responses
from arcbackend.session import Session
from arcbackend.states import LIVE_LATE_STATES

__all__ = ["LiveListing"]

_log = structlog.get_logger("arcbackend")

_REST_FACTOR = 10


class LiveListing:
    """Lists the identity's jobs that are past the batch system, as of now.

    Args:
        session: the CE.
        mode: ``always``, ``never``, or ``auto``: unless it has been slow.
        budget: with ``auto``, a listing of more than this many seconds is given a rest.
    """

    def __init__(
        self, session: Session, mode: Literal["auto", "always", "never"], budget: float
    ) -> None:
        self._session = session
        self._mode = mode
        self._budget = budget
        self._rest_until = float("-inf")

    async def late_states(self) -> dict[str, str]:
        """Local id → state, for the jobs past the batch system; always asked.

        Raises:
            AuthenticationError, TransportError, ProtocolError: it could not be asked.
        """
        builder = await self._session.builder()
        response = await self._session.call(builder.list_jobs(LIVE_LATE_STATES))
        if response.elapsed > self._budget:
            self._rest(response.elapsed)
        listing = responses.parse_listing(response, self._session.endpoint)
        # A state that was not asked for, or none, would not be ours to interpret.
        return {local: state for local, state in listing.items() if state in LIVE_LATE_STATES}

    async def late_states_if_affordable(self) -> dict[str, str]:
        """The same, or nothing while the configuration or the listing's slowness forbids it."""
        if self._mode == "never" or trio.current_time() < self._rest_until:
            return {}
        began = trio.current_time()
        try:
            return await self.late_states()
        except TransportError as error:
            if self._mode == "always":
                raise
            # The documents may still be had: if they cannot either, that will be told.
            _log.warning("listing.failed", ce=self._session.endpoint, why=error.message)
            self._rest(max(self._budget, trio.current_time() - began))
            return {}

    def _rest(self, seconds: float) -> None:
        if self._mode == "auto":
            self._rest_until = trio.current_time() + _REST_FACTOR * seconds
            _log.info(
                "listing.rests",
                ce=self._session.endpoint,
                took=round(seconds, 3),
                rest_seconds=round(_REST_FACTOR * seconds, 3),
            )

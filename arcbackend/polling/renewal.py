"""Keeping the delegations of followed jobs valid, also when nothing is submitted any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from arcbackend.delegations import Delegations
from arcbackend.errors import InterCEdeError
from arcbackend.events import PollerEvent
from arcbackend.moments import utc_now
from arcbackend.polling.alarm import Alarm
from arcbackend.polling.tracker import Tracker

__all__ = ["Renewal"]

_log = structlog.get_logger("arcbackend")


class Renewal:
    """Looks at the delegations while there are jobs that are not over.

    Args:
        delegations: what is looked at.
        tracker: the jobs, and the numbers of events.
        tell: tells events.
        pause_after: seconds to leave the CE in peace after so many failures in a row.
    """

    def __init__(
        self,
        delegations: Delegations,
        tracker: Tracker,
        tell: Callable[[Sequence[PollerEvent]], Awaitable[None]],
        pause_after: Callable[[int], float],
    ) -> None:
        self._delegations = delegations
        self._tracker = tracker
        self._tell = tell
        self._pause_after = pause_after
        self._alarm = Alarm()

    def wake(self) -> None:
        """There are jobs, perhaps."""
        self._alarm.ring()

    async def run(self) -> None:
        """Look at them for ever; what fails is an event, and tried again."""
        failures = 0
        while True:
            if not self._tracker.active:
                await self._alarm.sleep_until(None)
                continue
            try:
                renewed = await self._delegations.maintain()
            except InterCEdeError as error:
                failures += 1
                reason = f"{type(error).__name__}: {error.message}"
                _log.warning("delegation.failing", ce=error.ce, why=reason, tries=failures)
                await self._tell([self._tracker.delegation_failing(reason, failures, utc_now())])
                await trio.sleep(self._pause_after(failures))
                continue
            failures = 0
            await self._tell(
                [
                    self._tracker.delegation_renewed(each.id, each.expires_at, utc_now())
                    for each in renewed
                ]
            )
            await trio.sleep(self._delegations.pause())

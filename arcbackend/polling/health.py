"""Whether a CE can be asked, by what becomes of the polls; and how long to leave it in peace."""

from __future__ import annotations

import random
from datetime import datetime

from arcbackend.events import SeenBy

__all__ = ["Health"]

_DOUBLINGS = 16


class Health:
    """How the two sources of one CE do. It is away from the first failure until all answer again.

    What failed is asked until it answers, also when there is nothing left to ask it about: a
    consumer who submits no more to a CE that is away must hear of its return.

    What the policy does is no source: its failures are told apart, and only put it off.

    Args:
        shortest: seconds before what has failed is tried again, at most.
        longest: what that grows to, doubling with each failure.
    """

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest = shortest
        self._longest = longest
        self._failures: dict[SeenBy, int] = {}
        self.away_since: datetime | None = None

    def failed(self, source: SeenBy, at: datetime) -> bool:
        """Note a source's failure; True if the CE was not away before."""
        self._failures[source] = self._failures.get(source, 0) + 1
        if self.away_since is not None:
            return False
        self.away_since = at
        return True

    def is_failing(self, source: SeenBy) -> bool:
        """Whether a source failed when it was asked last."""
        return source in self._failures

    def must_ask(self, source: SeenBy) -> bool:
        """Whether to ask a source also when there is nothing to ask it about."""
        # (away without a failure: an earlier run's, before a restart)
        return self.is_failing(source) or (self.away_since is not None and not self._failures)

    def answered(self, source: SeenBy) -> datetime | None:
        """Note an answer; if the CE is back by it, since when it had been away."""
        self._failures.pop(source, None)
        if self._failures or self.away_since is None:
            return None
        since, self.away_since = self.away_since, None
        return since

    def pause(self, source: SeenBy) -> float:
        """Seconds until a source that has failed is asked again: growing, and jittered."""
        return self.pause_after(self._failures.get(source, 1))

    def pause_after(self, failures: int) -> float:
        """Seconds until the next try of something that has failed so often in a row."""
        doublings = min(_DOUBLINGS, failures - 1)
        pause: float = min(self._longest, self._shortest * 2.0**doublings)
        return pause * random.uniform(0.75, 1.0)  # noqa: S311  (no secret)

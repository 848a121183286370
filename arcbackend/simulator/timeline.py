"""What happens when: events on one clock, in order, processed when somebody asks.

Time has grains. What falls into one is kept in one list, so that a hundred thousand jobs that are
made at once, and do the same, cost one entry for each of their steps.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil, floor
from typing import Any, TypeVar

__all__ = ["GRAIN", "Timeline"]

_T = TypeVar("_T")

GRAIN = 2**-7
"""Seconds. A power of two: sums of it are exact."""


class Timeline:
    """Events that are to come.

    Args:
        start: where it begins, in seconds since 1970.
        skew: what the CE's clock is ahead.

    Attributes:
        now: up to where everything has happened; while an event does, its time.
        stamp: what the CE's clock shows at that time. One object for all that happens then: a
            million jobs remember it.
        skew: what the CE's clock is ahead.
    """

    __slots__ = ("_due", "_times", "now", "skew", "stamp")

    def __init__(self, start: float, skew: float = 0.0) -> None:
        self.now = floor(start / GRAIN) * GRAIN
        self.skew = skew
        self.stamp = self.now + skew
        self._times: list[float] = []
        # Three entries for each event: action, subject and turn.
        self._due: dict[float, list[Any]] = {}

    def at(
        self, time: float, action: Callable[[_T, int], None], subject: _T, turn: int = 0
    ) -> None:
        """Let something happen at a time; at once if that is past. At the same time, first come,
        first served.

        Args:
            time: in seconds since 1970.
            action: is called with the two that follow.
            subject: what it is about.
            turn: which turn of it is meant: if it has had another one since, the action is to do
                nothing. Events are never taken back.
        """
        time = ceil(time / GRAIN) * GRAIN if time > self.now else self.now
        due = self._due.get(time)
        if due is None:
            self._due[time] = [action, subject, turn]
            heappush(self._times, time)
        else:
            due += (action, subject, turn)

    def advance(self, until: float) -> None:
        """Let everything happen that is due until a time."""
        until = floor(until / GRAIN) * GRAIN
        times = self._times
        while times and times[0] <= until:
            time = times[0]
            if time > self.now:
                self._move(time)
            due = self._due[time]
            done = 0
            while done < len(due):  # it may grow meanwhile
                due[done](due[done + 1], due[done + 2])
                done += 3
            heappop(times)
            del self._due[time]
        if until > self.now:
            self._move(until)

    def set_skew(self, skew: float) -> None:
        """Put the CE's clock forward or back. What is to come comes when it would have."""
        self.skew = skew
        self.stamp = self.now + skew

    def next(self) -> float | None:
        """When the next event is due; None: none is."""
        return self._times[0] if self._times else None

    def _move(self, time: float) -> None:
        self.now = time
        self.stamp = time + self.skew

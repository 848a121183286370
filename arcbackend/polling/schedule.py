"""When to look at which job: a timer wheel, and how often a job deserves a look. Pure."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar

__all__ = ["Wheel", "interval"]

_T = TypeVar("_T")

# A job that has been in its state for ten minutes is looked at about once a minute.
_AGE_SHARE = 0.1


def interval(age: float, shortest: float, longest: float) -> float:
    """Seconds until the next look at a job that has been in its state for ``age`` seconds."""
    return min(longest, max(shortest, age * _AGE_SHARE))


class Wheel(Generic[_T]):
    """Things that come due, to the tick: a list per tick, so that a million cost a pointer each.

    Args:
        tick: seconds; what is due in the same tick comes out together.
    """

    def __init__(self, tick: float = 1.0) -> None:
        self._tick = tick
        self._slots: dict[int, list[_T]] = {}
        self._order: list[int] = []

    def add(self, thing: _T, when: float) -> None:
        """Hand ``thing`` out at ``when``, or up to a tick later."""
        slot = -int(-when // self._tick)
        if slot not in self._slots:
            self._slots[slot] = []
            heappush(self._order, slot)
        self._slots[slot].append(thing)

    def pop(self, now: float) -> list[_T]:
        """What has come due."""
        found: list[_T] = []
        while self._order and self._order[0] * self._tick <= now:
            found += self._slots.pop(heappop(self._order))
        return found

    def next(self) -> float | None:
        """When something is due next; None: nothing is waiting."""
        return self._order[0] * self._tick if self._order else None

"""Sleeping until a time, or until somebody has work."""

from __future__ import annotations

import trio

__all__ = ["Alarm"]


class Alarm:
    """Wakes one sleeper, early if it is rung; a ring while nobody sleeps is not lost."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake the sleeper."""
        self._rung.set()

    async def sleep_until(self, when: float | None) -> None:
        """Sleep until a time on trio's clock, or a ring; None: until a ring."""
        with trio.CancelScope(deadline=float("inf") if when is None else when):
            await self._rung.wait()
        self._rung = trio.Event()
        await trio.lowlevel.checkpoint_if_cancelled()

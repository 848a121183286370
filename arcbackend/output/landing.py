"""Files that have arrived get their names: many with one change to a thread.

A change to a thread and back costs as much as what is done there for two small files. So a file
waits a little for others; nobody waits for it meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from arcbackend.output.transfer import PIECE, Download

__all__ = ["Landing"]

_BATCH = 16
_LINGER = 0.01


class Landing:
    """Where downloads wait that have arrived.

    Args:
        threads: how many batches are written at one time, should the disk be slow; and for how many
            pieces of memory there is room.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._busy = 0
        self._queue: deque[Download] = deque()
        self._held: dict[Download, Callable[[], None]] = {}
        self._room = threads * PIECE
        self._full = trio.Event()
        self._lot = trio.lowlevel.ParkingLot()

    def start(self, nursery: trio.Nursery) -> None:
        """Write until everything is written, or the nursery is cancelled: then call `aclose`."""
        self._nursery = nursery

    async def add(self, download: Download, then: Callable[[], None]) -> None:
        """Take a download that has arrived, as soon as there is room for it.

        Args:
            download: closed in the end, whatever happens.
            then: called when it has landed, or failed to.
        """
        self._held[download] = then
        while download.waiting > self._room:
            self.flush()
            await self._lot.park()
        self._room -= download.waiting
        self._queue.append(download)
        if len(self._queue) >= _BATCH:
            self.flush()
        if not self._busy or (len(self._queue) >= _BATCH and self._busy < self._threads):
            self._busy += 1
            self._nursery.start_soon(self._work)

    def flush(self) -> None:
        """Wait for no others."""
        self._full.set()

    async def aclose(self) -> None:
        """Close what has not landed."""
        for download in self._held:
            await download.aclose()
        self._held.clear()

    async def _work(self) -> None:
        while self._queue:
            with trio.move_on_after(_LINGER):
                await self._full.wait()
            self._full = trio.Event()
            count = min(len(self._queue), _BATCH)
            batch = [self._queue.popleft() for _ in range(count)]
            waiting = sum(download.waiting for download in batch)
            await trio.to_thread.run_sync(_land, batch)
            for download in batch:
                then = self._held.pop(download)
                await download.aclose()
                then()
            self._room += waiting
            self._lot.unpark_all()
        self._busy -= 1


def _land(batch: Sequence[Download]) -> None:
    for download in batch:
        download.land()

"""Events to several independent readers, each with a bounded buffer of its own."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trio

from arcbackend.errors import ConfigurationError
from arcbackend.events import EventsMissed, PollerEvent

__all__ = ["Hub", "Subscription"]


@dataclass(slots=True)
class _Gap:
    """Where events of one poller were dropped, in the place of the first; it grows until read."""

    last: PollerEvent
    count: int = 1


class Subscription:
    """One reader's events: an async iterator, which ends when every poller it hears is closed.

    A reader that keeps up misses nothing: a poller with something to say waits for room in the
    buffer, for a bounded time. One that does not make room in that time is slow: what does not
    fit is dropped, counted, and told as one `EventsMissed` behind the events it still has. No
    poller waits for it again until it has come to that.

    Several tasks may read one subscription: each event goes to one of them.

    Also an async context manager; leaving it, like dropping the last reference, unsubscribes.

    Raises:
        ConfigurationError: the buffer would hold nothing.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ConfigurationError(f"a buffer for {size} events: it needs room for one at least")
        self._size = size
        self._buffer: deque[PollerEvent | _Gap] = deque()
        # The gaps in the buffer, by CE: one for each CE at most, so that memory stays bounded.
        self._gaps: dict[str, _Gap] = {}
        self._hubs: list[Hub] = []
        self._open = 0
        self._closed = False
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> Self:
        """Events are kept from when the subscription was made."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unsubscribe."""
        self.close()

    def __aiter__(self) -> Self:
        """The events, as they come."""
        return self

    async def __anext__(self) -> PollerEvent:
        """The next event."""
        # (no event is taken before the last moment at which this can be cancelled)
        await trio.lowlevel.checkpoint()
        while not self._buffer:
            if self._closed or not self._open:
                raise StopAsyncIteration
            await self._readers.park()
        item = self._buffer.popleft()
        self._writers.unpark_all()
        if isinstance(item, _Gap):
            last = item.last
            del self._gaps[last.ce]
            return EventsMissed(
                ce=last.ce, sequence=last.sequence, seen_at=last.seen_at, count=item.count
            )
        return item

    def close(self) -> None:
        """Unsubscribe: nothing more is kept, and who waits for an event gets the end."""
        self._closed = True
        self._buffer.clear()
        self._gaps.clear()
        for hub in self._hubs:
            hub.leave(self)
        self._readers.unpark_all()
        self._writers.unpark_all()

    # --- the poller's side ---

    def join(self, hub: Hub) -> None:
        """Hear this hub, too."""
        self._hubs.append(hub)
        self._open += 1

    def hub_closed(self) -> None:
        """One hub will say nothing more."""
        self._open -= 1
        self._readers.unpark_all()

    def put(self, event: PollerEvent) -> None:
        """Keep an event, or count it as missed. Order holds: behind a gap comes nothing."""
        if self._closed:
            return
        gap = self._gaps.get(event.ce)
        if gap is not None:
            gap.count += 1
            gap.last = event
        elif len(self._buffer) < self._size:
            self._buffer.append(event)
        else:
            self._gaps[event.ce] = gap = _Gap(event)
            self._buffer.append(gap)
        self._readers.unpark_all()

    @property
    def is_full(self) -> bool:
        """Whether it has no room, and deserves to be waited for: it has not been slow already."""
        return len(self._buffer) >= self._size and not self._gaps

    async def drained(self) -> None:
        """Wait until something has been read."""
        await self._writers.park()


class Hub:
    """Hands every event to every subscription.

    Args:
        patience: seconds for which one `flush` waits for a subscription that has no room.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._closed = False
        self._queue: deque[PollerEvent] = deque()
        self._turn = trio.Lock()

    def join(self, subscription: Subscription) -> None:
        """Let a subscription hear what is said from now on."""
        if subscription in self._subscriptions:
            return
        subscription.join(self)
        self._subscriptions.add(subscription)
        if self._closed:
            subscription.hub_closed()

    def leave(self, subscription: Subscription) -> None:
        """Say nothing more to a subscription."""
        self._subscriptions.discard(subscription)

    def say(self, events: Iterable[PollerEvent]) -> None:
        """Queue events, in the order in which they happened; `flush` hands them out."""
        if not self._closed:
            self._queue.extend(events)

    async def flush(self) -> None:
        """Hand out what is queued, waiting a bounded time for readers who have no room.

        Cancelled, it leaves what is queued to the next flush, or to `close`: nothing is lost.
        """
        async with self._turn:
            slow: set[Subscription] = set()
            until = trio.current_time() + self._patience
            while self._queue:
                full = [one for one in self._subscriptions if one.is_full and one not in slow]
                if not full:
                    self._put(self._queue.popleft())
                    continue
                with trio.move_on_at(until) as patience:
                    await full[0].drained()
                if patience.cancelled_caught:
                    # (who has made room had to wait for the others, and gets its own time)
                    slow.update(one for one in full if one.is_full)
                    until = trio.current_time() + self._patience

    def close(self) -> None:
        """Hand out what is queued, without waiting, and say that nothing more will come."""
        self._hurry()
        if not self._closed:
            self._closed = True
            for subscription in list(self._subscriptions):
                subscription.hub_closed()

    def _hurry(self) -> None:
        while self._queue:
            self._put(self._queue.popleft())

    def _put(self, event: PollerEvent) -> None:
        for subscription in self._subscriptions:
            subscription.put(event)

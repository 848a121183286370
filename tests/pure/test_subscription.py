"""Several independent readers of one poller's events: what each of them gets, and in what order."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from arcbackend import CEUnreachable, ConfigurationError, EventsMissed
from arcbackend.events import PollerEvent, SeenBy
from arcbackend.polling.subscription import Hub, Subscription
from tests.pure.replies import CE

PATIENCE = 1.0
AT = datetime(2026, 1, 1, tzinfo=UTC)


def events(first: int, last: int, ce: str = CE) -> list[PollerEvent]:
    """Events of a poller, by their sequence."""
    return [
        CEUnreachable(ce=ce, sequence=number, seen_at=AT, seen_by=SeenBy.LISTING, reason="r")
        for number in range(first, last + 1)
    ]


def told(*heard: PollerEvent) -> list[object]:
    """Events in short: a sequence, or (sequence, how many were missed)."""
    return [
        (event.sequence, event.count) if isinstance(event, EventsMissed) else event.sequence
        for event in heard
    ]


async def taken(subscription: Subscription, count: int) -> list[object]:
    with trio.fail_after(20):
        return told(*[await anext(subscription) for _ in range(count)])


async def rest(subscription: Subscription) -> list[object]:
    with trio.fail_after(20):
        return told(*[event async for event in subscription])


async def said(hub: Hub, what: Iterable[PollerEvent]) -> float:
    """Say events; how long the poller had to wait for it."""
    began = trio.current_time()
    hub.say(what)
    await hub.flush()
    return trio.current_time() - began


def joined(*hubs: Hub, size: int = 10) -> Subscription:
    subscription = Subscription(size)
    for hub in hubs:
        hub.join(subscription)
    return subscription


@pytest.fixture
def hub() -> Hub:
    return Hub(PATIENCE)


async def test_each_subscriber_gets_every_event_from_when_it_joined(hub: Hub) -> None:
    early = joined(hub)
    await said(hub, events(1, 2))
    late = joined(hub)
    await said(hub, events(3, 4))
    hub.close()
    assert await rest(early) == [1, 2, 3, 4]
    assert await rest(late) == [3, 4]


async def test_joining_twice_is_joining_once(hub: Hub) -> None:
    subscription = joined(hub, hub)
    await said(hub, events(1, 1))
    hub.close()
    assert await rest(subscription) == [1]


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_for_nothing_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match="room for one"):
        Subscription(size)


@pytest.mark.parametrize("size", [1, 7])
async def test_many_more_events_than_the_buffer_holds_and_none_is_lost(
    autojump_clock: MockClock, hub: Hub, size: int
) -> None:
    subscription = joined(hub, size=size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(said, hub, events(1, 2000))
        assert await taken(subscription, 2000) == list(range(1, 2001))
        assert trio.current_time() == pytest.approx(0.0)


async def test_one_that_reads_within_the_patience_loses_nothing(
    autojump_clock: MockClock, hub: Hub
) -> None:
    subscription = joined(hub, size=1)

    async def read() -> None:
        for number in range(1, 9):
            await trio.sleep(PATIENCE * 0.9)
            assert await taken(subscription, 1) == [number]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for number in range(1, 9):
            await said(hub, events(number, number))


async def test_a_full_buffer_is_waited_for_only_when_there_is_something_to_say(
    autojump_clock: MockClock, hub: Hub
) -> None:
    subscription = joined(hub, size=2)
    assert await said(hub, events(1, 2)) == 0.0
    assert await said(hub, []) == 0.0
    assert await said(hub, events(3, 3)) == PATIENCE
    assert await taken(subscription, 3) == [1, 2, (3, 1)]


async def test_a_slow_one_is_told_what_it_missed_and_goes_on(
    autojump_clock: MockClock, hub: Hub
) -> None:
    subscription = joined(hub, size=3)
    assert await said(hub, events(1, 8)) == PATIENCE
    # It is waited for once, not again while it is behind.
    assert await said(hub, events(9, 10)) == 0.0
    assert await taken(subscription, 2) == [1, 2]
    # There is room now, but what comes would come before what was missed.
    assert await said(hub, events(11, 11)) == 0.0
    assert await taken(subscription, 2) == [3, (11, 8)]
    # It has caught up: nothing is dropped, and it is waited for again.
    assert await said(hub, events(12, 14)) == 0.0
    assert await said(hub, events(15, 15)) == PATIENCE
    hub.close()
    assert await rest(subscription) == [12, 13, 14, (15, 1)]


async def test_what_was_missed_names_the_last_event_and_when_it_was_seen(
    autojump_clock: MockClock, hub: Hub
) -> None:
    subscription = joined(hub, size=1)
    await said(hub, events(1, 4))
    await anext(subscription)
    assert await anext(subscription) == EventsMissed(ce=CE, sequence=4, seen_at=AT, count=3)


async def test_memory_stays_bounded(autojump_clock: MockClock, hub: Hub) -> None:
    subscription = joined(hub, size=3)
    await said(hub, events(1, 10_000))
    gc.collect()
    alive = sum(isinstance(one, CEUnreachable) for one in gc.get_objects())
    assert alive <= 3 + 1  # what is kept, and the last that is missed
    hub.close()
    assert len(await rest(subscription)) == 4


async def test_one_that_never_reads_does_not_cost_the_others_anything(
    autojump_clock: MockClock, hub: Hub
) -> None:
    idle, quick = joined(hub, size=5), joined(hub, size=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(said, hub, events(1, 1000))
        assert await taken(quick, 1000) == list(range(1, 1001))
    assert trio.current_time() == PATIENCE
    hub.close()
    assert await rest(idle) == [1, 2, 3, 4, 5, (1000, 995)]


async def test_several_that_never_read_are_given_up_together(
    autojump_clock: MockClock, hub: Hub
) -> None:
    kept = [joined(hub, size=2) for _ in range(4)]
    assert await said(hub, events(1, 100)) == PATIENCE
    hub.close()
    assert [await rest(one) for one in kept] == [[1, 2, (100, 98)]] * 4


# leaving


async def test_dropping_the_last_reference_unsubscribes(
    autojump_clock: MockClock, hub: Hub
) -> None:
    joined(hub, size=1)
    gc.collect()
    assert await said(hub, events(1, 100)) == 0.0


async def test_the_loop_keeps_the_subscription_alive_that_nobody_else_holds(hub: Hub) -> None:
    heard: list[PollerEvent] = []

    async def listen() -> None:
        async for event in joined(hub):
            heard.append(event)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        gc.collect()
        await said(hub, events(1, 2))
        hub.close()
    assert told(*heard) == [1, 2]


async def test_close_wakes_a_waiting_reader_and_drops_what_is_kept(hub: Hub) -> None:
    subscription = joined(hub)
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            assert await rest(subscription) == []

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        subscription.close()
    await said(hub, events(1, 1))
    assert await rest(subscription) == []
    subscription.close()  # once more


async def test_close_frees_the_poller_that_waits_for_room(
    autojump_clock: MockClock, hub: Hub
) -> None:
    subscription = joined(hub, size=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(said, hub, events(1, 9))
        await wait_all_tasks_blocked()
        subscription.close()
    assert trio.current_time() == 0.0


async def test_leaving_the_block_unsubscribes(autojump_clock: MockClock, hub: Hub) -> None:
    async with joined(hub, size=1) as subscription:
        await said(hub, events(1, 1))
        assert await taken(subscription, 1) == [1]
    assert await said(hub, events(2, 9)) == 0.0
    assert await rest(subscription) == []


# the end


async def test_the_end_comes_behind_what_is_kept_and_what_was_missed(
    autojump_clock: MockClock, hub: Hub
) -> None:
    subscription = joined(hub, size=2)
    await said(hub, events(1, 3))
    hub.say(events(4, 4))
    hub.close()  # hands out what was queued
    assert await rest(subscription) == [1, 2, (4, 2)]
    assert await rest(subscription) == []


async def test_the_end_wakes_a_waiting_reader(hub: Hub) -> None:
    subscription = joined(hub)
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            assert await rest(subscription) == []

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        hub.close()
        hub.close()  # once more


async def test_after_the_end_nothing_is_said(hub: Hub) -> None:
    subscription = joined(hub)
    hub.close()
    await said(hub, events(1, 1))
    assert await rest(subscription) == []
    assert await rest(joined(hub)) == []


async def test_a_hub_closed_while_it_waits_for_room_is_through(
    autojump_clock: MockClock, hub: Hub
) -> None:
    subscription = joined(hub, size=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(said, hub, events(1, 3))
        await wait_all_tasks_blocked()
        hub.close()
        assert await rest(subscription) == [1, (3, 2)]


# several tasks


async def test_two_readers_of_one_subscription_share_its_events(
    autojump_clock: MockClock, hub: Hub
) -> None:
    subscription = joined(hub, size=2)
    shares: tuple[list[int], list[int]] = ([], [])

    async def read(share: list[int]) -> None:
        async for event in subscription:
            share.append(event.sequence)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for share in shares:
            nursery.start_soon(read, share)
        await said(hub, events(1, 100))
        await wait_all_tasks_blocked()
        hub.close()
    assert sorted(shares[0] + shares[1]) == list(range(1, 101))
    assert all(share and share == sorted(share) for share in shares)


async def test_a_reader_cancelled_while_it_waits_takes_nothing(hub: Hub) -> None:
    subscription = joined(hub)
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(subscription)
    await said(hub, events(1, 2))
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(subscription)
    hub.close()
    assert await rest(subscription) == [1, 2]


async def test_a_cancelled_flush_loses_nothing(autojump_clock: MockClock, hub: Hub) -> None:
    subscription = joined(hub, size=2)
    with trio.move_on_after(PATIENCE / 2) as scope:
        await said(hub, events(1, 9))
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(said, hub, events(10, 12))
        assert await taken(subscription, 12) == list(range(1, 13))


async def test_a_flush_cancelled_before_it_begins_loses_nothing(hub: Hub) -> None:
    subscription = joined(hub)
    with trio.CancelScope() as scope:
        scope.cancel()
        await said(hub, events(1, 3))
    hub.close()
    assert await rest(subscription) == [1, 2, 3]


async def test_events_said_by_several_tasks_keep_their_order(
    autojump_clock: MockClock, hub: Hub
) -> None:
    subscription = joined(hub, size=3)
    number = 0

    async def say(pause: float) -> None:
        nonlocal number
        for _ in range(50):
            await trio.sleep(pause)
            hub.say(events(number + 1, number + 5))
            number += 5
            await hub.flush()

    async with trio.open_nursery() as nursery:
        for pause in (0.0, 0.01, 0.013, 0.02):
            nursery.start_soon(say, pause)
        assert await taken(subscription, 1000) == list(range(1, 1001))


# several pollers in one stream

OTHER = "https://other.example.org:443"


async def test_a_merged_stream_ends_with_the_last_of_its_pollers(hub: Hub) -> None:
    other = Hub(PATIENCE)
    merged = joined(hub, other)
    await said(hub, events(1, 1))
    hub.close()
    await said(other, events(1, 2, OTHER))
    other.close()
    assert [(event.ce, event.sequence) async for event in merged] == [
        (CE, 1),
        (OTHER, 1),
        (OTHER, 2),
    ]


async def test_two_pollers_at_once_fill_one_buffer_and_lose_nothing(
    autojump_clock: MockClock, hub: Hub
) -> None:
    other = Hub(PATIENCE)
    merged = joined(hub, other, size=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(said, hub, events(1, 500))
        nursery.start_soon(said, other, events(1, 500, OTHER))
        heard = [await anext(merged) for _ in range(1000)]
    for ce in (CE, OTHER):
        assert told(*(event for event in heard if event.ce == ce)) == list(range(1, 501))


async def test_what_was_missed_of_one_ce_is_told_though_another_goes_on(
    autojump_clock: MockClock, hub: Hub
) -> None:
    other = Hub(PATIENCE)
    merged = joined(hub, other, size=2)
    await said(hub, events(1, 4))
    heard: list[tuple[str, list[object]]] = []
    for number in range(1, 7):  # the buffer is never empty
        event = await anext(merged)
        heard.append((event.ce, told(event)))
        await said(other, events(number, number, OTHER))
    await said(hub, events(5, 5))
    hub.close()
    other.close()
    assert heard[:3] == [(CE, [1]), (CE, [2]), (CE, [(4, 2)])]
    assert [(event.ce, event.sequence) async for event in merged][-1] == (CE, 5)


async def test_a_merged_stream_can_be_left(hub: Hub) -> None:
    other = Hub(PATIENCE)
    merged = joined(hub, other, size=1)
    merged.close()
    await said(hub, events(1, 5))
    await said(other, events(1, 5, OTHER))
    assert await rest(merged) == []

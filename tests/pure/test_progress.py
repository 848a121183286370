"""What a meter counts, and how often it tells."""

from __future__ import annotations

import dataclasses

import pytest
import trio
from trio.testing import MockClock

from arcbackend import FetchProgress, JobID, JobOutput
from arcbackend.output.budget import Account, Allowance
from arcbackend.output.progress import Meter

JOB = JobID("https://ce:443/arex/rest/1.0/jobs/a")


def meter(heard: list[FetchProgress], jobs: int = 1) -> tuple[Meter, Account]:
    account = Account(10**12, "the call")
    return Meter(heard.append, account, jobs), account


async def test_bytes_under_way_are_told_five_times_a_second_at_most(
    autojump_clock: MockClock,
) -> None:
    heard: list[FetchProgress] = []
    counting, account = meter(heard)
    async with trio.open_nursery() as nursery:
        counting.start(nursery)
        for _ in range(1000):  # ten seconds
            account.taken += 1000
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert 48 <= len(heard) <= 50
    assert {now.what for now in heard} == {"bytes"}
    told = [now.bytes_done for now in heard]
    assert told == sorted(set(told))


async def test_where_nothing_moves_nothing_is_told(autojump_clock: MockClock) -> None:
    heard: list[FetchProgress] = []
    counting, account = meter(heard)
    async with trio.open_nursery() as nursery:
        counting.start(nursery)
        await trio.sleep(60)
        account.taken = 5
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert [now.bytes_done for now in heard] == [5]


def test_what_is_known_grows_and_never_lies() -> None:
    heard: list[FetchProgress] = []
    counting, account = meter(heard, jobs=2)
    allowance = Allowance((account,), 10**9)
    counting.expect(100)
    counting.expect(0)
    counting.listed(JOB)
    counting.expect(None)
    counting.listed(JOB)
    allowance.take(100)
    counting.settle(100)
    counting.fetched(JOB, "f", 100)
    counting.settle(None)
    counting.refused(JOB, "g", "why")
    allowance.take(7)  # of the file that nobody knew the size of
    counting.listed(JOB)
    counting.settle(0)
    counting.fetched(JOB, "log", 7)
    counting.done(JOB, JobOutput())
    assert [now.bytes_known for now in heard] == [100, None, None, 100, 107, 107, 107]
    assert [now.bytes_done for now in heard] == [0, 0, 100, 100, 107, 107, 107]
    assert [now.files_known for now in heard] == [2, 3, 3, 3, 3, 3, 3]
    assert [now.files_done for now in heard] == [0, 0, 1, 1, 1, 2, 2]
    assert (heard[-1].jobs_done, heard[-1].jobs_total) == (1, 2)


async def test_a_listener_that_raises_is_told_nothing_more_and_stops_the_rest() -> None:
    calls = 0

    def listen(now: FetchProgress) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("listener")

    counting = Meter(listen, Account(1, "the call"), 1)
    async with trio.open_nursery() as nursery:
        counting.start(nursery)
        counting.listed(JOB)
        counting.listed(JOB)
        await trio.sleep_forever()
    assert calls == 1
    assert isinstance(counting.failure, ValueError)


async def test_without_a_listener_there_is_nothing_to_stop() -> None:
    counting = Meter(None, Account(1, "the call"), 1)
    async with trio.open_nursery() as nursery:
        counting.start(nursery)
        counting.listed(JOB)
    assert counting.failure is None


def test_values_are_frozen() -> None:
    heard: list[FetchProgress] = []
    counting, _ = meter(heard)
    counting.listed(JOB)
    with pytest.raises(dataclasses.FrozenInstanceError):
        heard[0].jobs_done = 5  # type: ignore[misc]

"""run_all: many like things at once, one exception out."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from arcbackend.tasks import run_all


async def test_everything_is_done() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        await trio.lowlevel.checkpoint()
        done.append(item)

    await run_all(work, range(200), workers=7)
    assert sorted(done) == list(range(200))


async def test_nothing_to_do() -> None:
    async def work(item: int) -> None:
        pytest.fail("called")

    await run_all(work, [])


@pytest.mark.parametrize("workers", [1, 3, 50])
async def test_workers_are_bounded_and_used(workers: int) -> None:
    running = most = 0

    async def work(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.testing.wait_all_tasks_blocked()
        running -= 1

    await run_all(work, range(10), workers=workers)
    assert most == min(workers, 10)


async def test_it_begins_in_order() -> None:
    begun: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        await trio.lowlevel.checkpoint()

    await run_all(work, range(50), workers=1)
    assert begun == list(range(50))


async def test_the_first_exception_comes_out_bare_and_cancels_the_rest() -> None:
    cancelled: list[int] = []
    begun: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        if item == 2:
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError(item)
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(item)
            raise

    with trio.fail_after(30):
        with pytest.raises(KeyError) as caught:
            await run_all(work, range(100), workers=5)
    assert caught.value.args == (2,)
    assert sorted(cancelled) == [0, 1, 3, 4]
    assert sorted(begun) == [0, 1, 2, 3, 4]


async def test_what_fails_while_being_cancelled_does_not_hide_the_first() -> None:
    async def work(item: int) -> None:
        if item == 0:
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError("first")
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("later")

    with pytest.raises(KeyError, match="first"):
        await run_all(work, range(5))


async def test_an_exception_before_the_first_wait() -> None:
    async def work(item: int) -> None:
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        await run_all(work, range(5))


async def test_an_exception_that_is_a_group_is_not_unwrapped() -> None:
    group = ExceptionGroup("g", [ValueError()])

    async def work(item: int) -> None:
        raise group

    with pytest.raises(ExceptionGroup) as caught:
        await run_all(work, [1])
    assert caught.value is group


async def test_cancellation_from_outside() -> None:
    cancelled = 0

    async def work(item: int) -> None:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled += 1
            raise

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_all, work, range(100))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert cancelled == 32


async def test_cancellation_from_outside_is_not_an_error_of_the_work() -> None:
    async def work(item: int) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(0) as scope:
        await run_all(work, [1, 2])
    assert scope.cancelled_caught

"""How files that have arrived are written: in batches, side by side only if need be."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, cast

import pytest
import trio

from arcbackend.output.landing import Landing
from arcbackend.output.transfer import PIECE, Download


class Arrived:
    """A download that has arrived, as far as `Landing` looks at it."""

    def __init__(self, log: list[str], name: str, waiting: int = 1) -> None:
        self._log, self._name = log, name
        self.waiting = waiting
        self.gate = threading.Event()
        self.gate.set()
        self.thread = 0

    def land(self) -> None:
        self.thread = threading.get_ident()
        self.gate.wait(30)
        self._log.append(f"land {self._name}")

    async def aclose(self) -> None:
        self._log.append(f"close {self._name}")


async def add(landing: Landing, log: list[str], arrived: Any) -> None:
    note = partial(log.append, f"then {arrived._name}")
    await landing.add(cast("Download", arrived), note)


@pytest.fixture
def log() -> list[str]:
    return []


async def test_one_change_to_a_thread_for_many(log: list[str]) -> None:
    landing = Landing(4)
    files = [Arrived(log, str(number)) for number in range(5)]
    async with trio.open_nursery() as nursery:
        landing.start(nursery)
        for file in files:
            await add(landing, log, file)
        assert log == []
    await landing.aclose()
    assert log[:5] == [f"land {number}" for number in range(5)]
    assert log[5:] == [f"{what} {number}" for number in range(5) for what in ("close", "then")]
    assert len({file.thread for file in files}) == 1


async def test_flush_waits_for_no_others(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arcbackend.output.landing._LINGER", 1000)
    landing = Landing(4)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            landing.start(nursery)
            await add(landing, log, Arrived(log, "a"))
            landing.flush()


async def test_a_full_batch_waits_for_no_others(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcbackend.output.landing._LINGER", 1000)
    landing = Landing(4)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            landing.start(nursery)
            for number in range(16):
                await add(landing, log, Arrived(log, str(number)))
    assert log.count("land 15") == 1


async def test_a_slow_disk_is_written_to_side_by_side(log: list[str]) -> None:
    landing = Landing(3)
    stuck = Arrived(log, "stuck")
    stuck.gate.clear()
    async with trio.open_nursery() as nursery:
        landing.start(nursery)
        await add(landing, log, stuck)
        landing.flush()
        while not stuck.thread:
            await trio.sleep(0.001)
        others = [Arrived(log, str(number)) for number in range(40)]
        for other in others:
            await add(landing, log, other)
        with trio.fail_after(10):
            while log.count("then 31") == 0:
                await trio.sleep(0.001)
        assert "land stuck" not in log
        stuck.gate.set()
    assert sum(line.startswith("then") for line in log) == 41


async def test_memory_is_bounded(log: list[str]) -> None:
    landing = Landing(2)
    stuck = [Arrived(log, str(number), PIECE) for number in range(3)]
    for file in stuck:
        file.gate.clear()
    async with trio.open_nursery() as nursery:
        landing.start(nursery)
        for file in stuck[:2]:
            await add(landing, log, file)
        nursery.start_soon(add, landing, log, stuck[2])
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert stuck[0].thread  # the two are being written
        assert not landing._queue  # and the third is not taken yet
        for file in stuck:
            file.gate.set()
    assert log.count("then 2") == 1


async def test_a_cancellation_closes_what_has_not_landed(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcbackend.output.landing._LINGER", 1000)
    landing = Landing(1)
    async with trio.open_nursery() as nursery:
        landing.start(nursery)
        await add(landing, log, Arrived(log, "a"))
        await add(landing, log, Arrived(log, "b", PIECE - 1))
        nursery.start_soon(add, landing, log, Arrived(log, "no room", PIECE))
        nursery.cancel_scope.cancel()
    assert log == []
    await landing.aclose()
    assert sorted(log) == ["close a", "close b", "close no room"]
    await landing.aclose()
    assert len(log) == 3


async def test_what_a_thread_has_begun_is_finished(log: list[str]) -> None:
    landing = Landing(1)
    stuck = Arrived(log, "stuck")
    stuck.gate.clear()
    async with trio.open_nursery() as nursery:
        landing.start(nursery)
        await add(landing, log, stuck)
        landing.flush()
        while not stuck.thread:
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
        stuck.gate.set()
    await landing.aclose()
    assert log == ["land stuck", "close stuck", "then stuck"]

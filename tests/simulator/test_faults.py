"""Faults go wrong by their rules, and the same way each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import trio
from pydantic import ValidationError
from trio.testing import MockClock

from arcbackend import SubmissionSpec
from arcbackend.simulator import (
    Cut,
    Fault,
    FewerInstances,
    FixedTime,
    Latency,
    LognormalTime,
    Simulator,
    SlowAccept,
    Stall,
    Status,
    UniformTime,
)
from arcbackend.simulator.fault_rules import Effect, Time
from arcbackend.simulator.faults import Faults
from tests.simulator.clients import JOBS, Client, adl, asking, said

STATUS = Status(status=503, reason="Try later")


def rule(effect: Effect, **when: Any) -> Fault:
    return Fault(effect=effect, **when)


def always(*effects: Effect) -> tuple[Fault, ...]:
    return tuple(Fault(effect=effect) for effect in effects)


def hits(faults: Faults, times: int, operation: str = "info") -> list[bool]:
    return [bool(faults.hit(operation, "GET", "/x")) for _ in range(times)]


def rules(*given: Fault, seed: int = 0) -> Faults:
    return Faults(given, seed, lambda: 0.0)


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ({}, True),
        ({"operation": "info"}, True),
        ({"operation": "jobs.*"}, False),
        ({"operation": "i?fo"}, True),
        ({"method": "GET"}, True),
        ({"method": "P*"}, False),
        ({"target": "/x"}, True),
        ({"target": "*y"}, False),
        ({"operation": "info", "method": "PUT"}, False),
        ({"probability": 0.0}, False),
        ({"since": 1.0}, False),
        ({"until": 0.0}, False),
        ({"until": 0.1}, True),
    ],
)
def test_which_requests(when: dict[str, Any], matches: bool) -> None:
    assert hits(rules(rule(STATUS, **when)), 1) == [matches]


def test_how_often() -> None:
    assert hits(rules(rule(STATUS, count=2)), 4) == [True, True, False, False]
    assert hits(rules(rule(STATUS, skip=1)), 3) == [False, True, True]
    assert hits(rules(rule(STATUS, skip=1, count=1)), 3) == [False, True, False]


def test_chance_is_the_seeds() -> None:
    chance = rule(STATUS, probability=0.3)
    one, other, third = (hits(rules(chance, seed=seed), 1000) for seed in (1, 1, 2))
    assert one == other
    assert one != third
    assert 200 < sum(one) < 400


@pytest.mark.parametrize(
    ("time", "shortest", "longest"),
    [
        (FixedTime(seconds=3), 3, 3),
        (UniformTime(shortest=1, longest=2), 1, 2),
        (LognormalTime(median=1, sigma=2, longest=20), 0, 20),
    ],
)
def test_times(time: Time, shortest: float, longest: float) -> None:
    faults = rules()
    drawn = [faults.draw(time) for _ in range(1000)]
    assert min(drawn) >= shortest
    assert max(drawn) <= longest
    if isinstance(time, LognormalTime):
        assert 0.5 < sorted(drawn)[500] < 2
        assert max(drawn) == longest


def test_rules_come_and_go() -> None:
    faults = rules(rule(STATUS, count=1))
    number = faults.add(rule(STATUS, operation="info"))
    assert len(faults.hit("info")) == 2
    assert [(each["number"], each["matched"], each["done"]) for each in faults.told()] == [
        (1, 1, 1),
        (number, 1, 1),
    ]
    faults.remove(number)
    assert hits(faults, 1) == [False]
    with pytest.raises(KeyError):
        faults.remove(number)
    faults.clear()
    assert faults.told() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"effect": {"kind": "nosuch"}},
        {"effect": {"kind": "status", "status": 200}},
        {"effect": {"kind": "status", "reason": "two\nlines"}},
        {"effect": {"kind": "cut", "when": "sometimes"}},
        {"effect": {"kind": "cut"}, "probability": 2},
        {"effect": {"kind": "latency", "time": {"kind": "fixed", "seconds": -1}}},
        {"effect": {"kind": "latency", "time": {"kind": "uniform", "shortest": 2, "longest": 1}}},
        {"effect": {"kind": "cut"}, "nosuch": 1},
    ],
)
def test_wrong_rules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(wrong)


async def test_latency(autojump_clock: MockClock) -> None:
    slow = Latency(time=UniformTime(shortest=5, longest=10))
    async with asking(faults=always(slow)) as client:
        began = trio.current_time()
        for _ in range(10):
            assert said(await client.get("/arex/rest")) == "200 OK"
        assert 50 <= trio.current_time() - began <= 100


async def test_latencies_add_up(autojump_clock: MockClock) -> None:
    fixed = Latency(time=FixedTime(seconds=2))
    async with asking(faults=always(fixed, fixed)) as client:
        began = trio.current_time()
        await client.get("/arex/rest")
        assert trio.current_time() - began == 4


async def read(client: Client, into: list[bytes], patience: float = 60) -> None:
    """Read an answer piece by piece."""
    async with client.http.stream("GET", "/arex/rest", timeout=patience) as answer:
        assert answer.status_code == 200
        async for piece in answer.aiter_raw():
            into.append(piece)


async def test_a_status_instead() -> None:
    busy = Status(status=503, reason="Busy", body="later", retry_after=7)
    async with asking(faults=(rule(busy, operation="jobs.new"),)) as client:
        answer = await client.post(f"{JOBS}?action=new", adl())
        assert said(answer) == "503 Busy"
        assert answer.text == "later"
        assert answer.headers["retry-after"] == "7"
        assert client.ce.world.counts() == {}
        assert said(await client.get(JOBS)) == "200 OK"


async def test_a_status_after_it_was_done() -> None:
    lost = Status(status=502, reason="Bad Gateway", done=True)
    async with asking(faults=(rule(lost, operation="jobs.new"),)) as client:
        answer = await client.post(f"{JOBS}?action=new", adl())
        assert said(answer) == "502 Bad Gateway"
        assert sum(client.ce.world.counts().values()) == 1


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("done", 1)])
async def test_a_cut_without_an_answer(when: Any, made: int) -> None:
    async with asking(faults=(rule(Cut(when=when), operation="jobs.new"),)) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="disconnected"):
            await client.post(f"{JOBS}?action=new", adl())
        assert sum(client.ce.world.counts().values()) == made


@pytest.mark.parametrize("after", [0, 5])
async def test_a_cut_in_the_answer(after: int) -> None:
    async with asking(faults=always(Cut(when="answer", after_bytes=after))) as client:
        got: list[bytes] = []
        with pytest.raises(httpx.RemoteProtocolError, match="peer closed"):
            await read(client, got)
        assert len(b"".join(got)) == after


async def test_a_cut_behind_the_end_cuts_nothing() -> None:
    async with asking(faults=always(Cut(when="answer", after_bytes=1000))) as client:
        assert said(await client.get("/arex/rest")) == "200 OK"


async def test_a_stall_before_the_head(autojump_clock: MockClock) -> None:
    async with asking(faults=always(Stall(seconds=30))) as client:
        began = trio.current_time()
        assert said(await client.get("/arex/rest", timeout=60)) == "200 OK"
        assert trio.current_time() - began == 30
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/arex/rest", timeout=20)


@pytest.mark.parametrize("seconds", [None, 30.0])
async def test_a_stall_in_the_body(autojump_clock: MockClock, seconds: float | None) -> None:
    async with asking(faults=always(Stall(seconds=seconds, after_bytes=3))) as client:
        got: list[bytes] = []
        with pytest.raises(httpx.ReadTimeout):
            await read(client, got, 20)
        assert [len(piece) for piece in got] == [3]
        if seconds is not None:
            got.clear()
            await read(client, got, 60)
            assert len(b"".join(got)) > 3


async def test_a_stall_and_then_a_cut(autojump_clock: MockClock) -> None:
    both = always(Stall(seconds=5, after_bytes=2), Cut(when="answer", after_bytes=2))
    async with asking(faults=both) as client:
        began = trio.current_time()
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/arex/rest")
        assert trio.current_time() - began == 5


async def test_fewer_instances() -> None:
    async with asking(faults=always(FewerInstances(at_most=2))) as client:
        assert len(await client.new(query="&instances=5")) == 2
        assert len(await client.new(query="&instances=1")) == 1


async def test_a_slow_accept(autojump_clock: MockClock) -> None:
    slow = rule(SlowAccept(time=FixedTime(seconds=8)), count=1)
    async with asking(faults=(slow,)) as client:
        began = trio.current_time()
        await client.get("/arex/rest")
        assert trio.current_time() - began == 8
        await client.get("/arex/rest")
        assert trio.current_time() - began == 8


async def test_faults_begin_and_end(autojump_clock: MockClock) -> None:
    async with asking(faults=(rule(STATUS, since=10, until=20),)) as client:
        seen = []
        for _ in range(5):
            seen.append((await client.get("/arex/rest")).status_code)
            await trio.sleep(6)
        assert seen == [200, 200, 503, 503, 200]


async def test_the_simulators_own_interface_has_none() -> None:
    async with asking(faults=always(Cut())) as client:
        assert said(await client.get("/simulator/faults")) == "200 OK"


async def test_the_same_requests_go_wrong_the_same_way(autojump_clock: MockClock) -> None:
    chance: Sequence[Fault] = (
        rule(STATUS, probability=0.2),
        rule(Cut(), probability=0.2),
        rule(Latency(time=LognormalTime(median=1)), probability=0.5),
    )

    async def course(seed: int) -> list[str]:
        async with asking(faults=chance, seed=seed) as client:
            seen = []
            for _ in range(30):
                try:
                    seen.append(said(await client.get("/arex/rest")))
                except httpx.RemoteProtocolError:
                    seen.append("cut")
                seen.append(f"{trio.current_time() - began(client):.6f}")
            return seen

    def began(client: Client) -> float:
        return client.ce.faults._started

    assert await course(1) == await course(1)
    assert await course(1) != await course(2)


async def test_the_library_finds_the_jobs_of_a_lost_reply(autojump_clock: MockClock) -> None:
    done = rule(Cut(when="done"), operation="jobs.new", count=1)
    async with Simulator(faults=(done,)) as ce, ce.backend() as backend:
        submission = await backend.submit(SubmissionSpec(executable="/bin/true"), count=3)
        assert len(submission.handles) == 3
        assert sum(ce.world.counts().values()) == 3

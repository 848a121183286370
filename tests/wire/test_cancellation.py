"""Cancelled anywhere, the transport leaves nothing behind; and it survives that for long."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from arcbackend._network import Pool
from arcbackend.protocol.messages import Request
from arcbackend.transport import Transport
from tests.wire.helpers import LIST, PUT, Connect, Serve, assert_at_rest
from tests.wire.http import answer
from tests.wire.server import Peer, always, deaf, raw_serving


class Stepper(trio.abc.Instrument):
    """Cancels a task at the n-th of its steps: every place where it can be cancelled has its n."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int) -> None:
        self._task, self._scope, self._left = task, scope, step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def cancel_at(step: int, work: Callable[[], Awaitable[Any]]) -> bool:
    """Tell whether ``work`` was cancelled at its ``step``-th step, and not done before."""
    with trio.CancelScope() as scope:
        instrument = Stepper(trio.lowlevel.current_task(), scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("how", ["send", "content", "stream", "long", "poured"])
async def test_cancelled_at_every_step(
    serve: Serve, connect: Connect, warm: bool, how: str, request: pytest.FixtureRequest
) -> None:
    opened = closed = 0
    if how in ("long", "poured"):
        request.getfixturevalue("long_from_a_byte")

    async def content() -> AsyncIterator[bytes]:
        nonlocal opened, closed
        opened += 1
        try:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                yield bytes(50_000)
        finally:
            closed += 1

    async def work(transport: Transport) -> None:
        if how == "send":
            await transport.send(LIST, authorization="Bearer a")
        elif how == "content":
            await transport.send(
                PUT, authorization="Bearer a", content=content, content_length=150_000
            )
        else:
            async with transport.stream(LIST, authorization="Bearer a") as response:
                async for _ in response:
                    await trio.lowlevel.checkpoint()
                    while how == "poured" and response.pours:
                        await response.pour(len, 50_000, trio.CapacityLimiter(1))

    async with serve(always(answer(body=bytes(200_000)))) as server:
        untouched = touched = 0
        for step in range(1, 1000):
            # one slot: what the cancelled request kept, the next one would not get
            async with connect(server, connections=1, attempts=1) as transport:
                if warm:
                    await transport.send(LIST, authorization="Bearer a")
                cancelled = await cancel_at(step, lambda: work(transport))
                assert_at_rest(transport)
                pools = (lease.pool for lease in transport._leases.values())
                assert sum(len(pool.connections) for pool in pools if pool is not None) <= 1
                await transport.send(LIST, authorization="Bearer a")
            untouched = 0 if cancelled else untouched + 1
            touched += cancelled
            if untouched == 5:  # how many steps there are depends on what has arrived
                break
        assert touched > 1
        assert step < 999
        assert opened == closed
        await server.until_idle()


async def phases(phase: str, serve: Serve, stack: AsyncExitStack) -> tuple[str, Request]:
    """A server that hangs in one phase of a request."""

    async def no_handshake(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass

    async def never_reads(peer: Peer) -> None:
        await trio.sleep_forever()

    async def never_answers(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    async def half_a_body(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await peer.until_gone()

    if phase == "connect":
        return await stack.enter_async_context(deaf()), LIST
    if phase == "handshake":
        return await stack.enter_async_context(raw_serving(no_handshake)), LIST
    script = {"write": never_reads, "read": never_answers, "body": half_a_body}[phase]
    server = await stack.enter_async_context(serve(script))
    body = bytes(30_000_000) if phase == "write" else None
    return server.endpoint, type(PUT)(PUT.operation, "PUT", "/x", None, True, body=body)


@pytest.mark.parametrize("phase", ["connect", "handshake", "write", "read", "body"])
async def test_cancelled_while_waiting(
    serve: Serve, connect: Connect, phase: str, events: list[Any]
) -> None:
    async with AsyncExitStack() as stack:
        endpoint, request = await phases(phase, serve, stack)
        async with connect(endpoint, connections=2) as transport:
            async with trio.open_nursery() as nursery:
                for _ in range(5):  # two in the phase, three waiting for a slot
                    nursery.start_soon(transport.send, request)
                await trio.testing.wait_all_tasks_blocked(0.1)
                assert transport._slots.value == 0
                assert transport._network.open == 2
                nursery.cancel_scope.cancel()
            assert_at_rest(transport)
            assert transport._network.open == 0
            assert [event["error"] for event in events] == ["interrupted"] * 5


@pytest.mark.parametrize("phase", ["write", "read", "body"])
async def test_the_server_sees_the_connection_close(
    serve: Serve, connect: Connect, phase: str
) -> None:
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        if phase == "body":
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        if phase == "write":
            await blocked.wait()
        try:
            await peer.until_gone()
        finally:
            gone.set()

    blocked = trio.Event()
    async with serve(script) as server, connect(server) as transport:
        async with trio.open_nursery() as nursery:
            body = bytes(30_000_000) if phase == "write" else None
            request = type(PUT)(PUT.operation, "PUT", "/x", None, True, body=body)
            nursery.start_soon(transport.send, request)
            await trio.testing.wait_all_tasks_blocked(0.1)
            nursery.cancel_scope.cancel()
        blocked.set()
        with trio.fail_after(10):
            await gone.wait()


async def test_churn(serve: Serve, connect: Connect) -> None:
    """Seconds of cancellations at few slots, among several identities; then every slot works."""
    slots, together = 4, 0
    everyone = trio.Event()

    async def script(peer: Peer) -> None:
        nonlocal together
        while True:
            seen = await peer.request()
            if seen.target == "/together":
                together += 1
                if together == slots:
                    everyone.set()
                await everyone.wait()
            else:
                await trio.sleep(chance.random() * 0.005)
            await peer.send(answer(body=bytes(1000)))

    chance = random.Random(1)
    done = cancelled = 0

    async def worker(transport: Transport, until: float) -> None:
        nonlocal done, cancelled
        while trio.current_time() < until or min(done, cancelled) < 50:
            with trio.move_on_after(chance.random() * 0.1) as scope:
                await transport.send(LIST, authorization=f"Bearer {chance.randrange(2)}")
                done += 1
            cancelled += scope.cancelled_caught

    async with serve(script) as server, connect(server, connections=slots) as transport:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(worker, transport, trio.current_time() + 3)
        assert_at_rest(transport)
        request = type(LIST)(LIST.operation, "GET", "/together", None, idempotent=True)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(slots):
                    nursery.start_soon(transport.send, request)
        assert together == slots


async def test_queue(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a request costs does not grow with those that wait: 2,000 on 16 connections.

    httpx's default pool goes through all waiting requests for each one: 2,000,000 looks.
    """
    count, connections = 2000, 16
    looks = longest = 0
    assign = Pool._assign_requests_to_connections

    def counted(pool: Pool) -> Any:
        nonlocal looks, longest
        looks += len(pool._requests)
        longest = max(longest, len(pool._requests))
        return assign(pool)

    monkeypatch.setattr(Pool, "_assign_requests_to_connections", counted)
    async with (
        serve(always()) as server,
        connect(server, connections=connections) as transport,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(transport.send, LIST)
        assert len(server.requests) == count
        assert server.accepted <= connections
        assert longest <= connections
        assert looks <= 2 * count * connections


async def test_slots_are_fair(serve: Serve, connect: Connect) -> None:
    order: list[int] = []
    async with serve(always()) as server, connect(server, connections=1) as transport:

        async def send(number: int) -> None:
            await transport.send(LIST)
            order.append(number)
            if number < 5:
                await transport.send(LIST)  # comes back at once: behind those that wait
                order.append(number + 100)

        async with trio.open_nursery() as nursery, transport.stream(LIST):
            for number in range(10):
                nursery.start_soon(send, number)
                await trio.testing.wait_all_tasks_blocked()
        assert sorted(order[:10]) == list(range(10))
        assert order[:10] == list(range(10))

"""A connection belongs to one identity: A-REX gives all its requests to whom the first belonged."""

from __future__ import annotations

import random

import trio

from arcbackend.transport import Transport
from tests.wire.helpers import LIST, Connect, Serve, assert_at_rest
from tests.wire.http import answer
from tests.wire.server import Peer, Server, always


def identities(server: Server) -> list[set[str | None]]:
    """Who used each connection."""
    return [{seen.authorization for seen in peer.requests} for peer in server.peers]


async def test_identities_never_share_a_connection(serve: Serve, connect: Connect) -> None:
    names = [None, *(f"Bearer {number}" for number in range(6))]
    chance = random.Random(2)

    async def worker(transport: Transport) -> None:
        for _ in range(20):
            await transport.send(LIST, authorization=chance.choice(names))

    async with serve(always()) as server, connect(server, connections=5) as transport:
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(worker, transport)
        assert all(len(who) <= 1 for who in identities(server))
        assert len(server.requests) == 240
        assert set.union(*identities(server)) == set(names)


async def test_the_bound_holds_over_all_identities(serve: Serve, connect: Connect) -> None:
    most = 0

    async def script(peer: Peer) -> None:
        nonlocal most
        while True:
            await peer.request()
            most = max(most, transport._network.open)
            await peer.send(answer())

    async with serve(script) as server, connect(server, connections=3) as transport:
        for number in range(12):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(
                        lambda who: transport.send(LIST, authorization=who),
                        f"Bearer {number % 4}",
                    )
            assert_at_rest(transport)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert most == 3
        assert server.open <= 3  # the others were closed, and the server saw it


async def test_few_identities_are_kept(serve: Serve, connect: Connect) -> None:
    async with serve(always()) as server, connect(server, connections=20) as transport:
        for number in (0, 1, 2, 3, 0, 4):
            await transport.send(LIST, authorization=f"Bearer {number}")
        with trio.fail_after(10):
            await server.peers[1].gone.wait()  # the one used least recently
        assert server.open == 4
        await transport.send(LIST, authorization="Bearer 0")
        assert server.accepted == 5
        await transport.send(LIST, authorization="Bearer 1")
        assert server.accepted == 6


async def test_discard(serve: Serve, connect: Connect) -> None:
    async with serve(always()) as server, connect(server) as transport:
        await transport.send(LIST, authorization="Bearer a")
        await transport.send(LIST, authorization="Bearer b")
        await transport.discard("Bearer a")
        with trio.fail_after(10):
            await server.peers[0].gone.wait()
        await transport.send(LIST, authorization="Bearer a")
        await transport.send(LIST, authorization="Bearer b")
        assert server.accepted == 3
        assert not server.peers[1].gone.is_set()
        await transport.discard("Bearer unknown")
        await transport.discard(None)


async def test_discard_spares_what_is_in_use(serve: Serve, connect: Connect) -> None:
    async with (
        serve(always(answer(body=b"0123456789"))) as server,
        connect(server) as transport,
    ):
        async with transport.stream(LIST, authorization="Bearer a") as response:
            await transport.discard("Bearer a")
            await transport.send(LIST, authorization="Bearer a")
            assert server.accepted == 2  # not on the old connection, nor waiting for it
            assert b"".join([chunk async for chunk in response]) == b"0123456789"
        with trio.fail_after(10):
            await server.peers[0].gone.wait()
        assert not server.peers[1].gone.is_set()
        await transport.send(LIST, authorization="Bearer a")
        assert server.accepted == 2


async def test_an_identity_in_use_may_be_pushed_out(serve: Serve, connect: Connect) -> None:
    async with serve(always(answer(body=b"ok"))) as server, connect(server) as transport:
        async with transport.stream(LIST, authorization="Bearer a") as response:
            for number in range(5):
                await transport.send(LIST, authorization=f"Bearer {number}")
            assert [chunk async for chunk in response] == [b"ok"]
        with trio.fail_after(10):
            await server.peers[0].gone.wait()


async def test_cancelled_while_in_use_after_discard(serve: Serve, connect: Connect) -> None:
    async with (
        serve(always(answer(body=b"ok"))) as server,
        connect(server, connections=1) as transport,
    ):
        with trio.CancelScope() as scope:
            async with transport.stream(LIST, authorization="Bearer a") as response:
                assert [chunk async for chunk in response] == [b"ok"]
                await transport.discard("Bearer a")
                scope.cancel()  # the connection that goes back is idle, and to be closed
        assert_at_rest(transport)
        assert transport._network.open == 0
        assert (await transport.send(LIST, authorization="Bearer a")).status == 200

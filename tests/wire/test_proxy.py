"""The proxy that the tests against a real CE break the network with: every fault, seen by us."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from arcbackend.errors import TransportError
from tests.wire.helpers import LIST, NEW, Connect, Serve
from tests.wire.http import answer
from tests.wire.proxy import FaultyProxy, faulty
from tests.wire.server import Server, always


@asynccontextmanager
async def behind(
    serve: Serve, contexts: tuple[ssl.SSLContext, ssl.SSLContext], body: bytes = b"ok"
) -> AsyncIterator[tuple[Server, FaultyProxy]]:
    async with (
        serve(always(answer(body=body))) as server,
        faulty("localhost", server.port, *contexts) as proxy,
    ):
        yield server, proxy


@pytest.fixture
def contexts(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return server_context, client_context


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


async def test_forwarding(serve: Serve, connect: Connect, contexts: Contexts) -> None:
    body = bytes(300_000)
    async with behind(serve, contexts, body) as (server, proxy), connect(proxy) as transport:
        for _ in range(2):
            assert (await transport.send(LIST)).body == body
        async with transport.stream(LIST):
            await transport.send(NEW)
        assert proxy.requests == [
            "GET /arex/rest/1.1/jobs",
            "GET /arex/rest/1.1/jobs",
            "GET /arex/rest/1.1/jobs",
            "POST /arex/rest/1.1/jobs?action=new",
        ]
        assert proxy.connections == 2
        assert len(server.requests) == 4


async def test_lost_answer(serve: Serve, connect: Connect, contexts: Contexts) -> None:
    async with (
        behind(serve, contexts) as (server, proxy),
        connect(proxy, read_timeout=0.2) as transport,
    ):
        proxy.lose_answer("POST")
        assert (await transport.send(LIST)).status == 200
        with pytest.raises(TransportError, match="read timeout") as caught:
            await transport.send(NEW)
        assert caught.value.maybe_done
        assert len(server.requests) == len(proxy.requests) == 2
        assert (await transport.send(NEW)).status == 200


async def test_lost_request(serve: Serve, connect: Connect, contexts: Contexts) -> None:
    async with behind(serve, contexts) as (server, proxy), connect(proxy) as transport:
        proxy.lose_request("POST")
        with pytest.raises(TransportError):
            await transport.send(NEW)
        assert (len(server.requests), len(proxy.requests)) == (0, 1)
        assert (await transport.send(NEW)).status == 200


async def test_cut_answer(serve: Serve, connect: Connect, contexts: Contexts) -> None:
    async with (
        behind(serve, contexts, bytes(100_000)) as (server, proxy),
        connect(proxy) as transport,
    ):
        proxy.cut_answer("GET", after=1000, times=2)
        assert len((await transport.send(LIST)).body) == 100_000
        assert len(server.requests) == 3
        proxy.cut_answer("GET", after=1000, times=3)
        with pytest.raises(TransportError, match="in the middle of the answer"):
            await transport.send(LIST)


async def test_stalled_answer(serve: Serve, connect: Connect, contexts: Contexts) -> None:
    async with (
        behind(serve, contexts, bytes(100_000)) as (server, proxy),
        connect(proxy, read_timeout=0.2) as transport,
    ):
        proxy.stall_answer("GET", after=1000)
        assert len((await transport.send(LIST)).body) == 100_000
        assert len(server.requests) == len(proxy.seen) == 2
        proxy.stall_answer("GET", after=1000, times=3)
        with pytest.raises(TransportError, match="read timeout"):
            await transport.send(LIST)


async def test_dripping_answer(serve: Serve, connect: Connect, contexts: Contexts) -> None:
    async with (
        behind(serve, contexts, bytes(1000)) as (server, proxy),
        connect(proxy, read_timeout=0.2) as transport,
    ):
        proxy.drip_answer("GET", size=50, every=0.02)
        began = trio.current_time()
        assert len((await transport.send(LIST)).body) == 1000
        assert trio.current_time() - began > 0.2  # the sum of the waits, each of them short
        assert len(server.requests) == 1


async def test_cut(serve: Serve, connect: Connect, contexts: Contexts) -> None:
    async with behind(serve, contexts) as (_, proxy), connect(proxy) as transport:
        for _ in range(3):
            await transport.send(NEW)
            proxy.cut()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert proxy.open == 0
        assert proxy.connections == 3


async def test_stall(serve: Serve, connect: Connect, contexts: Contexts) -> None:
    async with (
        behind(serve, contexts) as (_, proxy),
        connect(proxy, read_timeout=0.1, attempts=1) as transport,
    ):
        await transport.send(LIST)
        proxy.stall()
        with pytest.raises(TransportError, match="read timeout"):
            await transport.send(LIST)
        proxy.resume()
        assert (await transport.send(LIST)).status == 200


async def test_refuse(serve: Serve, connect: Connect, contexts: Contexts) -> None:
    async with behind(serve, contexts) as (_, proxy), connect(proxy) as transport:
        await transport.send(LIST)
        await proxy.refuse()
        await transport.send(LIST)  # the connection that is open stays
        await transport.discard(None)
        with pytest.raises(TransportError, match="connection refused") as caught:
            await transport.send(NEW)
        assert not caught.value.maybe_done
        await proxy.accept()
        assert (await transport.send(NEW)).status == 200
        assert proxy.connections == 2

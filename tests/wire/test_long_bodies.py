"""Bodies that go past h11: whole, bounded in time, and their connection is closed."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from arcbackend import TransportError, _body
from arcbackend.transport import StreamedResponse
from tests.wire.helpers import LIST, Connect, Serve, assert_at_rest
from tests.wire.http import answer
from tests.wire.server import Peer, always, in_turn

BODY = random.Random(1).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def long_from_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_body, "_LONG", 1)


async def collect(response: StreamedResponse, received: list[bytes]) -> None:
    async for chunk in response:
        received.append(chunk)


async def test_everything_arrives(serve: Serve, connect: Connect, events: list[Any]) -> None:
    async with serve(always(answer(body=BODY))) as server, connect(server) as transport:
        for _ in range(2):
            async with transport.stream(LIST) as response:
                chunks = [chunk async for chunk in response]
            assert b"".join(chunks) == BODY
            assert len(chunks) > 1
            assert events[-1]["bytes_received"] == len(BODY)
            assert events[-1]["error"] is None
            assert_at_rest(transport)
            assert transport._network.open == 0
        assert (await transport.send(LIST)).body == BODY
        assert len(server.requests) == 3


async def test_what_came_with_the_head_is_all(serve: Serve, connect: Connect) -> None:
    async with serve(always(answer(body=b"short"))) as server, connect(server) as transport:
        assert (await transport.send(LIST)).body == b"short"
        assert transport._network.open == 1  # h11 has seen the end: it can be used again


@pytest.mark.parametrize("head", ["HTTP/1.1 304 Not Modified", "HTTP/1.1 204 No Content"])
async def test_an_answer_without_the_body_it_announces(
    serve: Serve, connect: Connect, head: str
) -> None:
    script = in_turn(f"{head}\r\nContent-Length: 100\r\n\r\n".encode(), answer(body=b"next"))
    async with serve(script) as server, connect(server) as transport:
        assert (await transport.send(LIST)).body == b""
        assert (await transport.send(LIST)).body == b"next"


async def test_the_head_alone(serve: Serve, connect: Connect) -> None:
    script = in_turn(answer(body=BODY)[: -len(BODY)], answer(body=b"next"))
    async with serve(script) as server, connect(server) as transport:
        async with transport.stream(replace(LIST, method="HEAD")) as response:
            assert response.headers["content-length"] == str(len(BODY))
            assert [chunk async for chunk in response] == []
        assert transport._network.open == 1
        assert (await transport.send(LIST)).body == b"next"


async def test_chunks_are_left_to_h11(serve: Serve, connect: Connect) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"
    async with (
        serve(always(head + b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n")) as server,
        connect(server) as transport,
    ):
        assert (await transport.send(LIST)).body == b"firstsecond"


async def test_bytes_beyond_the_end_are_nobodys(serve: Serve, connect: Connect) -> None:
    """Neither the body's nor the next answer's."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(body=BODY) + answer(body=b"of nobody"))
        await peer.until_gone()

    async with serve(script) as server, connect(server) as transport:
        for _ in range(2):
            assert (await transport.send(LIST)).body == BODY
        assert transport._network.open == 0
        assert len(server.requests) == 2


@pytest.mark.parametrize("sent", [0, 5, 2_000_000])
async def test_it_breaks(serve: Serve, connect: Connect, sent: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(body=BODY)[: -len(BODY)] + BODY[:sent])

    async with serve(script) as server, connect(server) as transport:
        received: list[bytes] = []
        async with transport.stream(LIST) as response:
            with pytest.raises(TransportError, match="in the middle of the answer"):
                await collect(response, received)
        assert b"".join(received) == BODY[:sent]
        assert transport._network.open == 0
        assert len(server.requests) == 1


async def test_it_falls_silent(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(body=BODY)[:-1])
        await peer.until_gone()

    async with serve(script) as server, connect(server) as transport:
        received: list[bytes] = []
        async with transport.stream(LIST, read_timeout=0.2) as response:
            with pytest.raises(TransportError, match="read timeout"):
                await collect(response, received)
        assert b"".join(received) == BODY[:-1]
        assert transport._network.open == 0


@pytest.mark.parametrize("chunks", [1, 2])
async def test_left_early(serve: Serve, connect: Connect, chunks: int) -> None:
    async with (
        serve(always(answer(body=BODY))) as server,
        connect(server, connections=1) as transport,
    ):
        async with transport.stream(LIST) as response:
            pieces = aiter(response)
            for _ in range(chunks):
                await anext(pieces)
        assert_at_rest(transport)
        assert transport._network.open == 0
        await server.until_idle()
        assert (await transport.send(LIST)).body == BODY

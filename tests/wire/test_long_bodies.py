"""Bodies that go past h11: whole, bounded in time, and their connection is closed."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
import trio

from arcbackend import TransportError
from arcbackend.transport import StreamedResponse
from tests.wire.helpers import LIST, Connect, Serve, assert_at_rest
from tests.wire.http import answer
from tests.wire.server import Peer, always, in_turn

pytestmark = pytest.mark.usefixtures("long_from_a_byte")

BODY = random.Random(1).randbytes(3_000_000)


Collect: TypeAlias = Callable[[StreamedResponse, list[bytes]], Awaitable[None]]


async def iterated(response: StreamedResponse, received: list[bytes]) -> None:
    async for chunk in response:
        received.append(chunk)


async def poured(response: StreamedResponse, received: list[bytes], most: int = 2**20) -> None:
    threads = trio.CapacityLimiter(1)
    async for chunk in response:
        received.append(chunk)
        while response.pours:
            before = sum(map(len, received))
            count = await response.pour(lambda data: received.append(bytes(data)), most, threads)
            assert 0 < count == sum(map(len, received)) - before <= most


both = pytest.mark.parametrize("collect", [iterated, poured])


@both
async def test_everything_arrives(
    serve: Serve, connect: Connect, events: list[Any], collect: Collect
) -> None:
    async with serve(always(answer(body=BODY))) as server, connect(server) as transport:
        for _ in range(2):
            chunks: list[bytes] = []
            async with transport.stream(LIST) as response:
                await collect(response, chunks)
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


@both
async def test_bytes_beyond_the_end_are_nobodys(
    serve: Serve, connect: Connect, collect: Collect
) -> None:
    """Neither the body's nor the next answer's."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(body=BODY) + answer(body=b"of nobody"))
        await peer.until_gone()

    async with serve(script) as server, connect(server) as transport:
        for _ in range(2):
            received: list[bytes] = []
            async with transport.stream(LIST) as response:
                await collect(response, received)
            assert b"".join(received) == BODY
        assert transport._network.open == 0
        assert len(server.requests) == 2


@both
@pytest.mark.parametrize("sent", [0, 5, 2_000_000])
async def test_it_breaks(serve: Serve, connect: Connect, sent: int, collect: Collect) -> None:
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


@both
async def test_it_falls_silent(serve: Serve, connect: Connect, collect: Collect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(body=BODY)[:-1])
        await peer.until_gone()

    async with serve(script) as server, connect(server) as transport:
        received: list[bytes] = []
        async with transport.stream(LIST, read_timeout=3) as response:
            began = trio.current_time()
            with pytest.raises(TransportError, match="read timeout"):
                await collect(response, received)
            assert 3 <= trio.current_time() - began < 6  # not once more for what came last
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


# What is poured in a thread


@pytest.mark.parametrize("most", [1, 1_000, 16_384, 200_000])
async def test_never_more_than_asked_for(serve: Serve, connect: Connect, most: int) -> None:
    body = BODY[: 600 * most]
    async with serve(always(answer(body=body))) as server, connect(server) as transport:
        received: list[bytes] = []
        async with transport.stream(LIST) as response:
            await poured(response, received, most)
        assert b"".join(received) == body


async def test_what_is_not_poured_is_iterated_over(serve: Serve, connect: Connect) -> None:
    async with serve(always(answer(body=BODY))) as server, connect(server) as transport:
        received: list[bytes] = []
        threads = trio.CapacityLimiter(1)
        async with transport.stream(LIST) as response:
            async for chunk in response:
                received.append(chunk)
                if response.pours:
                    await response.pour(lambda data: received.append(bytes(data)), 50_000, threads)
        assert b"".join(received) == BODY


async def test_only_a_long_body_is_poured(serve: Serve, connect: Connect) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    script = in_turn(answer(body=b"short"), head + b"5\r\nfirst\r\n0\r\n\r\n")
    async with serve(script) as server, connect(server) as transport:
        for _ in range(2):
            async with transport.stream(LIST) as response:
                assert not response.pours
                async for _ in response:
                    assert not response.pours


async def test_a_trickle_is_no_silence(serve: Serve, connect: Connect) -> None:
    """Though less comes, within the time of patience, than the kernel is to wake us for."""
    pieces = [BODY[start : start + 2_000] for start in range(0, 80_000, 2_000)]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(body=BODY)[: -len(BODY)])
        for piece in pieces:
            await peer.send(piece)
            await trio.sleep(0.05)
        await peer.until_gone()

    async with serve(script) as server, connect(server) as transport:
        received: list[bytes] = []
        async with transport.stream(LIST, read_timeout=1) as response:
            with pytest.raises(TransportError, match="read timeout"):
                await poured(response, received)
        assert b"".join(received) == b"".join(pieces)


async def test_what_the_receiver_raises_is_raised(serve: Serve, connect: Connect) -> None:
    def full(_data: memoryview) -> None:
        raise RuntimeError("full")

    async with serve(always(answer(body=BODY))) as server, connect(server) as transport:
        async with transport.stream(LIST) as response:
            await anext(aiter(response))
            with pytest.raises(RuntimeError, match="full"):
                await response.pour(full, 1000, trio.CapacityLimiter(1))
        assert_at_rest(transport)
        assert transport._network.open == 0
        await server.until_idle()


class Blocked:
    """Takes bytes, in a thread, and does not return before it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.taken = 0
        self.most_at_once = 0
        self._inside = 0
        self._began = trio.Event()  # anew each time
        self._token = trio.lowlevel.current_trio_token()

    def __call__(self, data: memoryview) -> None:
        self._inside += 1
        self.most_at_once = max(self.most_at_once, self._inside)
        self._token.run_sync_soon(self._tell)
        assert self.let_go.wait(10)
        self.taken += len(data)
        self._inside -= 1

    def _tell(self) -> None:
        self._began.set()
        self._began = trio.Event()

    async def began(self, threads: int = 1) -> None:
        """Wait, on an event loop that is free to, until so many are in here."""
        with trio.fail_after(10):
            while self._inside < threads:
                await self._began.wait()


async def test_so_many_threads_at_one_time(serve: Serve, connect: Connect) -> None:
    async with serve(always(answer(body=BODY))) as server, connect(server) as transport:
        into, threads = Blocked(), trio.CapacityLimiter(2)

        async def one() -> None:
            async with transport.stream(LIST) as response:
                async for chunk in response:
                    into.taken += len(chunk)
                    while response.pours:
                        await response.pour(into, 100_000, threads)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)
            await into.began(2)
            await trio.sleep(0.1)  # for a third, if it can
            into.let_go.set()
        assert into.taken == 4 * len(BODY)
        assert into.most_at_once == 2


@pytest.mark.parametrize("end", ["cancelled", "closed"])
async def test_no_thread_is_left_with_a_socket(serve: Serve, connect: Connect, end: str) -> None:
    """Nor does anything else get the socket's number while a thread uses it."""
    async with serve(always(answer(body=BODY))) as server, connect(server) as transport:
        into = Blocked()
        scope = trio.CancelScope()
        errors: list[TransportError] = []

        async def one() -> None:
            with scope:
                try:
                    async with transport.stream(LIST) as response:
                        await anext(aiter(response))
                        await response.pour(into, 2**20, trio.CapacityLimiter(1))
                except TransportError as error:
                    errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await into.began()
            (stream,) = transport._network._streams
            number = stream._channel._socket.fileno()
            if end == "cancelled":
                scope.cancel()
            else:
                await transport.aclose()
            await trio.sleep(0.05)
            os.fstat(number)
            assert stream._channel._socket.fileno() == number
            into.let_go.set()
        assert into.taken <= 600_000  # it ends with the piece that it is at
        assert scope.cancelled_caught == (end == "cancelled")
        assert stream._channel._socket.fileno() == -1
        assert len(errors) == (end == "closed")
        assert_at_rest(transport)
        await server.until_idle()

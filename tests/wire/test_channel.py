"""TLS records, however they arrive: the server here writes them itself, byte by byte if need be."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from arcbackend.errors import TransportError
from arcbackend.transport import Transport
from tests.wire.helpers import LIST, Connect
from tests.wire.http import answer
from tests.wire.server import raw_serving

UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


class Sealer:
    """The server's end of one connection, whose records are sent by hand."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self, then: bytes = b"") -> None:
        """Agree on keys; the last message of it goes out together with some data."""

        def step() -> None:
            self._tls.do_handshake()
            if then:
                self._tls.write(then)

        while not await self._done(step):
            pass

    async def request(self) -> None:
        """Read a request that is one record."""
        while not await self._done(self._tls.read):
            pass

    def sealed(self, data: bytes) -> bytes:
        """The records of some data."""
        self._tls.write(data)
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._outgoing.read()

    async def _done(self, step: Callable[[], object]) -> bool:
        try:
            step()
        except ssl.SSLWantReadError:
            await self.stream.send_all(self._outgoing.read())
            self._incoming.write(await self.stream.receive_some())
            return False
        await self.stream.send_all(self._outgoing.read())
        return True


@asynccontextmanager
async def sealing(
    context: ssl.SSLContext, script: Callable[[Sealer], Awaitable[None]]
) -> AsyncIterator[str]:
    """Run a server that answers the one request of each connection as the script says."""

    async def handler(stream: trio.SocketStream) -> None:
        sealer = Sealer(stream, context)
        await sealer.handshake()
        await sealer.request()
        await script(sealer)

    async with raw_serving(handler) as endpoint:
        yield endpoint


@pytest.fixture
def tls_1_2(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_tls_1_2(connect: Connect, tls_1_2: ssl.SSLContext) -> None:
    body = bytes(range(256)) * 8_000

    async def script(sealer: Sealer) -> None:
        await sealer.stream.send_all(sealer.sealed(answer(body=body)))

    async with sealing(tls_1_2, script) as endpoint, connect(endpoint) as transport:
        assert (await transport.send(LIST)).body == body


@pytest.mark.parametrize("size", [1, 7, 16_411, 600_001])
async def test_records_in_pieces(
    connect: Connect, server_context: ssl.SSLContext, size: int
) -> None:
    body = bytes(range(251)) * (40 * size // 251 + 1)

    async def script(sealer: Sealer) -> None:
        records = sealer.sealed(answer(body=body))
        for start in range(0, len(records), size):
            await sealer.stream.send_all(records[start : start + size])
            await trio.lowlevel.checkpoint()

    async with sealing(server_context, script) as endpoint, connect(endpoint) as transport:
        assert (await transport.send(LIST)).body == body


async def test_a_record_that_never_ends_is_silence(
    connect: Connect, server_context: ssl.SSLContext
) -> None:
    async def script(sealer: Sealer) -> None:
        for byte in sealer.sealed(bytes(16_000)):
            await sealer.stream.send_all(bytes([byte]))
            await trio.sleep(0.05)

    async with (
        sealing(server_context, script) as endpoint,
        connect(endpoint, read_timeout=0.2, attempts=1) as transport,
    ):
        with pytest.raises(TransportError, match="read timeout"):
            await transport.send(LIST)


@pytest.mark.parametrize("closes", [True, False])
async def test_all_at_once_and_the_end(
    connect: Connect, server_context: ssl.SSLContext, closes: bool
) -> None:
    async def script(sealer: Sealer) -> None:
        last = sealer.sealed(UNTIL_CLOSED + bytes(100_000))
        await sealer.stream.send_all(last + sealer.goodbye())
        if not closes:  # TLS has said goodbye, TCP has not
            await sealer.stream.receive_some()

    async with sealing(server_context, script) as endpoint, connect(endpoint) as transport:
        assert (await transport.send(LIST)).body == bytes(100_000)


async def test_what_came_before_a_broken_record(
    connect: Connect, server_context: ssl.SSLContext
) -> None:
    async def script(sealer: Sealer) -> None:
        whole = sealer.sealed(answer(body=bytes(50_000))[:-1])
        broken = bytearray(sealer.sealed(b"\0"))
        broken[-1] ^= 1
        await sealer.stream.send_all(whole + broken)
        await sealer.stream.receive_some()

    came = bytearray()

    async def read(transport: Transport) -> None:
        async with transport.stream(LIST) as response:
            async for chunk in response:
                came.extend(chunk)

    async with sealing(server_context, script) as endpoint, connect(endpoint) as transport:
        with pytest.raises(TransportError, match="the connection broke"):
            await read(transport)
    assert came == bytes(49_999)


async def test_an_answer_before_the_request(connect: Connect, tls_1_2: ssl.SSLContext) -> None:
    """It arrives with the end of the handshake; nothing more comes to be waited for."""

    async def handler(stream: trio.SocketStream) -> None:
        sealer = Sealer(stream, tls_1_2)
        await sealer.handshake(then=answer(body=b"early"))
        await sealer.request()
        await stream.receive_some()

    async with raw_serving(handler) as endpoint, connect(endpoint) as transport:
        assert (await transport.send(LIST)).body == b"early"

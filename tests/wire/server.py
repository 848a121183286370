"""A TLS server that follows a script, and remembers what it saw on each connection."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from tests.wire.http import RequestParser, Seen, answer

Stream = trio.SSLStream[trio.SocketStream]


class Peer:
    """One connection, as the server sees it."""

    def __init__(self, stream: Stream, notify: Callable[[], None]) -> None:
        self.stream = stream
        self._notify = notify
        self.requests: list[Seen] = []
        self.gone = trio.Event()
        """The client closed the connection, or we did."""
        self._parser = RequestParser()
        self._ready: list[Seen] = []

    async def request(self) -> Seen:
        """The next whole request; `trio.EndOfChannel` if the client closes before."""
        while not self._ready:
            data = await self.stream.receive_some()
            if not data:
                raise trio.EndOfChannel
            for seen in self._parser.feed(bytes(data)):
                if seen.complete:
                    self._ready.append(seen)
                else:
                    self.requests.append(seen)
                    self._notify()
        return self._ready.pop(0)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def until_gone(self) -> None:
        """Read until the client closes."""
        while await self.stream.receive_some():
            pass


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """What the tests know of the server."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"https://localhost:{port}"
        self.port = port
        self.peers: list[Peer] = []
        self.accepted = 0
        self._arrival = trio.Event()

    @property
    def requests(self) -> list[Seen]:
        return [seen for peer in self.peers for seen in peer.requests]

    @property
    def open(self) -> int:
        return sum(not peer.gone.is_set() for peer in self.peers)

    async def until(self, requests: int) -> None:
        """Wait until the heads of so many requests have arrived."""
        with trio.fail_after(10):
            while len(self.requests) < requests:
                await self._arrival.wait()

    def notify(self) -> None:
        self._arrival.set()
        self._arrival = trio.Event()

    async def until_idle(self) -> None:
        """Wait until the clients have closed every connection."""
        with trio.fail_after(10):
            for peer in self.peers:
                await peer.gone.wait()


async def _serve(
    server: Server, script: Script, context: ssl.SSLContext, raw: trio.SocketStream
) -> None:
    server.accepted += 1
    stream = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
    peer = Peer(stream, server.notify)
    try:
        with trio.move_on_after(60):
            await stream.do_handshake()
            server.peers.append(peer)
            await script(peer)
    except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        peer.gone.set()
        await trio.aclose_forcefully(raw)


@asynccontextmanager
async def serving(script: Script, context: ssl.SSLContext, port: int = 0) -> AsyncIterator[Server]:
    """Run a scripted server on localhost for the duration."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    bound = listeners[0].socket.getsockname()[1]
    server = Server(bound)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(trio.serve_listeners, partial(_serve, server, script, context), listeners)
        )
        with trio.fail_after(60):  # a bound against hangs
            yield server
        nursery.cancel_scope.cancel()


def always(data: bytes = answer(body=b"ok")) -> Script:
    """Answer every request with the same bytes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(data)

    return script


def in_turn(*answers: bytes | None) -> Script:
    """Answer request by request, over all connections; None: close instead; then as the last."""
    left = list(answers)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            data = left.pop(0) if len(left) > 1 else left[0]
            if data is None:
                return
            await peer.send(data)

    return script


@asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    """An endpoint whose TCP connections are not established: SYNs are dropped, on Linux."""
    listener = trio.socket.socket()
    fillers = [trio.socket.socket() for _ in range(4)]
    with listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for filler in fillers:
            with trio.move_on_after(0.1):
                await filler.connect(address)
        yield f"https://localhost:{address[1]}"
        for filler in fillers:
            filler.close()


@asynccontextmanager
async def raw_serving(
    handler: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncIterator[str]:
    """Run a TCP server without TLS on localhost; gives its https endpoint."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await handler(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handle, listeners))
        with trio.fail_after(60):
            yield f"https://localhost:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()

"""A proxy that breaks the network on command, for use in front of a scripted server or a real CE.

It ends TLS on both sides, so that it sees requests and not only bytes: the client must trust
certificate that ``for_clients`` holds, and the proxy must trust the server's. Faults apply to
connections that are open and to those to come::

    async with faulty("localhost", 8443, server_context, client_context) as proxy:
        proxy.lose_answer("POST /arex/rest/1.1/jobs?action=new")   # delivered, never answered
        ... send the request to proxy.endpoint ...
        assert proxy.requests == ["POST /arex/rest/1.1/jobs?action=new", ...]
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from tests.wire.http import RequestParser, Seen

__all__ = ["FaultyProxy", "faulty"]

Stream = trio.SSLStream[trio.SocketStream]


@dataclass
class _Fault:
    prefix: str
    kind: str
    times: float
    after: int = 0
    pace: tuple[int, float] | None = None


class _Link:
    """One client connection and the server's connection behind it."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.scope = scope
        self.budget = math.inf
        """Bytes of answer still let through; then the connection is cut."""
        self.mute = False
        """Answers are thrown away."""
        self.stalls = False
        """When the budget is used up, nothing more comes, instead of a cut."""
        self.pace: tuple[int, float] | None = None
        """Bytes of answer let through at a time, and the seconds between."""


class FaultyProxy:
    """Handle of a running proxy."""

    def __init__(self, target: tuple[str, int], contexts: tuple[ssl.SSLContext, ssl.SSLContext]):
        self.requests: list[str] = []
        """``METHOD target`` of every request whose head arrived, in order."""
        self.seen: list[Seen] = []
        """The same requests, with their header fields."""
        self.connections = 0
        """Connections accepted so far."""
        self.port = 0
        self._target = target
        self._for_clients, self._for_server = contexts
        self._faults: list[_Fault] = []
        self._links: set[_Link] = set()
        self._flowing = trio.Event()
        self._flowing.set()
        self._nursery: trio.Nursery | None = None
        self._listening: trio.CancelScope | None = None
        self._deaf = trio.Event()

    @property
    def endpoint(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def open(self) -> int:
        """Connections open now."""
        return len(self._links)

    # Faults

    def cut(self) -> None:
        """Close every open connection, in the middle of whatever it does."""
        for link in self._links:
            link.scope.cancel()

    def stall(self) -> None:
        """Let nothing through, in either direction, until `resume`; connections stay open."""
        self._flowing = trio.Event()

    def resume(self) -> None:
        """End `stall`."""
        self._flowing.set()

    async def refuse(self) -> None:
        """Refuse new connections (nothing listens) until `accept`."""
        assert self._listening is not None
        self._listening.cancel()
        await self._deaf.wait()

    async def accept(self) -> None:
        """Listen, on the same port as before."""
        assert self._nursery is not None
        if self._listening is None:
            self._deaf = trio.Event()
            self.port = await self._nursery.start(self._listen)

    def lose_answer(self, prefix: str = "", times: float = 1) -> None:
        """Deliver requests that begin with ``prefix`` (``METHOD target``); never answer them."""
        self._faults.append(_Fault(prefix, "mute", times))

    def cut_answer(self, prefix: str = "", after: int = 0, times: float = 1) -> None:
        """Deliver such requests, let ``after`` bytes of the answer through, and cut."""
        self._faults.append(_Fault(prefix, "cut", times, after))

    def stall_answer(self, prefix: str = "", after: int = 0, times: float = 1) -> None:
        """Deliver such requests, let ``after`` bytes of the answer through, and then nothing."""
        self._faults.append(_Fault(prefix, "stall", times, after))

    def drip_answer(
        self, prefix: str = "", size: int = 1, every: float = 0.1, times: float = 1
    ) -> None:
        """Deliver such requests; the answer comes ``size`` bytes at a time, ``every`` seconds."""
        self._faults.append(_Fault(prefix, "drip", times, pace=(size, every)))

    def lose_request(self, prefix: str = "", times: float = 1) -> None:
        """Cut the connection at the head of such requests; the server never sees them whole."""
        self._faults.append(_Fault(prefix, "lose", times))

    def heal(self) -> None:
        """Forget the faults that have not happened yet, and let everything through."""
        self._faults.clear()
        self.resume()

    # Forwarding

    async def _listen(self, task_status: trio.TaskStatus[int]) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        with trio.CancelScope() as self._listening:
            task_status.started(listeners[0].socket.getsockname()[1])
            await trio.serve_listeners(self._link, listeners, handler_nursery=self._nursery)
        for listener in listeners:
            with trio.CancelScope(shield=True):
                await listener.aclose()
        self._listening = None
        self._deaf.set()

    async def _link(self, raw: trio.SocketStream) -> None:
        self.connections += 1
        with trio.CancelScope() as scope:
            link = _Link(scope)
            self._links.add(link)
            try:
                await self._connect(link, raw)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._links.discard(link)
                await trio.aclose_forcefully(raw)

    async def _connect(self, link: _Link, raw: trio.SocketStream) -> None:
        client = trio.SSLStream(raw, self._for_clients, server_side=True, https_compatible=True)
        host, port = self._target
        server = await trio.open_ssl_over_tcp_stream(
            host, port, ssl_context=self._for_server, https_compatible=True
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._client_to_server, link, client, server)
                nursery.start_soon(self._server_to_client, link, client, server)
        finally:
            await trio.aclose_forcefully(server)

    async def _client_to_server(self, link: _Link, client: Stream, server: Stream) -> None:
        parser = RequestParser()
        while data := await client.receive_some():
            await self._flowing.wait()
            for seen in parser.feed(bytes(data)):
                if not seen.complete:
                    self._begin(link, seen)
            await trio.lowlevel.checkpoint_if_cancelled()
            await server.send_all(data)
        link.scope.cancel()

    async def _server_to_client(self, link: _Link, client: Stream, server: Stream) -> None:
        while data := await server.receive_some():
            await self._flowing.wait()
            if link.mute:
                continue
            let = data[: int(min(len(data), link.budget))]
            size, every = link.pace or (max(len(let), 1), 0)
            for start in range(0, len(let), size):
                await client.send_all(let[start : start + size])
                if every:
                    await trio.sleep(every)
            link.budget -= len(data)
            if link.budget < 0 and link.stalls:
                await trio.sleep_forever()
            if link.budget < 0:
                break
        link.scope.cancel()

    def _begin(self, link: _Link, seen: Seen) -> None:
        line = f"{seen.method} {seen.target}"
        self.requests.append(line)
        self.seen.append(seen)
        for fault in self._faults:
            if fault.times > 0 and line.startswith(fault.prefix):
                fault.times -= 1
                if fault.kind == "mute":
                    link.mute = True
                elif fault.kind in ("cut", "stall"):
                    link.budget, link.stalls = fault.after, fault.kind == "stall"
                elif fault.kind == "drip":
                    link.pace = fault.pace
                else:
                    link.scope.cancel()
                return


@asynccontextmanager
async def faulty(
    host: str, port: int, for_clients: ssl.SSLContext, for_server: ssl.SSLContext
) -> AsyncIterator[FaultyProxy]:
    """Run a proxy on localhost in front of ``host:port``.

    Args:
        host: name of the server, as in its certificate.
        port: its port.
        for_clients: holds a certificate for ``localhost`` that the clients trust.
        for_server: trusts the server's certificate.
    """
    proxy = FaultyProxy((host, port), (for_clients, for_server))
    async with trio.open_nursery() as nursery:
        proxy._nursery = nursery
        await proxy.accept()
        yield proxy
        nursery.cancel_scope.cancel()

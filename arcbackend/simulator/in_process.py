"""A simulated CE without a socket: httpx's ASGI transport, with what a network can do.

httpx's own gives the head of an answer when the application has run to its end. Here the answer
streams, so that it can be late and be cut where a network's can; and what fails, fails with the
exceptions that `arcbackend.transport` knows from its network.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterator,
    MutableMapping,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NoReturn, TypeAlias
from urllib.parse import unquote_to_bytes
from weakref import WeakSet

import httpcore2
import httpx
import trio

from arcbackend.errors import ConfigurationError
from arcbackend.simulator.connection import (
    App,
    Connection,
    Message,
    Receive,
    Send,
    reason_apart,
)
from arcbackend.x509 import CertificateChain, Proxy

__all__ = ["ClientTransport", "InProcessTransport", "Network"]

ClientTransport: TypeAlias = httpx.AsyncBaseTransport
"""What a client of httpx sends its requests through."""

_KEEP_ALIVE = 60.0  # as A-REX
# What is on its way, as in the buffers of a network: pieces of a request, and of an answer.
_SENT_PIECES = 16
_PIECES = 2
_NO_ANSWER = "Server disconnected without sending a response."
_CUT_SHORT = "peer closed connection without sending complete message body"


class Network:
    """What is between the clients in this process and one CE.

    Args:
        app: the CE.
        nursery: where requests are answered. When it is cancelled, what waits for them fails.
        verify: tells what OpenSSL would say of a client's chain, as the name of its alert; None: it
            is good.
        delay: tells for how many seconds a new connection is left waiting.
    """

    def __init__(
        self,
        app: App,
        nursery: trio.Nursery,
        verify: Callable[[CertificateChain], str | None],
        delay: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._app = app
        self._nursery = nursery
        self._verify = verify
        self._delay = delay
        self._opened = 0
        self._wires: WeakSet[_Wire] = WeakSet()
        self._closed = False

    def connect(self, certificate: bytes | None = None) -> InProcessTransport:
        """Make the connections of one client that shows this certificate (PEM, with its key).

        They raise httpcore2's exceptions, as `arcbackend.transport` expects.
        """
        return InProcessTransport(self, certificate)

    def client_transport(self, certificate: bytes | None = None) -> ClientTransport:
        """The same, for a client of httpx."""
        return _ForClients(InProcessTransport(self, certificate))

    def drop(self) -> None:
        """Close all connections at once."""
        for wire in list(self._wires):
            wire.is_cut.set()

    def close(self) -> None:
        """Let nothing more connect, and close all connections."""
        self._closed = True
        self.drop()

    async def _open(self, certificate: bytes | None) -> _Wire:
        if self._closed:
            raise httpcore2.ConnectError(ConnectionRefusedError()) from ConnectionRefusedError()
        chain = None
        if certificate is not None:
            chain = _chain(certificate)
            if (alert := self._verify(chain)) is not None:
                _refuse(alert)
        if seconds := self._delay():
            await trio.sleep(seconds)
        self._opened += 1
        wire = _Wire(f"in-process:{self._opened}", chain)
        self._wires.add(wire)
        return wire

    def _answer(self, exchange: _Exchange, scope: MutableMapping[str, Any]) -> None:
        self._nursery.start_soon(exchange.run, self._app, scope)


class InProcessTransport(httpx.AsyncBaseTransport):
    """One client's connections to a CE, as a transport of httpx.

    As in a pool, a request goes out on a connection that is idle, if there is one: A-REX gives all
    requests on one to whom its first belonged.
    """

    def __init__(self, network: Network, certificate: bytes | None) -> None:
        self._network = network
        self._certificate = certificate
        self._idle: list[_Wire] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of its answer.

        Raises:
            httpcore2.ConnectError: the certificate is not accepted, or the CE is closed.
            httpcore2.WriteTimeout, httpcore2.ReadTimeout: it takes longer than the request's
                timeouts.
            httpcore2.RemoteProtocolError: the connection is closed instead.
        """
        wire = await self._wire()
        exchange = _Exchange(wire, request, self._put_back)
        front = partial(self._front, exchange, request)
        async with _closable(request) as closable:
            try:
                response = await httpx.ASGITransport(front).handle_async_request(closable)
            except BaseException:
                exchange.abandon()
                raise
        response.stream = exchange
        response.extensions["reason_phrase"] = exchange.reason
        return response

    async def aclose(self) -> None:
        """Close what is idle, and what is busy after its request."""
        self._closed = True
        self._idle.clear()

    async def _front(
        self,
        exchange: _Exchange,
        request: httpx.Request,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        """An application that hands on the request, and of the answer the head alone."""
        if (target := request.extensions.get("target")) is not None:
            path, _, query = target.partition(b"?")
            scope["raw_path"], scope["query_string"] = path, query
            scope["path"] = unquote_to_bytes(path).decode("utf-8", "replace")
        scope["state"] = exchange.wire.state
        self._network._answer(exchange, scope)
        while await exchange.deliver(await receive()):
            pass
        await send(await exchange.head())
        await send({"type": "http.response.body"})

    async def _wire(self) -> _Wire:
        now = trio.current_time()
        while self._idle:
            wire = self._idle.pop()
            if now - wire.idle_since < _KEEP_ALIVE and not wire.is_cut.is_set():
                return wire
        return await self._network._open(self._certificate)

    def _put_back(self, wire: _Wire) -> None:
        if not self._closed:
            wire.idle_since = trio.current_time()
            self._idle.append(wire)


@asynccontextmanager
async def _closable(request: httpx.Request) -> AsyncGenerator[httpx.Request]:
    """The same request, whose body is closed at the end, read or not."""
    assert isinstance(request.stream, httpx.AsyncByteStream)
    pieces = request.stream.__aiter__()
    try:
        yield httpx.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=_Pieces(pieces),
            extensions=request.extensions,
        )
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


class _Pieces(httpx.AsyncByteStream):
    """The body of a request."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces


class _Wire(Connection):
    """One connection.

    Attributes:
        is_cut: whether the CE has closed it.
        idle_since: when it was put back.
    """

    def __init__(self, client: str, chain: CertificateChain | None) -> None:
        super().__init__(client, chain)
        self.is_cut = trio.Event()
        self.idle_since = 0.0

    async def cut(self) -> None:
        self.is_cut.set()
        await trio.lowlevel.checkpoint()


class _Exchange(httpx.AsyncByteStream):
    """A request and its answer; as a stream, the answer's body, to be iterated over once."""

    def __init__(
        self, wire: _Wire, request: httpx.Request, put_back: Callable[[_Wire], None]
    ) -> None:
        self.wire = wire
        self.reason = b""
        self._put_back = put_back
        timeouts = request.extensions.get("timeout", {})
        self._read_timeout = timeouts.get("read")
        self._write_timeout = timeouts.get("write")
        self._has_body = request.method != "HEAD"
        self._ask, self._asked = trio.open_memory_channel[Message](_SENT_PIECES)
        self._say, self._said = trio.open_memory_channel[Message](_PIECES)
        self._delivering = trio.CancelScope()
        self._begun = False  # the answer has
        self._gone = trio.Event()  # the client is
        self._fault: Exception | None = None
        self._whole = False

    # The client's side

    async def deliver(self, message: Message) -> bool:
        """Hand on a piece of the request; tells whether more is wanted.

        When the answer has begun no more is: nobody may read it, nor the answer meanwhile.
        """
        more = bool(message.get("more_body"))
        if more and not message.get("body"):
            return True
        sent = False
        self._delivering = trio.CancelScope()
        if not self._begun:
            with (
                _within(self._write_timeout, httpcore2.WriteTimeout),
                suppress(trio.BrokenResourceError),
                self._delivering,
            ):
                await self._ask.send(message)
                sent = True
        if not sent:
            self._ask.close()
        return more and sent

    async def head(self) -> Message:
        """Wait for the head of the answer."""
        self.reason, start = reason_apart(await self._next(_NO_ANSWER))
        return start

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self  # no generator: those must be closed by whoever iterates

    async def __anext__(self) -> bytes:
        while not self._whole:
            message = await self._next(_CUT_SHORT)
            self._whole = not message.get("more_body")
            if (body := message.get("body")) and self._has_body:
                return bytes(body)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it; the connection can be used again if the answer is whole."""
        if self._whole and not self.wire.is_cut.is_set() and not self._gone.is_set():
            self._put_back(self.wire)
        self.abandon()

    def abandon(self) -> None:
        """End it: the CE sees that the client is gone, and does what it was asked nevertheless."""
        self._gone.set()
        self._ask.close()
        self._said.close()

    async def _next(self, cut: str) -> Message:
        with _within(self._read_timeout, httpcore2.ReadTimeout):
            try:
                return await self._said.receive()
            except trio.EndOfChannel:
                pass
        if self._fault is not None:
            raise self._fault
        raise httpcore2.RemoteProtocolError(cut)

    # The CE's side

    async def run(self, app: App, scope: MutableMapping[str, Any]) -> None:
        """Let the application answer."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_cut, nursery.cancel_scope)
                await app(scope, self._receive, self._send)
                nursery.cancel_scope.cancel()
        except* Exception as errors:
            self._fault = errors.exceptions[0]
        finally:
            self._say.close()
            self._asked.close()

    async def _until_cut(self, scope: trio.CancelScope) -> None:
        await self.wire.is_cut.wait()
        scope.cancel()

    async def _receive(self) -> Message:
        try:
            return await self._asked.receive()
        except trio.EndOfChannel:
            return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._begun = True
        self._delivering.cancel()
        with suppress(trio.BrokenResourceError):  # the client is gone
            await self._say.send(message)


class _ForClients(httpx.AsyncBaseTransport):
    """With httpx's own exceptions."""

    def __init__(self, inner: InProcessTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with _as_httpx():
            response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _StreamForClients(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _StreamForClients(httpx.AsyncByteStream):
    """The body of an answer."""

    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner
        self._pieces = inner.__aiter__()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _as_httpx():
            return await self._pieces.__anext__()

    async def aclose(self) -> None:
        await self._inner.aclose()


_HTTPX = {
    httpcore2.ConnectError: httpx.ConnectError,
    httpcore2.ReadTimeout: httpx.ReadTimeout,
    httpcore2.WriteTimeout: httpx.WriteTimeout,
    httpcore2.RemoteProtocolError: httpx.RemoteProtocolError,
}


@contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except tuple(_HTTPX) as exc:
        raise _HTTPX[type(exc)](str(exc)) from exc


@contextmanager
def _within(seconds: float | None, error: type[Exception]) -> Iterator[None]:
    with trio.move_on_after(math.inf if seconds is None else seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise error


def _chain(certificate: bytes) -> CertificateChain:
    try:
        return Proxy.from_pem(certificate)
    except ConfigurationError:
        _refuse("TLSV1_ALERT_UNKNOWN_CA")  # what OpenSSL says of one without its chain


def _refuse(alert: str) -> NoReturn:
    """Fail as a handshake that the CE ends with this alert."""
    error = ssl.SSLError(1, f"[SSL: {alert}]")
    error.reason = alert
    error.library = "SSL"
    raise httpcore2.ConnectError(error) from error

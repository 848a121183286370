"""A simulated CE on a port: hypercorn's connections on trio's listeners, and A-REX's peculiarities.

hypercorn's own entry point makes TLS contexts that cannot do what A-REX's does, and tells the
application neither the client's certificate nor how to close a connection; so one connection of it
(`hypercorn.trio.tcp_server.TCPServer`) is used as it is, on a stream that does.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from cryptography import x509
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework

from arcbackend.simulator.background import background
from arcbackend.simulator.certificates import certificates_pem
from arcbackend.simulator.connection import (
    App,
    Connection,
    Message,
    Receive,
    Send,
    of,
    reason_apart,
)
from arcbackend.simulator.replies import ALWAYS
from arcbackend.x509 import CertificateChain, read_chain

__all__ = ["Server"]

_log = logging.getLogger("arcbackend.simulator")
_KEEP_ALIVE = 60.0  # as A-REX (MCCTCP.cpp)
_HANDSHAKE = 60.0
_LAST_WORDS = 1.0
_BACKLOG = 1000
# Heads of requests are judged by the application, by A-REX's own limits.
_LONGEST_HEAD = 2**20
_BEGINS = b"HTTP/1.1 "
_PHRASE = len(b"HTTP/1.1 200 ")
# What hypercorn sends behind a body, of a known length or in chunks.
_ENDS = (b"", b"0\r\n\r\n")
_ENCODING_DER = 2  # of the ssl module's C part, before Python 3.13


class Server:
    """The connections of one port.

    Attributes:
        port: the port.
    """

    def __init__(self, app: App, context: ssl.SSLContext, delay: Callable[[], float]) -> None:
        self.port = 0
        self._app = ASGIWrapper(cast("ASGIFramework", _Reasons(app)))
        self._context = context
        self._delay = delay
        self._worker = WorkerContext(None)
        self._open: set[_Stream] = set()
        self._config = _config()
        self._idle = trio.Event()

    @classmethod
    @asynccontextmanager
    async def listening(
        cls,
        app: App,
        context: ssl.SSLContext,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        delay: Callable[[], float] = lambda: 0.0,
    ) -> AsyncGenerator[Server]:
        """Serve an application by HTTPS for the duration. At the end no socket is left.

        Args:
            app: the application. It finds its connection in the scope's ``state``
                (`arcbackend.simulator.connection.of`).
            context: TLS.
            host: an address of this machine.
            port: 0: a free one.
            delay: tells for how many seconds a new connection is left waiting.

        Raises:
            OSError: the port cannot be had.
        """
        server = cls(app, context, delay)
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
        server.port = int(listeners[0].socket.getsockname()[1])
        async with background() as nursery:
            accepting = trio.CancelScope()
            nursery.start_soon(server._accept, listeners, nursery, accepting)
            try:
                yield server
            finally:
                accepting.cancel()
                for listener in listeners:
                    listener.socket.close()
                await server._end()

    def drop(self) -> None:
        """Close all connections at once."""
        for stream in list(self._open):
            # hypercorn shields its writes: one that waits for a client ends only so.
            stream.raw.socket.close()

    async def _accept(
        self,
        listeners: list[trio.SocketListener],
        nursery: trio.Nursery,
        scope: trio.CancelScope,
    ) -> None:
        """Take connections until cancelled."""
        with scope:
            await trio.serve_listeners(self._serve, listeners, handler_nursery=nursery)

    async def _serve(self, raw: trio.SocketStream) -> None:
        stream = _Stream(raw, self._context)
        self._open.add(stream)
        try:
            if seconds := self._delay():
                await trio.sleep(seconds)
            await TCPServer(
                self._app,
                self._config,
                self._worker,
                stream.connection.state,
                cast("trio.SSLStream[trio.SocketStream]", stream),
            ).run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it was cut
        except* Exception:
            _log.exception("a connection ended by an error")
        finally:
            raw.socket.close()
            self._open.discard(stream)
            if not self._open:
                self._idle.set()

    async def _end(self) -> None:
        """Let requests that are being answered be answered, for a moment, then close everything."""
        await self._worker.terminated.set()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WORDS):
            while self._open:
                self._idle = trio.Event()
                await self._idle.wait()
        self.drop()


def _config() -> Config:
    config = Config()
    config.include_date_header = False  # A-REX tells neither
    config.include_server_header = False
    config.keep_alive_timeout = _KEEP_ALIVE
    config.keep_alive_max_requests = 2**62
    config.ssl_handshake_timeout = _HANDSHAKE
    config.h11_max_incomplete_size = _LONGEST_HEAD
    config.errorlog = _log
    return config


class _Wire(Connection):
    """A connection over a socket.

    Attributes:
        reason: the reason phrase of the answer whose head comes next; None: no head is due.
        answering: whether what comes next is the application's.
    """

    def __init__(self, client: str, raw: trio.SocketStream) -> None:
        super().__init__(client)
        self.reason: bytes | None = None
        self.answering = False
        self._raw = raw

    async def cut(self) -> None:
        await trio.aclose_forcefully(self._raw)


class _Reasons:
    """The application, with the private header field taken out of its answers."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        wire = of(scope)
        assert isinstance(wire, _Wire)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                wire.answering = True
                wire.reason, message = reason_apart(message)
            await send(message)

        await self._app(scope, receive, noted)


class _Stream:
    """A stream with TLS, as hypercorn wants one. It has no ``send_eof``, as `trio.SSLStream`."""

    def __init__(self, raw: trio.SocketStream, context: ssl.SSLContext) -> None:
        host, port = raw.socket.getpeername()[:2]
        self.raw = raw
        self.transport_stream = raw
        self.connection = _Wire(f"{host}:{port}", raw)
        self._tls = trio.SSLStream(raw, context, server_side=True, https_compatible=True)

    async def do_handshake(self) -> None:
        try:
            await self._tls.do_handshake()
        except trio.BrokenResourceError:
            # trio leaves the alert unsent that tells the client why.
            if alert := self._tls._outgoing.read():
                await self.raw.send_all(alert)
            raise
        self.connection.chain = _shown(self._tls)

    def selected_alpn_protocol(self) -> str | None:
        """None: HTTP/1.1."""
        return cast("str | None", self._tls.selected_alpn_protocol())

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._tls.receive_some(max_bytes)

    async def send_all(self, data: bytes) -> None:
        if data.startswith(_BEGINS):
            data = self._begun(data)
        elif data in _ENDS:
            self.connection.answering = False
        if data:
            await self._tls.send_all(data)

    async def aclose(self) -> None:
        await self._tls.aclose()

    def _begun(self, data: bytes) -> bytes:
        """Write the reason phrase into a status line, if this is one: bodies may look like it."""
        phrase, self.connection.reason = self.connection.reason, None
        line, end, fields = data.partition(b"\r\n")
        if phrase is not None:
            return line[:_PHRASE] + phrase + end + fields
        if self.connection.answering or line[len(_BEGINS) :][:1] not in b"45":
            return data
        # hypercorn's own answer to what it cannot read. A-REX has one for all that.
        more = b"".join(b"%b: %b\r\n" % field for field in ALWAYS)
        return _BEGINS + b"400 Bad Request" + end + more + fields


def _shown(tls: trio.SSLStream[trio.SocketStream]) -> CertificateChain | None:
    """The chain that the client has shown, which OpenSSL has verified."""
    inner: Any = tls._ssl_object
    if hasattr(inner, "get_verified_chain"):  # Python 3.13
        chain: list[bytes] = inner.get_verified_chain() or []
    else:
        found = inner._sslobj.get_verified_chain() or []
        chain = [each.public_bytes(_ENCODING_DER) for each in found]
    if not chain:
        return None
    return read_chain(
        b"".join(certificates_pem([x509.load_der_x509_certificate(each) for each in chain]))
    )

"""Connections under httpcore2: counted, bounded, acknowledged at once, and never left open.

httpcore2's own trio backend leaves a socket to the garbage collector when a TLS handshake is
cancelled, and its connection pool keeps a connection for ever whose first request was cancelled
between the handshake and the first byte. Both are mended here.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2
import trio

from arcbackend._channel import Channel

__all__ = ["Network", "Pool", "Stream"]

_WRITE_BYTES = 64 * 1024


class Network(httpcore2.AsyncNetworkBackend):
    """The TCP and TLS connections of one transport, over all its pools.

    Args:
        limit: connections open at one time, idle ones included.
        spare: names an idle connection to close when a new one would exceed the limit.
    """

    def __init__(
        self, limit: int, spare: Callable[[], httpcore2.AsyncConnectionInterface | None]
    ) -> None:
        self._limit = limit
        self._spare = spare
        self._streams: set[Stream] = set()
        self._connecting = 0
        self._closed = False

    @property
    def open(self) -> int:
        """Connections open or being opened."""
        return len(self._streams) + self._connecting

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect within ``timeout`` seconds, which the TLS handshake shares."""
        deadline = trio.current_time() + (math.inf if timeout is None else timeout)
        await self._make_room()
        self._connecting += 1
        try:
            with trio.fail_at(deadline):
                stream = await trio.open_tcp_stream(host, port, local_address=local_address)
        except trio.TooSlowError:
            raise httpcore2.ConnectTimeout from None
        except OSError as exc:
            raise httpcore2.ConnectError(exc) from exc
        finally:
            self._connecting -= 1
        connection = Stream(self, Channel(stream), deadline)
        self._streams.add(connection)
        if self._closed:
            await connection.aclose()
            raise httpcore2.ConnectError("closed meanwhile")
        return connection

    async def sleep(self, seconds: float) -> None:
        """Part of httpcore2's interface."""
        await trio.sleep(seconds)

    async def aclose(self) -> None:
        """Close every connection, in use or not, and refuse new ones."""
        self._closed = True
        for stream in list(self._streams):
            await stream.aclose()

    async def _make_room(self) -> None:
        while self.open >= self._limit and (victim := self._spare()) is not None:
            with trio.CancelScope(shield=True):
                await victim.aclose()

    def _forget(self, stream: Stream) -> None:
        self._streams.discard(stream)


class Stream(httpcore2.AsyncNetworkStream):
    """One connection, before and after its TLS handshake; nothing is sent or received before."""

    def __init__(self, network: Network, channel: Channel, deadline: float) -> None:
        self._network = network
        self._channel = channel
        self._deadline = deadline
        self._held = bytearray()

    async def read(
        self,
        max_bytes: int,  # too little for a download; h11 takes any amount
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> bytes:
        await self._flush(timeout)
        with _reading():
            return await self._channel.receive(math.inf if timeout is None else timeout)

    async def pour(
        self,
        into: Callable[[memoryview], object],
        most: int,
        threads: trio.CapacityLimiter,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> int:
        """Read in a thread: see `Channel.pour`; what ``into`` raises is not to be an OSError."""
        await self._flush(timeout)
        patience = math.inf if timeout is None else timeout
        with _reading():
            return await self._channel.pour(into, most, patience, threads)

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> None:
        # Held back until it is worth sending or an answer is wanted, so that the head of a request
        # and a small body leave together: a third less CPU for a small upload.
        self._held += buffer
        if len(self._held) >= _WRITE_BYTES:
            await self._flush(timeout)

    async def _flush(self, timeout: float | None) -> None:  # noqa: ASYNC109
        if not self._held:
            return
        held, self._held = memoryview(bytes(self._held)), bytearray()
        # In pieces, so that the timeout is one of progress and not of the buffer's size.
        for start in range(0, len(held), _WRITE_BYTES):
            try:
                with trio.fail_after(math.inf if timeout is None else timeout):
                    await self._channel.send(held[start : start + _WRITE_BYTES])
            except trio.TooSlowError:
                raise httpcore2.WriteTimeout from None
            except (OSError, trio.ClosedResourceError) as exc:
                raise httpcore2.WriteError(exc) from exc

    async def aclose(self) -> None:
        self._network._forget(self)
        self._channel.close()
        await trio.lowlevel.checkpoint()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - connect_tcp began to count
    ) -> httpcore2.AsyncNetworkStream:
        try:
            with trio.fail_at(self._deadline):
                await self._channel.handshake(ssl_context, server_hostname)
        except BaseException as exc:
            with trio.CancelScope(shield=True):
                await self.aclose()
            if isinstance(exc, trio.TooSlowError):
                raise httpcore2.ConnectTimeout from None
            if isinstance(exc, OSError | trio.ClosedResourceError):
                raise httpcore2.ConnectError(exc) from exc
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._channel.is_readable
        return self._channel.tls if info == "ssl_object" else None


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except trio.TooSlowError:
        raise httpcore2.ReadTimeout from None
    except (OSError, trio.ClosedResourceError) as exc:
        raise httpcore2.ReadError(exc) from exc


class Pool(httpcore2.AsyncConnectionPool):
    """httpcore2's pool, of connections that close if their first request comes to nothing.

    It has no bound of its own, which would only make a queue: `Network` has one.

    Args:
        ssl_context: whom to believe.
        network: makes the connections.
        keepalive: seconds that an idle connection is kept.
    """

    def __init__(self, ssl_context: ssl.SSLContext, network: Network, keepalive: float) -> None:
        super().__init__(
            ssl_context,
            max_connections=None,
            keepalive_expiry=keepalive,
            network_backend=network,
        )

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        """Make the connection object; nothing is sent yet."""
        return _Connection(
            origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            network_backend=self._network_backend,
        )

    async def close_idle(self) -> None:
        """Close the connections that carry no request now."""
        for connection in self.connections:
            if connection.is_idle():
                await connection.aclose()


class _Connection(httpcore2.AsyncHTTPConnection):
    """httpcore2's connection, which never outlives a first request that failed.

    Nor does it serve another request when the server sent more than one answer to the last: what is
    left over would be taken for the next one's answer.
    """

    _proven = False

    def has_expired(self) -> bool:
        h11_state = getattr(self._connection, "_h11_state", None)
        return super().has_expired() or bool(h11_state and h11_state.trailing_data[0])

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        try:
            response = await super().handle_async_request(request)
        except BaseException:
            if not self._proven:
                with trio.CancelScope(shield=True):
                    await self.aclose()
            raise
        self._proven = True
        return response

"""TLS on a TCP socket: what has arrived is taken and decrypted in one go.

trio.SSLStream does the same record by record: 16 KiB at a time, through three checkpoints, each
into a buffer of its own. For a download of 100 MB that costs half as much CPU again as receiving
and decrypting it.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, cast

import trio

__all__ = ["Channel"]

# With more, the layers above take fewer turns for a download; with less, the copies that they make
# stay nearer to the processor. In between, a download costs least.
_RECEIVED_BYTES = 512 * 1024
# All that can be decrypted at one time: what was received, and a record that had begun before.
_DECRYPTED_BYTES = _RECEIVED_BYTES + 32 * 1024
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux
# A change to a thread and back costs as much as receiving and decrypting some 50 KiB.
_WORTH_BYTES = 256 * 1024
_LINGER = 0.1  # seconds
_RECORD_BYTES = 16 * 1024 + 256 + 5  # RFC 8446, section 5.2: the longest
_T = TypeVar("_T")


class _Buffers(threading.local):
    """Filled and emptied between two checkpoints, so one of each serves all channels of a thread.

    They stay in the processor's cache, as buffers of each channel's own would not.
    """

    def __init__(self) -> None:
        self.received = memoryview(bytearray(_RECEIVED_BYTES))
        self.decrypted = memoryview(bytearray(_DECRYPTED_BYTES))


_buffers = _Buffers()


class Channel:
    """One connection; `handshake` comes first. For one task at a time, except `close`.

    Its methods raise OSError (ssl.SSLError is one) when the connection or TLS fails, and
    trio.ClosedResourceError when it was closed meanwhile. A `receive` that is cancelled loses
    nothing; after a `handshake` or `send` that was, the connection is of no use.

    The kernel acknowledges at once what arrives. A-REX writes the head and the body of an answer
    separately with Nagle's algorithm on, so the body waits for the acknowledgement of the head,
    which Linux delays by 40 ms. The option does not stick: it is set before each read.

    Args:
        stream: a new connection, which belongs to the channel now.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        inner = stream.socket
        # trio's own sockets yield between receiving and handing over: no place for shared buffers.
        self._socket = socket.socket(inner.family, inner.type, inner.proto, inner.detach())
        self._socket.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._unsent = bytearray()
        self._asked = False  # nothing can have come since: sent, and not received
        self._held = False  # TLS has something to tell that it was not asked for yet
        self._more = False  # known to wait in the kernel: acknowledging would cost 0.15 ms
        self._failure: ssl.SSLError | None = None
        self._woken_for = 1  # bytes
        self._in_thread = False
        self._closed = False

    @property
    def tls(self) -> ssl.SSLObject | None:
        """What was agreed on; None before the handshake."""
        return self._tls

    @property
    def is_readable(self) -> bool:
        """Whether anything has arrived, the end included, that `receive` did not hand over."""
        if self._incoming.pending or self._held or self._failure is not None:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    async def handshake(self, context: ssl.SSLContext, hostname: str | None) -> None:
        """Agree on keys, and verify the peer."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        await self._step(tls.do_handshake)
        self._tls = tls
        self._held = bool(self._incoming.pending)

    async def send(self, data: memoryview) -> None:
        """Send everything."""
        assert self._tls is not None
        await trio.lowlevel.checkpoint()
        while data:
            data = data[await self._step(partial(self._tls.write, data)) :]
        self._asked = True

    async def receive(self, patience: float) -> bytes:
        """Take all that has arrived, half a megabyte at most; nothing at the end of the stream.

        Args:
            patience: seconds of silence before trio.TooSlowError.
        """
        if not self._asked or self._held:
            await trio.lowlevel.checkpoint()
            if (data := self._arrived()) is not None:
                return data
        self._wake_for(1)
        with trio.fail_after(patience):
            while True:
                await self._flush()
                await self._wait(trio.lowlevel.wait_readable)
                if (data := self._arrived()) is not None:
                    return data

    async def pour(
        self,
        into: Callable[[memoryview], object],
        most: int,
        patience: float,
        threads: trio.CapacityLimiter,
    ) -> int:
        """Let a thread receive, decrypt and pass on what there is; the loop is free meanwhile.

        Args:
            into: called in the thread, maybe many times, with bytes that are valid for the call.
                What it raises is raised.
            most: bytes, at most; the thread ends earlier when no more have arrived.
            patience: as of `receive`.
            threads: how many are taken at one time.

        Returns:
            How many bytes were passed on, if it was left to its end; 0 at the end of the stream.
        """
        deadline = trio.current_time() + patience
        while True:
            with trio.move_on_at(deadline) as waiting:
                await self._flush()
                if not self._held:
                    await self._wait_for(min(most, _WORTH_BYTES))
            self._in_thread = True
            try:
                # Not abandoned when cancelled, for it uses the socket: it looks for that itself.
                count = await trio.to_thread.run_sync(self._pump, into, most, limiter=threads)
            finally:
                self._in_thread = False
                if self._closed:
                    self._socket.close()
            if count is not None:
                return count
            if waiting.cancelled_caught:
                raise trio.TooSlowError

    def close(self) -> None:
        """Close, without a goodbye: it would have to be waited for. Idempotent."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._socket)
            # Not under a thread, which could find another file under the socket's number.
            if not self._in_thread:
                self._socket.close()

    async def _step(self, call: Callable[[], _T]) -> _T:
        """Let TLS do something that it may have to exchange messages for."""
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self._flush()
                while not self._fill():
                    await self._wait(trio.lowlevel.wait_readable)
                self._held = True
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                await self._wait(trio.lowlevel.wait_writable)
            else:
                del self._unsent[:sent]

    async def _wait(self, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        if self._closed:
            raise trio.ClosedResourceError("closed already")
        await wait(self._socket)

    async def _wait_for(self, worth: int) -> None:
        """Wait until so many bytes have come, or some, and then no more for a while."""
        # Part of a record may be here already: less is to come than is in it.
        self._wake_for(worth - _RECORD_BYTES)
        with trio.move_on_after(_LINGER) as lingering:
            await self._wait(trio.lowlevel.wait_readable)
        if lingering.cancelled_caught:
            self._wake_for(1)
            await self._wait(trio.lowlevel.wait_readable)

    def _wake_for(self, count: int) -> None:
        """Let the kernel wake us when so many bytes have come, or the stream has ended."""
        count = max(count, 1)
        if count != self._woken_for:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self._woken_for = count

    def _pump(self, into: Callable[[memoryview], object], most: int) -> int | None:
        """Pass on what there is; None if that is not a whole record."""
        passed = 0
        while passed < most:
            trio.from_thread.check_cancelled()
            if self._closed:
                raise trio.ClosedResourceError("closed meanwhile")
            data = self._taken(most - passed)
            if data is None:
                return passed or None
            if not data:
                break
            into(data)
            passed += len(data)
        return passed

    def _arrived(self) -> bytes | None:
        """Take what there is; None if that is not a whole record."""
        data = self._taken(_DECRYPTED_BYTES)
        return None if data is None else bytes(data)

    def _taken(self, most: int) -> memoryview | None:
        """The same, in a buffer that is this thread's until it takes more."""
        if self._held and (data := self._decrypted(most)) is not None:
            return data
        return self._decrypted(most) if self._fill() else None

    def _fill(self) -> bool:
        """Receive into TLS what the kernel has; False if that is nothing."""
        if _QUICKACK is not None and not self._more:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        received = _buffers.received
        try:
            count = self._socket.recv_into(received)
        except BlockingIOError:
            self._more = False
            return False
        self._asked = False
        self._more = count == len(received)
        if count:
            self._incoming.write(received[:count])
        else:
            self._incoming.write_eof()
        return True

    def _decrypted(self, most: int) -> memoryview | None:
        """Take what is in TLS out of it; None if that is no whole record, nothing at the end."""
        assert self._tls is not None
        if self._failure is not None:
            raise self._failure
        buffer, filled = _buffers.decrypted[:most], 0
        self._held = True
        try:
            while room := len(buffer) - filled:
                # Typeshed does not know that with a buffer it is a count.
                count = cast("int", self._tls.read(room, buffer[filled:]))
                if not count:
                    break
                filled += count
        except ssl.SSLWantReadError:
            self._held = False
            if not filled:
                return None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass  # HTTP tells itself where it ends
        except ssl.SSLError as error:
            if not filled:
                raise
            self._failure = error
        return buffer[:filled]

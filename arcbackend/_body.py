"""The body of an answer, a long one past h11: h11 and httpcore2 copy each piece of it four times.

For a download of 100 MB that is a third as much CPU again as receiving and decrypting it. What goes
past h11 can also be received and decrypted in a thread, which then does with it what it is for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import httpcore2
import trio

from arcbackend._network import Stream

__all__ = ["Body"]

# The price of going past h11 is the connection, which h11 no longer knows to be at the end of an
# answer. The handshake of another costs as much CPU as the copies of some 10 MB.
_LONG = 16 * 2**20
_READ_BYTES = 64 * 1024  # asked for; our streams give what there is


class Body:
    """The body of an answer; what the network raises is httpcore2's.

    Args:
        response: of a connection over the network.
        read_timeout: seconds between two pieces.
    """

    def __init__(self, response: httpcore2.Response, read_timeout: float | None) -> None:
        self._response = response
        self._read_timeout = read_timeout
        self._stream: Stream | None = None  # once h11 is left behind
        self._length = self._left = _length(response)
        self._pieces = self._long() if self._length >= _LONG else response.aiter_stream()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces that have not been taken otherwise."""
        return self._pieces

    @property
    def pours(self) -> bool:
        """Whether there is more, and `pour` can take it."""
        return self._stream is not None and self._left > 0

    async def pour(
        self, into: Callable[[memoryview], object], most: int, threads: trio.CapacityLimiter
    ) -> int:
        """Let a thread take what there is of the body: see `Stream.pour`."""

        def counted(data: memoryview) -> None:
            self._left -= len(data)
            into(data)

        assert self._stream is not None
        count = await self._stream.pour(counted, min(most, self._left), threads, self._read_timeout)
        if not count:
            raise self._cut_short()
        return count

    async def aclose(self) -> None:
        """End the answer; the connection can serve another if h11 has seen this one's end."""
        await self._pieces.aclose()
        await self._response.aclose()

    async def _long(self) -> AsyncGenerator[bytes]:
        async with aclosing(self._response.aiter_stream()) as parsed:
            async for piece in parsed:  # what came together with the head: h11 has it
                self._left -= len(piece)
                if self._left:
                    self._stream = self._response.extensions["network_stream"]
                yield piece
                if self._stream is not None:
                    break
            else:
                return
            while self._left:
                piece = (await self._stream.read(_READ_BYTES, self._read_timeout))[: self._left]
                if not piece:
                    raise self._cut_short()
                self._left -= len(piece)
                yield piece

    def _cut_short(self) -> httpcore2.RemoteProtocolError:
        return httpcore2.RemoteProtocolError(  # in h11's words, which _failures goes by
            "peer closed connection without sending complete message body "
            f"(received {self._length - self._left} bytes, expected {self._length})"
        )


def _length(response: httpcore2.Response) -> int:
    """The announced length, which h11 has checked; 0 if that is not what the body ends by."""
    fields = {name.lower(): value for name, value in response.headers}
    return 0 if b"transfer-encoding" in fields else int(fields.get(b"content-length", b"0"))

"""The body of an answer, a long one past h11: h11 and httpcore2 copy each piece of it four times.

For a download of 100 MB that is a third as much CPU again as receiving and decrypting it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpcore2

__all__ = ["body_of"]

# The price of going past h11 is the connection, which h11 no longer knows to be at the end of an
# answer. The handshake of another costs as much CPU as the copies of some 10 MB.
_LONG = 16 * 2**20
_READ_BYTES = 64 * 1024  # asked for; our streams give what there is


def body_of(response: httpcore2.Response, read_timeout: float | None) -> AsyncGenerator[bytes]:
    """The pieces of an answer's body; the network's exceptions are httpcore2's.

    Args:
        response: of a connection over the network.
        read_timeout: seconds between two pieces.
    """
    length = _length(response)
    if length < _LONG:
        return response.aiter_stream()
    return _long(response, length, read_timeout)


def _length(response: httpcore2.Response) -> int:
    """The announced length, which h11 has checked; 0 if that is not what the body ends by."""
    fields = {name.lower(): value for name, value in response.headers}
    return 0 if b"transfer-encoding" in fields else int(fields.get(b"content-length", b"0"))


async def _long(
    response: httpcore2.Response, length: int, read_timeout: float | None
) -> AsyncGenerator[bytes]:
    left = length
    async with aclosing(response.aiter_stream()) as parsed:
        async for piece in parsed:  # what came together with the head: h11 has it
            yield piece
            left -= len(piece)
            if left:
                break
        else:
            return
        stream: httpcore2.AsyncNetworkStream = response.extensions["network_stream"]
        while left:
            piece = (await stream.read(_READ_BYTES, read_timeout))[:left]
            if not piece:
                raise httpcore2.RemoteProtocolError(  # in h11's words, which _failures goes by
                    "peer closed connection without sending complete message body "
                    f"(received {length - left} bytes, expected {length})"
                )
            left -= len(piece)
            yield piece

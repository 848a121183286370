"""Sends requests as they are written, however odd, and reads the answers with h11.

A request is bytes here, since h11 refuses to send what is wrong; h11 is told of one like it, so
that it knows what an answer to it may look like.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import h11
import trio

__all__ = ["Answer", "Connection", "HandshakeRefused"]

Outcome = Literal["answered", "closed", "silent", "cut", "unreadable"]
"""Answered in full; closed without an answer; no answer in the time that it had; closed or silent
in the midst of an answer; what came is no HTTP."""

_CLOSES_WITHIN = 5.0
_SENT_WITHIN = 10.0
_HANDSHAKES = 5
_PIECE = 65_536
# A-REX sends the head and the body of an answer by themselves; without this, the kernel takes 40 ms
# to acknowledge the first, and only then the second is sent.
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class HandshakeRefused(Exception):
    """The TLS handshake failed; the message is the alert that ended it."""


@dataclass
class Answer:
    """What came back.

    Attributes:
        outcome: how it went.
        closed: whether the server closed the connection after it; None: it was not waited for.
    """

    outcome: Outcome
    status: int = 0
    reason: str = ""
    http: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    closed: bool | None = None


class Connection:
    """One TLS connection."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._left = b""

    @classmethod
    async def open(cls, endpoint: str, context: ssl.SSLContext) -> Connection:
        """Connect.

        A real CE disturbs some handshakes (docs/explanation/arc-rest.md, Connections): one that
        ends as no refusal does is tried again.

        Raises:
            HandshakeRefused: the server does not want us.
        """
        where = urlsplit(endpoint)
        assert where.hostname is not None
        assert where.port is not None
        for left in range(_HANDSHAKES - 1, -1, -1):
            tcp = await trio.open_tcp_stream(where.hostname, where.port)
            stream = trio.SSLStream(
                tcp, context, server_hostname=where.hostname, https_compatible=True
            )
            try:
                with trio.fail_after(30):
                    await stream.do_handshake()
            except trio.BrokenResourceError as error:
                cause = error.__cause__
                said = cause.reason if isinstance(cause, ssl.SSLError) else type(cause).__name__
                await trio.aclose_forcefully(stream)
                if not left or "_ALERT_" in str(said):
                    raise HandshakeRefused(str(said)) from None
            else:
                return cls(stream)
        raise AssertionError  # the last one was refused

    async def close(self) -> None:
        """Leave without a word."""
        await trio.aclose_forcefully(self._stream)

    async def ask(
        self, request: Sequence[bytes], method: str, patience: float, *, expects: bool = False
    ) -> Answer:
        """Send a request and read what comes.

        Args:
            request: its bytes, of which all after the first piece are the body.
            method: what it is, for an answer to HEAD has no body.
            patience: for how long an answer is waited for, in seconds.
            expects: whether the body is sent only when the server says 100.
        """
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        parser.send(
            h11.Request(method=method if method == "HEAD" else "GET", target="/", headers=_HEADERS)
        )
        parser.send(h11.EndOfMessage())
        if self._left:
            parser.receive_data(self._left)
        self._left = b""
        answer = Answer("silent")
        head, *body = request
        async with trio.open_nursery() as nursery:
            if expects:
                await self._send([head])
            else:
                nursery.start_soon(self._send, request)
            with trio.move_on_after(patience):
                try:
                    await self._read(parser, answer, body if expects else [])
                except h11.RemoteProtocolError:
                    answer.outcome = "cut" if answer.status else "unreadable"
            if answer.outcome == "silent" and answer.status:
                answer.outcome = "cut"
            # An answer may come before the body is sent, which the server is to get nevertheless.
            nursery.cancel_scope.deadline = trio.current_time() + (
                _SENT_WITHIN if answer.outcome == "answered" else 0
            )
        self._left = bytes(parser.trailing_data[0])
        if answer.outcome in ("closed", "cut", "unreadable"):
            answer.closed = True
        elif ("connection", "close") in answer.headers:
            answer.closed = await self.closes()
        return answer

    async def closes(self) -> bool:
        """Whether the server closes the connection by itself."""
        with trio.move_on_after(_CLOSES_WITHIN):
            return not await self._more()
        return False

    async def _send(self, pieces: Sequence[bytes]) -> None:
        try:
            for piece in pieces:
                await self._stream.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what the server said before that is in the answer

    async def _more(self) -> bytes:
        if _QUICKACK is not None:
            self._stream.transport_stream.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        try:
            return bytes(await self._stream.receive_some(_PIECE))
        except trio.BrokenResourceError:
            return b""

    async def _read(self, parser: h11.Connection, answer: Answer, held: list[bytes]) -> None:
        """Read up to the end of an answer; send the body that is held back if it is asked for."""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = await self._more()
                if not data and not answer.status:
                    answer.outcome = "closed"
                    return
                parser.receive_data(data)
            elif isinstance(event, h11.InformationalResponse):
                answer.interim.append(event.status_code)
                await self._send(held)
                held = []
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.reason = event.reason.decode("latin-1")
                answer.http = event.http_version.decode()
                answer.headers = [
                    (name.decode().lower(), value.decode("latin-1"))
                    for name, value in event.headers
                ]
            elif isinstance(event, h11.Data):
                answer.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                answer.outcome = "answered"
                return
            else:  # closed, or not to be used again
                answer.outcome = "cut" if answer.status else "closed"
                return


_HEADERS = [("Host", "h")]

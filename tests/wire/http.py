"""Just enough HTTP/1.1 for a scripted server and a proxy: requests out of a stream of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Seen:
    """One request as it went over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    complete: bool = False

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass
class RequestParser:
    """Fed with the client's bytes, yields each request at its head and completes it at its end."""

    _buffer: bytearray = field(default_factory=bytearray)
    _current: Seen | None = None

    def feed(self, data: bytes) -> Iterator[Seen]:
        """Yield the requests whose head or end lies in ``data``; `Seen.complete` tells which."""
        self._buffer += data
        while True:
            if self._current is None:
                head, separator, rest = bytes(self._buffer).partition(b"\r\n\r\n")
                if not separator:
                    return
                self._buffer = bytearray(rest)
                self._current = _head(head)
                yield self._current
            body = _body(self._current.headers, self._buffer)
            if body is None:
                return
            content, used = body
            del self._buffer[:used]
            done, self._current = self._current, None
            done.body, done.complete = content, True
            yield done


def _head(head: bytes) -> Seen:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return Seen(method, target, {name.lower(): value.strip() for name, _, value in pairs})


def _body(headers: dict[str, str], buffer: bytearray) -> tuple[bytes, int] | None:
    """The body and how many bytes it took; None if it is not all there."""
    if headers.get("transfer-encoding") != "chunked":
        length = int(headers.get("content-length", "0"))
        return (bytes(buffer[:length]), length) if len(buffer) >= length else None
    content, position = b"", 0
    while (end := buffer.find(b"\r\n", position)) >= 0:
        size = int(buffer[position:end], 16)
        if len(buffer) < end + 2 + size + 2:
            return None
        content += buffer[end + 2 : end + 2 + size]
        position = end + 2 + size + 2
        if size == 0:
            return content, position
    return None


def answer(status: int = 200, body: bytes = b"", reason: str = "OK", **headers: str) -> bytes:
    """A response with Content-Length; header names with ``_`` for ``-``."""
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

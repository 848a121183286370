"""The verb tail: the last bytes of one file of a job, running or over, and never the rest.

A-REX follows links on a GET, also out of the session directory, and hangs on a FIFO; but it lists
neither. So a file is read only if it is listed as one, and every directory on the way to it as one:
what `retrieve` goes by, too. The file may change between any two requests.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

import structlog
import trio

from arcbackend.config import ARCConfig
from arcbackend.errors import ConfigurationError, ProtocolError, TransportError
from arcbackend.jobids import resolve
from arcbackend.models import FileTail, JobHandle, JobID
from arcbackend.output import streams
from arcbackend.output.containment import MemberPath, Refused, joined, member_path, shown, split
from arcbackend.output.directory import GONE, UNREADABLE, check_sendable, list_directory
from arcbackend.protocol.messages import Request
from arcbackend.protocol.outputs import Listing, TooManyEntries, content_length, content_part
from arcbackend.protocol.requests import MAX_REQUEST_LINE, RequestBuilder, from_byte, head_of
from arcbackend.session import Session
from arcbackend.transport import StreamedResponse

__all__ = ["Tailer"]

_log = structlog.get_logger("arcbackend")

# A whole file that comes where a part was asked for is read to its end if it is not longer.
_MOST_UNASKED = 16 * 2**20
# How often a file is asked for that is shorter each time.
_LOOKS = 3


class Tailer:
    """Reads the ends of files.

    Args:
        session: the CE.
        config: limits and retries.
    """

    def __init__(self, session: Session, config: ARCConfig) -> None:
        self._session = session
        self._config = config
        self._limits = config.limits

    async def tail(self, job: JobID | JobHandle, name: str | None, most: int) -> FileTail:
        """Read the last ``most`` bytes of a file; see `ARCBackend.tail`."""
        (ref,) = resolve(self._session.endpoint, [job])
        if not 1 <= most <= self._limits.max_answer_bytes:
            raise ConfigurationError(
                f"bytes: {most} is not between 1 and limits.max_answer_bytes = "
                f"{self._limits.max_answer_bytes}",
                ce=self._session.endpoint,
                operation="tail",
            )
        with trio.move_on_after(self._limits.transfer_timeout):
            return await self._tail(job, ref.local, name, most)
        raise TransportError(
            f"not done within limits.transfer_timeout = {self._limits.transfer_timeout:g} s",
            ce=self._session.endpoint,
            operation="tail",
        )

    async def _tail(
        self, job: JobID | JobHandle, local: str, name: str | None, most: int
    ) -> FileTail:
        builder = await self._session.builder()
        told = None if name is None else shown(name)
        try:
            if name is None:
                stdout = await self._stdout(builder, job, local)
                told, path = shown(stdout), split(stdout)
            else:
                path = self._path(name)
            if path is None:
                raise Refused("a name that leads out of the session directory")
            size = await self._find(builder, local, path)
            request = builder.get_file(local, joined(path))
            offset, data = await _Reader(self._session, self._config, request, most).read(size)
        except Refused as refused:
            return FileTail(name=told, reason=refused.reason)
        except UnicodeEncodeError:
            return FileTail(name=told, reason="a name that stands for no bytes")
        return FileTail(name=told, data=data, offset=offset, size=offset + len(data))

    async def _stdout(self, builder: RequestBuilder, job: JobID | JobHandle, local: str) -> str:
        found = await streams.of_job(self._session, job)
        if found is None:
            await self._list(builder, local, ())  # for there may be no such job
            raise Refused("the CE does not tell which file is stdout")
        if found.stdout is None:
            raise Refused("the job discards its standard output")
        return found.stdout

    def _path(self, name: str) -> MemberPath:
        """The path that the caller means, under the rules for names that a CE lists."""
        path: MemberPath = ()
        for part in name.encode("utf-8", "surrogateescape").split(b"/"):
            path = member_path(
                path, part, max_depth=self._limits.max_depth, max_path=MAX_REQUEST_LINE
            )
        return path

    async def _find(self, builder: RequestBuilder, local: str, path: MemberPath) -> int | None:
        """Check that a path leads through directories to a file; its size, if that is listed."""
        for depth in range(1, len(path)):
            listing = await self._list(builder, local, path[: depth - 1])
            if path[depth - 1] not in listing.directories:
                raise Refused(
                    f"no such file (yet): {shown(path[:depth])} is no directory, or a link to one"
                )
        listing = await self._list(builder, local, path[:-1])
        if path[-1] in listing.directories:
            raise Refused("it is a directory")
        if path[-1] not in listing.files:
            raise Refused(
                "no such file (yet), or no regular one: links, FIFOs, sockets and devices are not "
                "read"
            )
        return listing.sizes.get(path[-1])

    async def _list(self, builder: RequestBuilder, local: str, path: MemberPath) -> Listing:
        most = self._limits.max_files
        try:
            listing = await list_directory(self._session, builder, local, path, most=most)
        except TooManyEntries as error:
            raise Refused(f"its directory cannot be looked into: {error.message}") from None
        if listing is None:
            raise Refused(f"the CE cannot read {shown(path)} (HTTP 404)" if path else GONE)
        return listing


class _Reader:
    """The end of one file on its way; never more of it in memory than was asked for."""

    def __init__(self, session: Session, config: ARCConfig, request: Request, most: int) -> None:
        self._session = session
        self._stall_timeout = config.limits.stall_timeout
        self._retries = config.retries
        self._request = request
        self._most = most
        self._began = False

    async def read(self, size: int | None) -> tuple[int, bytes]:
        """The file's last bytes, and where they begin.

        Args:
            size: bytes of the file, as far as is known.

        Raises:
            Refused: the CE cannot read it, or it shrinks as fast as it is read.
            AuthenticationError, TransportError, ProtocolError: it did not arrive.
        """
        check_sendable(head_of(self._request))
        pause = self._retries.backoff
        for number in range(1, self._retries.attempts + 1):
            try:
                return await self._looks(size)
            except TransportError as error:
                # Until the head of an answer is there, the transport has tried again already.
                if number == self._retries.attempts or not self._began:
                    raise
                _log.info(
                    "tail.interrupted",
                    ce=self._session.endpoint,
                    attempt=number,
                    why=error.message,
                )
            await trio.sleep(pause)
            pause = min(2 * pause, self._retries.backoff_max)
        raise AssertionError  # the last attempt returns or raises

    async def _looks(self, size: int | None) -> tuple[int, bytes]:
        found: tuple[int, bytes] | None = None
        for _ in range(_LOOKS):
            if size is None:
                size = await self._size()
            if size == 0:
                return 0, b""
            offset = max(0, size - self._most)
            part = await self._part(offset, size)
            if part is None:
                found, size = None, None
                continue
            found, now = part
            if now >= size:
                return found
            size = now  # it has shrunk: there is an earlier part of it to be had
        if found is None:
            raise Refused("it is shorter each time it is looked at")
        return found

    async def _size(self) -> int:
        self._began = False
        async with self._stream(head_of(self._request)) as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                raise Refused(UNREADABLE)
            length = self._length(answer)
            async for _ in answer:  # nothing comes, but then the connection can be used again
                pass
        if answer.status != HTTPStatus.OK or length is None:
            raise self._broken("the CE does not tell how long the file is")
        return length

    async def _part(self, offset: int, size: int) -> tuple[tuple[int, bytes], int] | None:
        """What is there of a part of the file, and the file's size now; None if nothing is."""
        self._began = False
        async with self._stream(from_byte(self._request, offset, size - 1)) as answer:
            self._began = True
            if answer.status == HTTPStatus.NOT_FOUND:
                raise Refused(UNREADABLE)
            if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return None
            if answer.status == HTTPStatus.OK:
                return await self._whole(answer)
            part = content_part(answer.headers)
            if answer.status != HTTPStatus.PARTIAL_CONTENT or part is None:
                raise self._broken(f"HTTP {answer.status} to a request for a part of a file")
            first, last, now = part
            if first != offset or last != min(size, now) - 1:
                raise self._broken(
                    f"bytes {first} to {last} came where {offset} to {size - 1} were asked for"
                )
            data = bytearray()
            async for chunk in answer:
                data += chunk
                if len(data) > last - first + 1:
                    break
        if len(data) != last - first + 1:
            raise self._broken(f"other than the {last - first + 1} bytes came that were announced")
        return (offset, bytes(data)), now

    async def _whole(self, answer: StreamedResponse) -> tuple[tuple[int, bytes], int]:
        """The end of a file that comes from its beginning."""
        limit = max(self._most, _MOST_UNASKED)
        size = self._length(answer) or 0
        data = bytearray()
        if size <= limit:
            size = 0
            async for chunk in answer:
                data += chunk
                size += len(chunk)
                del data[: -self._most]
                if size > limit:
                    break
        if size > limit:
            raise self._broken("the CE ignores ranges: it sends the whole file, which is long")
        return (size - len(data), bytes(data)), size

    def _stream(self, request: Request) -> AbstractAsyncContextManager[StreamedResponse]:
        return self._session.stream(request, read_timeout=self._stall_timeout)

    def _length(self, answer: StreamedResponse) -> int | None:
        try:
            return content_length(answer.headers)
        except ValueError as error:
            raise self._broken(str(error)) from None

    def _broken(self, what: str) -> ProtocolError:
        return ProtocolError(
            what, ce=self._session.endpoint, operation=self._request.operation.value
        )

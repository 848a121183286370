"""One file from the CE to the disk: streamed, bounded, resumed where that is safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import structlog
import trio

from arcbackend.config import Limits, Retries
from arcbackend.errors import ProtocolError, TransportError
from arcbackend.output.budget import Allowance
from arcbackend.output.containment import Refused
from arcbackend.output.writer import Sink
from arcbackend.protocol.messages import Request
from arcbackend.protocol.outputs import content_length, content_range
from arcbackend.protocol.requests import from_byte
from arcbackend.session import Session
from arcbackend.transport import StreamedResponse

__all__ = ["Download", "Downloader"]

_log = structlog.get_logger("arcbackend")

PIECE = 1024 * 1024
"""Bytes of a file that are in memory, at most; written at once, since a change to a thread costs as
much as writing some 100 KiB."""

# Poured at one time, in a thread, while the next file waits.
_POUR = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Downloader:
    """Downloads files.

    Attributes:
        session: the CE.
        limits: bounds in time.
        retries: how often, and how long to wait.
        threads: for large files, together. More than two mostly wait for each other: for the
            interpreter.
    """

    session: Session
    limits: Limits
    retries: Retries
    threads: trio.CapacityLimiter

    def download(
        self,
        request: Request,
        sink: Sink,
        allowance: Allowance,
        *,
        settled: bool,
        announced: int | None = None,
    ) -> Download:
        """Prepare the download of one file; nothing is asked for yet.

        Args:
            request: asks for it.
            sink: where it goes.
            allowance: how much it may be.
            settled: the file does not change any more, so that a transfer that broke can go on
                where it stopped.
            announced: bytes, by the listing. What is too much is not asked for, nor what is empty.
        """
        return Download(self, request, sink, allowance, settled=settled, announced=announced)


class Download:
    """One file's way to the disk: `receive`, `land`, `landed`, and `aclose` whatever happens.

    In steps, so that the connection serves the next file while this one is given its name, together
    with others. It is on disk whole after `land`, or not at all.
    """

    def __init__(
        self,
        by: Downloader,
        request: Request,
        sink: Sink,
        allowance: Allowance,
        *,
        settled: bool,
        announced: int | None,
    ) -> None:
        self._session, self._limits, self._retries = by.session, by.limits, by.retries
        self._threads = by.threads
        self._request = request
        self._sink = sink
        self._allowance = allowance
        self._settled = settled
        self._announced = announced
        self._total: int | None = None
        self._began = False
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._failure: Exception | None = None
        self._kept = 0

    @property
    def waiting(self) -> int:
        """Bytes in memory, of a file that has arrived."""
        return self._waiting

    async def receive(self) -> bool:
        """Download the file; False if the CE has no such file.

        Raises:
            Refused: a limit, or the disk, is in the way.
            TransportError: it did not arrive, however often tried.
            ProtocolError: what arrived cannot be made sense of.
            AuthenticationError: the whole operation failed.
        """
        if self._announced is not None:
            self._allowance.announce(self._announced)
            if self._announced == 0:
                return True
        with trio.move_on_after(self._limits.transfer_timeout):
            return await self._attempts()
        raise Refused(
            f"not done within limits.transfer_timeout = {self._limits.transfer_timeout:g} s"
        )

    def land(self) -> None:
        """Write what is left to write, and give the file its name. Blocks: for a thread."""
        try:
            self._sink.commit(self._pieces)
        except (Refused, OSError) as error:
            self._failure = error
            self._sink.discard()
        else:
            self._kept = self._allowance.taken

    def landed(self) -> int:
        """The bytes of the file that `land` put in its place.

        Raises:
            Refused: the disk was in the way.
        """
        if self._failure is not None:
            raise _refused(self._failure)
        return self._kept

    async def aclose(self) -> None:
        """Remove what has not landed, and give back what it took. Idempotent."""
        self._pieces, self._waiting = [], 0
        self._allowance.give_back(self._kept)
        if self._sink.is_open:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._sink.discard)

    async def _attempts(self) -> bool:
        pause = self._retries.backoff
        for number in range(1, self._retries.attempts + 1):
            try:
                return await self._attempt()
            except TransportError as error:
                # Until the head of an answer is there, the transport has tried again already.
                if number == self._retries.attempts or not self._began:
                    raise
                _log.info(
                    "output.interrupted",
                    ce=self._session.endpoint,
                    attempt=number,
                    bytes=self._sink.size,
                    why=error.message,
                )
            await trio.sleep(pause)
            pause = min(2 * pause, self._retries.backoff_max)
        raise AssertionError  # the last attempt returns or raises

    async def _attempt(self) -> bool:
        sink, allowance = self._sink, self._allowance
        self._began = False
        if not (self._settled and self._total is not None):
            await self._restart()
        allowance.give_back(sink.size)  # what was on its way is lost
        asked = from_byte(self._request, sink.size) if sink.size else self._request
        async with self._session.stream(asked, read_timeout=self._limits.stall_timeout) as answer:
            self._began = True
            if answer.status == HTTPStatus.NOT_FOUND:
                return False
            if not self._goes_on(answer):
                await self._restart()
                allowance.give_back()
                if answer.status != HTTPStatus.OK:
                    raise TransportError("the CE did not go on where the transfer stopped")
            if self._total is not None:
                allowance.announce(self._total)
                if self._total - sink.size > PIECE:
                    await self._on_disk(partial(sink.check_room, self._total - sink.size))
            await self._body(answer)
        return True

    async def _body(self, answer: StreamedResponse) -> None:
        """Read the body, and write all but the last pieces of it; a large file's to the end."""
        sink = self._sink
        self._pieces, self._waiting = [], 0
        try:
            async for chunk in answer:
                self._allowance.take(len(chunk))
                self._pieces.append(chunk)
                self._waiting += len(chunk)
                if self._waiting >= PIECE or answer.pours:
                    await self._write()
                while answer.pours and (left := (self._total or 0) - sink.size) > 0:
                    await self._pour(answer, min(left, _POUR))
        except TransportError:
            await self._write()  # the next attempt goes on behind it
            raise
        if self._total is not None and sink.size + self._waiting != self._total:
            raise ProtocolError(
                f"{sink.size + self._waiting} bytes came where {self._total} were announced"
            )

    async def _pour(self, answer: StreamedResponse, most: int) -> None:
        sink = self._sink

        def write(data: memoryview) -> None:
            try:
                sink.write([data])
            except OSError as error:
                raise _refused(error) from None

        with self._allowance.reserved(most) as take:
            before = sink.size
            try:
                await answer.pour(write, most, self._threads)
            finally:
                take(sink.size - before)

    async def _write(self) -> None:
        if self._waiting:
            await self._on_disk(partial(self._sink.write, self._pieces))
            self._pieces, self._waiting = [], 0

    def _goes_on(self, answer: StreamedResponse) -> bool:
        """Read the head of an answer; False if it does not go on where the transfer stopped."""
        try:
            length = content_length(answer.headers)
        except ValueError as error:
            raise ProtocolError(str(error), ce=self._session.endpoint) from None
        if answer.status == HTTPStatus.OK:
            self._total = length
            return not self._sink.size
        if not self._sink.size or answer.status not in (
            HTTPStatus.PARTIAL_CONTENT,
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        ):
            raise ProtocolError(
                f"HTTP {answer.status} to a request for a whole file", ce=self._session.endpoint
            )
        return content_range(answer.headers) == (self._sink.size, self._total)

    async def _restart(self) -> None:
        if self._sink.size:
            await self._on_disk(self._sink.restart)

    async def _on_disk(self, work: Callable[[], None]) -> None:
        # Not abandoned on cancellation: a thread that goes on would use what is closed.
        try:
            await trio.to_thread.run_sync(work)
        except OSError as error:
            raise _refused(error) from None


def _refused(error: Exception) -> Refused:
    if isinstance(error, OSError):
        return Refused(f"it cannot be written: {error.strerror or error}")
    assert isinstance(error, Refused)
    return error

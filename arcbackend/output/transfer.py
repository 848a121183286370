"""One file from the CE to the disk: streamed, bounded, resumed where that is safe."""

from __future__ import annotations

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

__all__ = ["Downloader"]

_log = structlog.get_logger("arcbackend")

# What is written at once: a change to a thread costs as much as writing some 100 KiB. So a small
# file is opened, written and renamed in one go, while nothing is in memory but pieces.
_PIECE = 512 * 1024


@dataclass(frozen=True, slots=True)
class Downloader:
    """Downloads files.

    Attributes:
        session: the CE.
        limits: bounds in time.
        retries: how often, and how long to wait.
    """

    session: Session
    limits: Limits
    retries: Retries

    async def download(
        self,
        request: Request,
        sink: Sink,
        allowance: Allowance,
        *,
        settled: bool,
        announced: int | None = None,
    ) -> int | None:
        """Download one file; whatever happens, it is on disk whole, or not at all.

        Args:
            request: asks for it.
            sink: where it goes.
            allowance: how much it may be.
            settled: the file does not change any more, so that a transfer that broke can go on
                where it stopped.
            announced: bytes, by the listing. What is too much is not asked for, nor what is empty.

        Returns:
            Its bytes; None if the CE has no such file.

        Raises:
            Refused: a limit, or the disk, is in the way.
            TransportError: it did not arrive, however often tried.
            ProtocolError: what arrived cannot be made sense of.
            AuthenticationError: the whole operation failed.
        """
        kept = 0
        try:
            if announced is not None:
                allowance.announce(announced)
            if announced == 0:
                await trio.to_thread.run_sync(sink.commit, ())
                return 0
            with trio.move_on_after(self.limits.transfer_timeout):
                size = await self._attempts(_Transfer(request, sink, allowance, settled))
                kept = allowance.taken
                return size
            raise Refused(
                f"not done within limits.transfer_timeout = {self.limits.transfer_timeout:g} s"
            )
        except OSError as error:
            raise Refused(f"it cannot be written: {error.strerror or error}") from None
        finally:
            allowance.give_back(kept)
            if sink.is_open:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(sink.discard)

    async def _attempts(self, transfer: _Transfer) -> int | None:
        pause = self.retries.backoff
        for number in range(1, self.retries.attempts + 1):
            try:
                return await self._attempt(transfer)
            except TransportError as error:
                # Until the head of an answer is there, the transport has tried again already.
                if number == self.retries.attempts or not transfer.began:
                    raise
                _log.info(
                    "output.interrupted",
                    ce=self.session.endpoint,
                    attempt=number,
                    bytes=transfer.sink.size,
                    why=error.message,
                )
            await trio.sleep(pause)
            pause = min(2 * pause, self.retries.backoff_max)
        raise AssertionError  # the last attempt returns or raises

    async def _attempt(self, transfer: _Transfer) -> int | None:
        sink, allowance = transfer.sink, transfer.allowance
        transfer.began = False
        if not transfer.resumable:
            await self._restart(transfer)
        allowance.give_back(sink.size)  # what was on its way is lost
        asked = from_byte(transfer.request, sink.size) if sink.size else transfer.request
        pieces: list[bytes] = []
        waiting = 0
        async with self.session.stream(asked, read_timeout=self.limits.stall_timeout) as answer:
            transfer.began = True
            if answer.status == HTTPStatus.NOT_FOUND:
                return None
            if not self._continues(transfer, answer):
                await self._restart(transfer)
                allowance.give_back()
                if answer.status != HTTPStatus.OK:
                    raise TransportError("the CE did not go on where the transfer stopped")
            if transfer.total is not None:
                allowance.announce(transfer.total)
                if transfer.total - sink.size > _PIECE:
                    check = partial(sink.check_room, transfer.total - sink.size)
                    await trio.to_thread.run_sync(check)
            async for chunk in answer:
                allowance.take(len(chunk))
                pieces.append(chunk)
                waiting += len(chunk)
                if waiting >= _PIECE:
                    await trio.to_thread.run_sync(sink.write, pieces)
                    pieces, waiting = [], 0
        size = sink.size + waiting
        if transfer.total is not None and size != transfer.total:
            raise ProtocolError(f"{size} bytes came where {transfer.total} were announced")
        await trio.to_thread.run_sync(sink.commit, pieces)
        return size

    def _continues(self, transfer: _Transfer, answer: StreamedResponse) -> bool:
        """Read the head of an answer; False if it does not go on where the transfer stopped."""
        try:
            length = content_length(answer.headers)
        except ValueError as error:
            raise ProtocolError(str(error), ce=self.session.endpoint) from None
        if answer.status == HTTPStatus.OK:
            transfer.total = length
            return not transfer.sink.size
        if not transfer.sink.size or answer.status not in (
            HTTPStatus.PARTIAL_CONTENT,
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        ):
            raise ProtocolError(
                f"HTTP {answer.status} to a request for a whole file", ce=self.session.endpoint
            )
        found = content_range(answer.headers)
        return found == (transfer.sink.size, transfer.total)

    async def _restart(self, transfer: _Transfer) -> None:
        if transfer.sink.size:
            await trio.to_thread.run_sync(transfer.sink.restart)


@dataclass(slots=True)
class _Transfer:
    """One file's download, over all attempts."""

    request: Request
    sink: Sink
    allowance: Allowance
    settled: bool
    total: int | None = None
    began: bool = False

    @property
    def resumable(self) -> bool:
        """Whether the rest alone can be asked for: of a file that has a size and keeps it."""
        return self.settled and self.total is not None

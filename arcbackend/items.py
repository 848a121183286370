"""Items of a job's control data (``diagnose/<item>``), of which no more is read than asked.

The log of a job can be megabytes, and the CE may be hostile: nothing is ever whole in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import structlog
import trio

from arcbackend.errors import ProtocolError, TransportError
from arcbackend.protocol.messages import Operation, Request
from arcbackend.protocol.outputs import content_length, content_part
from arcbackend.protocol.requests import from_byte
from arcbackend.session import Session

__all__ = ["FEW", "Ending", "ItemReader"]

_log = structlog.get_logger("arcbackend")

FEW = 8
"""So many jobs may be asked about one by one, where one request could tell of many."""

# The failure record can be empty, or not there, at the moment the job ends.
_RECORD_PAUSES = (0.0, 0.2, 0.5)
_RECORD = 64 * 1024
# Most logs are not longer: then one request brings the end, and with it all.
_FIRST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an item.

    Attributes:
        data: its last bytes.
        size: bytes of the whole.
    """

    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class _Part:
    status: int
    data: bytes
    size: int | None
    """Of the whole item; None: longer than this, and the answer does not tell."""


class ItemReader:
    """Reads items.

    Args:
        session: the CE.
        patience: seconds until an answer begins, and from there to its end.
    """

    def __init__(self, session: Session, patience: float) -> None:
        self._session = session
        self._patience = patience

    async def beginning(self, local: str, item: str, most: int) -> bytes | None:
        """The first ``most`` bytes; None if the CE has no such item, or no such job.

        Raises:
            AuthenticationError, TransportError, ProtocolError: it could not be read.
        """
        builder = await self._session.builder()
        part = await self._read(builder.diagnose(local, item), most)
        return None if part.status == HTTPStatus.NOT_FOUND else part.data

    async def ending(self, local: str, item: str, most: int) -> Ending | None:
        """The last ``most`` bytes, at most 64 KiB; None if the CE has no such item or job.

        A-REX gives no range that is counted from the end, so a long item takes a second request.

        Raises:
            AuthenticationError, TransportError, ProtocolError: it could not be read.
        """
        builder = await self._session.builder()
        request = builder.diagnose(local, item)
        part = await self._read(from_byte(request, 0, _FIRST - 1), _FIRST)
        if part.status == HTTPStatus.NOT_FOUND:
            return None
        if part.size is None:
            raise self._broken("an item longer than was asked for, and of no known length")
        if part.size > len(part.data):
            wanted = min(most, _FIRST)
            end = await self._read(from_byte(request, part.size - wanted), wanted)
            if end.status != HTTPStatus.PARTIAL_CONTENT:
                raise self._broken(
                    f"HTTP {end.status} to a request for the end of an item of {part.size} bytes"
                )
            return Ending(end.data, part.size)
        return Ending(part.data[-most:], part.size)

    async def record(self, local: str) -> str | None:
        """The failure record of a job that the CE says has failed, or was killed.

        Returns:
            None: it is not there, looked for more than once.

        Raises:
            AuthenticationError, TransportError: it could not be read.
        """
        for pause in _RECORD_PAUSES:
            await trio.sleep(pause)
            try:
                record = await self.beginning(local, "failed", _RECORD)
            except ProtocolError as error:  # of this job only
                _log.warning(
                    "job.record_unreadable",
                    ce=self._session.endpoint,
                    job=local,
                    why=error.message,
                )
                continue
            if record is not None and record.strip():
                return record.decode("utf-8", "replace")
        return None

    async def _read(self, request: Request, most: int) -> _Part:
        async with self._session.stream(request, read_timeout=self._patience) as answer:
            body = bytearray()
            with trio.move_on_after(self._patience) as scope:
                if answer.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                    async for chunk in answer:
                        body += chunk[: most + 1 - len(body)]
                        if len(body) > most:
                            break  # which closes the connection
            if scope.cancelled_caught:
                raise TransportError(
                    f"the answer was not there within {self._patience:g} s of its beginning",
                    ce=self._session.endpoint,
                    operation=Operation.DIAGNOSE.value,
                )
        size = _size(answer.headers, body, whole=len(body) <= most)
        return _Part(answer.status, bytes(body[:most]), size)

    def _broken(self, what: str) -> ProtocolError:
        return ProtocolError(what, ce=self._session.endpoint, operation=Operation.DIAGNOSE.value)


def _size(headers: Mapping[str, str], body: bytearray, *, whole: bool) -> int | None:
    """Bytes of the whole item, of which this answer may be a part."""
    if (part := content_part(headers)) is not None:
        return part[2]
    if whole:
        return len(body)
    try:
        return content_length(headers)
    except ValueError:
        return None

"""How a job that is over ended: whether what the CE calls FAILED was a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus

import structlog
import trio

from arcbackend.bulk import read_documents
from arcbackend.errors import ProtocolError
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.tasks import run_all

__all__ = ["Ends"]

_log = structlog.get_logger("arcbackend")

# A-REX's words in a job's failure record after a kill (JobsList.cpp and DTRGenerator.cpp in
# src/services/a-rex/grid-manager/jobs).
_KILLED_MARKS = (
    b"Job is canceled by external request",
    b"Job was canceled while waiting in DTR queue",
)
_REMEMBERED = 100_000
# The record can be empty, or not there, at the moment the job ends.
_RECORD_PAUSES = (0.0, 0.2, 0.5)


class Ends:
    """Finds out how jobs ended that the CE says are FAILED, and remembers it: an end is final.

    Both sources say FAILED of killed jobs, for a while or for ever (docs/explanation/arc-rest.md).

    Args:
        session: the CE.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, str] = {}

    def known(self, local: str) -> str | None:
        """KILLED or FAILED, if it has been found out."""
        return self._known.get(local)

    async def find(
        self, *, documented: Sequence[str] = (), listed: Sequence[str] = ()
    ) -> dict[str, str | None]:
        """Look into jobs said to be FAILED.

        Args:
            documented: local ids of those that their documents say it of: read in bulk.
            listed: of those that only the live listing does: one request each.

        Returns:
            Local id → KILLED, FAILED, or None: the CE does not tell yet.
        """
        found: dict[str, str | None] = {
            local: self._known[local] for local in (*documented, *listed) if local in self._known
        }
        singly = [local for local in listed if local not in found]

        def read(local: str, answer: JobAnswer) -> None:
            text = json.dumps(answer.document).encode()
            if b'"Error"' in text:
                found[local] = self._remember(local, text)
            else:  # the information provider has not seen this job yet: computed as the listing
                singly.append(local)

        await read_documents(
            self._session, [local for local in documented if local not in found], read
        )

        async def look_into(local: str) -> None:
            found[local] = await self._by_record(local)

        await run_all(look_into, singly)
        return found

    async def _by_record(self, local: str) -> str | None:
        builder = await self._session.builder()
        for pause in _RECORD_PAUSES:
            await trio.sleep(pause)
            try:
                record = await self._session.call(builder.diagnose(local, "failed"))
            except ProtocolError as error:  # of this job only
                _log.warning(
                    "job.record_unreadable",
                    ce=self._session.endpoint,
                    job=local,
                    why=error.message,
                )
                continue
            if record.status < HTTPStatus.BAD_REQUEST and record.body.strip():
                return self._remember(local, record.body)
        return None

    def _remember(self, local: str, record: bytes) -> str:
        if len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        killed = any(mark in record for mark in _KILLED_MARKS)
        self._known[local] = "KILLED" if killed else "FAILED"
        return self._known[local]

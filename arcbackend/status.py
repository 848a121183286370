"""The verb status: the CE's two sources made one true answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus

import structlog
import trio

from arcbackend.bulk import ask_all, read_documents
from arcbackend.errors import ProtocolError
from arcbackend.jobids import JobRef
from arcbackend.listing import LiveListing
from arcbackend.models import JobID, JobStatus
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.states import STATUS, UNKNOWN_JOB, WIPED, later
from arcbackend.tasks import run_all

__all__ = ["StatusReader"]

_log = structlog.get_logger("arcbackend")

# A-REX's words in a job's failure record after a kill (JobsList.cpp and DTRGenerator.cpp in
# src/services/a-rex/grid-manager/jobs).
_KILLED_MARKS = (
    b"Job is canceled by external request",
    b"Job was canceled while waiting in DTR queue",
)
_REMEMBERED = 100_000
_MOVE_PAUSE = 0.3
# The record can be empty, or not there, at the moment the job ends.
_RECORD_PAUSES = (0.0, 0.2, 0.5)

_unheard_of: set[str] = set()


class StatusReader:
    """Tells the state of jobs: the CE's documents, corrected by the live listing.

    `jobs.status` reads documents that are up to a minute old; the listing is live, but says FAILED
    of killed jobs and does not look into the batch system. Of two states the later one holds. A
    FAILED is looked into, since the job may have been killed: in bulk if the documents tell it
    (they are wrong at times, too), job by job if only the listing does. Once: an end is final, so
    what was found out is remembered, for a bounded number of jobs.

    Args:
        session: the CE.
        listing: the live listing.
        batch: how many ids go into one request.
    """

    def __init__(self, session: Session, listing: LiveListing, batch: int) -> None:
        self._session = session
        self._listing = listing
        self._batch = batch
        self._ends: dict[str, str] = {}

    async def statuses(self, refs: Sequence[JobRef]) -> dict[JobID, JobStatus]:
        """The status of each job, in the order asked."""
        states = await self.states([ref.local for ref in refs])
        return {ref.id: _status(states[ref.local], self._session.endpoint) for ref in refs}

    async def states(
        self, ids: Sequence[str], *, live: dict[str, str] | None = None
    ) -> dict[str, str]:
        """The ARC state of each job, by its local id.

        Args:
            ids: local ids.
            live: the live listing, if the caller has just asked it.
        """
        if not ids:
            return {}
        builder = await self._session.builder()
        answers: dict[str, JobAnswer] = {}
        listed = live or {}

        async def ask(source: str) -> None:
            nonlocal answers, listed
            if source == "documents":
                answers = await ask_all(self._session, builder.status, ids, batch=self._batch)
            else:
                listed = await self._listing.late_states_if_affordable()

        await run_all(ask, ["documents"] if live is not None else ["documents", "listing"])
        # A-REX says WIPED, too, for a moment, of a job whose files it is moving: looked at twice.
        wiped = [local for local in ids if WIPED in (answers[local].state, listed.get(local))]
        if wiped:
            await trio.sleep(_MOVE_PAUSE)
            answers |= await ask_all(self._session, builder.status, wiped, batch=self._batch)
            again = await self._listing.late_states_if_affordable()
            listed = {local: state for local, state in listed.items() if state != WIPED} | {
                local: again[local] for local in wiped if local in again
            }
        states: dict[str, str] = {}
        in_doubt: list[str] = []
        suspect: list[str] = []
        for local in ids:
            seen = listed.get(local)
            documented = _documented(answers[local], local, self._session.endpoint)
            if documented is None:  # of this job the documents cannot be had
                states[local] = seen or UNKNOWN_JOB
            else:
                states[local] = later(documented, seen)
            if states[local] not in (WIPED, UNKNOWN_JOB) and local in self._ends:
                states[local] = self._ends[local]  # what has been found out does not go back
            elif states[local] == "FAILED":
                (suspect if documented == "FAILED" else in_doubt).append(local)

        async def look_into(local: str) -> None:
            states[local] = await self._end_of(local)

        await run_all(look_into, in_doubt)
        return states | await self._ends_of(suspect)

    async def _ends_of(self, ids: Sequence[str]) -> dict[str, str]:
        """Of jobs documented as FAILED, those that were killed: their documents' errors tell."""
        ends: dict[str, str] = {}
        undocumented: list[str] = []

        def read(local: str, answer: JobAnswer) -> None:
            text = json.dumps(answer.document).encode()
            if b'"Error"' in text:
                ends[local] = self._remember(local, text)
            else:  # the information provider has not seen this job yet: computed as the listing
                undocumented.append(local)

        await read_documents(self._session, ids, read)

        async def look_into(local: str) -> None:
            ends[local] = await self._end_of(local)

        await run_all(look_into, undocumented)
        return ends

    def _remember(self, local: str, record: bytes) -> str:
        """How a job ended, by its failure record."""
        if len(self._ends) >= _REMEMBERED:
            del self._ends[next(iter(self._ends))]
        killed = any(mark in record for mark in _KILLED_MARKS)
        self._ends[local] = "KILLED" if killed else "FAILED"
        return self._ends[local]

    async def _end_of(self, local: str) -> str:
        """Find out whether a job that is over failed or was killed."""
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
        return "FAILED"  # what the listing says; looked into again next time


def _documented(answer: JobAnswer, local: str, ce: str) -> str | None:
    """The documented state; None if the CE failed to tell, which is not the same as unknown."""
    if answer.code == HTTPStatus.NOT_FOUND:
        return UNKNOWN_JOB
    if answer.code >= HTTPStatus.BAD_REQUEST or answer.state is None:
        _log.warning("job.status_refused", ce=ce, job=local, code=answer.code, reason=answer.reason)
        return None
    return answer.state


def _status(state: str, ce: str) -> JobStatus:
    status = STATUS.get(state)
    if status is None:
        if state not in _unheard_of and len(_unheard_of) < 100:  # noqa: PLR2004
            _unheard_of.add(state)
            _log.warning("state.unheard_of", ce=ce, state=state)
        return JobStatus.UNKNOWN
    return status

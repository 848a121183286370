"""The verb status: the CE's two sources made one true answer."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import structlog
import trio

from arcbackend.bulk import ask_all
from arcbackend.ends import Ends
from arcbackend.jobids import JobRef
from arcbackend.listing import LiveListing
from arcbackend.models import JobID, JobStatus
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.states import STATUS, UNKNOWN_JOB, WIPED, later
from arcbackend.tasks import run_all

__all__ = ["StatusReader", "documented_state"]

_log = structlog.get_logger("arcbackend")

_MOVE_PAUSE = 0.3

_unheard_of: set[str] = set()


class StatusReader:
    """Tells the state of jobs: the CE's documents, corrected by the live listing.

    `jobs.status` reads documents that are up to a minute old; the listing is live, but says FAILED
    of killed jobs and does not look into the batch system. Of two states the later one holds. A
    FAILED is looked into, since the job may have been killed.

    Args:
        session: the CE.
        listing: the live listing.
        ends: finds out how jobs ended.
        batch: how many ids go into one request.
    """

    def __init__(self, session: Session, listing: LiveListing, ends: Ends, batch: int) -> None:
        self._session = session
        self._listing = listing
        self._batch = batch
        self._ends = ends

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
            documented = documented_state(answers[local], local, self._session.endpoint)
            if documented is None:  # of this job the documents cannot be had
                states[local] = seen or UNKNOWN_JOB
            else:
                states[local] = later(documented, seen)
            end = self._ends.known(local)
            if end is not None and states[local] not in (WIPED, UNKNOWN_JOB):
                states[local] = end  # what has been found out does not go back
            elif states[local] == "FAILED":
                (suspect if documented == "FAILED" else in_doubt).append(local)

        ends = await self._ends.find(documented=suspect, listed=in_doubt)
        # What the CE does not tell yet is what it says, and looked into again next time.
        return states | {local: end or "FAILED" for local, end in ends.items()}


def documented_state(answer: JobAnswer, local: str, ce: str) -> str | None:
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

"""The verbs kill and purge, with outcomes that are true where the CE's answers are not.

A-REX answers "Queued for killing" of a job that is long over, and "Queued for cleaning" of one that
runs (and then removes its outputs the moment it ends). So both verbs look at the live listing
first, and send the CE only what makes sense. The table of outcomes: docs/reference/outcomes.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

from arcbackend.bulk import ask_all
from arcbackend.jobids import JobRef
from arcbackend.listing import LiveListing
from arcbackend.models import JobID, OpOutcome
from arcbackend.protocol.messages import Request
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.states import TERMINAL, UNKNOWN_JOB, WIPED
from arcbackend.status import StatusReader

__all__ = ["Remover"]

_UNKNOWN = OpOutcome(ok=False, reason="the CE knows no such job")
_GONE = frozenset({WIPED, UNKNOWN_JOB})


class Remover:
    """Kills and purges jobs.

    Args:
        session: the CE.
        listing: the live listing.
        reader: tells the state of jobs that the listing does not settle.
        batch: how many ids go into one request.
    """

    def __init__(
        self, session: Session, listing: LiveListing, reader: StatusReader, batch: int
    ) -> None:
        self._session = session
        self._listing = listing
        self._reader = reader
        self._batch = batch

    async def kill(self, refs: Sequence[JobRef]) -> dict[JobID, OpOutcome]:
        """Ask the CE to kill each job that is not over."""
        if not refs:
            return {}
        live = await self._listing.late_states()
        outcomes: dict[str, OpOutcome] = {}
        # Listed as expired, a job may be one whose files are just being moved: asked once more.
        expired = [ref.local for ref in refs if live.get(ref.local) == WIPED]
        for local, state in (await self._reader.states(expired)).items():
            if state in _GONE:
                outcomes[local] = _UNKNOWN
        for ref in refs:
            state = live.get(ref.local, "")
            if state in TERMINAL:
                outcomes[ref.local] = OpOutcome(ok=False, reason="the job is already over")
            elif state == "KILLING":
                outcomes[ref.local] = OpOutcome(ok=True, reason="the job was being killed already")
        rest = [ref.local for ref in refs if ref.local not in outcomes]
        builder = await self._session.builder()
        outcomes |= await self._mark(builder.kill, rest)
        return {ref.id: outcomes[ref.local] for ref in refs}

    async def purge(self, refs: Sequence[JobRef]) -> dict[JobID, OpOutcome]:
        """Ask the CE to remove each job that is over, with its files."""
        if not refs:
            return {}
        live = await self._listing.late_states()
        outcomes: dict[str, OpOutcome] = {}
        over = [ref.local for ref in refs if live.get(ref.local) in TERMINAL]
        other = [ref.local for ref in refs if live.get(ref.local) not in TERMINAL]
        for local, state in (await self._reader.states(other, live=live)).items():
            if state in TERMINAL:
                over.append(local)  # ended between the two looks
            elif state in _GONE:
                outcomes[local] = _UNKNOWN
            else:
                outcomes[local] = OpOutcome(
                    ok=False, reason=f"the job is not over ({state}): kill it first, or wait"
                )
        builder = await self._session.builder()
        outcomes |= await self._mark(builder.clean, over)
        return {ref.id: outcomes[ref.local] for ref in refs}

    async def _mark(
        self, build: Callable[[Sequence[str]], Request], ids: Sequence[str]
    ) -> dict[str, OpOutcome]:
        answers = await ask_all(self._session, build, ids, batch=self._batch)
        return {local: _outcome(answer) for local, answer in answers.items()}


def _outcome(answer: JobAnswer) -> OpOutcome:
    if answer.code == HTTPStatus.NOT_FOUND:
        return _UNKNOWN
    if answer.code < HTTPStatus.BAD_REQUEST:
        return OpOutcome(ok=True)
    return OpOutcome(ok=False, reason=f"the CE refused: {answer.reason or answer.code}")

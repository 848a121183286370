"""The verbs kill and purge, with outcomes that are true where the CE's answers are not.

A-REX answers "Queued for killing" of a job that is long over, and "Queued for cleaning" of one that
runs (and then removes its outputs the moment it ends). So both verbs look at the live listing
first, and send the CE only what makes sense. The table of outcomes: docs/reference/outcomes.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from arcbackend.bulk import ask_all
from arcbackend.jobids import JobRef
from arcbackend.lifecycle.definition import JOB, Verb, worded
from arcbackend.lifecycle.policy import Policy
from arcbackend.listing import LiveListing
from arcbackend.models import JobID, OpOutcome
from arcbackend.protocol.messages import Request
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.states import TERMINAL, UNKNOWN_JOB, WIPED
from arcbackend.status import StatusReader

__all__ = ["Remover"]

# These verbs know no policy but the default: a poller has one.
_MACHINE = JOB.under(Policy())


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
        states = await self._listing.late_states()
        # Listed as expired, a job may be one whose files are just being moved: asked once more.
        expired = [ref.local for ref in refs if states.get(ref.local) == WIPED]
        states |= await self._reader.states(expired)
        builder = await self._session.builder()
        return await self._decide("kill", builder.kill, refs, states)

    async def purge(self, refs: Sequence[JobRef]) -> dict[JobID, OpOutcome]:
        """Ask the CE to remove each job that is over, with its files."""
        if not refs:
            return {}
        live = await self._listing.late_states()
        other = [ref.local for ref in refs if live.get(ref.local) not in TERMINAL]
        states = live | await self._reader.states(other, live=live)
        builder = await self._session.builder()
        return await self._decide("purge", builder.clean, refs, states)

    async def _decide(
        self,
        verb: Verb,
        build: Callable[[Sequence[str]], Request],
        refs: Sequence[JobRef],
        states: Mapping[str, str],
    ) -> dict[JobID, OpOutcome]:
        """What the machine says of each job, and, where that is up to the CE, what the CE says."""
        outcomes: dict[str, OpOutcome] = {}
        asked: list[str] = []
        for ref in refs:
            settled = _settled(verb, states.get(ref.local, ""))
            if settled is None:
                asked.append(ref.local)
            else:
                outcomes[ref.local] = settled
        outcomes |= await self._mark(build, asked)
        return {ref.id: outcomes[ref.local] for ref in refs}

    async def _mark(
        self, build: Callable[[Sequence[str]], Request], ids: Sequence[str]
    ) -> dict[str, OpOutcome]:
        answers = await ask_all(self._session, build, ids, batch=self._batch)
        return {local: _outcome(answer) for local, answer in answers.items()}


def _settled(verb: Verb, arc_state: str) -> OpOutcome | None:
    """What a verb says of a job in this state; None: the CE must be asked."""
    unseen = _MACHINE.states[_MACHINE.initial]
    outcome = _MACHINE.settled(verb, _MACHINE.by_arc_state.get(arc_state, unseen))
    return outcome and worded(outcome, {"state": arc_state})


def _outcome(answer: JobAnswer) -> OpOutcome:
    if answer.code == HTTPStatus.NOT_FOUND:
        answered = _settled("kill", UNKNOWN_JOB)
        assert answered is not None  # (the machine is checked when it is loaded)
        return answered
    if answer.code < HTTPStatus.BAD_REQUEST:
        return OpOutcome(ok=True)
    return OpOutcome(ok=False, reason=f"the CE refused: {answer.reason or answer.code}")

"""The verbs kill and purge, with outcomes that are true where the CE's answers are not.

A-REX answers "Queued for killing" of a job that is long over, and "Queued for cleaning" of one that
runs (and then removes its outputs the moment it ends). So both verbs look at the live listing
first, and send the CE only what makes sense. The table of outcomes: docs/reference/outcomes.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from arcbackend.bulk import ask_all
from arcbackend.jobids import JobRef
from arcbackend.listing import LiveListing
from arcbackend.models import JobID, OpOutcome
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.states import TERMINAL, UNKNOWN_JOB
from arcbackend.status import StatusReader

__all__ = ["kill_jobs", "purge_jobs"]

_UNKNOWN = OpOutcome(ok=False, reason="the CE knows no such job")
_GONE = frozenset({"WIPED", UNKNOWN_JOB})


async def kill_jobs(
    session: Session,
    listing: LiveListing,
    reader: StatusReader,
    refs: Sequence[JobRef],
    batch: int,
) -> dict[JobID, OpOutcome]:
    """Ask the CE to kill each job that is not over."""
    if not refs:
        return {}
    live = await listing.late_states()
    outcomes: dict[str, OpOutcome] = {}
    # Listed as expired, a job may be one whose files are just being moved: asked once more.
    expired = [ref.local for ref in refs if live.get(ref.local) == "WIPED"]
    for local, state in (await reader.states(expired)).items():
        if state in _GONE:
            outcomes[local] = _UNKNOWN
    for ref in refs:
        state = live.get(ref.local, "")
        if state in TERMINAL:
            outcomes[ref.local] = OpOutcome(ok=False, reason="the job is already over")
        elif state == "KILLING":
            outcomes[ref.local] = OpOutcome(ok=True, reason="the job was being killed already")
    rest = [ref.local for ref in refs if ref.local not in outcomes]
    builder = await session.builder()
    answers = await ask_all(session, builder.kill, rest, batch=batch)
    outcomes |= {local: _outcome(answer) for local, answer in answers.items()}
    return {ref.id: outcomes[ref.local] for ref in refs}


async def purge_jobs(
    session: Session,
    listing: LiveListing,
    reader: StatusReader,
    refs: Sequence[JobRef],
    batch: int,
) -> dict[JobID, OpOutcome]:
    """Ask the CE to remove each job that is over, with its files."""
    if not refs:
        return {}
    live = await listing.late_states()
    outcomes: dict[str, OpOutcome] = {}
    over = [ref.local for ref in refs if live.get(ref.local) in TERMINAL]
    other = [ref.local for ref in refs if live.get(ref.local) not in TERMINAL]
    for local, state in (await reader.states(other, live=live)).items():
        if state in TERMINAL:
            over.append(local)  # ended between the two looks
        elif state in _GONE:
            outcomes[local] = _UNKNOWN
        else:
            outcomes[local] = OpOutcome(
                ok=False, reason=f"the job is not over ({state}): kill it first, or wait"
            )
    builder = await session.builder()
    answers = await ask_all(session, builder.clean, over, batch=batch)
    outcomes |= {local: _outcome(answer) for local, answer in answers.items()}
    return {ref.id: outcomes[ref.local] for ref in refs}


def _outcome(answer: JobAnswer) -> OpOutcome:
    if answer.code == HTTPStatus.NOT_FOUND:
        return _UNKNOWN
    if answer.code < HTTPStatus.BAD_REQUEST:
        return OpOutcome(ok=True)
    return OpOutcome(ok=False, reason=f"the CE refused: {answer.reason or answer.code}")

"""The verb status: the CE's two sources made one true answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from arcbackend.bulk import ask_all
from arcbackend.jobids import JobRef
from arcbackend.listing import LiveListing
from arcbackend.models import JobID, JobStatus
from arcbackend.protocol.messages import Response
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.states import STATUS, TERMINAL, UNKNOWN_JOB, later
from arcbackend.tasks import run_all

__all__ = ["arc_states", "job_statuses"]

_log = structlog.get_logger("arcbackend")

# A-REX's words in a job's failure record after a kill (rest.cpp and jobs/JobsList.cpp).
_KILLED_MARK = b"Job is canceled by external request"

_unheard_of: set[str] = set()


@dataclass(frozen=True, slots=True)
class _Observed:
    """What the two sources say of one job."""

    documented: str
    live: str | None


async def job_statuses(
    session: Session, listing: LiveListing, refs: Sequence[JobRef], batch: int
) -> dict[JobID, JobStatus]:
    """The status of each job, in the order asked."""
    states = await arc_states(session, listing, [ref.local for ref in refs], batch)
    return {ref.id: _status(states[ref.local], session.endpoint) for ref in refs}


async def arc_states(
    session: Session, listing: LiveListing, ids: Sequence[str], batch: int
) -> dict[str, str]:
    """The ARC state of each job: as documented, corrected by the live listing.

    `jobs.status` reads documents that are up to a minute old; the listing is live, but says FAILED
    of killed jobs and does not look into the batch system. Of two states the later one holds. A
    FAILED that only the listing tells is looked into, job by job.
    """
    if not ids:
        return {}
    builder = await session.builder()
    answers: dict[str, JobAnswer] = {}
    live: dict[str, str] = {}

    async def ask(source: str) -> None:
        nonlocal answers, live
        if source == "documents":
            answers = await ask_all(session, builder.status, ids, batch=batch)
        else:
            live = await listing.late_states_if_affordable()

    await run_all(ask, ["documents", "listing"])
    states: dict[str, str] = {}
    ambiguous: list[str] = []
    for local in ids:
        observed = _Observed(_documented(answers[local], local, session.endpoint), live.get(local))
        states[local] = later(observed.documented, observed.live)
        if observed.live == "FAILED" and observed.documented not in TERMINAL:
            ambiguous.append(local)

    async def look(local: str) -> None:
        if _KILLED_MARK in (await _diagnose_failed(session, local)).body:
            states[local] = "KILLED"

    await run_all(look, ambiguous)
    return states


async def _diagnose_failed(session: Session, local: str) -> Response:
    builder = await session.builder()
    return await session.call(builder.diagnose(local, "failed"))


def _documented(answer: JobAnswer, local: str, ce: str) -> str:
    if answer.code == HTTPStatus.NOT_FOUND or answer.state is None:
        if answer.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.OK):
            _log.warning(
                "job.status_refused", ce=ce, job=local, code=answer.code, reason=answer.reason
            )
        return UNKNOWN_JOB
    return answer.state


def _status(state: str, ce: str) -> JobStatus:
    status = STATUS.get(state)
    if status is None:
        if state not in _unheard_of and len(_unheard_of) < 100:  # noqa: PLR2004
            _unheard_of.add(state)
            _log.warning("state.unheard_of", ce=ce, state=state)
        return JobStatus.UNKNOWN
    return status

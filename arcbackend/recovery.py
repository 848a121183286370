"""Finding the jobs of a submission by their name: for when the CE's reply never came."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus

import trio

from arcbackend.bulk import read_documents
from arcbackend.errors import ProtocolError, TransportError
from arcbackend.protocol import responses
from arcbackend.protocol.activity import activity_of
from arcbackend.protocol.description import activity_name
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.tasks import run_all

__all__ = ["Search", "all_jobs_named", "settled_jobs_named"]

_FIRST_LOOK, _LONGEST_WAIT = 0.25, 2.0
# The CE goes on with a request whose connection is gone. It makes a thousand jobs in a second or
# two, so a number that stands still for this long is final; but not zero: the CE may be so busy
# that it has not begun.
_SETTLED = 6.0


@dataclass(frozen=True, slots=True)
class Search:
    """What looking for the jobs of a submission came to.

    Attributes:
        found: local id → name.
        settled: whether the CE was asked, and no more jobs are to be expected.
        why: the last failure, if the CE could not be asked.
    """

    found: dict[str, str]
    settled: bool
    why: str | None = None


async def jobs_named(session: Session, name: str, seen: set[str] | None = None) -> dict[str, str]:
    """The identity's jobs whose name is ``name`` or begins with ``name.``: local id → name.

    Args:
        session: the CE.
        name: the name of a submission.
        seen: local ids that need not be looked at; those that bear other names are added.
    """
    seen = set() if seen is None else seen
    builder = await session.builder()
    response = await session.call(builder.list_jobs())
    listing = responses.parse_listing(response, session.endpoint)
    names: dict[str, str] = {}
    undocumented: list[str] = []

    def read_document(local: str, answer: JobAnswer) -> None:
        if (documented := activity_of(answer.document).text("Name")) is not None:
            names[local] = documented
        elif answer.code != HTTPStatus.NOT_FOUND:
            undocumented.append(local)

    await read_documents(session, [local for local in listing if local not in seen], read_document)

    async def read_description(local: str) -> None:
        # The information provider has not seen this job yet; its description is there at once.
        try:
            reply = await session.call(builder.diagnose(local, "description"))
        except ProtocolError:
            return  # of this job only: the next look will tell
        if reply.status < HTTPStatus.BAD_REQUEST:
            # A description that is not ours has no name to read, and never will.
            names[local] = activity_name(reply.body) or ""

    await run_all(read_description, undocumented)
    ours = {
        local: found
        for local, found in names.items()
        if found == name or found.startswith(f"{name}.")
    }
    seen.update(names.keys() - ours.keys())
    return ours


async def all_jobs_named(session: Session, name: str) -> dict[str, str]:
    """The same, looked for until a look finds nothing new.

    A job whose files A-REX is just moving is missing from its list for a moment.
    """
    seen: set[str] = set()
    found = await jobs_named(session, name, seen)
    while True:
        await trio.sleep(_FIRST_LOOK)
        again = await jobs_named(session, name, seen)
        if again.keys() <= found.keys():
            return found
        found.update(again)


async def settled_jobs_named(
    session: Session, name: str, *, expected: int, known: Collection[str], deadline: float
) -> Search:
    """The same, looked for until all ``expected`` are there, or their number stands still.

    Args:
        session: the CE.
        name: the name of the submission.
        expected: how many jobs there can be.
        known: local ids that need not be looked at.
        deadline: when to give up, on trio's clock.
    """
    found: dict[str, str] = {}
    seen = set(known)
    why: str | None = "it was not asked in time"
    settle = min(_SETTLED, max(0.0, deadline - trio.current_time()) / 2)
    changed_at: float | None = None
    wait = _FIRST_LOOK
    with trio.CancelScope(deadline=deadline):
        while True:
            try:
                now_found = await jobs_named(session, name, seen)
            except (TransportError, ProtocolError) as error:
                why, changed_at = error.message, None
            else:
                now = trio.current_time()
                if changed_at is None or not now_found.keys() <= found.keys():
                    changed_at = now
                # What one look misses because the CE is just moving its files, another has seen.
                found.update(now_found)
                why = None
                still = bool(found) and now - changed_at >= settle
                if len(found) >= expected or still:
                    return Search(found, settled=True)
            await trio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
    # Asked to the end and nothing there: nothing was made.
    return Search(found, settled=why is None and not found, why=why)

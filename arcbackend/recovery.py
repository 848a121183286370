"""Finding the jobs of a submission by their name: for when the CE's reply never came."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from http import HTTPStatus

import structlog
import trio

from arcbackend.bulk import ask_all
from arcbackend.errors import TransportError
from arcbackend.protocol import responses
from arcbackend.protocol.description import activity_name
from arcbackend.session import Session
from arcbackend.tasks import run_all

__all__ = ["jobs_named", "settled_jobs_named"]

_log = structlog.get_logger("arcbackend")

# Job documents are some kilobytes each.
_INFO_BATCH = 500
_FIRST_LOOK, _LONGEST_WAIT = 0.25, 2.0
# The CE goes on with a request whose connection is gone. It makes a thousand jobs in a second or
# two, so a count that stands still for this long is final.
_SETTLED = 6.0


async def jobs_named(session: Session, name: str, *, known: Collection[str] = ()) -> dict[str, str]:
    """The identity's jobs whose name is ``name`` or begins with ``name.``: local id → name.

    Args:
        session: the CE.
        name: the name of a submission.
        known: local ids that need not be looked at.
    """
    builder = await session.builder()
    response = await session.call(builder.list_jobs())
    listing = responses.parse_listing(response, session.endpoint)
    candidates = [local for local in listing if local not in known]
    names: dict[str, str] = {}
    undocumented: list[str] = []
    for local, answer in (
        await ask_all(session, builder.info, candidates, batch=_INFO_BATCH)
    ).items():
        documented = _name_in(answer.document)
        if documented is not None:
            names[local] = documented
        elif answer.code != HTTPStatus.NOT_FOUND:
            undocumented.append(local)

    async def read_description(local: str) -> None:
        # The information provider has not seen this job yet; its description is there at once.
        found = await session.call(builder.diagnose(local, "description"))
        if found.status < HTTPStatus.BAD_REQUEST and (named := activity_name(found.body)):
            names[local] = named

    await run_all(read_description, undocumented)
    return {
        local: found
        for local, found in names.items()
        if found == name or found.startswith(f"{name}.")
    }


async def settled_jobs_named(
    session: Session, name: str, *, expected: int, known: Collection[str], within: float
) -> dict[str, str]:
    """The same, looked for until all ``expected`` are there or their number stands still.

    Raises:
        TransportError: the CE could not be asked within ``within`` seconds; its ``submission``
            is the name to look for later.
    """
    found: dict[str, str] = {}
    last_error: TransportError | None = None
    wait = _FIRST_LOOK
    with trio.move_on_after(within):
        changed_at: float | None = None
        while True:
            try:
                seen = await jobs_named(session, name, known=known)
            except TransportError as error:
                last_error, changed_at = error, None
            else:
                now = trio.current_time()
                if changed_at is None or len(seen) != len(found):
                    changed_at = now
                found, last_error = seen, None
                if len(found) >= expected or now - changed_at >= _SETTLED:
                    return found
            await trio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
    raise TransportError(
        "the CE's reply to a submission was lost and the CE could not be asked within "
        f"{within:g} s which of its up to {expected} jobs exist: when it is back, look for them "
        f"with find({name!r}){_because(last_error)}",
        submission=name,
        ce=session.endpoint,
        jobs=tuple(found),
    )


def _because(error: TransportError | None) -> str:
    return f" (the last failure: {error.message})" if error is not None else ""


def _name_in(document: object) -> str | None:
    """The job's name in a GLUE2 document, which REST 1.0 and 1.1 nest differently."""
    layers: Iterable[str] = ("ComputingActivity", "Name")
    for key in layers:
        if isinstance(document, list):
            document = document[0] if document else None
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    if isinstance(document, list):
        document = document[0] if document else None
    return document if isinstance(document, str) and document else None

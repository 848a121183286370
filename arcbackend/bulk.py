"""Operations on id lists: batched, concurrent, and complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

import structlog
import trio

from arcbackend.errors import ProtocolError
from arcbackend.protocol import responses
from arcbackend.protocol.messages import Request
from arcbackend.protocol.requests import id_batches
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.tasks import run_all

__all__ = ["ask_all", "read_documents", "refusal"]

_log = structlog.get_logger("arcbackend")

_UNKNOWN = "the CE knows no such job: it never did, or it was purged or has expired"
# Job documents are some kilobytes each.
_DOCUMENTS = 500


async def ask_all(
    session: Session,
    build: Callable[[Sequence[str]], Request],
    ids: Sequence[str],
    *,
    batch: int,
) -> dict[str, JobAnswer]:
    """Ask for every id, in batches; what the CE left out is asked once more.

    Returns:
        id → answer, one for each id, in the order of ``ids``.

    Raises:
        ProtocolError: the CE left ids out twice.
    """
    found = await _ask_batches(session, build, ids, batch)
    missing = [local for local in ids if local not in found]
    if missing:
        _log.warning(
            "jobs.not_answered", ce=session.endpoint, jobs=missing[:10], count=len(missing)
        )
        found |= await _ask_batches(session, build, missing, max(1, batch // 10))
        missing = [local for local in ids if local not in found]
    if missing:
        raise ProtocolError(
            f"the CE left {len(missing)} of {len(ids)} jobs unanswered, twice; the first: "
            f"{', '.join(missing[:5])}",
            ce=session.endpoint,
        )
    return {local: found[local] for local in ids}


async def read_documents(
    session: Session, ids: Sequence[str], visit: Callable[[str, JobAnswer], None]
) -> None:
    """Show ``visit`` the GLUE2 document of every id; only one batch of them is held in memory.

    Raises:
        ProtocolError: the CE left ids out twice.
    """
    builder = await session.builder()
    for batch in id_batches(ids, _DOCUMENTS):
        answers = await ask_all(session, builder.info, batch, batch=len(batch))
        for local, answer in answers.items():
            visit(local, answer)


def refusal(answer: JobAnswer) -> str | None:
    """Why the CE tells nothing of a job; None if it does."""
    if answer.code == HTTPStatus.NOT_FOUND:
        return _UNKNOWN
    if answer.code >= HTTPStatus.BAD_REQUEST:
        return f"the CE refused: {answer.reason or answer.code}"
    return None


async def _ask_batches(
    session: Session,
    build: Callable[[Sequence[str]], Request],
    ids: Sequence[str],
    batch: int,
) -> dict[str, JobAnswer]:
    found: dict[str, JobAnswer] = {}

    async def ask(part: Sequence[str]) -> None:
        request = build(part)
        response = await session.call(request)
        # Thousands of answers take a noticeable moment to read: let other tasks in between.
        answers = responses.parse_answers(request, response, part, session.endpoint)
        await trio.lowlevel.checkpoint()
        if answers.unexpected:
            _log.warning(
                "jobs.answered_unasked",
                ce=session.endpoint,
                jobs=answers.unexpected[:10],
                count=len(answers.unexpected),
            )
        found.update(answers.found)

    await run_all(ask, list(id_batches(ids, batch)))
    return found

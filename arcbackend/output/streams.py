"""Which files are a job's stdout and stderr: from its handle, or, with a bare id, from the CE."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from arcbackend.bulk import read_documents
from arcbackend.jobids import resolve
from arcbackend.models import JobHandle, JobID
from arcbackend.protocol.outputs import Streams, streams_of_description, streams_of_document
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session

__all__ = ["documented", "of_description", "of_handles", "of_job"]


def of_handles(endpoint: str, ids: Iterable[JobID | JobHandle]) -> dict[str, Streams]:
    """Local id → streams, for the handles that name any.

    One that names none may be of a job without, or come from `ARCBackend.find`, which does not
    know them: the CE is asked.
    """
    found: dict[str, Streams] = {}
    for handle in ids:
        if isinstance(handle, JobHandle) and (handle.stdout or handle.stderr):
            (ref,) = resolve(endpoint, [handle])
            found[ref.local] = Streams(handle.stdout, handle.stderr)
    return found


async def documented(session: Session, ids: Sequence[str]) -> dict[str, Streams]:
    """Local id → streams, from the jobs' documents, many at a time.

    Jobs are missing that the information provider has not seen yet: it runs once a minute.
    """
    found: dict[str, Streams] = {}

    def read(local: str, answer: JobAnswer) -> None:
        streams = streams_of_document(answer.document)
        if streams is not None:
            found[local] = streams

    await read_documents(session, ids, read)
    return found


async def of_job(session: Session, job: JobID | JobHandle) -> Streams | None:
    """The streams of one job, wherever they are told; None if the CE does not tell."""
    (ref,) = resolve(session.endpoint, [job])
    known = of_handles(session.endpoint, [job]) or await documented(session, [ref.local])
    return known.get(ref.local) or await of_description(session, ref.local)


async def of_description(session: Session, local: str) -> Streams | None:
    """The streams of one job, from its description; None if the CE does not have it."""
    builder = await session.builder()
    return streams_of_description(await session.call(builder.diagnose(local, "description")))

"""The verb describe: jobs' GLUE2 documents in bulk, and, of few jobs, what these lack."""

from __future__ import annotations

from collections.abc import Sequence

from arcbackend.bulk import read_documents, refusal
from arcbackend.details import JobDetails
from arcbackend.errors import ProtocolError, TransportError
from arcbackend.items import FEW, ItemReader
from arcbackend.jobids import JobRef
from arcbackend.models import JobID
from arcbackend.moments import utc
from arcbackend.protocol.records import Facts, facts_of_diag, facts_of_document, facts_of_local
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.tasks import run_all

__all__ = ["Describer"]

_RECORD = 16 * 1024


class Describer:
    """Tells what the CE knows of jobs.

    Args:
        session: the CE.
        items: reads the control data of single jobs.
    """

    def __init__(self, session: Session, items: ItemReader) -> None:
        self._session = session
        self._items = items

    async def describe(self, refs: Sequence[JobRef]) -> dict[JobID, JobDetails]:
        """What is known of each job, in the order asked; see `ARCBackend.describe`."""
        facts: dict[str, Facts] = {}
        reasons: dict[str, str | None] = {}

        def read(local: str, answer: JobAnswer) -> None:
            facts[local] = facts_of_document(answer.document)
            reasons[local] = refusal(answer)

        await read_documents(self._session, [ref.local for ref in refs], read)

        async def supplement(local: str) -> None:
            try:
                facts[local] = await self._supplemented(local, facts[local])
            except (TransportError, ProtocolError) as error:  # of these extras only
                reasons[local] = error.message

        if len(refs) <= FEW:
            await run_all(supplement, [local for local, why in reasons.items() if why is None])
        return {ref.id: _details(facts[ref.local], reasons[ref.local]) for ref in refs}

    async def _supplemented(self, local: str, documented: Facts) -> Facts:
        """The batch system's id is in ``local``, the measurements in ``diag`` at once and finer."""
        own = await self._items.beginning(local, "local", _RECORD)
        diag = await self._items.beginning(local, "diag", _RECORD)
        facts = facts_of_local(own or b"").updated(documented)
        return facts.updated(facts_of_diag(diag or b""))


def _details(facts: Facts, reason: str | None) -> JobDetails:
    return JobDetails(
        arc_state=facts.state,
        name=facts.name,
        exit_code=facts.exit_code,
        batch_system=facts.batch_system,
        batch_id=facts.batch_id,
        errors=facts.errors,
        messages=facts.messages,
        nodes=facts.nodes,
        queue=facts.queue,
        slots=facts.slots,
        submitted_at=utc(facts.submitted),
        started_at=utc(facts.started),
        ended_at=utc(facts.ended),
        completed_at=utc(facts.completed),
        expires_at=utc(facts.expires),
        wall_time_s=facts.wall_time_s,
        cpu_time_s=facts.cpu_time_s,
        memory_mb=facts.memory_mb,
        peak_memory_mb=facts.peak_memory_mb,
        as_of=utc(facts.as_of),
        reason=reason,
    )

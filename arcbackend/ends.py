"""How a job that is over ended: whether what the CE calls FAILED was a kill."""

from __future__ import annotations

from collections.abc import Sequence

from arcbackend.bulk import read_documents
from arcbackend.items import ItemReader
from arcbackend.protocol.activity import activity_of
from arcbackend.protocol.diagnosis import was_killed
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.tasks import run_all

__all__ = ["Ends"]

_REMEMBERED = 100_000


class Ends:
    """Finds out how jobs ended that the CE says are FAILED, and remembers it: an end is final.

    Both sources say FAILED of killed jobs, for a while or for ever (docs/explanation/arc-rest.md).

    Args:
        session: the CE.
        items: reads failure records.
    """

    def __init__(self, session: Session, items: ItemReader) -> None:
        self._session = session
        self._items = items
        self._known: dict[str, str] = {}

    def known(self, local: str) -> str | None:
        """KILLED or FAILED, if it has been found out."""
        return self._known.get(local)

    async def find(
        self, *, documented: Sequence[str] = (), listed: Sequence[str] = ()
    ) -> dict[str, str | None]:
        """Look into jobs said to be FAILED.

        Args:
            documented: local ids of those that their documents say it of: read in bulk.
            listed: of those that only the live listing does: one request each.

        Returns:
            Local id → KILLED, FAILED, or None: the CE does not tell yet.
        """
        found: dict[str, str | None] = {
            local: self._known[local] for local in (*documented, *listed) if local in self._known
        }
        singly = [local for local in listed if local not in found]

        def read(local: str, answer: JobAnswer) -> None:
            errors = activity_of(answer.document).texts("Error")
            if errors:
                found[local] = self._remember(local, "\n".join(errors))
            else:  # the information provider has not seen this job yet: computed as the listing
                singly.append(local)

        await read_documents(
            self._session, [local for local in documented if local not in found], read
        )

        async def look_into(local: str) -> None:
            record = await self._items.record(local)
            found[local] = None if record is None else self._remember(local, record)

        await run_all(look_into, singly)
        return found

    def _remember(self, local: str, record: str) -> str:
        if len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[local] = "KILLED" if was_killed(record) else "FAILED"
        return self._known[local]

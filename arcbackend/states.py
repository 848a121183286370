"""What ARC states mean, as the machine of a job's life has it (``machines/job.toml``)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from arcbackend.lifecycle.definition import JOB
from arcbackend.models import JobStatus

__all__ = ["LIVE_LATE_STATES", "STATUS", "TERMINAL", "UNKNOWN_JOB", "WIPED", "later"]

UNKNOWN_JOB: Final = "None"
"""The state that A-REX reports for an id it does not know."""

WIPED: Final = "WIPED"
"""The state of a job of which only a record is left: expired. And, for a moment, of one whose files
A-REX is moving."""

STATUS: Mapping[str, JobStatus] = MappingProxyType(
    {arc: state.status for arc, state in JOB.by_arc_state.items()}
)
"""ARC state → `JobStatus`, total over every state that the sources can produce."""

TERMINAL = frozenset(arc for arc, state in JOB.by_arc_state.items() if state.group == "over")
"""States of jobs that are over and whose files are still there."""

LIVE_LATE_STATES = tuple(arc for arc, state in JOB.by_arc_state.items() if state.live)
"""States that a live listing is asked for: all those behind the batch system. What lies before,
and what the batch system is doing, is told better or not later by the status document."""

_PHASE = {arc: state.phase for arc, state in JOB.by_arc_state.items()}


def later(documented: str, live: str | None) -> str:
    """Of what the two sources say of one job, the state that is later in its life.

    Of two states of one phase the document's holds: it tells KILLED from FAILED. An id that the
    documents do not know is unknown, whatever the listing said a moment before.
    """
    if live is None or documented == UNKNOWN_JOB:
        return documented
    return live if _PHASE[live] > _PHASE.get(documented, -1) else documented

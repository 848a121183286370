"""What each ARC state means to a WMS: the one table.

Source of the states: ``convertActivityStatusREST`` in A-REX's rest.cpp (7.0.0 and 7.2.0) and the
information provider's ``ARC0ClusterInfo.pm``/``GMJobsInfo.pm``, which refines INLRMS.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from arcbackend.models import JobStatus

__all__ = ["LIVE_LATE_STATES", "STATUS", "TERMINAL", "UNKNOWN_JOB", "WIPED", "later"]

UNKNOWN_JOB = "None"
"""The state that A-REX reports for an id it does not know."""

WIPED = "WIPED"
"""The state of a job of which only a record is left: expired. And, for a moment, of one whose files
A-REX is moving."""

STATUS: Mapping[str, JobStatus] = MappingProxyType(
    {
        "ACCEPTING": JobStatus.WAITING,
        "ACCEPTED": JobStatus.WAITING,
        "PREPARING": JobStatus.WAITING,
        "PREPARED": JobStatus.WAITING,
        "SUBMITTING": JobStatus.WAITING,
        "QUEUING": JobStatus.WAITING,
        "RUNNING": JobStatus.RUNNING,
        "HELD": JobStatus.HELD,
        "EXITINGLRMS": JobStatus.RUNNING,
        # Whatever the batch system's plug-in could not name; most held jobs are published so.
        "OTHER": JobStatus.RUNNING,
        "EXECUTED": JobStatus.RUNNING,
        "FINISHING": JobStatus.RUNNING,
        # Not over: it takes the CE up to minutes, and the outputs are not final.
        "KILLING": JobStatus.RUNNING,
        "FINISHED": JobStatus.DONE,
        "FAILED": JobStatus.FAILED,
        "KILLED": JobStatus.ABORTED,
        # The job's files are gone and only a record is left: expired.
        WIPED: JobStatus.UNKNOWN,
        UNKNOWN_JOB: JobStatus.UNKNOWN,
    }
)
"""ARC state → `JobStatus`, total over every state that the sources can produce."""

TERMINAL = frozenset({"FINISHED", "FAILED", "KILLED"})
"""States of jobs that are over and whose files are still there."""

LIVE_LATE_STATES = ("EXECUTED", "FINISHING", "KILLING", "FINISHED", "FAILED", "KILLED", "WIPED")
"""States that a live listing is asked for: all those behind the batch system. What lies before,
and what the batch system is doing, is told better or not later by the status document."""

# In the order of a job's life; what is equal in rank is told apart only within one source.
_RANK = {
    state: rank
    for rank, states in enumerate(
        (
            ("ACCEPTING", "ACCEPTED"),
            ("PREPARING", "PREPARED"),
            ("SUBMITTING",),
            ("QUEUING", "RUNNING", "HELD", "OTHER", "EXITINGLRMS"),
            ("EXECUTED",),
            ("FINISHING",),
            ("KILLING",),
            ("FINISHED", "FAILED", "KILLED"),
            ("WIPED",),
        )
    )
    for state in states
}


def later(documented: str, live: str | None) -> str:
    """Of what the two sources say of one job, the state that is later in its life.

    Of two states of one rank the document's holds: it tells KILLED from FAILED. An id that the
    documents do not know is unknown, whatever the listing said a moment before.
    """
    if live is None or documented == UNKNOWN_JOB:
        return documented
    return live if _RANK[live] > _RANK.get(documented, -1) else documented

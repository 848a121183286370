"""What A-REX's REST interface says of a job, from what its job manager and batch system have.

The two do not agree: one is convertActivityStatusREST in A-REX's rest.cpp, the other rest_state in
ARC1ClusterInfo.pm, the information provider.
"""

from __future__ import annotations

from types import MappingProxyType

from arcbackend.simulator.jobs import BatchState, InnerState, Job
from arcbackend.simulator.traps import Trap, Traps

__all__ = ["CANCELLED", "documented", "live", "manager_state"]

CANCELLED = "Job is canceled by external request"
"""What a failure record holds of a job that a client has killed (JobsList.cpp)."""

_LIVE = MappingProxyType(
    {
        InnerState.ACCEPTED: ("ACCEPTING", "ACCEPTED"),
        InnerState.PREPARING: ("PREPARING", "PREPARED"),
        InnerState.SUBMIT: ("SUBMITTING", "SUBMITTING"),
        InnerState.INLRMS: ("RUNNING", "EXECUTED"),
        InnerState.FINISHING: ("FINISHING", "FINISHING"),
        InnerState.CANCELING: ("KILLING", "KILLING"),
        InnerState.DELETED: ("WIPED", "WIPED"),
    }
)
_BATCH = MappingProxyType(
    {
        BatchState.QUEUED: "QUEUING",
        BatchState.RUNNING: "RUNNING",
        BatchState.SUSPENDED: "HELD",
        BatchState.KEPT: "QUEUING",
        BatchState.HELD: "HELD",
        BatchState.ENDED: "EXITINGLRMS",
    }
)
_OTHER = MappingProxyType(
    {
        BatchState.SUSPENDED: Trap.SUSPENDED_IS_OTHER,
        BatchState.HELD: Trap.HELD_IS_OTHER,
        BatchState.ENDED: Trap.ENDED_IS_OTHER,
    }
)


def manager_state(job: Job) -> str:
    """The job manager's own word: ``diagnose/status``."""
    return f"PENDING:{job.state}" if job.pending else job.state.value


def live(job: Job, traps: Traps) -> str:
    """The state in the live list, ``jobs?state=``. It knows nothing of the batch system."""
    if job.state is InnerState.FINISHED:
        if not job.failure:
            return "FINISHED"
        if job.cancelled and Trap.KILLED_IS_FAILED_LIVE not in traps:
            return "KILLED"
        return "FAILED"
    return _LIVE[job.state][job.pending]


def documented(job: Job, traps: Traps) -> str:
    """The state that the information provider writes into the job's document."""
    if job.state is InnerState.FINISHED and job.cancelled:
        return "KILLED"
    if job.state is not InnerState.INLRMS or job.pending or job.batch is None:
        return live(job, traps)
    trap = _OTHER.get(job.batch)
    return "OTHER" if trap is not None and trap in traps else _BATCH[job.batch]

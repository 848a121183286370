"""The value of the verb describe: what a CE knows of a job beyond its state.

Which record tells each of it, how old that is, and what to think of the numbers:
docs/explanation/diagnostics.md.
"""

from __future__ import annotations

from datetime import datetime

from arcbackend.models import Value

__all__ = ["JobDetails"]


class JobDetails(Value):
    """What the CE knows of one job; what it does not tell is None, or empty.

    Times are the CE's, timezone-aware UTC.
    """

    arc_state: str | None = None
    """The ARC state in the document: up to a minute old, other than `ARCBackend.status`."""
    name: str | None = None
    """The job's name: `JobHandle.name`."""
    exit_code: int | None = None
    """The payload's exit code; None if it has none (yet): it did not run, or was killed."""
    batch_system: str | None = None
    """The CE's plug-in for its batch system, e.g. ``SLURM``, ``condor``. (Few jobs only.)"""
    batch_id: str | None = None
    """The job's id in the batch system. After the job's end, of few jobs only."""
    errors: tuple[str, ...] = ()
    """What the CE and the batch system said of its failure, line by line (a KiB in all).
    `ARCBackend.diagnostics` makes a reason of it."""
    messages: tuple[str, ...] = ()
    """Remarks of the plug-in on a job in the batch system (GLUE2: OtherMessages). Slurm's is the
    job's name there."""
    nodes: tuple[str, ...] = ()
    """Names of the nodes that it runs or ran on."""
    queue: str | None = None
    """The queue."""
    slots: int | None = None
    """CPU cores asked for."""
    submitted_at: datetime | None = None
    """When the CE got it."""
    started_at: datetime | None = None
    """When it started in the batch system. Slurm gives one that was cancelled while it waited the
    time of its end."""
    ended_at: datetime | None = None
    """When the batch system was done with it."""
    completed_at: datetime | None = None
    """When the CE was done with it, too; of a job without a failure."""
    expires_at: datetime | None = None
    """When the CE will remove its files."""
    wall_time_s: float | None = None
    """How long it ran, or has run, in seconds."""
    cpu_time_s: float | None = None
    """Processor time used, of all cores together, in seconds. Slurm does not count it while the job
    runs: what is told then is ``wall_time_s`` times ``slots``."""
    memory_mb: int | None = None
    """Memory used in MiB, of a job that has left the batch system, as that measured it (HTCondor:
    the size of the image)."""
    peak_memory_mb: int | None = None
    """The most resident memory at one time, in MiB: where GNU time is on the nodes. (Few jobs
    only.)"""
    as_of: datetime | None = None
    """When the CE made the document that most of this is from."""
    reason: str | None = None
    """Why there is nothing, or less than there could be; None if nothing is amiss."""

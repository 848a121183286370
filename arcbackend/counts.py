"""The values of the verb counts: how many jobs run and wait. What the numbers mean, and what they
do not: docs/explanation/load.md.
"""

from __future__ import annotations

from datetime import datetime

from arcbackend.models import Value

__all__ = ["JobCounts", "ShareCounts"]


class _Counts(Value):
    running: int | None = None
    """Jobs that run in the batch system, whoever submitted them (GLUE2: RunningJobs)."""
    waiting: int | None = None
    """Jobs that wait, whoever submitted them: in the batch system (GLUE2: WaitingJobs), and on the
    CE, which has not handed them on yet (PreLRMSWaitingJobs)."""
    ce_running: int | None = None
    """Those among ``running`` that came through this CE."""
    ce_waiting: int | None = None
    """Those among ``waiting`` that came through this CE."""


class ShareCounts(_Counts):
    """How many jobs one share of a CE counts: all of a queue's, or those of one VO.

    A number is None where the CE does not publish it.
    """

    name: str
    """The share's name on the CE (A-REX: the queue, or ``<queue>_<VO>``)."""
    queue: str
    """The queue."""
    vo: str | None = None
    """The VO whose jobs it counts, among those that came through this CE; None: all jobs of the
    queue, those of the VOs included."""


class JobCounts(_Counts):
    """How many jobs run and wait on a CE, and how old that is.

    A number is None where the CE does not publish it for each of the queues.
    """

    queue: str | None = None
    """The queue; None: the sum over all of the CE's."""
    shares: tuple[ShareCounts, ...] = ()
    """The numbers one by one, sorted by queue, that of the whole queue first. Those of a VO are
    parts of it: added up, jobs would be counted twice."""
    as_of: datetime | None = None
    """When the CE counted, by its clock (UTC); None if it does not tell."""
    seen_at: datetime | None = None
    """When this was asked, by our clock (UTC)."""

    @property
    def age(self) -> float | None:
        """How old the numbers were when asked for, in seconds; None if the CE does not tell.

        By two clocks: negative if the CE's is ahead of ours.
        """
        if self.as_of is None or self.seen_at is None:
            return None
        return (self.seen_at - self.as_of).total_seconds()

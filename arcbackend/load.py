"""The verb counts: how many jobs run and wait, from the CE's information document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from arcbackend.counts import JobCounts, ShareCounts
from arcbackend.errors import ConfigurationError, ProtocolError
from arcbackend.moments import utc, utc_now
from arcbackend.protocol.load import Share, parse_shares
from arcbackend.protocol.messages import Operation
from arcbackend.session import Session

__all__ = ["read_counts"]

_QUEUES_TOLD = 20


async def read_counts(session: Session, queue: str | None) -> JobCounts:
    """Ask for the load of one queue, or of all; see `ARCBackend.counts`."""
    builder = await session.builder()
    response = await session.call(builder.service_info())
    seen_at = utc_now()
    shares = parse_shares(response, session.endpoint)
    if not shares:
        raise ProtocolError(
            "the CE publishes no queues: its information provider may not have run yet; try again "
            "in a minute",
            ce=session.endpoint,
            operation=Operation.INFO.value,
        )
    if queue is not None:
        shares = _of_queue(shares, queue, session.endpoint)
    counts = _total(shares, queue, seen_at)
    if counts.running is None and counts.waiting is None:
        raise ProtocolError(
            f"the CE publishes no numbers of jobs for {queue or 'its queues'}",
            ce=session.endpoint,
            operation=Operation.INFO.value,
        )
    return counts


def _of_queue(shares: Sequence[Share], queue: str, ce: str) -> tuple[Share, ...]:
    chosen = tuple(share for share in shares if share.queue == queue)
    if not chosen:
        queues = list(dict.fromkeys(share.queue for share in shares))
        more = ", …" if len(queues) > _QUEUES_TOLD else ""
        raise ConfigurationError(
            f"queue: this CE has none named {queue}; it has {', '.join(queues[:_QUEUES_TOLD])}"
            f"{more}",
            ce=ce,
            operation=Operation.INFO.value,
        )
    return chosen


def _total(shares: Sequence[Share], queue: str | None, seen_at: datetime) -> JobCounts:
    counted = [_counted(share) for share in shares]
    # A share of a VO counts jobs that its queue's share counts, too.
    whole = {share.queue: share for share in counted if share.vo is None}
    each = [
        whole.get(name, ShareCounts(name=name, queue=name))
        for name in dict.fromkeys(share.queue for share in counted)
    ]
    times = [time for share in shares if (time := utc(share.created)) is not None]
    return JobCounts(
        queue=queue,
        running=_sum(share.running for share in each),
        waiting=_sum(share.waiting for share in each),
        ce_running=_sum(share.ce_running for share in each),
        ce_waiting=_sum(share.ce_waiting for share in each),
        shares=tuple(counted),
        as_of=min(times, default=None),
        seen_at=seen_at,
    )


def _counted(share: Share) -> ShareCounts:
    preparing = share.preparing or 0  # jobs that the CE does not tell of are not known to wait
    return ShareCounts(
        name=share.name,
        queue=share.queue,
        vo=share.vo,
        running=share.running,
        waiting=_sum((share.waiting, preparing)),
        ce_running=_rest(share.running, share.local_running),
        ce_waiting=_sum((_rest(share.waiting, share.local_waiting), preparing)),
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    """The sum, if every number is known."""
    known = list(numbers)
    return None if None in known else sum(number or 0 for number in known)


def _rest(number: int | None, part: int | None) -> int | None:
    if number is None or part is None or part > number:
        return None
    return number - part

"""What a poller tells: events, as values that can be stored and sent on.

``model_dump_json()`` and `EVENT_ADAPTER` (``validate_json``) carry them over a wire.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from arcbackend.models import JobID, JobStatus, OpOutcome, Value

__all__ = [
    "EVENT_ADAPTER",
    "CEBack",
    "CEUnreachable",
    "DelegationFailing",
    "DelegationRenewed",
    "EventsMissed",
    "JobEvent",
    "PollerEvent",
    "SeenBy",
]


class SeenBy(StrEnum):
    """What an event came from."""

    DOCUMENTS = "documents"
    """The CE's status documents, up to a minute old (``jobs?action=status``)."""
    LISTING = "listing"
    """The live listing (``jobs?state=…``)."""
    KILL = "kill"
    """The verb kill, called on the poller."""
    KEEP = "keep"
    """The verb keep: the consumer's decision to let a held job be."""
    PURGE = "purge"
    """The verb purge, or the removal that an earlier one left to be done."""
    FETCH = "fetch"
    """The verb fetch_output."""
    POLICY = "policy"
    """Time going by: a timed transition of the policy."""


class _Event(Value):
    ce: str
    """The CE's endpoint, ``https://host:port``."""
    sequence: int
    """Position among this poller's events, counted from 1; it goes on over a restore."""
    seen_at: datetime
    """When it was seen here (UTC)."""


class JobEvent(_Event):
    """One job made a transition, or a verb was answered for it.

    A verb that changes nothing (a kill of a job that is over) has ``source == dest`` and an
    ``outcome``.
    """

    kind: Literal["job"] = "job"
    """Which event it is, for readers of JSON."""
    id: JobID
    """The job."""
    source: str
    """The machine's state before (docs/reference/states.md)."""
    dest: str
    """The state after; always the ``source`` of this job's next event."""
    status_before: JobStatus
    """What the state before means to a WMS."""
    status_after: JobStatus
    """What the state after means to a WMS."""
    arc_state: str | None
    """The ARC state that was seen, or was last seen; None: none has been yet."""
    seen_by: SeenBy
    """What it came from."""
    outcome: OpOutcome | None = None
    """What came of a guarded transition: of a verb, of the policy's kill, or why a job is declared
    lost or expired. None for what was only observed."""


class CEUnreachable(_Event):
    """The CE cannot be asked: once, until `CEBack`. No job is lost by it."""

    kind: Literal["ce-unreachable"] = "ce-unreachable"
    """Which event it is, for readers of JSON."""
    seen_by: SeenBy
    """Which of the two sources failed first."""
    reason: str
    """What went wrong, and the type of the error."""


class CEBack(_Event):
    """The CE answers again, for everything that had failed."""

    kind: Literal["ce-back"] = "ce-back"
    """Which event it is, for readers of JSON."""
    away_since: datetime
    """When its `CEUnreachable` was seen."""


class DelegationRenewed(_Event):
    """The delegation that jobs use on the CE has got a proxy that lasts longer."""

    kind: Literal["delegation-renewed"] = "delegation-renewed"
    """Which event it is, for readers of JSON."""
    delegation: str
    """The CE's id of the delegation."""
    expires_at: datetime
    """When its proxy ends (UTC)."""


class DelegationFailing(_Event):
    """The delegations could not be looked after. It is tried again, at growing intervals; until
    they end, jobs go on."""

    kind: Literal["delegation-failing"] = "delegation-failing"
    """Which event it is, for readers of JSON."""
    reason: str
    """What went wrong, and the type of the error."""
    tries: int
    """How often in a row, with this one."""


class EventsMissed(_Event):
    """This subscriber was too slow: events up to ``sequence`` were not kept for it.

    To resynchronise: `Poller.snapshot` tells every job's current state, and up to which
    ``sequence``; later events follow.
    """

    kind: Literal["events-missed"] = "events-missed"
    """Which event it is, for readers of JSON."""
    count: int
    """How many were dropped."""


PollerEvent: TypeAlias = (
    JobEvent | CEUnreachable | CEBack | DelegationRenewed | DelegationFailing | EventsMissed
)
"""Whatever a subscription yields."""

EVENT_ADAPTER: Final[TypeAdapter[PollerEvent]] = TypeAdapter(
    Annotated[PollerEvent, Field(discriminator="kind")]
)
"""Reads events back: ``EVENT_ADAPTER.validate_json(text)``."""

"""What a poller knows, as a value that its owner stores."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import Field, FiniteFloat

from arcbackend.models import Value

__all__ = ["PollerSnapshot", "TrackedState"]


class TrackedState(NamedTuple):
    """One tracked job in a snapshot: a row, not an object, since there may be a million."""

    id: str
    """The CE's short id."""
    state: str
    """The machine's state."""
    documented: str | None
    """The ARC state that its document said last."""
    listed: str | None
    """The ARC state that the live listing said last."""
    since: FiniteFloat
    """Unix time at which it came into its state."""
    names: tuple[str | None, str | None] | None
    """Names of the files with its stdout and stderr."""
    purge: Literal["any", "killed"] | None
    """Whether it is to be purged at its end, whatever that is, or if it was killed."""


class PollerSnapshot(Value):
    """What a poller knew at one moment, for `Poller.restore` in another process.

    ``model_dump_json()`` and ``model_validate_json()`` carry it over a restart.
    """

    version: Literal[1] = 1
    """Version of this format."""
    ce: str
    """The CE's endpoint, ``https://host:port``."""
    taken_at: datetime
    """When it was taken (UTC)."""
    sequence: int = Field(ge=0)
    """The number of the last event that had happened. Store a snapshot when the events up to this
    one have been dealt with, and none is lost or told twice over a restart."""
    jobs: tuple[TrackedState, ...]
    """Every tracked job."""
    kills: tuple[FiniteFloat, ...] = ()
    """Unix times of the policy's kills of held jobs in the cycle under way: a restart is no new
    one."""
    away_since: datetime | None = None
    """Since when the CE has been away, if it is: its `CEBack` is still to come."""

"""Faults on request, as rules: which requests, how often, and what goes wrong with them.

What they do is in `arcbackend.simulator.faults`. Durations are seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from arcbackend.models import Value

__all__ = [
    "Cut",
    "Effect",
    "Fault",
    "FewerInstances",
    "FixedTime",
    "Latency",
    "LognormalTime",
    "SlowAccept",
    "Stall",
    "Status",
    "Time",
    "UniformTime",
]

_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class FixedTime(Value):
    """Always as long."""

    kind: Literal["fixed"] = "fixed"
    seconds: _Seconds


class UniformTime(Value):
    """Anything between two bounds, all alike."""

    kind: Literal["uniform"] = "uniform"
    shortest: _Seconds = 0.0
    longest: _Seconds

    @model_validator(mode="after")
    def _check(self) -> UniformTime:
        if self.shortest > self.longest:
            raise ValueError("shortest is longer than longest")
        return self


class LognormalTime(Value):
    """Mostly short, sometimes very long, as networks and loaded servers are."""

    kind: Literal["lognormal"] = "lognormal"
    median: Annotated[_Seconds, Field(gt=0)]
    sigma: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 1.0
    """Standard deviation of the logarithm. With 1, one of six takes 2.7 times the median."""
    longest: _Seconds = 3600.0
    """What is longer takes as long."""


Time: TypeAlias = Annotated[FixedTime | UniformTime | LognormalTime, Field(discriminator="kind")]
"""How long something takes."""


class Latency(Value):
    """The answer comes later."""

    kind: Literal["latency"] = "latency"
    time: Time


class Status(Value):
    """Another answer."""

    kind: Literal["status"] = "status"
    status: int = Field(default=500, ge=400, le=599)
    reason: str = Field(default="Internal error", pattern=r"^[ -~]*$", max_length=200)
    """The reason phrase."""
    body: str = Field(default="", max_length=2**20)
    retry_after: int | None = Field(default=None, ge=0)
    """The header field ``Retry-After``; None: there is none."""
    done: bool = False
    """Whether what was asked for is done nevertheless."""


class Cut(Value):
    """The connection is closed."""

    kind: Literal["cut"] = "cut"
    when: Literal["before", "done", "answer"] = "before"
    """``before``: nothing is done; ``done``: it is, and nothing is answered; ``answer``: in the
    middle of the answer."""
    after_bytes: int = Field(default=0, ge=0)
    """With ``answer``: bytes of its body that are sent before."""


class Stall(Value):
    """The answer stops in its middle, and the connection stays open."""

    kind: Literal["stall"] = "stall"
    seconds: _Seconds | None = None
    """For how long; None: for ever."""
    after_bytes: int | None = Field(default=None, ge=0)
    """Bytes of the body that are sent before; None: not even the head is."""


class FewerInstances(Value):
    """A submission of several instances makes no more than so many, and says nothing of it."""

    kind: Literal["fewer-instances"] = "fewer-instances"
    at_most: int = Field(default=1, ge=1)


class SlowAccept(Value):
    """A connection is accepted, and TLS begins later. Without a socket: its first request waits."""

    kind: Literal["slow-accept"] = "slow-accept"
    time: Time


Effect: TypeAlias = Annotated[
    Latency | Status | Cut | Stall | FewerInstances | SlowAccept, Field(discriminator="kind")
]
"""What goes wrong."""


class Fault(Value):
    """One rule. Of several that match a request, each has its effect, in their order."""

    effect: Effect
    operation: str = "*"
    """Which operations, as a pattern with ``*`` and ``?``: ``versions``, ``info``, ``jobs.list``,
    ``jobs.new``, ``jobs.status``, ``jobs.info``, ``jobs.kill``, ``jobs.clean``, ``jobs.restart``,
    ``jobs.delegations``, ``jobs.diagnose``, ``session.list``, ``session.get``, ``session.head``,
    ``session.put``, ``session.delete``, ``session.propfind``, ``delegations.list``,
    ``delegations.new``, ``delegations.put``, ``delegations.get``, ``delegations.renew``,
    ``delegations.delete``, ``other``; and ``connect`` for `SlowAccept`."""
    method: str = "*"
    """Which HTTP methods, as a pattern."""
    target: str = "*"
    """Which targets (path and query, as they are sent), as a pattern."""
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How many of the requests that match."""
    skip: int = Field(default=0, ge=0)
    """How many that match are let through first."""
    count: int | None = Field(default=None, ge=1)
    """How many it has its effect on, at most; None: any number."""
    since: _Seconds = 0.0
    """From when on, in seconds since the simulator's start."""
    until: _Seconds | None = None
    """Until when; None: to the end."""

"""What one simulated CE is like: durations in seconds, sizes in bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from arcbackend.models import QueueName, Value
from arcbackend.simulator.fault_rules import Fault
from arcbackend.simulator.traps import ArcVersion, Lrms, Trap

__all__ = ["Limits", "Pace", "RestVersion", "SimulatorSettings"]

_MiB = 2**20
_Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]

RestVersion = Literal["1.0", "1.1"]
"""A version of the REST interface."""


class Pace(Value):
    """How long a job stays in each step of A-REX, in seconds. What is set is what 7.2.0 took with
    Slurm on an idle machine."""

    accept: _Seconds = 0.05
    """ACCEPTED: until A-REX has read the description."""
    prepare: _Seconds = 0.05
    """PREPARING, once all inputs are there."""
    fetch: _Seconds = 1.0
    """The inputs that the CE fetches itself, all of a job together."""
    submit: _Seconds = 0.2
    """SUBMIT: the script that passes a job to the batch system."""
    scripts: int | None = Field(default=None, ge=1)
    """How many of these scripts run at a time; None: as many as there are jobs. A real CE passes
    about ten jobs a second to its batch system."""
    notice: _Seconds = 1.5
    """From a job's end in the batch system until A-REX sees it: up to ten seconds with Slurm, up
    to a minute with HTCondor."""
    finish: _Seconds = 0.05
    """FINISHING: what is not kept is removed."""
    upload: _Seconds = 1.0
    """The outputs that the CE stores itself, all of a job together."""
    kill: _Seconds = 2.0
    """CANCELING: the script that removes a job from the batch system, and until A-REX sees it."""
    clean: _Seconds = 0.1
    """From the request to remove a job that is over until it is gone."""
    schedule: _Seconds = 0.2
    """The batch system: from a job's submission, or a free slot, to its start."""
    unsettled: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.02
    """How long the moments last in which A-REX's files are being moved, and it tells odd things."""


class Limits(Value):
    """What the simulator keeps."""

    description_bytes: int = Field(default=5 * _MiB, ge=1)
    """One job description (``maxjobdesc``)."""
    log_bytes: int = Field(default=_MiB, ge=1)
    """Standard output and error of a simulated job, each."""
    session_bytes: int | None = Field(default=None, ge=1)
    """What is uploaded into one session directory; None: what the disk holds."""


class SimulatorSettings(Value):
    """One simulated CE."""

    name: str = Field(default="simulator", pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """Its name: ``https://<name>.simulator.invalid`` where it is served without a socket."""
    arc_version: ArcVersion = "7.2.0"
    """The version of ARC whose behaviour it has."""
    rest_versions: tuple[RestVersion, ...] = Field(default=("1.0", "1.1"), min_length=1)
    """The versions of the REST interface that it offers."""
    lrms: Lrms = "slurm"
    """The batch system that it seems to be in front of."""
    queues: tuple[QueueName, ...] = Field(default=("main",), min_length=1)
    """Its queues; the first one is for jobs that name none."""
    slots: int = Field(default=8, ge=1)
    """CPUs of the batch system: what runs at a time."""
    execution: Literal["simulated", "local"] = "simulated"
    """Whether jobs only seem to run, or are run as processes of this machine."""
    auth: tuple[Literal["token", "proxy"], ...] = Field(default=("token", "proxy"), min_length=1)
    """What lets somebody in."""
    token_scopes: Literal["wlcg"] | None = None
    """Whether a token's scopes are looked at (``tokenscopes`` in arc.conf)."""
    audiences: tuple[str, ...] = ()
    """The audiences of which tokens must have one (third word of ``authtokens``); none: any will
    do. ``{endpoint}`` is the CE's own address."""
    publish_every: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 60.0
    """How often the information provider runs."""
    pace: Pace = Pace()
    """How long jobs stay in each step."""
    max_running: int | None = Field(default=None, ge=1)
    """Jobs that are in the batch system at a time; what is ready beyond is PREPARED (``maxjobs``,
    second number); None: any number."""
    max_jobs: int | None = Field(default=None, ge=1)
    """Jobs that are taken in, those that are over included (``maxjobs``); None: any number."""
    keep_finished: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 604_800.0
    """How long a job that is over is kept (``defaultttl``, a week); to the hour."""
    clock_skew: Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)] = 0.0
    """How far its clock is ahead."""
    epoch: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)] | None = None
    """What its clock shows at the start, in seconds since 1970; None: the time of day."""
    seed: int = 0
    """What makes its ids, and what else is by chance; the same requests then have the same
    answers."""
    without_traps: frozenset[Trap] = frozenset()
    """What it does not do, though the real CE does."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong from the start; each by itself, in their order."""
    control: bool = True
    """Whether it has an interface of its own under ``/simulator/``, to change all this."""
    limits: Limits = Limits()
    """What the simulator keeps."""

    @model_validator(mode="after")
    def _check(self) -> SimulatorSettings:
        for name in ("rest_versions", "queues", "auth"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} holds something twice")
        return self

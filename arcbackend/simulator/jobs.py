"""A job as A-REX and the batch system have it, and what a simulated one does.

A job may say itself what it does: its environment variables `VARIABLES`, which a real CE passes on
like any others, make a `Plan`. So one spec works on both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from arcbackend.simulator.descriptions import Description

__all__ = [
    "VARIABLES",
    "BatchState",
    "InnerState",
    "Job",
    "Plan",
    "Script",
    "Submission",
    "Usage",
    "default_plan",
]


class InnerState(StrEnum):
    """The states of A-REX's job manager (GMJob.cpp), as ``diagnose/status`` tells them."""

    ACCEPTED = "ACCEPTED"
    PREPARING = "PREPARING"
    SUBMIT = "SUBMIT"
    INLRMS = "INLRMS"
    FINISHING = "FINISHING"
    CANCELING = "CANCELING"
    FINISHED = "FINISHED"
    DELETED = "DELETED"

    __hash__ = str.__hash__  # Enum's is not C, and this is asked for a million times


class BatchState(StrEnum):
    """What the batch system has of a job."""

    QUEUED = "queued"
    """It waits for slots."""
    KEPT = "kept"
    """It waits, and is not to be started (Slurm)."""
    RUNNING = "running"
    """It has its slots."""
    SUSPENDED = "suspended"
    """It is stopped where it is, and keeps its slots."""
    HELD = "held"
    """It is kept out, whether it had started or not (HTCondor)."""
    ENDED = "ended"
    """It has left; A-REX may not have noticed yet."""

    __hash__ = str.__hash__


FAILING_STATES: Final = (
    InnerState.PREPARING,
    InnerState.SUBMIT,
    InnerState.INLRMS,
    InnerState.FINISHING,
)
"""States in which A-REX itself can fail a job."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a simulated job does. With ``execution="local"`` only the holds count: the rest is real.

    Attributes:
        run_seconds: from its start to its end, holds not counted; None: it never ends by itself.
        exit_code: of the payload. Slurm's jobs with another one than 0 are FAILED; so are those
            behind HTCondor.
        hold_after: seconds after its start at which the batch system suspends it; None: it does
            not.
        hold_seconds: after which it goes on; None: when somebody resumes it.
        cpu_seconds: None: ``run_seconds`` on each of its CPUs.
        memory: bytes.
        files: that it leaves in its session directory when it ends by itself, by path; None: those
            that its description keeps or stores, empty.
        stdout: what it writes.
        stderr: what it writes.
        fail_in: where A-REX itself fails it: PREPARING (an input cannot be fetched), SUBMIT (the
            batch system refuses it), INLRMS (the batch system loses it), FINISHING (an output
            cannot be stored); None: nowhere.
        failure: the reason in that case; None: what A-REX writes usually.
    """

    run_seconds: float | None = 0.0
    exit_code: int = 0
    hold_after: float | None = None
    hold_seconds: float | None = None
    cpu_seconds: float | None = None
    memory: int = 2**20
    files: Mapping[str, bytes] | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    fail_in: InnerState | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.fail_in is not None and self.fail_in not in FAILING_STATES:
            raise ValueError(f"a job does not fail in {self.fail_in}")


Script: TypeAlias = Callable[[Description, int], Plan | None]
"""Tells what a job does, from its description and which copy of it it is (from 0); None: what its
description says."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job has used.

    Attributes:
        cpu_seconds: user and system time.
        memory: most bytes at a time; None: that was not measured.
    """

    cpu_seconds: float
    memory: int | None


@dataclass(frozen=True, slots=True)
class Submission:
    """What jobs have in common that were made by one request, of one description.

    Attributes:
        owner: whose they are.
        description: what they are to do.
        queue: of the batch system.
        created: when.
        delegations: ids of those they use, without repetition.
        client: address of who submitted them, ``host:port``.
        claims: of the token they were submitted with; None: it was a certificate.
        proxy_until: when the delegated proxy ends; None: there is none.
        proxy: that proxy as it was then, with its key, in PEM.
    """

    owner: str
    description: Description
    queue: str
    created: float
    delegations: tuple[str, ...] = ()
    client: str = "127.0.0.1:0"
    claims: Mapping[str, str] | None = None
    proxy_until: float | None = None
    proxy: bytes | None = field(default=None, repr=False)


class Job:
    """One job. A CE has up to a million of them: what many share is one object.

    Times are in seconds since 1970, as the CE's clock showed them.

    Attributes:
        local: its id on the CE.
        submission: what it has in common with its copies.
        plan: what it does.
        state: A-REX's.
        pending: A-REX lets it wait in that state (``PENDING:`` in ``diagnose/status``).
        batch: the batch system's state of it; None before it is there.
        number: its id in the batch system, from 1; 0: none yet.
        failure: A-REX's failure record, ``diagnose/failed``; empty: none.
        failed_in: in which state that was.
        cancelled: a client's kill was acted on.
        kill_mark: a client's kill is to be acted on.
        clean_mark: it is removed as soon as it is over.
        awaited: names of inputs that are to be uploaded still; None: none.
        changed: when it came into its state.
        submitted: when it came into the batch system; None: it has not.
        started: when it started there.
        ended: when it ended there.
        finished: when it came to be FINISHED.
        exit_code: of the payload; None: none (yet).
        usage: what it used, if that was measured; None: what its plan says.
        published: the REST state in its document; None: it has none yet.
        published_at: when the information provider wrote the document last, unless it is not over:
            these are all written whenever it runs.
    """

    __slots__ = (
        "awaited",
        "batch",
        "batch_turn",
        "cancelled",
        "changed",
        "clean_mark",
        "due",
        "ended",
        "exit_code",
        "failed_in",
        "failure",
        "finished",
        "kill_mark",
        "local",
        "number",
        "pending",
        "plan",
        "published",
        "published_at",
        "started",
        "state",
        "submission",
        "submitted",
        "turn",
        "unpublished",
        "usage",
    )

    def __init__(self, local: str, submission: Submission, plan: Plan) -> None:
        self.local: Final = local
        self.submission: Final = submission
        self.plan: Final = plan
        self.state = InnerState.ACCEPTED
        self.pending = False
        self.batch: BatchState | None = None
        self.number = 0
        self.failure = ""
        self.failed_in: InnerState | None = None
        self.cancelled = False
        self.kill_mark = False
        self.clean_mark = False
        self.awaited: frozenset[str] | None = None
        self.changed = submission.created
        self.submitted: float | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.finished: float | None = None
        self.exit_code: int | None = None
        self.usage: Usage | None = None
        self.published: str | None = None
        self.published_at: float | None = None
        # The engine's own: which of its events is to come next, whether the information provider
        # has something to write. The batch system's: the same, and when the job ends by itself, or,
        # while it is stopped, how many seconds it has left.
        self.turn = 0
        self.unpublished = False
        self.batch_turn = 0
        self.due: float | None = None

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.submission.owner

    @property
    def description(self) -> Description:
        """What it is to do."""
        return self.submission.description

    @property
    def queue(self) -> str:
        """The queue it is submitted to."""
        return self.submission.queue

    @property
    def created(self) -> float:
        """When it was made."""
        return self.submission.created

    @property
    def over(self) -> bool:
        """Whether it has come to its end, however that was."""
        return self.state in (InnerState.FINISHED, InnerState.DELETED)

    @property
    def in_batch(self) -> bool:
        """Whether the batch system has it, and it has not ended."""
        return self.batch is not None and self.batch is not BatchState.ENDED

    def __repr__(self) -> str:
        """Its id and state."""
        pending = "PENDING:" if self.pending else ""
        return f"<Job {self.local} {pending}{self.state}>"


def default_plan(description: Description) -> Plan:
    """What a job does that no script tells of: what its environment says, or else its command.

    Raises:
        ValueError: a ``SIMULATOR_…`` variable is none of `VARIABLES`, or its value makes no sense.
    """
    said: dict[str, object] = {}
    for name, text in description.environment.items():
        if not name.startswith(_PREFIX):
            continue
        if name not in VARIABLES:
            raise ValueError(f"there is no {name}, only {', '.join(VARIABLES)}")
        attribute, read = VARIABLES[name]
        try:
            said[attribute] = read(text)
        except (ValueError, AttributeError):
            raise ValueError(f"{name} cannot be {text!r}") from None
    return replace(_plan_of_command(description), **said)  # type: ignore[arg-type]


def _plan_of_command(description: Description) -> Plan:
    """What a few well-known programs do; anything else is over at once, and well."""
    program = description.executable.rsplit("/", 1)[-1]
    if program == "false":
        return Plan(exit_code=1)
    if program == "sleep":
        try:
            return Plan(run_seconds=sum(_seconds(word) for word in description.arguments))
        except ValueError:
            return Plan(exit_code=1)
    return Plan()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= _LONGEST:
        raise ValueError
    return seconds


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return read


def _bytes(text: str) -> bytes:
    return text.encode()


def _failing_state(text: str) -> InnerState:
    return FAILING_STATES[FAILING_STATES.index(InnerState(text))]


def _files(text: str) -> Mapping[str, bytes]:
    """A JSON object: name → contents, as text."""
    return MappingProxyType({name: _bytes(held) for name, held in json.loads(text).items()})


_PREFIX = "SIMULATOR_"
_LONGEST = 10 * 365 * 86_400.0
VARIABLES: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = MappingProxyType(
    {
        "SIMULATOR_RUN_SECONDS": ("run_seconds", _seconds),
        "SIMULATOR_EXIT_CODE": ("exit_code", _whole(0, 255)),
        "SIMULATOR_HOLD_AFTER": ("hold_after", _seconds),
        "SIMULATOR_HOLD_SECONDS": ("hold_seconds", _seconds),
        "SIMULATOR_CPU_SECONDS": ("cpu_seconds", _seconds),
        "SIMULATOR_MEMORY_BYTES": ("memory", _whole(0, 2**50)),
        "SIMULATOR_STDOUT": ("stdout", _bytes),
        "SIMULATOR_STDERR": ("stderr", _bytes),
        "SIMULATOR_FILES": ("files", _files),
        "SIMULATOR_FAIL_IN": ("fail_in", _failing_state),
        "SIMULATOR_FAILURE": ("failure", str),
    }
)
"""Environment variables that say what a simulated job does: the attribute of `Plan` that each is,
and what reads it. ``SIMULATOR_FILES`` is a JSON object: name → contents, as text."""

"""The batch system behind a simulated CE: slots, a queue, and what an administrator does to jobs.

It behaves as Slurm or HTCondor do, as far as A-REX lets that be seen. Jobs are started first come,
first served: one that needs more slots than are free keeps those behind it waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from types import MappingProxyType
from typing import Protocol, TypeAlias

from arcbackend.simulator.activities import slurm_name
from arcbackend.simulator.jobs import BatchState, InnerState, Job, Usage
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.timeline import Timeline
from arcbackend.simulator.traps import Lrms, Trap, Traps

__all__ = ["BatchError", "BatchSystem", "Ending", "Exit", "Foreign", "Load", "Runner"]

_MiB = 2**20


class BatchError(ValueError):
    """The batch system does not do that to such a job."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job left the batch system, in the words of A-REX's scripts (scan-*-job).

    Attributes:
        code: 0: as it should.
        text: what is said of another one.
        exit_code: of the payload, as far as the scripts tell it.
    """

    code: int = 0
    text: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended that was really executed.

    Attributes:
        code: of it, as a shell tells it: 128 and the signal's number if that ended it.
        told: whether ARC's job script comes to tell it: not where the executable is missing.
        usage: what it used.
    """

    code: int
    told: bool = True
    usage: Usage | None = None


class Runner(Protocol):
    """Really executes jobs."""

    def start(self, job: Job, ended: Callable[[Exit], None]) -> None:
        """Start a job, and call when it has ended by itself or by `kill`."""

    def kill(self, job: Job) -> None:
        """End a job that was started, if it is not over; `ended` may be called still."""

    def stop(self, job: Job) -> None:
        """Suspend it."""

    def go_on(self, job: Job) -> None:
        """Let it go on."""


class Foreign:
    """A job that did not come through the CE.

    Attributes:
        cpus: that it needs.
        queue: it is in.
        batch: what the batch system has of it.
    """

    __slots__ = ("batch", "cpus", "queue")

    def __init__(self, cpus: int, queue: str) -> None:
        self.cpus = cpus
        self.queue = queue
        self.batch = BatchState.QUEUED


_Entry: TypeAlias = Job | Foreign


@dataclass(frozen=True, slots=True)
class _Words:
    """How one batch system's endings are told."""

    failed: str
    out_of_time: tuple[int, str]
    out_of_memory: tuple[int, str]
    cancelled: tuple[int, str]
    cancelled_waiting: tuple[int, str]
    lost: tuple[int, str]


# What is in tests/pure/recorded/jobs-*.json.
_WORDS: Mapping[Lrms, _Words] = MappingProxyType(
    {
        "slurm": _Words(
            failed="Job failed",
            out_of_time=(271, "Job timeout"),
            out_of_memory=(265, "Job failed"),
            cancelled=(271, "Job was cancelled"),
            cancelled_waiting=(15, "Job was cancelled"),
            lost=(257, "Node fail"),
        ),
        "condor": _Words(
            failed="Job failed with exit code {}",
            out_of_time=(271, "job killed: wall"),
            out_of_memory=(271, "job killed: vmem"),
            cancelled=(-1, "RemoveReason: via condor_rm (by user condor)"),
            cancelled_waiting=(-1, "RemoveReason: via condor_rm (by user condor)"),
            lost=(-1, "Job was killed by Condor"),
        ),
    }
)
_ON_NODE = (BatchState.RUNNING, BatchState.SUSPENDED)
_WAITING = (BatchState.QUEUED, BatchState.KEPT, BatchState.HELD)
_SLURM_STATES = MappingProxyType(
    {
        BatchState.QUEUED: "PENDING",
        BatchState.KEPT: "PENDING",
        BatchState.RUNNING: "RUNNING",
        BatchState.SUSPENDED: "SUSPENDED",
        BatchState.ENDED: "COMPLETED",
    }
)
_CONDOR_STATES = MappingProxyType(
    {
        BatchState.QUEUED: "1",
        BatchState.RUNNING: "2",
        BatchState.SUSPENDED: "7",
        BatchState.HELD: "5",
        BatchState.ENDED: "4",
    }
)
_DAY = 86_400
_NOT_STARTED_AGAIN = (-1, "PeriodicRemove evaluated to TRUE")
_REMOVAL = 5.0  # s, from a release until HTCondor looks at periodic_remove


_MEMORY_FILLED = 1.0  # s, until a job that takes too much memory has taken it


@dataclass(slots=True)
class _Tally:
    """The CE's jobs in one queue."""

    running: int = 0
    running_cpus: int = 0
    waiting: int = 0
    waiting_cpus: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What one queue, or all of them, have at a moment.

    Attributes:
        running: jobs that have slots.
        running_cpus: the slots of those.
        waiting: jobs that have none.
        foreign_running: of ``running``, those that did not come through the CE.
        foreign_cpus: the slots of those.
        foreign_waiting: of ``waiting``, those that did not.
        waiting_cpus: the slots that the others of ``waiting`` want.
    """

    running: int = 0
    running_cpus: int = 0
    waiting: int = 0
    foreign_running: int = 0
    foreign_cpus: int = 0
    foreign_waiting: int = 0
    waiting_cpus: int = 0


def _clock(minutes: int) -> str:
    """A duration as Slurm writes it."""
    days, minutes = divmod(minutes, 24 * 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}:00"
    return f"{days}-{text}" if days else text


class BatchSystem:
    """The batch system of one CE.

    An administrator's verbs name a job by its id on the CE. What they do shows in ARC once the
    information provider has run.

    Args:
        settings: of the CE.
        traps: of the CE.
        timeline: its time.
        advance: lets happen what is due until now, before an administrator does something.
        changed: is told of a job whose state here is new.
        ended: is told of a job that has left, and how.
        runner: really executes jobs; None: they are simulated.

    Attributes:
        slots: CPUs that it has.
        free: CPUs that no job has.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        traps: Traps,
        timeline: Timeline,
        *,
        advance: Callable[[], None],
        changed: Callable[[Job], None],
        ended: Callable[[Job, Ending], None],
        runner: Runner | None = None,
    ) -> None:
        self.slots = settings.slots
        self.free = settings.slots
        self._settings = settings
        self._traps = traps
        self._timeline = timeline
        self._advance = advance
        self._changed = changed
        self._ended = ended
        self._runner = runner
        self._words = _WORDS[settings.lrms]
        self._slurm = settings.lrms == "slurm"
        # What waits; an entry counts if it still does when it comes to its turn.
        self._queue: deque[_Entry] = deque()
        # ARC's id → a job that has not left.
        self._jobs: dict[str, Job] = {}
        self._foreign: list[Foreign] = []
        self._tallies = {queue: _Tally() for queue in settings.queues}
        self._closed = False
        self._inactive: set[str] = set()
        self._numbers = 0
        self._awake = False

    # What A-REX does.

    def takes(self, job: Job) -> bool:
        """Whether it takes a job in: Slurm refuses what no node can ever run, and what is for a
        queue that is inactive.
        """
        if not self._slurm:
            return True
        return job.description.cpus <= self.slots and job.queue not in self._inactive

    def submit(self, job: Job) -> None:
        """Take a job in."""
        self._numbers += 1
        job.number = self._numbers
        job.submitted = self._timeline.stamp
        job.started = job.ended = None
        self._jobs[job.local] = job
        self._set(job, BatchState.QUEUED)
        self._queue.append(job)
        self._wake()

    def remove(self, job: Job) -> None:
        """Take a job out, if it is there, and say nothing."""
        if job.in_batch:
            self._leave(job)

    # What an administrator does.

    def jobs(self) -> dict[str, dict[str, str]]:
        """The CE's jobs that have not left: ARC's id → what is known of it, in the batch system's
        own words.
        """
        self._advance()
        return {local: self._fields(job) for local, job in self._jobs.items()}

    def suspend(self, local: str) -> None:
        """Stop a running job where it is. Slurm: OTHER; HTCondor: HELD.

        Raises:
            BatchError: it does not run.
        """
        job = self._job(local)
        self._expect(job, BatchState.RUNNING)
        self._suspend(job)

    def resume(self, local: str) -> None:
        """Let a suspended job go on.

        Raises:
            BatchError: it is not suspended.
        """
        job = self._job(local)
        self._expect(job, BatchState.SUSPENDED)
        self._go_on(job)

    def hold(self, local: str) -> None:
        """Keep a job out. Slurm: only one that waits, QUEUING; HTCondor: any, OTHER.

        Raises:
            BatchError: it is not a job for that.
        """
        job = self._job(local)
        if self._slurm:
            self._expect(job, BatchState.QUEUED)
            self._out_of_turn(job)
            self._set(job, BatchState.KEPT)
            return
        self._expect(job, BatchState.QUEUED, BatchState.RUNNING, BatchState.SUSPENDED)
        if job.batch is BatchState.QUEUED:
            self._out_of_turn(job)
        self._set(job, BatchState.HELD)

    def release(self, local: str) -> None:
        """Let a held job in again. One that HTCondor had started is removed then.

        Raises:
            BatchError: it is not held.
        """
        job = self._job(local)
        self._expect(job, BatchState.KEPT, BatchState.HELD)
        self._set(job, BatchState.QUEUED)
        if job.started is not None and Trap.HELD_ONCE_STARTED_IS_REMOVED in self._traps:
            # It is not in the queue: between two looks of the negotiator it is removed.
            then = self._timeline.now + _REMOVAL
            self._timeline.at(then, self._not_started_again, job, job.batch_turn)
            return
        self._queue.append(job)
        self._wake()

    def cancel(self, local: str) -> None:
        """Remove a job, waiting or running.

        Raises:
            BatchError: it is not there.
        """
        job = self._job(local)
        waits = job.started is None
        self._leave(job)
        words = self._words.cancelled_waiting if waits else self._words.cancelled
        self._ended(job, Ending(*words))

    def clear(self) -> None:
        """Remove every job, those that did not come through the CE included."""
        self._advance()
        for foreign in list(self._foreign):
            self.remove_foreign(foreign)
        for local in list(self._jobs):
            self.cancel(local)

    def close(self) -> None:
        """Start no job from now on."""
        self._advance()
        self._closed = True

    def open(self) -> None:
        """Start jobs again."""
        self._advance()
        self._closed = False
        self._wake()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Start no job meanwhile."""
        self.close()
        try:
            yield
        finally:
            self.open()

    @contextmanager
    def inactive(self, queue: str) -> Iterator[None]:
        """Take no job for this queue meanwhile; A-REX tries for twenty seconds. Slurm only."""
        self._advance()
        self._inactive.add(queue)
        try:
            yield
        finally:
            self._advance()
            self._inactive.discard(queue)

    def add_foreign(self, cpus: int = 1, queue: str | None = None) -> Foreign:
        """Submit a job that does not come through the CE, and never ends by itself."""
        self._advance()
        foreign = Foreign(cpus, queue or self._settings.queues[0])
        self._foreign.append(foreign)
        self._queue.append(foreign)
        self._wake()
        return foreign

    def remove_foreign(self, foreign: Foreign) -> None:
        """Remove such a job, if it is there."""
        self._advance()
        if foreign not in self._foreign:
            return
        self._foreign.remove(foreign)
        if foreign.batch is BatchState.RUNNING:
            self.free += foreign.cpus
        foreign.batch = BatchState.ENDED
        self._wake()

    @contextmanager
    def foreign(self, cpus: int = 1, queue: str | None = None) -> Iterator[None]:
        """Have a job meanwhile that has not come through the CE."""
        foreign = self.add_foreign(cpus, queue)
        try:
            yield
        finally:
            self.remove_foreign(foreign)

    def fail_node(self) -> None:
        """Lose the node with all that runs on it; it comes back by itself."""
        self._advance()
        for job in [job for job in self._jobs.values() if job.batch in _ON_NODE]:
            self._leave(job)
            self._ended(job, Ending(*self._words.lost))

    def end_time(self, local: str) -> None:
        """Let the time limit of a running job that has one be over.

        Raises:
            BatchError: it does not run.
        """
        job = self._job(local)
        self._expect(job, BatchState.RUNNING, BatchState.SUSPENDED)
        if job.description.wall_time_s is not None:
            self._leave(job)
            self._ended(job, Ending(*self._words.out_of_time))

    # What is told of it.

    def _fields(self, job: Job) -> dict[str, str]:
        asked = job.description
        memory, wall = asked.memory_mb, asked.wall_time_s
        if self._slurm:
            return {
                "JobId": str(job.number),
                "JobName": slurm_name(job),
                "JobState": _SLURM_STATES[job.batch or BatchState.ENDED],
                "NumNodes": "1",
                "NumCPUs": str(asked.cpus),
                "TimeLimit": "UNLIMITED" if wall is None else _clock(ceil(wall / 60)),
                "MinMemoryCPU": "0" if memory is None else f"{memory}M",
                "Partition": job.queue,
            }
        return {
            "ClusterId": str(job.number),
            "JobStatus": _CONDOR_STATES[job.batch or BatchState.ENDED],
            "RequestCpus": str(asked.cpus),
            "RequestMemory": "undefined" if memory is None else str(memory * asked.cpus),
            "JobTimeLimit": "undefined" if wall is None else str(wall),
        }

    def load(self, queue: str | None = None) -> Load:
        """What a queue has at this moment; None: all of them."""
        names = self._tallies if queue is None else (queue,)
        tallies = [self._tallies[name] for name in names]
        others = [one for one in self._foreign if one.queue in names]
        foreign = [one.cpus for one in others if one.batch is BatchState.RUNNING]
        return Load(
            sum(tally.running for tally in tallies) + len(foreign),
            sum(tally.running_cpus for tally in tallies) + sum(foreign),
            sum(tally.waiting for tally in tallies) + len(others) - len(foreign),
            len(foreign),
            sum(foreign),
            len(others) - len(foreign),
            sum(tally.waiting_cpus for tally in tallies),
        )

    # How it goes about it.

    def _job(self, local: str) -> Job:
        self._advance()
        try:
            return self._jobs[local]
        except KeyError:
            raise BatchError(f"the batch system has no job {local}") from None

    def _expect(self, job: Job, *states: BatchState) -> None:
        if job.batch not in states:
            raise BatchError(f"the job {job.local} is {job.batch}")

    def _out_of_turn(self, job: Job) -> None:
        with suppress(ValueError):  # it has been passed over, as nothing can ever run it
            self._queue.remove(job)

    def _wake(self) -> None:
        """See to it that the queue is looked at."""
        if not self._awake and self._queue:
            self._awake = True
            then = self._timeline.now + self._settings.pace.schedule
            self._timeline.at(then, self._start_what_fits, None)

    def _start_what_fits(self, _: None, __: int) -> None:
        self._awake = False
        while self._queue and not self._closed:
            entry = self._queue[0]
            if entry.batch is BatchState.QUEUED:
                cpus = entry.cpus if isinstance(entry, Foreign) else entry.description.cpus
                if cpus > self.free and cpus <= self.slots:
                    return
                if cpus <= self.slots:
                    self._start(entry)
            self._queue.popleft()

    def _start(self, entry: _Entry) -> None:
        if isinstance(entry, Foreign):
            entry.batch = BatchState.RUNNING
            self.free -= entry.cpus
            return
        job, now = entry, self._timeline.now
        job.started = self._timeline.stamp
        self._set(job, BatchState.RUNNING)
        span, _ = self._span(job)
        job.due = None if span is None else now + span
        self._arm(job)
        if job.plan.hold_after is not None:
            self._timeline.at(now + job.plan.hold_after, self._hold_as_planned, job, job.batch_turn)
        if self._runner is not None:
            self._runner.start(job, partial(self._exited, job, job.started))

    def _span(self, job: Job) -> tuple[float | None, Ending]:
        """For how long a job would run, and how that would end; None: until somebody ends it."""
        asked, plan = job.description, job.plan
        limit = asked.wall_time_s
        if limit is not None and self._slurm:
            limit = ceil(limit / 60) * 60
        if self._runner is not None:
            return limit, Ending(*self._words.out_of_time)
        span = plan.run_seconds
        memory = asked.memory_mb
        if memory is not None and plan.memory > memory * asked.cpus * _MiB:
            return min(span or _MEMORY_FILLED, _MEMORY_FILLED), Ending(*self._words.out_of_memory)
        if limit is not None and (span is None or span > limit):
            return limit, Ending(*self._words.out_of_time)
        if plan.fail_in is InnerState.INLRMS:
            return span, Ending(*self._words.lost)
        return span, self._told(Exit(plan.exit_code))

    def _told(self, exit_: Exit) -> Ending:
        """What A-REX is told of the end of a process."""
        # Without the payload, ARC's script for Slurm does not come to write the exit code down.
        told = exit_.code if exit_.told or not self._slurm else None
        if exit_.code == 0:
            return Ending(exit_code=told)
        return Ending(exit_.code, self._words.failed.format(exit_.code), told)

    def _arm(self, job: Job) -> None:
        if job.due is not None:
            self._timeline.at(job.due, self._over, job, job.batch_turn)

    def _over(self, job: Job, turn: int) -> None:
        """It has come to the end of its time."""
        if job.batch_turn == turn:
            _, ending = self._span(job)
            self._end(job, ending)

    def _exited(self, job: Job, started: float, exit_: Exit) -> None:
        """A process has come to its end."""
        self._advance()
        if job.batch in _ON_NODE and job.started is started:
            job.usage = exit_.usage
            self._end(job, self._told(exit_))

    def _not_started_again(self, job: Job, turn: int) -> None:
        if job.batch_turn == turn:
            self._end(job, Ending(*_NOT_STARTED_AGAIN))

    def _hold_as_planned(self, job: Job, turn: int) -> None:
        if job.batch_turn == turn:
            self._suspend(job)
            if job.plan.hold_seconds is not None:
                then = self._timeline.now + job.plan.hold_seconds
                self._timeline.at(then, self._go_on_as_planned, job, job.batch_turn)

    def _go_on_as_planned(self, job: Job, turn: int) -> None:
        if job.batch_turn == turn:
            self._go_on(job)

    def _suspend(self, job: Job) -> None:
        left = None if job.due is None else job.due - self._timeline.now
        self._set(job, BatchState.SUSPENDED)
        job.due = left
        if self._runner is not None:
            self._runner.stop(job)

    def _go_on(self, job: Job) -> None:
        self._set(job, BatchState.RUNNING)
        if job.due is not None:
            job.due += self._timeline.now
        self._arm(job)
        if self._runner is not None:
            self._runner.go_on(job)

    def _end(self, job: Job, ending: Ending) -> None:
        self._leave(job)
        self._ended(job, ending)

    def _leave(self, job: Job) -> None:
        self._set(job, BatchState.ENDED)
        job.ended = self._timeline.stamp
        del self._jobs[job.local]

    def _set(self, job: Job, state: BatchState) -> None:
        """Put a job into another state, with all that belongs to it."""
        had_node, has_node = job.batch in _ON_NODE, state in _ON_NODE
        tally, cpus = self._tallies[job.queue], job.description.cpus
        runs = has_node - had_node
        waits = (state in _WAITING) - (job.batch in _WAITING)
        tally.running += runs
        tally.running_cpus += runs * cpus
        tally.waiting += waits
        tally.waiting_cpus += waits * cpus
        self.free -= runs * cpus
        if had_node and not has_node:
            job.due = None
            if self._runner is not None:
                self._runner.kill(job)
            self._wake()
        job.batch = state
        # What was to come of it is not to come any more.
        job.batch_turn += 1
        self._changed(job)


def _slurm_time(seconds: float | None) -> str:
    """A time limit as Slurm prints it: in whole minutes."""
    if seconds is None:
        return "UNLIMITED"
    days, rest = divmod(ceil(seconds / 60) * 60, _DAY)
    hours, minutes = divmod(rest // 60, 60)
    return (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:00"

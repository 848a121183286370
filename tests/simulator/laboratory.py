"""A job manager with its batch system, without files and without a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from arcbackend.simulator.descriptions import Description, Input
from arcbackend.simulator.engine import JobManager
from arcbackend.simulator.jobs import BatchState, Job, Plan, Submission
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.timeline import Timeline
from arcbackend.simulator.traps import Traps
from arcbackend.simulator.views import documented, live

START = 1_000_000_000.0


def described(
    *, cpus: int = 1, inputs: Iterable[str | Input] = (), executable: str = "/bin/x", **more: Any
) -> Description:
    wanted = tuple(one if isinstance(one, Input) else Input(one) for one in inputs)
    return Description(
        text=b"", language="adl", cpus=cpus, executable=executable, inputs=wanted, **more
    )


class Laboratory:
    """What is done here happens at once; `after` lets time go by."""

    def __init__(self, *, stages: bool = False, **settings: Any) -> None:
        self.settings = SimulatorSettings(**settings)
        self.traps = Traps(
            self.settings.arc_version, self.settings.lrms, self.settings.without_traps
        )
        self.timeline = Timeline(START)
        self.manager = JobManager(
            self.settings,
            self.traps,
            self.timeline,
            self,
            advance=lambda: self.after(0),
            stager=self if stages else None,
        )
        self.batch = self.manager.batch
        self.jobs: list[Job] = []
        self.removed: list[Job] = []
        self.tidied: list[Job] = []
        self.transferred: list[tuple[Job, Callable[[str | None], None]]] = []
        self.lacks: str | None = None

    def make(
        self, plan: Plan | None = None, description: Description | None = None, queue: str = "main"
    ) -> Job:
        asked = description or described()
        submission = Submission("somebody", asked, queue, self.timeline.stamp)
        job = Job(f"job{len(self.jobs)}", submission, plan or Plan())
        job.awaited = frozenset(one.name for one in asked.inputs if one.source is None) or None
        self.jobs.append(job)
        self.manager.take(job)
        return job

    def running(self, plan: Plan | None = None, description: Description | None = None) -> Job:
        """A job that runs."""
        job = self.make(plan or Plan(run_seconds=1000), description)
        self.until(job, BatchState.RUNNING)
        return job

    def after(self, seconds: float) -> None:
        self.timeline.advance(self.timeline.now + seconds)

    def until(self, job: Job, state: object, within: float = 700.0) -> None:
        """Let time go by, event by event, until a job is in a state of either kind."""
        end = self.timeline.now + within
        while state not in (job.state, job.batch):
            due = self.timeline.next()
            assert due is not None, f"{job!r} stays as it is, {job.batch}"
            assert due <= end, f"{job!r} is still so, {job.batch}"
            self.timeline.advance(due)

    def live(self, job: Job) -> str:
        return live(job, self.traps)

    def told(self, job: Job) -> str:
        """What the information provider would write."""
        return documented(job, self.traps)

    # What the manager wants done with files; what is staged, tests say how it went.

    def fetch(self, job: Job, done: Callable[[str | None], None]) -> None:
        self.transferred.append((job, done))

    def store(self, job: Job, done: Callable[[str | None], None]) -> None:
        self.transferred.append((job, done))

    def make_ready(self, job: Job) -> None:
        pass

    def missing(self, job: Job) -> str | None:
        return self.lacks

    def tidy(self, job: Job) -> None:
        self.tidied.append(job)

    def remove(self, job: Job) -> None:
        self.removed.append(job)

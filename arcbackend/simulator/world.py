"""What a simulated CE is to those who ask it: its jobs, and what can be done to them.

Nothing here waits. Time is discrete events on one clock, and every question first lets happen what
is due until now.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from arcbackend.simulator import information
from arcbackend.simulator.activities import Site
from arcbackend.simulator.batch import BatchSystem
from arcbackend.simulator.descriptions import Description, queue_refused
from arcbackend.simulator.engine import JobManager
from arcbackend.simulator.execution import LocalRunner
from arcbackend.simulator.job_files import JobFiles
from arcbackend.simulator.jobs import Job, Plan, Script, Submission, default_plan
from arcbackend.simulator.records import ITEMS, Records
from arcbackend.simulator.session_directory import NotDone, SessionDirectory
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.staging import HttpStager
from arcbackend.simulator.timeline import Timeline
from arcbackend.simulator.traps import Trap, Traps
from arcbackend.simulator.views import documented, live

__all__ = ["TRUSTED", "JobRefused", "StartSoon", "UnknownItem", "World"]

StartSoon = Callable[..., None]
"""Starts a task in the simulator's nursery, as ``nursery.start_soon`` does."""

TRUSTED: Final = "certificates"
"""Directory below the root with the authorities that jobs trust, if somebody makes it."""

_SWEEP = 3600.0  # s, between two looks for jobs that have been kept long enough
_NOT_WRITTEN_AGAIN = ("ACCEPTED", "FINISHED", "FAILED", "KILLED")  # jobXmlFileWriter
_ID_BITS = 48
# Odd, so that no two counts in a row of 2^48 make the same id.
_ID_STEP = 0x9E37_79B9_7F4B


class JobRefused(Exception):  # noqa: N818 - it is an answer, no error
    """A-REX makes no job of a description.

    Attributes:
        reason: its words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownItem(KeyError):  # noqa: N818
    """There is no such diagnostic item."""


class World:
    """One CE.

    Args:
        settings: what it is like.
        traps: what it does that nobody expects.
        root: directory for the jobs' sessions and scripts, which nobody else uses.
        clock: seconds, from wherever: trio's.
        endpoint: ``https://host:port`` that it is reached at; None: by its name.
        script: what simulated jobs do.
        start_soon: starts a task that is ended with the simulator; needed for
            ``execution="local"``.

    Attributes:
        settings: what it is like.
        traps: what it does that nobody expects.
        batch: the batch system behind it.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        traps: Traps,
        root: Path,
        clock: Callable[[], float],
        *,
        endpoint: str | None = None,
        script: Script | None = None,
        start_soon: StartSoon | None = None,
    ) -> None:
        self.settings = settings
        self.traps = traps
        self.endpoint = endpoint or f"https://{settings.name}.simulator.invalid"
        self._clock = clock
        self._script = script
        epoch = time.time() if settings.epoch is None else settings.epoch
        self._ahead = epoch - clock()
        self._timeline = Timeline(epoch, settings.clock_skew)
        self._ids = random.Random(settings.seed).getrandbits(_ID_BITS)  # noqa: S311
        # Owner → id → job.
        self._jobs: dict[str, dict[str, Job]] = {}
        self._number = 0
        # What the information provider has told of the queues last.
        self._shares: list[information.ShareCounts] | None = None
        self._locks: Counter[tuple[str, str]] = Counter()
        self._limit = settings.max_jobs
        # Ids of jobs that do not count for the limit.
        self._uncounted: set[str] = set()
        self._sessions = root / "sessions"
        self._files = JobFiles(self._sessions, settings, traps, self._forget)
        runner = stager = None
        if settings.execution == "local":
            if start_soon is None:
                raise ValueError('execution="local" needs start_soon')
            scripts = root / "scripts"
            scripts.mkdir(0o700, parents=True, exist_ok=True)
            runner = LocalRunner(
                start_soon,
                self._files.path,
                scripts,
                lambda: self.endpoint,
                root / TRUSTED,
                slurm=settings.lrms == "slurm",
            )
            stager = HttpStager(start_soon, self._files.session)
        self._manager = JobManager(
            settings,
            traps,
            self._timeline,
            self._files,
            advance=self._advance,
            runner=runner,
            stager=stager,
        )
        self.batch: BatchSystem = self._manager.batch
        self._stale = Trap.STALE_STATUS in traps
        self._late_record = Trap.LATE_FAILURE_RECORD in traps
        unsettled = settings.pace.unsettled
        self._unlisted = unsettled if Trap.LISTED_LATE in traps else 0.0
        self._wiped = unsettled if Trap.WIPED_WHILE_ACCEPTED in traps else 0.0
        self._publish_by_itself(None, 0)
        self._timeline.at(self._timeline.now + _SWEEP, self._sweep, None)

    @property
    def sessions(self) -> Path:
        """The directory of all session directories, which are named as the jobs."""
        return self._sessions

    @property
    def endpoint(self) -> str:
        """``https://host:port`` that it is reached at."""
        return self._site.endpoint

    @endpoint.setter
    def endpoint(self, endpoint: str) -> None:
        settings, host = self.settings, urlsplit(endpoint).hostname or ""
        self._site = Site(endpoint, host, settings.lrms, settings.keep_finished)
        self._records = Records(self._site, settings.arc_version)

    def now(self) -> float:
        """What the CE's clock shows, in seconds since 1970."""
        return self._clock() + self._ahead + self._timeline.skew

    def create(self, owner: str, description: Description, **submission: Any) -> Job:
        """Make one job; see `create_copies`."""
        (job,) = self.create_copies(1, owner, description, **submission)
        return job

    def create_copies(
        self,
        copies: int,
        owner: str,
        description: Description,
        *,
        queue: str | None = None,
        delegations: Sequence[str] = (),
        client: str = "127.0.0.1:0",
        claims: Mapping[str, str] | None = None,
        proxy_until: float | None = None,
        proxy: bytes | None = None,
    ) -> list[Job]:
        """Make several jobs of one description, fewer if there is not more room.

        Args:
            copies: how many, at most.
            owner: whose they are.
            description: what they do.
            queue: where, if the description does not tell; None: the CE's first.
            delegations: ids of those they use besides what their description names.
            client: address that they were submitted from.
            claims: of the token they were submitted with; None: it was a certificate.
            proxy_until: when the proxy ends that was delegated for them; None: there is none.
            proxy: that proxy, with its key, in PEM.

        Raises:
            JobRefused: there is no such queue, or no room at all; or a variable of the description
                that tells a simulated job what to do makes no sense.
        """
        self._advance()
        room = self.room()
        if room is not None:
            if room <= 0:
                raise JobRefused("No more jobs allowed")
            copies = min(copies, room)
        asked = description.queue or queue or self.settings.queues[0]
        if asked not in self.settings.queues:
            raise JobRefused(queue_refused(asked))
        used = [*filter(None, (description.delegation,)), *delegations, *description.delegations]
        submission = Submission(
            owner=owner,
            description=description,
            queue=asked,
            created=self._timeline.stamp,
            delegations=tuple(dict.fromkeys(used)),
            client=client,
            claims=claims,
            proxy_until=proxy_until,
            proxy=proxy,
        )
        plan = self._plan(description)
        awaited = frozenset(_path(one.name) for one in description.inputs if one.source is None)
        made = [
            Job(self._next_id(), submission, self._scripted(description, copy) or plan)
            for copy in range(copies)
        ]
        theirs = self._jobs.setdefault(owner, {})
        for job in made:
            job.awaited = awaited or None
            theirs[job.local] = job
            self._manager.take(job)
        self._number += len(made)
        for delegation in submission.delegations:
            self._locks[owner, delegation] += len(made)
        return made

    def room(self) -> int | None:
        """How many more jobs it takes; None: any number."""
        self._advance()
        limit = self._limit
        counted = self._number - len(self._uncounted)
        return None if limit is None else max(0, limit - counted)

    def limit(self, jobs: int | None) -> None:
        """Set how many more jobs it takes from now on, instead of ``max_jobs``; None: any number.

        So it is with a real CE whose configuration is changed: A-REX starts anew, and counts from
        nothing.
        """
        self._advance()
        self._limit = jobs
        self._uncounted = {local for theirs in self._jobs.values() for local in theirs}

    def find(self, owner: str, local: str) -> Job | None:
        """A job, by its id; None if the CE has no such job of this owner."""
        self._advance()
        theirs = self._jobs.get(owner)
        return None if theirs is None else theirs.get(local)

    def job(self, local: str) -> Job:
        """A job, whoever's it is.

        Raises:
            KeyError: there is none.
        """
        self._advance()
        for theirs in self._jobs.values():
            if (job := theirs.get(local)) is not None:
                return job
        raise KeyError(local)

    def jobs_of(self, owner: str) -> Iterable[Job]:
        """An owner's jobs, as ``GET jobs`` lists them."""
        self._advance()
        jobs = self._jobs.get(owner, {}).values()
        latest = self._timeline.stamp - self._unlisted
        if self._unlisted:
            return [job for job in jobs if job.submission.created <= latest]
        return list(jobs)

    def live_state(self, job: Job) -> str:
        """The REST state as the job manager has it: ``GET jobs?state=``."""
        self._advance()
        if self._wiped:
            age = self._timeline.stamp - job.submission.created
            if self._unlisted <= age < self._unlisted + self._wiped:
                return "WIPED"
        return live(job, self.traps)

    def published_state(self, job: Job) -> str:
        """The REST state in the job's document: ``jobs?action=status``."""
        self._advance()
        published = self._published(job)
        if published is not None:
            return published
        if job.cancelled and job.over and Trap.KILLED_IS_FAILED_UNPUBLISHED not in self.traps:
            return "KILLED"
        return live(job, self.traps)

    def kill(self, job: Job) -> None:
        """Ask for a job to be killed. A-REX acts on it when it can."""
        self._advance()
        self._manager.kill(job)

    def clean(self, job: Job) -> None:
        """Ask for a job to be removed, which happens when it is over."""
        self._advance()
        self._manager.clean(job)

    def restart(self, job: Job) -> str | None:
        """Ask for a failed job to be tried again.

        Returns:
            Why not, in A-REX's words (505); None: it is.
        """
        self._advance()
        return self._manager.restart(job)

    def locked_delegations(self, job: Job) -> Sequence[str]:
        """The delegations that a job uses, and keeps from being deleted."""
        return job.submission.delegations

    def is_locked(self, owner: str, delegation: str) -> bool:
        """Whether any job uses a delegation."""
        self._advance()
        return self._locks[owner, delegation] > 0

    def publish(self) -> None:
        """Run the information provider now."""
        self._advance()
        self._publish()

    def session(self, job: Job) -> SessionDirectory:
        """A job's session directory, with what the job has left in it by now."""
        self._advance()
        session = self._files.session(job)
        log = job.description.log_directory
        if log is not None and Trap.LOG_NOT_IN_SESSION not in self.traps:
            with suppress(NotDone):
                session.write(f"{log}/errors", self.diagnose(job, "errors") or b"")
        return session

    def uploaded(self, job: Job, name: str) -> None:
        """Take note that a client has uploaded a file completely.

        Args:
            job: whose.
            name: its path in the session directory.
        """
        self._advance()
        self._manager.uploaded(job, _path(name))

    def diagnose(self, job: Job, item: str) -> bytes | None:
        """One of A-REX's records of a job: ``diagnose/<item>``; None if the job has none.

        Raises:
            UnknownItem: there is no such item of any job.
        """
        self._advance()
        if item not in ITEMS:
            raise UnknownItem(item)
        if item == "xml":
            if self._published(job) is None:
                return None
            return self._records.xml(self.activity(job))
        if item == "failed" and self._late_record and job.cancelled and job.finished is not None:
            age = self._timeline.stamp - job.finished
            if age < self.settings.pace.unsettled:
                return b""
        return self._records.item(job, item)

    def activity(self, job: Job) -> dict[str, Any]:
        """The job's document, ``{"ComputingActivity": …}``: ``jobs?action=info``."""
        self._advance()
        published = self._published(job)
        as_of = job.published_at
        if as_of is None or published not in _NOT_WRITTEN_AGAIN:
            as_of = self._manager.published
        if not self._stale:
            as_of = self._timeline.stamp
        return self._records.activity(
            job, live=live(job, self.traps), published=published, as_of=as_of
        )

    def information(self) -> dict[str, Any] | None:
        """The CE's document, ``/info``, as of the last publication; None: there has been none since
        the CE lost its memory.
        """
        self._advance()
        if self._shares is None:
            return None
        settings = self.settings
        return information.document(
            self._site,
            self._shares,
            self.traps,
            version=settings.arc_version,
            slots=settings.slots,
            as_of=self._manager.published,
        )

    def counts(self) -> Mapping[str, int]:
        """How many jobs there are, by their live state. Looks at every job."""
        self._advance()
        jobs = (job for theirs in self._jobs.values() for job in theirs.values())
        return Counter(live(job, self.traps) for job in jobs)

    def advance(self) -> None:
        """Let happen what is due, as every question does."""
        self._advance()

    def restart_service(self, *, keep: bool = True) -> None:
        """Let A-REX start anew.

        Args:
            keep: whether it still has its jobs; else it knows none of them any more, though what is
                in the batch system stays there.
        """
        self._advance()
        jobs = [job for theirs in self._jobs.values() for job in theirs.values()]
        if not keep:
            for job in jobs:
                self._manager.abandon(job)
            jobs.clear()
            self._jobs.clear()
            self._locks.clear()
            self._number = 0
            self._uncounted.clear()
            self._shares = None
        self._manager.start_again(jobs)

    def skew(self, seconds: float) -> None:
        """Set how far the CE's clock is ahead."""
        self._advance()
        self._timeline.set_skew(seconds)

    def _publish(self) -> None:
        self._manager.publish()
        self._shares = [
            information.share_counts(
                queue,
                dict(self._manager.counts(queue)),
                load := self.batch.load(queue),
                self.traps,
                free_slots=self.batch.free,
                requested_slots=self._manager.wanted(queue) + load.waiting_cpus,
            )
            for queue in self.settings.queues
        ]

    def _published(self, job: Job) -> str | None:
        """The state in the job's document; None: it has none."""
        return job.published if self._stale else documented(job, self.traps)

    def _advance(self) -> None:
        """Let happen what is due."""
        self._timeline.advance(self._clock() + self._ahead)

    def _plan(self, description: Description) -> Plan:
        try:
            return default_plan(description)
        except ValueError as error:
            raise JobRefused(str(error)) from None

    def _scripted(self, description: Description, copy: int) -> Plan | None:
        return None if self._script is None else self._script(description, copy)

    def _next_id(self) -> str:
        self._ids = (self._ids + _ID_STEP) % 2**_ID_BITS
        return f"{self._ids:012x}"

    def _forget(self, job: Job) -> None:
        """Called when a job has been removed."""
        theirs = self._jobs[job.owner]
        del theirs[job.local]
        self._uncounted.discard(job.local)
        if not theirs:
            del self._jobs[job.owner]
        self._number -= 1
        for delegation in job.submission.delegations:
            key = job.owner, delegation
            self._locks[key] -= 1
            if not self._locks[key]:
                del self._locks[key]

    def _publish_by_itself(self, _: None, __: int) -> None:
        self._publish()
        self._timeline.at(
            self._timeline.now + self.settings.publish_every, self._publish_by_itself, None
        )

    def _sweep(self, _: None, __: int) -> None:
        """Remove what has been kept long enough."""
        self._timeline.at(self._timeline.now + _SWEEP, self._sweep, None)
        oldest = self._timeline.stamp - self.settings.keep_finished
        jobs = [job for theirs in self._jobs.values() for job in theirs.values()]
        for job in jobs:
            if job.finished is not None and job.finished <= oldest:
                self._manager.expire(job)


def _path(name: str) -> str:
    """A file's name as A-REX compares it (``CanonicalDir``): no ``./``, nothing doubled."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))

"""A-REX's job manager: what becomes of a job, step by step (JobsList.cpp of A-REX).

Each step is an event on the timeline. A client's kill and clean are marks, as A-REX has them: they
are acted on when the job can be.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial
from sys import intern
from types import MappingProxyType
from typing import Protocol
from urllib.parse import urlsplit

from arcbackend.simulator.batch import BatchSystem, Ending, Runner
from arcbackend.simulator.jobs import InnerState, Job
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.timeline import Timeline
from arcbackend.simulator.traps import Trap, Traps
from arcbackend.simulator.views import CANCELLED, documented

__all__ = ["Files", "JobManager", "Stager"]

_UPLOADS_TIME_OUT = 600.0  # s: checkUploadedFiles in DTRGenerator.cpp
_SUBMISSION_TRIES = 20.0  # s, for which ARC's script tries a queue that takes no job
_PASSING = 0.05  # s, that a job is CANCELING on its way which failed by itself
_SCANCEL = 0.5  # s, until the script has removed a job from the batch system
_FETCHED = frozenset(
    {"file", "ftp", "gsiftp", "http", "httpg", "https", "rucio", "root", "s3", "srm", "xroot"}
)
"""The kinds of URLs that A-REX has a plug-in for, if all of them are installed."""
_CAN_BE_KILLED = (
    InnerState.ACCEPTED,
    InnerState.PREPARING,
    InnerState.INLRMS,
    InnerState.FINISHING,
)
_NOT_YET = (InnerState.ACCEPTED, InnerState.PREPARING, InnerState.SUBMIT)
_RUNNING = (InnerState.SUBMIT, InnerState.INLRMS)


class Files(Protocol):
    """What A-REX does with a job's files."""

    def make_ready(self, job: Job) -> None:
        """Make what is to be executed executable."""

    def missing(self, job: Job) -> str | None:
        """The name of an output that is to be stored and is not there; None: all are."""

    def tidy(self, job: Job) -> None:
        """Remove from the session directory what is not kept."""

    def remove(self, job: Job) -> None:
        """Forget the job: it is gone."""


class Stager(Protocol):
    """Really moves the files that the CE fetches and stores itself.

    It is done with a job when its ``turn`` is another.
    """

    def fetch(self, job: Job, done: Callable[[str | None], None]) -> None:
        """Fetch a job's inputs, and then tell what it failed of; None: it did not."""

    def store(self, job: Job, done: Callable[[str | None], None]) -> None:
        """Store a job's outputs that have a destination; otherwise as `fetch`."""


class JobManager:
    """All that happens to jobs.

    Args:
        settings: of the CE.
        traps: of the CE.
        timeline: its time.
        files: what is done with jobs' files.
        advance: lets happen what is due until now.
        runner: really executes jobs; None: they are simulated.
        stager: really moves files; None: that is simulated.

    Attributes:
        batch: the batch system.
        published: when the information provider ran last.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        traps: Traps,
        timeline: Timeline,
        files: Files,
        *,
        advance: Callable[[], None],
        runner: Runner | None = None,
        stager: Stager | None = None,
    ) -> None:
        self.batch = BatchSystem(
            settings,
            traps,
            timeline,
            advance=advance,
            changed=self._noted,
            ended=self._left_batch,
            runner=runner,
        )
        self.published = timeline.stamp
        self._pace = settings.pace
        self._max_running = settings.max_running
        self._traps = traps
        self._timeline = timeline
        self._files = files
        self._stager = stager
        self._advance = advance
        self._counts = {queue: Counter[InnerState]() for queue in settings.queues}
        self._wanted = dict.fromkeys(settings.queues, 0)
        self._running = 0
        # Jobs whose documents are not as they should be.
        self._unpublished: list[Job] = []
        # Jobs that wait for uploads, with everything else done; for a script; for a turn to run.
        self._awaiting: set[Job] = set()
        self._scripts = 0
        self._for_script: deque[Job] = deque()
        self._for_turn: deque[Job] = deque()
        # How those left the batch system of which A-REX does not know it yet.
        self._endings: dict[Job, Ending] = {}
        self._reruns: Counter[Job] = Counter()

    def take(self, job: Job) -> None:
        """Begin with a job that is new."""
        self._counts[job.queue][job.state] += 1
        self._wanted[job.queue] += job.description.cpus
        self._noted(job)
        self._step(job, self._pace.accept, self._accepted)

    def kill(self, job: Job) -> None:
        """Mark a job to be killed."""
        if job.over:
            return
        job.kill_mark = True
        self._attend(job)

    def clean(self, job: Job) -> None:
        """Mark a job to be removed as soon as it is over."""
        if not job.clean_mark and job.state is InnerState.FINISHED:
            self._step(job, self._pace.clean, self._removed)
        job.clean_mark = True

    def restart(self, job: Job) -> str | None:
        """Try a failed job again, from the step that failed (ARexJob::Resume, ActJobFinished).

        Returns:
            Why not; None: it is.
        """
        if job.failed_in is None:
            return "Job has not failed"
        if self._reruns[job] >= job.description.reruns:
            return "No more restarts allowed"
        if job.state is InnerState.FINISHED and not job.clean_mark:
            self._step(job, self._pace.unsettled, self._restarted)
        return None

    def uploaded(self, job: Job, name: str) -> None:
        """Take note of an input that is complete."""
        if job.awaited is None or name not in job.awaited:
            return
        job.awaited = job.awaited - {name} or None
        if job.awaited is None and job in self._awaiting:
            self._awaiting.discard(job)
            self._step(job, self._pace.prepare, self._prepared)

    def publish(self) -> None:
        """Run the information provider."""
        now = self.published = self._timeline.stamp
        for job in self._unpublished:
            job.unpublished = False
            if job.state is not InnerState.DELETED:
                job.published = documented(job, self._traps)
                job.published_at = now
        self._unpublished.clear()

    def expire(self, job: Job) -> None:
        """Remove a job that is over and has been kept long enough."""
        if job.state is InnerState.FINISHED:
            self._removed(job, job.turn)

    def start_again(self, jobs: list[Job]) -> None:
        """Start anew, with these jobs. What was under way is begun once more."""
        self._scripts = 0
        self._for_script.clear()
        for job in jobs:
            if job.state is InnerState.SUBMIT:
                self._want_script(job)
            elif job.state is InnerState.PREPARING and not job.pending:
                self._awaiting.discard(job)
                self._prepare(job)

    def abandon(self, job: Job) -> None:
        """Know nothing more of a job, which stays in the batch system if it is there."""
        self._count(job, InnerState.DELETED)
        job.turn += 1
        self._awaiting.discard(job)

    def counts(self, queue: str | None = None) -> Mapping[InnerState, int]:
        """How many jobs of a queue are in each state; None: of all queues."""
        if queue is not None:
            return MappingProxyType(self._counts[queue])
        total: Counter[InnerState] = Counter()
        for counts in self._counts.values():
            total.update(counts)
        return total

    def wanted(self, queue: str) -> int:
        """How many slots the jobs of a queue want that the batch system has not got yet."""
        return self._wanted[queue]

    # The steps.

    def _accepted(self, job: Job, turn: int) -> None:
        if job.turn != turn:
            return
        if job.kill_mark:
            self._cancel(job)
            return
        # A first document, which ActJobUndefined writes: it stays until the provider runs.
        job.published = "ACCEPTED"
        job.published_at = self._timeline.stamp
        if job.description.fault is not None:
            self._fail(job, job.description.fault, InnerState.ACCEPTED)
            return
        self._enter(job, InnerState.PREPARING)
        self._prepare(job)

    def _prepare(self, job: Job) -> None:
        sources = [one.source for one in job.description.inputs if one.source is not None]
        if any(urlsplit(source).scheme not in _FETCHED for source in sources):
            self._fail(job, "Invalid Data Transfer Request", InnerState.PREPARING)
        elif sources:
            self._step(job, self._pace.fetch, self._fetched)
        else:
            self._step(job, self._pace.prepare, self._prepared)

    def _fetched(self, job: Job, turn: int) -> None:
        if job.turn != turn:
            return
        failure = self._fetching_fails(job)
        if failure is not None:
            self._fail(job, failure, InnerState.PREPARING)
            return
        if self._stager is not None:
            job.turn += 1
            self._stager.fetch(job, partial(self._really_fetched, job, job.turn))
            return
        self._step(job, self._pace.prepare, self._prepared)

    def _really_fetched(self, job: Job, turn: int, failure: str | None) -> None:
        self._advance()
        if job.turn != turn:
            return
        if failure is not None:
            self._fail(job, failure, InnerState.PREPARING)
        else:
            self._step(job, self._pace.prepare, self._prepared)

    def _fetching_fails(self, job: Job) -> str | None:
        urls = [one.source for one in job.description.inputs if one.source is not None]
        source = "Failed in data staging: Failed checking source replica {}: Failed to obtain "
        source += "information about file: "
        if job.plan.fail_in is InnerState.PREPARING:
            missing = source.format(urls[0]) + "No such file or directory: Not Found\n"
            return job.plan.failure or missing
        if Trap.NO_PROXY_NO_HTTPS in self._traps and job.submission.proxy_until is None:
            for url in urls:
                if urlsplit(url).scheme == "https":
                    proxy = f"/var/spool/arc/jobstatus/{_control(job)}/proxy"
                    return source.format(url) + f"Can not load certificate file - {proxy}\n"
        return None

    def _prepared(self, job: Job, turn: int) -> None:
        if job.turn != turn:
            return
        if job.awaited is not None:
            self._awaiting.add(job)
            self._step(job, _UPLOADS_TIME_OUT, self._awaited_too_long)
        elif job.plan.fail_in is InnerState.PREPARING:
            self._fail(job, job.plan.failure or "Data download failed", InnerState.PREPARING)
        elif not job.description.executable:
            self._finish(job)
        else:
            self._pass_on(job)

    def _awaited_too_long(self, job: Job, turn: int) -> None:
        if job.turn == turn and job.awaited is not None:
            self._awaiting.discard(job)
            lines = (f"User file: {name} - Timeout waiting" for name in sorted(job.awaited))
            self._fail(job, "\n".join(lines), InnerState.PREPARING)

    def _pass_on(self, job: Job) -> None:
        """Let a job into the batch system, if the limit of running ones allows it."""
        if self._max_running is not None and self._running >= self._max_running:
            job.pending = True
            self._noted(job)
            self._for_turn.append(job)
            return
        self._enter(job, InnerState.SUBMIT)
        self._files.make_ready(job)
        self._want_script(job)

    def _want_script(self, job: Job) -> None:
        if self._pace.scripts is not None and self._scripts >= self._pace.scripts:
            job.turn += 1
            self._for_script.append(job)
            return
        self._scripts += 1
        self._step(job, self._pace.submit, self._submitted)

    def _submitted(self, job: Job, turn: int) -> None:
        if job.turn != turn:
            return
        if job.plan.fail_in is not InnerState.SUBMIT and not self.batch.takes(job):
            self._step(job, _SUBMISSION_TRIES, self._submitted_late)
        else:
            self._submitted_late(job, turn)

    def _submitted_late(self, job: Job, turn: int) -> None:
        if job.turn != turn:
            return
        self._scripts -= 1
        if job.plan.fail_in is InnerState.SUBMIT or not self.batch.takes(job):
            reason = job.plan.failure or "Job submission to LRMS failed"
            self._fail(job, reason, InnerState.SUBMIT)
        else:
            self._enter(job, InnerState.INLRMS)
            self.batch.submit(job)
            self._attend(job)
        if self._for_script:
            self._want_script(self._for_script.popleft())

    def _left_batch(self, job: Job, ending: Ending) -> None:
        """Called by the batch system: it has let go of a job."""
        if job.state in (InnerState.INLRMS, InnerState.CANCELING):
            self._endings[job] = ending
        if job.state is InnerState.INLRMS:
            self._step(job, self._pace.notice, self._noticed)

    def _noticed(self, job: Job, turn: int) -> None:
        if job.turn != turn:
            return
        ending = self._endings.pop(job)
        job.exit_code = ending.exit_code
        if ending.code == 0:
            self._finish(job)
            return
        text = f"LRMS error: ({ending.code}) {ending.text}"
        self._fail(job, text, InnerState.INLRMS)

    def _cancel(self, job: Job) -> None:
        """Act on the mark of a kill (CheckJobCancelRequest)."""
        job.kill_mark = False
        job.cancelled = True
        job.pending = False
        state = job.state
        self._record(job, CANCELLED, None if state is InnerState.ACCEPTED else state)
        self._awaiting.discard(job)
        if state is InnerState.INLRMS:
            self._enter(job, InnerState.CANCELING)
            self._step(job, min(_SCANCEL, self._pace.kill), self._cancelled)
        else:
            self._finish(job)

    def _cancelled(self, job: Job, turn: int) -> None:
        """The script has removed it from the batch system."""
        if job.turn == turn:
            self.batch.remove(job)
            self._step(job, max(0.0, self._pace.kill - _SCANCEL), self._cancelling_over)

    def _cancelling_over(self, job: Job, turn: int) -> None:
        if job.turn == turn:
            ending = self._endings.pop(job, None)
            if ending is not None:
                job.exit_code = ending.exit_code
            self._finish(job)

    def _fail(self, job: Job, reason: str, in_state: InnerState) -> None:
        """Fail a job by A-REX's own doing (ActJobFailed)."""
        self._record(job, reason, in_state)
        if job.state is InnerState.FINISHING:
            self._end(job)
        elif job.state is InnerState.INLRMS:
            self._enter(job, InnerState.CANCELING)
            self._step(job, _PASSING, self._cancelling_over)
        else:
            self._finish(job)

    def _record(self, job: Job, reason: str, in_state: InnerState | None) -> None:
        job.failure = intern(f"{job.failure}{reason}\n")  # many share it
        job.failed_in = job.failed_in or in_state

    def _finish(self, job: Job) -> None:
        """Bring outputs to where they belong."""
        self._enter(job, InnerState.FINISHING)
        seconds = self._pace.finish
        if not job.failure and _stored(job):
            seconds += self._pace.upload
        self._step(job, seconds, self._staged_out)

    def _staged_out(self, job: Job, turn: int) -> None:
        if job.turn != turn:
            return
        if not job.failure:
            failure = self._storing_fails(job)
            if failure is not None:
                self._record(job, failure, InnerState.FINISHING)
            elif self._stager is not None and _stored(job):
                job.turn += 1
                self._stager.store(job, partial(self._really_stored, job, job.turn))
                return
        self._end(job)

    def _really_stored(self, job: Job, turn: int, failure: str | None) -> None:
        self._advance()
        if job.turn != turn:
            return
        if failure is not None:
            self._record(job, failure, InnerState.FINISHING)
        self._end(job)

    def _storing_fails(self, job: Job) -> str | None:
        if job.plan.fail_in is InnerState.FINISHING:
            return job.plan.failure or "Data upload failed"
        name = self._files.missing(job)
        if name is None:
            return None
        path = f"/var/spool/arc/sessiondir/{job.local}/{name}"
        return (
            f"Failed in data staging: Failed checking source replica file:{path}: Failed to obtain "
            f"information about file: No such file or directory: Failed to stat file {path}\n"
        )

    def _end(self, job: Job) -> None:
        self._files.tidy(job)
        self._enter(job, InnerState.FINISHED)
        job.finished = self._timeline.stamp
        job.kill_mark = False
        job.turn += 1
        if job.clean_mark:
            self._step(job, self._pace.clean, self._removed)

    def _removed(self, job: Job, turn: int) -> None:
        if job.turn == turn and job.state is InnerState.FINISHED:
            self._count(job, InnerState.DELETED)
            job.turn += 1
            del self._reruns[job]
            self._files.remove(job)

    def _restarted(self, job: Job, turn: int) -> None:
        failed_in = job.failed_in
        if job.turn != turn or failed_in is None or job.clean_mark:
            return
        self._reruns[job] += 1
        job.failure = ""
        job.failed_in = None
        job.cancelled = False
        job.finished = job.exit_code = None
        if failed_in is InnerState.FINISHING:
            self._finish(job)
        else:
            self._enter(job, InnerState.PREPARING)
            self._prepare(job)

    # What they have in common.

    def _step(self, job: Job, seconds: float, then: Callable[[Job, int], None]) -> None:
        """Let this come next, instead of whatever was to come."""
        job.turn += 1
        self._timeline.at(self._timeline.now + seconds, then, job, job.turn)

    def _attend(self, job: Job) -> None:
        """Look at a job's mark, as soon as A-REX gets round to it."""
        if job.kill_mark and job.state in _CAN_BE_KILLED:
            then = self._timeline.now + self._pace.unsettled
            self._timeline.at(then, self._look_at_mark, job)

    def _look_at_mark(self, job: Job, _: int) -> None:
        if job.kill_mark and job.state in _CAN_BE_KILLED:
            self._cancel(job)

    def _enter(self, job: Job, state: InnerState) -> None:
        self._count(job, state)
        job.pending = False
        job.changed = self._timeline.stamp
        self._noted(job)

    def _count(self, job: Job, state: InnerState) -> None:
        counts = self._counts[job.queue]
        counts[job.state] -= 1
        if state is not InnerState.DELETED:
            counts[state] += 1
        if job.state in _NOT_YET and state not in _NOT_YET:
            self._wanted[job.queue] -= job.description.cpus
        elif state in _NOT_YET and job.state not in _NOT_YET:  # it is started again
            self._wanted[job.queue] += job.description.cpus
        was, runs = job.state in _RUNNING, state in _RUNNING
        self._running += runs - was
        job.state = state
        if was and not runs:
            self._let_one_run()

    def _let_one_run(self) -> None:
        while self._for_turn:
            job = self._for_turn.popleft()
            if job.pending and job.state is InnerState.PREPARING:
                self._pass_on(job)
                return

    def _noted(self, job: Job) -> None:
        """Remember that the information provider has something to write."""
        if not job.unpublished:
            job.unpublished = True
            self._unpublished.append(job)


def _stored(job: Job) -> bool:
    """Whether the CE stores some output itself."""
    return any(one.target is not None for one in job.description.outputs)


def _control(job: Job) -> str:
    """Where A-REX keeps a job's files, below its control directory (job_control_path)."""
    local = job.local
    return f"jobs/{local[:3]}/{local[3:6]}/{local[6:9]}/{local[9:]}"

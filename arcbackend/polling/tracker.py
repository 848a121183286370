"""Tracked jobs: observations, verbs and time go in, events come out. No clock, no I/O.

A million of them must fit: a job is one slotted record and one entry of a dictionary, and an
observation that says nothing new costs a look-up and a comparison. Whatever concerns few jobs at a
time (doubts, timers, removals to come) is kept beside them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush
from itertools import count
from typing import Literal

from arcbackend.events import (
    CEBack,
    CEUnreachable,
    DelegationFailing,
    DelegationRenewed,
    JobEvent,
    SeenBy,
)
from arcbackend.jobids import job_id
from arcbackend.lifecycle.definition import JOB, Effect, Rule, Verb
from arcbackend.lifecycle.machine import Lifecycle, Moved, Verdict
from arcbackend.lifecycle.policy import Policy
from arcbackend.models import JobHandle, JobID, JobStatus, OpOutcome
from arcbackend.polling.snapshot import TrackedState
from arcbackend.states import later

__all__ = ["Due", "TrackedJob", "Tracker"]

_SEEN_BY_VERB: Mapping[str, SeenBy] = {
    "kill": SeenBy.KILL,
    "keep": SeenBy.KEEP,
    "purge": SeenBy.PURGE,
    "fetch": SeenBy.FETCH,
}


class TrackedJob:
    """One job.

    Attributes:
        local: the CE's short id.
        state: of the machine.
        documented: the ARC state that the CE's documents said last; None: none yet.
        listed: the ARC state that the live listing said last; None: none yet.
        since: when it came into its state, on the monotonic clock.
        names: of the files with its stdout and stderr, as its handle has them; None: no handle.
    """

    __slots__ = ("documented", "listed", "local", "names", "since", "state")

    def __init__(self, local: str, now: float, names: tuple[str | None, str | None] | None) -> None:
        self.local = local
        self.state = JOB.initial
        self.documented: str | None = None
        self.listed: str | None = None
        self.since = now
        self.names = names

    @property
    def arc_state(self) -> str | None:
        """The ARC state that was seen last, by the source that is ahead."""
        if self.documented is None:
            return self.listed
        return later(self.documented, self.listed)


@dataclass(frozen=True, slots=True)
class Due:
    """A timed transition whose time has come."""

    job: TrackedJob
    rule: Rule
    since: float


@dataclass(slots=True)
class _Doubt:
    looks: int
    since: float


class Tracker:
    """The jobs that one poller follows on one CE.

    Times called ``now`` are seconds on a monotonic clock; ``at`` is the same moment in UTC.

    Args:
        endpoint: the CE.
        policy: what to do about held, lost and killed jobs.
        sequence: the number of the last event, of an earlier run.
    """

    def __init__(self, endpoint: str, policy: Policy, sequence: int = 0) -> None:
        self._endpoint = endpoint
        self.sequence = sequence
        self.jobs: dict[str, TrackedJob] = {}
        self.active = 0
        self.ignored: Counter[Verdict] = Counter()
        # Jobs to be purged when they are over: "any" end, or only if they were "killed".
        self.to_purge: dict[str, Literal["any", "killed"]] = {}
        self.repeats: Counter[str] = Counter()
        self._purgeable: list[str] = []
        self._doubts: dict[str, _Doubt] = {}
        self._timers: list[tuple[float, int, TrackedJob, float, str]] = []
        self._tie = count()
        self._names: dict[tuple[str | None, str | None], tuple[str | None, str | None]] = {}
        self.lifecycle = Lifecycle(JOB, policy)

    def set_policy(self, policy: Policy, now: float) -> None:
        """Follow another policy, for whatever happens from now on.

        A state's time counts from when it was entered, also under the new policy.
        """
        self.lifecycle = Lifecycle(JOB, policy)
        self._timers.clear()
        for job in self.jobs.values():
            self._arm(job, now)

    # --- which jobs ---

    def add(
        self, local: str, now: float, names: tuple[str | None, str | None] | None = None
    ) -> bool:
        """Track a job; False if it was tracked already (then only its names are taken)."""
        if names is not None:
            names = self._names.setdefault(names, names)
        job = self.jobs.get(local)
        if job is not None:
            if names is not None and any(names):
                job.names = names
            return False
        self.jobs[local] = TrackedJob(local, now, names)
        self.active += 1
        return True

    def restore(self, row: TrackedState, since: float, now: float) -> None:
        """Track a job as an earlier run left it, which came into its state at ``since``."""
        if not self.add(row.id, since, row.names):
            return
        job = self.jobs[row.id]
        job.state = sys.intern(row.state)
        job.documented = row.documented and sys.intern(row.documented)
        job.listed = row.listed and sys.intern(row.listed)
        if row.purge is not None:
            self.to_purge[row.id] = row.purge
        if self.is_final(job):
            self.active -= 1
            self._ended(job)
        else:
            self._arm(job, now)

    def remove(self, local: str) -> bool:
        """Track a job no longer; False if it was not."""
        job = self.jobs.pop(local, None)
        if job is None:
            return False
        if not self.is_final(job):
            self.active -= 1
        self.to_purge.pop(local, None)
        self._doubts.pop(local, None)
        self.repeats.pop(local, None)
        return True

    def is_final(self, job: TrackedJob) -> bool:
        """Whether the job is over or gone: then nothing is observed of it any more."""
        return job.state in self.lifecycle.final

    def is_followed(self, job: TrackedJob) -> bool:
        """Whether this very record is tracked, and its life not over."""
        return self.jobs.get(job.local) is job and not self.is_final(job)

    def is_doubtful(self, job: TrackedJob) -> bool:
        """Whether the CE has begun to deny that it knows the job."""
        return job.local in self._doubts

    def status(self, job: TrackedJob) -> JobStatus:
        """What the job's state means to a WMS."""
        return self.lifecycle.statuses[job.state]

    # --- observations ---

    def observe(
        self, pairs: Iterable[tuple[str, str]], seen_by: SeenBy, now: float, at: datetime
    ) -> list[JobEvent]:
        """Take in what a source says.

        Args:
            pairs: local id and ARC state; a FAILED has been looked into (`ended_badly`).
            seen_by: the documents, or the live listing.
            now, at: when.
        """
        jobs, events = self.jobs, []
        documents = seen_by is SeenBy.DOCUMENTS
        doubts = self._doubts if documents else {}
        for local, arc_state in pairs:
            job = jobs.get(local)
            if job is None:
                continue
            if arc_state == (job.documented if documents else job.listed):
                if doubts:
                    doubts.pop(local, None)
                continue
            event = self._observe(job, arc_state, seen_by, now, at)
            if event is not None:
                events.append(event)
        return events

    def ended_badly(self, pairs: Iterable[tuple[str, str]]) -> list[str]:
        """The tracked jobs that are said to be FAILED, and are news: they may have been killed."""
        jobs, final = self.jobs, self.lifecycle.final
        return [
            local
            for local, arc_state in pairs
            if arc_state == "FAILED" and local in jobs and jobs[local].state not in final
        ]

    def _observe(
        self, job: TrackedJob, arc_state: str, seen_by: SeenBy, now: float, at: datetime
    ) -> JobEvent | None:
        verdict = self.lifecycle.verdict(job.state, arc_state)
        if isinstance(verdict, Verdict):
            self.ignored[verdict] += 1
            self._seen(job, arc_state, seen_by)
            return None
        target = self.lifecycle.definition.by_arc_state[arc_state]
        if target.group == "gone":
            if seen_by is SeenBy.LISTING:
                return None  # (said for a moment of a job whose files are moved: documents decide)
            moved = self._denied(job, verdict, now)
        else:
            moved = self.lifecycle.fire(verdict, job)
        if moved is None:
            return None  # (not noted as seen: the next denial is no repetition)
        self._seen(job, arc_state, seen_by)
        self._entered(job, moved.source, now)
        return self._event(job, moved, arc_state, seen_by, at)

    def _seen(self, job: TrackedJob, arc_state: str, seen_by: SeenBy) -> None:
        # Interned, so that a million jobs share a dozen strings.
        if seen_by is SeenBy.DOCUMENTS:
            job.documented = sys.intern(arc_state)
            if self._doubts:
                self._doubts.pop(job.local, None)
        else:
            job.listed = sys.intern(arc_state)

    def _denied(self, job: TrackedJob, trigger: str, now: float) -> Moved | None:
        """The CE denies that it knows the job: believed when it has done so often enough."""
        doubt = self._doubts.setdefault(job.local, _Doubt(0, now))
        doubt.looks += 1
        seconds = now - doubt.since
        lost = self.lifecycle.policy.lost
        return self.lifecycle.fire(
            trigger,
            job,
            confirmed=doubt.looks >= lost.looks and seconds >= lost.after,
            words={"looks": str(doubt.looks), "seconds": f"{seconds:.0f}"},
        )

    # --- verbs ---

    def asks(self, verb: Verb, job: TrackedJob) -> Rule | None:
        """The transition for which a verb must ask the CE; None: the machine settles it."""
        return self.lifecycle.may_ask(verb, job.state)

    def answer(
        self,
        verb: Verb,
        job: TrackedJob,
        answer: OpOutcome | None,
        now: float,
        at: datetime,
        *,
        asked: Rule | None = None,
    ) -> JobEvent:
        """A verb's answer for a job, as an event with its outcome.

        Args:
            verb: the verb.
            job: the job, in whatever state it is by now.
            answer: what the CE said; None: it was not asked.
            now, at: when.
            asked: what for (`asks`): an answer to a kill does not tell of a purge.
        """
        by_now = self.asks(verb, job)
        if asked is not None and by_now is not None and by_now.effect[0] != asked.effect[0]:
            answer = None
        seen = self._arc_state(job)
        moved = self.lifecycle.fire(verb, job, answer=answer, words={"state": seen or job.state})
        if moved is None:
            # The job's state has changed: the CE was not asked what must be asked by now.
            outcome = OpOutcome(ok=False, reason=f"the job is {job.state} by now: ask again")
            moved = Moved(
                self.lifecycle.definition.rules_of(verb, job.state)[0], job.state, outcome
            )
        elif job.state != moved.source:
            self._entered(job, moved.source, now)
        if verb == "purge":
            self.to_purge.pop(job.local, None)
        self._note(job, moved.rule.effect, moved.outcome)
        return self._event(job, moved, seen, _SEEN_BY_VERB[verb], at)

    def _note(self, job: TrackedJob, effects: Iterable[Effect], outcome: OpOutcome | None) -> None:
        if outcome is None or not outcome.ok:
            return
        for effect in effects:
            if effect == "purge-after":
                self.to_purge[job.local] = "any"
            elif effect == "purge-killed":
                self.to_purge.setdefault(job.local, "killed")

    def take_purgeable(self) -> list[str]:
        """The jobs that are over by now and were to be purged then; each is told once."""
        found, self._purgeable = self._purgeable, []
        return [local for local in found if local in self.to_purge]

    # --- time ---

    def next_timer(self) -> float | None:
        """When the next timed transition may be due; None: there is none."""
        return self._timers[0][0] if self._timers else None

    def due(self, now: float) -> Iterator[Due]:
        """The timed transitions whose time has come, each handed out once."""
        found: set[tuple[str, str]] = set()
        while self._timers and self._timers[0][0] <= now:
            _, _, job, since, trigger = heappop(self._timers)
            if self.jobs.get(job.local) is not job or job.since != since:
                continue  # it has left the state
            if (job.local, trigger) in found:
                continue  # postponed, and armed anew by another policy meanwhile
            found.add((job.local, trigger))
            for rule, _ in self.lifecycle.timers(job.state):
                if rule.trigger == trigger:
                    yield Due(job, rule, since)

    def still(self, due: Due) -> bool:
        """Whether the job is still in the state that the transition leads out of."""
        return self.jobs.get(due.job.local) is due.job and due.job.since == due.since

    def postpone(self, due: Due, until: float) -> None:
        """Hand a timed transition out again, later."""
        self._push(due.job, due.rule.trigger, until)

    def fire(self, due: Due, answer: OpOutcome | None, now: float, at: datetime) -> JobEvent | None:
        """Carry a timed transition out; None if its reason has gone by now."""
        job = due.job
        if self.jobs.get(job.local) is not job:
            return None
        seen = self._arc_state(job)
        words = {"state": seen or job.state}
        moved = self.lifecycle.fire(due.rule.trigger, job, answer=answer, words=words)
        if moved is None:
            return None
        if job.state != moved.source:
            self._entered(job, moved.source, now)
        else:
            self._arm_again(job, moved, now)
        self._note(job, moved.rule.effect, moved.outcome)
        return self._event(job, moved, seen, SeenBy.POLICY, at)

    def _entered(self, job: TrackedJob, source: str, now: float) -> None:
        job.since = now
        self.repeats.pop(job.local, None)
        if self.is_final(job):
            if source not in self.lifecycle.final:
                self.active -= 1
            self._doubts.pop(job.local, None)
            self._ended(job)
        else:
            self._arm(job, now)

    def _ended(self, job: TrackedJob) -> None:
        wanted = self.to_purge.get(job.local)
        over = self.lifecycle.definition.states[job.state].group == "over"
        if over and (wanted == "any" or (wanted == "killed" and job.state == "killed")):
            self._purgeable.append(job.local)
        else:
            self.to_purge.pop(job.local, None)

    def _arm(self, job: TrackedJob, now: float) -> None:
        for rule, seconds in self.lifecycle.timers(job.state):
            self._push(job, rule.trigger, max(now, job.since + seconds))

    def _arm_again(self, job: TrackedJob, moved: Moved, now: float) -> None:
        """A timed transition that leaves the job where it is comes again after its time."""
        self.repeats[job.local] += 1
        if self.repeats[job.local] < self.lifecycle.policy.kill.attempts:
            for rule, seconds in self.lifecycle.timers(job.state):
                if rule.trigger == moved.rule.trigger:
                    self._push(job, rule.trigger, now + max(seconds, 1.0))

    def _push(self, job: TrackedJob, trigger: str, when: float) -> None:
        heappush(self._timers, (when, next(self._tie), job, job.since, trigger))

    # --- events ---

    def _event(
        self,
        job: TrackedJob,
        moved: Moved,
        arc_state: str | None,
        seen_by: SeenBy,
        at: datetime,
    ) -> JobEvent:
        self.sequence += 1
        statuses = self.lifecycle.statuses
        return JobEvent(
            ce=self._endpoint,
            sequence=self.sequence,
            seen_at=at,
            id=self.id_of(job.local),
            source=moved.source,
            dest=job.state,
            status_before=statuses[moved.source],
            status_after=statuses[job.state],
            arc_state=arc_state,
            seen_by=seen_by,
            outcome=moved.outcome,
        )

    def unreachable(self, seen_by: SeenBy, reason: str, at: datetime) -> CEUnreachable:
        """The event that the CE cannot be asked."""
        self.sequence += 1
        return CEUnreachable(
            ce=self._endpoint,
            sequence=self.sequence,
            seen_at=at,
            seen_by=seen_by,
            reason=reason,
        )

    def back(self, away_since: datetime, at: datetime) -> CEBack:
        """The event that it can be asked again."""
        self.sequence += 1
        return CEBack(ce=self._endpoint, sequence=self.sequence, seen_at=at, away_since=away_since)

    def delegation_renewed(
        self, delegation: str, expires_at: datetime, at: datetime
    ) -> DelegationRenewed:
        """The event that jobs' delegation lasts longer now."""
        self.sequence += 1
        return DelegationRenewed(
            ce=self._endpoint,
            sequence=self.sequence,
            seen_at=at,
            delegation=delegation,
            expires_at=expires_at,
        )

    def delegation_failing(self, reason: str, tries: int, at: datetime) -> DelegationFailing:
        """The event that the delegations could not be kept valid."""
        self.sequence += 1
        return DelegationFailing(
            ce=self._endpoint, sequence=self.sequence, seen_at=at, reason=reason, tries=tries
        )

    def handle(self, job: TrackedJob) -> JobHandle | JobID:
        """What is known of a job's identity: a handle, or the id alone."""
        if job.names is None:
            return self.id_of(job.local)
        stdout, stderr = job.names
        return JobHandle(
            id=self.id_of(job.local), copy_index=0, name="", stdout=stdout, stderr=stderr
        )

    def id_of(self, local: str) -> JobID:
        """A job's canonical id."""
        return job_id(self._endpoint, local)

    def _arc_state(self, job: TrackedJob) -> str | None:
        """The ARC state that was seen last; of a job that is over, the one that ended it.

        (The listing goes on to say FAILED of a killed job.)
        """
        state = self.lifecycle.definition.states[job.state]
        return state.arc[0] if state.final and state.arc else job.arc_state

"""A tracker against a simulated CE, whose two sources lag and contradict each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from arcbackend import JobEvent, OpOutcome, Policy, PollerSnapshot, SeenBy
from arcbackend.lifecycle.definition import JOB, Rule, Verb
from arcbackend.polling.snapshot import TrackedState
from arcbackend.polling.tracker import Due, TrackedJob, Tracker
from arcbackend.states import LIVE_LATE_STATES, UNKNOWN_JOB, WIPED
from tests.pure.tracking import CE, REFUSED, START, TAKEN

BEFORE = ["ACCEPTING", "ACCEPTED", "PREPARING", "PREPARED", "SUBMITTING"]
BATCH = ["QUEUING", "RUNNING", "HELD", "OTHER", "EXITINGLRMS"]
OVER = ["FINISHED", "FAILED", "KILLED"]
GONE = [WIPED, UNKNOWN_JOB]
# Where a job can be next. What lies before the batch system it can also leave by failing.
NEXT: Mapping[str, list[str]] = {
    **{state: [BEFORE[i + 1] if i + 1 < len(BEFORE) else "QUEUING", "FINISHING"]
       for i, state in enumerate(BEFORE)},
    **{state: [*BATCH, "EXECUTED", "EXECUTED"] for state in BATCH},
    "EXECUTED": ["FINISHING"],
    "FINISHING": ["FINISHED", "FAILED"],
    "KILLING": ["KILLED", "KILLED", "FINISHED", "FAILED"],
}  # fmt: skip
LOOKS, LONG_ENOUGH = 3, 60.0
SLOTS = ("one", "two")
slots = st.sampled_from(SLOTS)
sources = st.sampled_from([SeenBy.DOCUMENTS, SeenBy.LISTING])
RULES: Mapping[str, Mapping[str, Any]] = {
    "report": {},
    "ask": {"hold": {"action": "ask", "grace": 50, "other_after": 20}},
    "kill": {"hold": {"action": "kill", "grace": 50}, "purge": {"active": "kill"}},
    "remove": {
        "hold": {"action": "kill-and-purge", "grace": 0, "other_after": 0},
        "kill": {"repeat_after": 30, "attempts": 2},
        "output": {"needs": "nothing"},
    },
}
POLICIES = {
    name: Policy.from_dict({"name": name, "lost": {"looks": LOOKS, "after": LONG_ENOUGH}, **rules})
    for name, rules in RULES.items()
}


@dataclass
class TrueJob:
    """What is the case on the CE.

    Attributes:
        state: ARC's.
        document: what the information provider wrote last.
        end: how it ended, even when it is gone.
        kill: a kill has come through.
        denied: looks in a row at which the CE denied a job that it has.
    """

    state: str = "ACCEPTING"
    document: str = "ACCEPTING"
    end: str | None = None
    kill: bool = False
    denied: int = 0

    @property
    def over(self) -> bool:
        return self.end is not None

    def become(self, state: str) -> None:
        self.state = state
        if state in OVER:
            self.end = state


@dataclass(frozen=True)
class Asked:
    """Something that the CE has been asked, and of which its answer is under way."""

    job: TrackedJob
    verb: Verb
    rule: Rule | None
    answer: OpOutcome | None
    due: Due | None = None


class Following(RuleBasedStateMachine):
    """Each rule is one thing that can happen, on the CE, on the way, or here."""

    @initialize(policy=st.sampled_from(sorted(POLICIES)))
    def begin(self, policy: str) -> None:
        self.now = 0.0
        self.true: dict[str, TrueJob] = {}
        self.tracker = Tracker(CE, POLICIES[policy])
        self.last: dict[str, str] = {}
        self.sequence = 0
        self.on_the_way: dict[SeenBy, deque[dict[str, str]]] = {
            SeenBy.DOCUMENTS: deque(),
            SeenBy.LISTING: deque(),
        }
        self.asked: list[Asked] = []
        # The jobs that things happen to; those that came before them stay tracked.
        self.current: dict[str, str] = {}
        for slot in SLOTS:
            self._submitted(slot)

    @property
    def at(self) -> datetime:
        return START + timedelta(seconds=self.now)

    # --- on the CE ---

    def _submitted(self, slot: str) -> None:
        local = self.current[slot] = f"job{len(self.true)}"
        self.true[local] = TrueJob()
        self.tracker.add(local, self.now)
        self.last[local] = "tracked"

    @rule(slot=slots, dice=st.randoms(), steps=st.sampled_from([1, 2, 3, 6]))
    def a_job_goes_on(self, slot: str, dice: Random, steps: int) -> None:
        local = self.current[slot]
        job = self.true[local]
        if job.over and (local not in self.last or JOB.states[self.last[local]].final):
            self._submitted(slot)
        for _ in range(steps):
            if job.over or job.state in GONE:
                return
            if job.kill and job.state != "KILLING" and dice.random() < 0.5:
                job.become("KILLING")
            else:
                job.become(dice.choice(NEXT[job.state]))

    @rule(slot=slots, what=st.sampled_from([*BATCH, "HELD", "kill", *GONE]))
    def something_happens_to_a_job(self, slot: str, what: str) -> None:
        """The batch system, or somebody else, does something about it."""
        job = self.true[self.current[slot]]
        if what == "kill":
            job.kill = True
            return
        befits = (*BEFORE, *BATCH) if what in BATCH else OVER
        if job.state in befits:
            job.become(what)

    # --- on the way ---

    @rule(source=sources, says_failed=st.booleans())
    def a_look_at_the_ce(self, source: SeenBy, says_failed: bool) -> None:
        self.a_source_is_read(source, written=True, says_failed=says_failed)
        self._everything_arrives(source)

    @rule(source=sources, written=st.booleans(), says_failed=st.booleans())
    def a_source_is_read(self, source: SeenBy, written: bool, says_failed: bool) -> None:
        if source is SeenBy.LISTING:
            self.on_the_way[source].append(
                {
                    local: "FAILED" if job.state == "KILLED" else job.state
                    for local, job in self.true.items()
                    if job.state in LIVE_LATE_STATES
                }
            )
            return
        for job in self.true.values():
            if written:
                job.document = "FAILED" if says_failed and job.state == "KILLED" else job.state
        self.on_the_way[source].append(
            {
                local: UNKNOWN_JOB if job.state == UNKNOWN_JOB else job.document
                for local, job in self.true.items()
            }
        )

    @precondition(lambda self: any(self.on_the_way.values()))
    @rule(times=st.sampled_from([1, 1, 2, 0]), dice=st.randoms())
    def something_arrives(self, times: int, dice: Random) -> None:
        source = dice.choice([one for one in self.on_the_way if self.on_the_way[one]])
        said = self.on_the_way[source].popleft()
        for _ in range(times):
            self._arrived(said, source, decided=lambda: dice.random() < 0.5)

    @rule(slot=slots, word=st.sampled_from(GONE), times=st.integers(1, LOOKS - 1))
    def the_ce_denies_a_job_for_a_moment(self, slot: str, word: str, times: int) -> None:
        local = self.current[slot]
        job = self.true[local]
        for _ in range(min(times, LOOKS - 1 - job.denied)):
            job.denied += 1
            self.now += LONG_ENOUGH
            self._tell(self.tracker.observe([(local, word)], SeenBy.DOCUMENTS, self.now, self.at))

    def _everything_arrives(self, source: SeenBy) -> None:
        while self.on_the_way[source]:
            self._arrived(self.on_the_way[source].popleft(), source)

    def _arrived(
        self,
        said: Mapping[str, str],
        source: SeenBy,
        decided: Callable[[], bool] = lambda: True,
    ) -> None:
        """As the poller takes it in: a FAILED is looked into first (arcbackend.ends)."""
        bad = self.tracker.ended_badly(said.items())
        known = {local: state for local, state in said.items() if local not in bad}
        for local in bad:
            end = self.true[local].end
            assert end is not None
            if decided():
                known[local] = end
        if source is SeenBy.DOCUMENTS:
            for local in known:
                self.true[local].denied = 0
        self._tell(self.tracker.observe(known.items(), source, self.now, self.at))

    # --- here ---

    @rule(
        slot=slots,
        verb=st.sampled_from(["kill", "purge", "purge", "keep", "fetch"]),
        fate=st.sampled_from(["taken", "taken", "lost", "refused"]),
        at_once=st.booleans(),
    )
    def asks(self, slot: str, verb: Verb, fate: str, at_once: bool) -> None:
        job = self.tracker.jobs.get(self.current[slot])
        if job is not None:
            wanted = self.tracker.asks(verb, job)
            answer = self._ce_is_asked(job.local, wanted.effect[0], fate) if wanted else None
            self.asked.append(Asked(job, verb, wanted, answer))
            if at_once:
                self._answered(len(self.asked) - 1)

    @precondition(lambda self: self.asked)
    @rule(dice=st.randoms())
    def an_answer_arrives(self, dice: Random) -> None:
        self._answered(dice.randrange(len(self.asked)))

    def _answered(self, which: int) -> None:
        asked = self.asked.pop(which)
        if asked.due is not None:
            event = self.tracker.fire(asked.due, asked.answer, self.now, self.at)
            self._tell([event] if event else [])
        else:
            event = self.tracker.answer(
                asked.verb, asked.job, asked.answer, self.now, self.at, asked=asked.rule
            )
            assert event.outcome is not None
            self._tell([event])

    @rule(
        seconds=st.sampled_from([0.0, 1.0, 10.0, 30.0, 70.0, 4000.0]),
        fate=st.sampled_from(["taken", "lost", "refused"]),
        postpone=st.booleans(),
    )
    def time_goes_by(self, seconds: float, fate: str, postpone: bool) -> None:
        self.now += seconds
        policy = self.tracker.lifecycle.policy
        due = list(self.tracker.due(self.now))
        assert len({(one.job.local, one.rule.trigger) for one in due}) == len(due)
        for one in due:
            assert one.rule.after is not None
            assert self.now - one.job.since >= policy.value(one.rule.after)
            if "kill" not in one.rule.effect:
                event = self.tracker.fire(one, None, self.now, self.at)
                self._tell([event] if event else [])
            elif postpone:
                self.tracker.postpone(one, self.now + 5)
            else:
                answer = self._ce_is_asked(one.job.local, "kill", fate)
                self.asked.append(Asked(one.job, "kill", one.rule, answer, one))

    @rule(fate=st.sampled_from(["taken", "refused"]))
    def what_is_over_by_now_is_removed(self, fate: str) -> None:
        for local in self.tracker.take_purgeable():
            job = self.tracker.jobs[local]
            answer = self._ce_is_asked(local, "purge", fate)
            self.asked.append(Asked(job, "purge", self.tracker.asks("purge", job), answer))

    @rule(policy=st.sampled_from(sorted(POLICIES)))
    def the_policy_changes(self, policy: str) -> None:
        self.tracker.set_policy(POLICIES[policy], self.now)

    @rule(slot=slots | st.none(), again=st.booleans())
    def the_consumer_restarts_or_loses_interest(self, slot: str | None, again: bool) -> None:
        if slot is None:
            # What was on the way is lost; what was asked may have been done.
            snapshot = _snapshot(self.tracker, self.now)
            self.tracker = _restored(snapshot, self.tracker.lifecycle.policy, self.now)
            self.asked.clear()
            for queue in self.on_the_way.values():
                queue.clear()
        elif (local := self.current[slot]) not in {asked.job.local for asked in self.asked}:
            assert self.tracker.remove(local) == (self.last.pop(local, None) is not None)
            if again:
                self.tracker.add(local, self.now)
                self.last[local] = "tracked"

    # --- what the CE answers ---

    def _ce_is_asked(self, local: str, effect: str, fate: str) -> OpOutcome:
        job = self.true[local]
        if fate == "refused" or job.state in GONE:
            return REFUSED
        if effect == "kill":
            if job.over:
                return REFUSED
            job.kill = job.kill or fate != "lost"
        elif effect == "purge":
            if not job.over:
                return REFUSED
            job.become(UNKNOWN_JOB)
        return TAKEN

    # --- what must be so ---

    def _tell(self, events: Iterable[JobEvent]) -> None:
        for event in events:
            local = event.id.rpartition("/")[2]
            source, dest = JOB.states[event.source], JOB.states[event.dest]
            assert event.source == self.last[local]
            self.last[local] = event.dest
            assert event.sequence == self.sequence + 1
            self.sequence = event.sequence
            assert dest.phase >= source.phase
            assert not source.final or dest in (source, JOB.states["purged"])
            assert event.source != event.dest or event.outcome is not None
            assert event.status_before is self.tracker.lifecycle.statuses[event.source]
            assert event.status_after is self.tracker.lifecycle.statuses[event.dest]
            self._is_true(local, event.dest)

    def _is_true(self, local: str, state: str) -> None:
        """Whatever is told of a job's end is so."""
        job = self.true[local]
        if JOB.states[state].group == "over":
            assert JOB.states[state].arc == (job.end,)
        elif state in ("purged", "lost", "expired"):
            assert job.state in GONE

    @invariant()
    def active_jobs_are_counted(self) -> None:
        tracker = self.tracker
        active = sum(not JOB.states[job.state].final for job in tracker.jobs.values())
        assert tracker.active == active

    @invariant()
    def what_was_told_last_is_what_is_so(self) -> None:
        assert {local: job.state for local, job in self.tracker.jobs.items()} == self.last

    @invariant()
    def nothing_is_kept_of_jobs_that_are_over(self) -> None:
        tracker = self.tracker
        for job in tracker.jobs.values():
            if tracker.is_final(job):
                assert not tracker.is_doubtful(job)
                assert job.local not in tracker.repeats

    def teardown(self) -> None:
        """When everything has been delivered, the end is the CE's."""
        if not hasattr(self, "true"):
            return
        for job in self.true.values():
            if not (job.over or job.state in GONE):
                job.become("KILLED" if job.kill else "FINISHED")
        while self.asked:
            self._answered(0)
        self.a_look_at_the_ce(SeenBy.LISTING, says_failed=True)
        for _ in range(LOOKS):
            self.a_look_at_the_ce(SeenBy.DOCUMENTS, says_failed=True)
            self.now += LONG_ENOUGH
        assert self.tracker.active == 0
        for local, record in self.tracker.jobs.items():
            job = self.true[local]
            assert job.end is not None
            possible = {JOB.by_arc_state[job.end].name}
            if job.state in GONE:
                possible |= {"lost", "expired"}
            if job.state == UNKNOWN_JOB:
                possible.add("purged")
            assert record.state in possible
        self.time_goes_by(seconds=10_000.0, fate="taken", postpone=False)
        assert not self.asked


def _snapshot(tracker: Tracker, now: float) -> PollerSnapshot:
    """As a poller takes it."""
    return PollerSnapshot(
        ce=CE,
        taken_at=START + timedelta(seconds=now),
        sequence=tracker.sequence,
        jobs=tuple(
            TrackedState(
                job.local,
                job.state,
                job.documented,
                job.listed,
                job.since,
                job.names,
                tracker.to_purge.get(job.local),
            )
            for job in tracker.jobs.values()
        ),
    )


def _restored(snapshot: PollerSnapshot, policy: Policy, now: float) -> Tracker:
    """In another process, as far as it can tell."""
    read = PollerSnapshot.model_validate_json(snapshot.model_dump_json())
    assert read == snapshot
    tracker = Tracker(CE, policy, read.sequence)
    for row in read.jobs:
        tracker.restore(row, row.since, now)
    return tracker


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


@pytest.mark.parametrize("seed", range(60))
def test_long_lives(seed: int) -> None:
    """The same things, at random and for longer, which hypothesis rather avoids."""
    dice = Random(seed)
    machine = Following()
    machine.begin(dice.choice(sorted(POLICIES)))
    either, verbs = (True, False), ("kill", "purge", "keep", "fetch")
    fates = ("taken", "taken", "lost", "refused")
    documents_or_listing = (SeenBy.DOCUMENTS, SeenBy.LISTING)
    happenings: list[tuple[int, Callable[[], object]]] = [
        (8, lambda: machine.a_job_goes_on(dice.choice(SLOTS), dice, dice.choice((1, 1, 2, 4)))),
        (4, lambda: machine.something_happens_to_a_job(
            dice.choice(SLOTS), dice.choice((*BATCH, "HELD", "OTHER", "kill", *GONE)))),
        (4, lambda: machine.a_look_at_the_ce(
            dice.choice(documents_or_listing), dice.choice(either))),
        (6, lambda: machine.a_source_is_read(
            dice.choice(documents_or_listing), dice.choice(either), dice.choice(either))),
        (6, lambda: any(machine.on_the_way.values())
            and machine.something_arrives(dice.choice((1, 1, 2, 0)), dice)),
        (1, lambda: machine.the_ce_denies_a_job_for_a_moment(
            dice.choice(SLOTS), dice.choice(GONE), dice.choice((1, 2)))),
        (4, lambda: machine.asks(
            dice.choice(SLOTS), dice.choice(verbs), dice.choice(fates), dice.choice(either))),
        (4, lambda: machine.asked and machine.an_answer_arrives(dice)),
        (4, lambda: machine.time_goes_by(
            dice.choice((0.0, 1.0, 10.0, 30.0, 70.0)), dice.choice(fates), dice.choice(either))),
        (2, lambda: machine.what_is_over_by_now_is_removed(dice.choice(fates))),
        (1, lambda: machine.the_policy_changes(dice.choice(sorted(POLICIES)))),
        (1, lambda: machine.the_consumer_restarts_or_loses_interest(
            dice.choice((*SLOTS, None)), dice.choice(either))),
    ]  # fmt: skip
    weights, happen = zip(*happenings, strict=True)
    for _ in range(300):
        dice.choices(happen, weights)[0]()
        machine.active_jobs_are_counted()
        machine.what_was_told_last_is_what_is_so()
        machine.nothing_is_kept_of_jobs_that_are_over()
    machine.teardown()


@pytest.mark.parametrize("seed", range(20))
def test_over_a_restart_no_event_is_lost_or_told_twice(seed: int) -> None:
    """Two trackers, one of them restored from a snapshot of the other, hear the same and tell it.

    (Doubts, and the repetitions of kills, begin anew: they are not in snapshots.)
    """
    dice = Random(seed)
    policy = Policy.from_dict(
        {
            "hold": {"action": "kill-and-purge", "grace": 5, "other_after": 3},
            "kill": {"repeat_after": None},
            "purge": {"active": "kill"},
            "lost": {"looks": 1, "after": 0},
        }
    )
    first, now = Tracker(CE, policy), 0.0
    for number in range(60):
        first.add(f"job{number}", now, ("out", None))
    both, before = [first], 0
    for step in range(400):
        if step == 150:
            before = first.sequence
            both.append(_restored(_snapshot(first, now), policy, now))
        now += dice.random()
        at = START + timedelta(seconds=now)
        local = f"job{dice.randrange(60)}"
        documents = dice.choice((*BEFORE, *BATCH * 8, "EXECUTED", *OVER, *GONE))
        listed = dice.choice(LIVE_LATE_STATES)
        what = dice.choice(("documents", "documents", "documents", "listing", "verb", "time"))
        verb: Verb = dice.choice(("kill", "purge", "fetch", "keep"))
        told: list[list[JobEvent]] = []
        for tracker in both:
            match what:
                case "documents":
                    events = tracker.observe([(local, documents)], SeenBy.DOCUMENTS, now, at)
                case "listing":
                    events = tracker.observe([(local, listed)], SeenBy.LISTING, now, at)
                case "verb":
                    job = tracker.jobs[local]
                    asked = tracker.asks(verb, job)
                    answer = TAKEN if asked else None
                    events = [tracker.answer(verb, job, answer, now, at, asked=asked)]
                case _:
                    fired = [tracker.fire(due, TAKEN, now, at) for due in tracker.due(now)]
                    events = [event for event in fired if event is not None]
            told.append(events)
        assert told == [told[0]] * len(both)
    assert first.sequence - before > 50
    assert _snapshot(both[1], now) == _snapshot(first, now)
    assert set(first.take_purgeable()) == set(both[1].take_purgeable())

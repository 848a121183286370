"""Tracked jobs: what observations, verbs and time make of them."""

from __future__ import annotations

import sys
import tracemalloc
from itertools import pairwise
from typing import Literal

import pytest

from arcbackend import EVENT_ADAPTER, JobStatus, OpOutcome, Policy, SeenBy
from arcbackend.lifecycle.machine import Lifecycle, Verdict
from arcbackend.polling.schedule import Wheel
from arcbackend.polling.snapshot import TrackedState
from arcbackend.polling.tracker import TrackedJob, Tracker
from tests.pure.tracking import CE, REFUSED, START, TAKEN, Watch, steps

KILL = {"hold": {"action": "kill", "grace": 100}}
ASK = {"hold": {"action": "ask", "grace": 100}}
KILL_AND_PURGE = {"hold": {"action": "kill-and-purge", "grace": 100}}
PURGE_KILLS = {"purge": {"active": "kill"}}
NEVER_AGAIN = {"kill": {"repeat_after": None}}


# which jobs


def test_a_job_is_tracked_once() -> None:
    watch = Watch()
    assert watch.tracker.add("a", 0)
    job = watch.job()
    assert not watch.tracker.add("a", 5)
    assert watch.job() is job
    assert (job.state, job.since, watch.tracker.active) == ("tracked", 0, 1)


def test_names_can_come_later_and_are_not_forgotten() -> None:
    watch = Watch({}, "a")
    watch.tracker.add("a", 0, ("out", None))
    watch.tracker.add("a", 0)
    assert watch.job().names == ("out", None)


def test_equal_names_are_one_object() -> None:
    watch = Watch()
    for local in ("a", "b"):
        watch.tracker.add(local, 0, ("out", "".join(("er", "r"))))
    assert watch.job("a").names is watch.job("b").names


def test_a_job_can_be_tracked_no_longer() -> None:
    watch = Watch({}, "a", "b")
    watch.documents(b="FINISHED")
    assert watch.tracker.active == 1
    assert watch.tracker.remove("b")
    assert watch.tracker.active == 1
    assert watch.tracker.remove("a")
    assert not watch.tracker.remove("a")
    assert watch.tracker.active == 0
    assert watch.tracker.jobs == {}


def test_which_record_is_followed() -> None:
    watch = Watch({}, "a", "b")
    old = watch.job("a")
    assert watch.tracker.is_followed(old)
    watch.tracker.remove("a")
    assert not watch.tracker.is_followed(old)
    watch.tracker.add("a", 0)
    assert not watch.tracker.is_followed(old)
    assert watch.tracker.is_followed(watch.job("a"))
    watch.documents(b="KILLED")
    assert not watch.tracker.is_followed(watch.job("b"))


# observations


def test_an_observation_becomes_an_event() -> None:
    watch = Watch({}, "a")
    watch.wait(7)
    (event,) = watch.documents(a="RUNNING")
    assert event.model_dump() == {
        "ce": CE,
        "sequence": 1,
        "seen_at": watch.at,
        "kind": "job",
        "id": f"{CE}/arex/rest/1.0/jobs/a",
        "source": "tracked",
        "dest": "running",
        "status_before": JobStatus.UNKNOWN,
        "status_after": JobStatus.RUNNING,
        "arc_state": "RUNNING",
        "seen_by": SeenBy.DOCUMENTS,
        "outcome": None,
    }
    assert watch.job().since == 7


def test_events_are_what_validation_would_make_of_them() -> None:
    watch = Watch(KILL, "a")
    events = [
        *watch.documents(a="HELD"),
        *watch.later(100, REFUSED),
        watch.verb("kill"),
        watch.verb("keep"),
        *watch.listing(a="KILLED"),
        watch.verb("purge"),
        watch.tracker.unreachable(SeenBy.LISTING, "why", START),
        watch.tracker.back(START, watch.at),
    ]
    assert len(events) == 8
    for event in events:
        assert EVENT_ADAPTER.validate_json(event.model_dump_json()) == event
    assert [event.sequence for event in events] == list(range(1, 9))


def test_the_sequence_goes_on_where_an_earlier_run_stopped() -> None:
    tracker = Tracker(CE, Policy(), sequence=41)
    tracker.add("a", 0)
    (event,) = tracker.observe([("a", "RUNNING")], SeenBy.DOCUMENTS, 0, START)
    assert (event.sequence, tracker.sequence) == (42, 42)


def test_jobs_that_are_not_tracked_are_nobodys_business() -> None:
    watch = Watch({}, "a")
    assert watch.documents(b="RUNNING") == []
    assert watch.listing(b="FINISHED") == []
    assert set(watch.tracker.jobs) == {"a"}
    assert not watch.tracker.ignored


def test_a_whole_life() -> None:
    watch = Watch({}, "a")
    seen = []
    for state in ("ACCEPTED", "PREPARING", "SUBMITTING", "QUEUING", "RUNNING", "EXECUTED"):
        seen += watch.documents(a=state)
    seen += watch.listing(a="FINISHING")
    seen += watch.listing(a="FINISHED")
    assert [event.dest for event in seen] == [
        "accepting",
        "preparing",
        "submitting",
        "queuing",
        "running",
        "executed",
        "finishing",
        "finished",
    ]
    assert all(one.dest == two.source for one, two in pairwise(seen))
    assert watch.tracker.active == 0
    assert watch.tracker.status(watch.job()) is JobStatus.DONE


def test_a_stale_observation_is_counted_not_obeyed() -> None:
    watch = Watch({}, "a")
    watch.listing(a="FINISHED")
    assert watch.documents(a="QUEUING") == []
    assert watch.documents(a="RUNNING") == []
    assert watch.documents(a="RUNNING") == []  # said already: not even counted
    assert watch.job().state == "finished"
    assert watch.tracker.ignored == {Verdict.STALE: 2}


@pytest.mark.parametrize(
    ("first", "then", "verdict"),
    [
        ("FINISHED", "RUNNING", Verdict.STALE),
        ("RUNNING", "RUNNING", Verdict.SAME),
        ("FINISHED", "KILLED", Verdict.FINAL),
        ("RUNNING", "HIBERNATING", Verdict.UNHEARD_OF),
    ],
)
def test_why_an_observation_is_ignored(first: str, then: str, verdict: Verdict) -> None:
    watch = Watch({}, "a")
    assert len(watch.listing(a=first)) == 1
    before = watch.job().state
    assert watch.documents(a=then) == []
    assert watch.job().state == before
    assert watch.tracker.ignored == {verdict: 1}


def test_the_ends_that_must_be_looked_into() -> None:
    watch = Watch({}, "a", "b", "c", "d")
    watch.listing(b="FAILED")
    said = {"a": "FAILED", "b": "FAILED", "c": "FINISHED", "d": "RUNNING", "e": "FAILED"}
    assert watch.tracker.ended_badly(said.items()) == ["a"]


def test_what_each_source_said_is_remembered_for_itself() -> None:
    watch = Watch({}, "a")
    watch.documents(a="RUNNING")
    watch.listing(a="FINISHING")
    job = watch.job()
    assert (job.documented, job.listed) == ("RUNNING", "FINISHING")


@pytest.mark.parametrize(
    ("documents", "listing", "arc_state"),
    [
        ([], [], None),
        (["RUNNING"], [], "RUNNING"),
        ([], ["FINISHING"], "FINISHING"),
        (["RUNNING"], ["FINISHING"], "FINISHING"),
        (["FINISHED"], ["FINISHING"], "FINISHED"),
        (["KILLED"], ["KILLING"], "KILLED"),
    ],
)
def test_the_arc_state_is_that_of_the_source_that_is_ahead(
    documents: list[str], listing: list[str], arc_state: str | None
) -> None:
    watch = Watch({}, "a")
    for state in listing:
        watch.listing(a=state)
    for state in documents:
        watch.documents(a=state)
    assert watch.job().arc_state == arc_state
    assert watch.verb("keep").arc_state == arc_state


def test_states_are_shared_by_all_jobs() -> None:
    watch = Watch({}, "a", "b")
    for local in ("a", "b"):
        watch.documents(**{local: "".join(("RUNN", "ING"))})
        watch.listing(**{local: "".join(("FINISH", "ING"))})
    one, two = watch.job("a"), watch.job("b")
    assert one.documented is two.documented
    assert one.listed is two.listed
    assert one.state is two.state


# what is unchanged does not enter the machine


@pytest.fixture
def no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the machine was entered")

    for name in ("fire", "verdict", "may_ask", "timers"):
        monkeypatch.setattr(Lifecycle, name, refuse)


@pytest.mark.parametrize("state", ["ACCEPTED", "RUNNING", "HELD", "FINISHING", "FINISHED", "???"])
@pytest.mark.parametrize("source", ["documents", "listing"])
def test_what_is_unchanged_costs_a_comparison(
    state: str, source: str, request: pytest.FixtureRequest
) -> None:
    watch = Watch({}, "a")
    look = getattr(watch, source)
    look(a=state)
    request.getfixturevalue("no_machine")
    assert look(a=state) == []
    assert look(b=state) == []
    with pytest.raises(AssertionError, match="the machine was entered"):
        look(a="QUEUING")


@pytest.mark.parametrize(
    ("first", "then"),
    [("RUNNING", "QUEUING"), ("FINISHED", "RUNNING"), ("FINISHED", "KILLED"), ("RUNNING", "???")],
)
def test_nor_does_an_ignored_one_enter_transitions_when_it_is_repeated(
    first: str, then: str, request: pytest.FixtureRequest
) -> None:
    watch = Watch({}, "a")
    watch.listing(a=first)
    watch.documents(a=then)
    request.getfixturevalue("no_machine")
    assert watch.documents(a=then) == []


# unknown ids


@pytest.mark.parametrize(("word", "state"), [("None", "lost"), ("WIPED", "expired")])
def test_a_job_is_lost_when_looks_and_time_suffice(word: str, state: str) -> None:
    watch = Watch({"lost": {"looks": 3, "after": 60}}, "a")
    watch.documents(a="RUNNING")
    for _ in range(5):  # looks enough, but too soon
        assert watch.documents(a=word) == []
        watch.wait(10)
    assert watch.tracker.is_doubtful(watch.job())
    watch.wait(10)
    (event,) = watch.documents(a=word)
    assert (event.source, event.dest, event.arc_state) == ("running", state, word)
    assert event.outcome is not None
    assert not event.outcome.ok
    assert "6 looks in 60 s" in (event.outcome.reason or "")
    assert not watch.tracker.is_doubtful(watch.job())
    assert watch.tracker.active == 0


def test_time_alone_does_not_suffice() -> None:
    watch = Watch({"lost": {"looks": 3, "after": 60}}, "a")
    assert watch.documents(a="None") == []
    watch.wait(3600)
    assert watch.documents(a="None") == []
    assert steps(watch.documents(a="None")) == [("tracked", "lost")]


def test_one_look_may_be_enough_for_a_policy() -> None:
    watch = Watch({"lost": {"looks": 1, "after": 0}}, "a")
    assert steps(watch.documents(a="None")) == [("tracked", "lost")]


@pytest.mark.parametrize("contrary", ["RUNNING", "QUEUING", "FINISHING"])
def test_a_contrary_look_begins_the_count_anew(contrary: str) -> None:
    watch = Watch({"lost": {"looks": 2, "after": 0}}, "a")
    watch.documents(a="RUNNING")
    watch.documents(a="None")
    watch.documents(a=contrary)
    assert not watch.tracker.is_doubtful(watch.job())
    assert watch.documents(a="None") == []
    assert steps(watch.documents(a="None"))[0][1] == "lost"


def test_the_live_listing_does_not_declare_jobs_expired() -> None:
    watch = Watch({"lost": {"looks": 1, "after": 0}}, "a")
    watch.documents(a="FINISHING")
    for _ in range(5):
        assert watch.listing(a="WIPED") == []
    assert not watch.tracker.is_doubtful(watch.job())


def test_a_job_in_doubt_that_ends_is_over_not_lost() -> None:
    watch = Watch({"lost": {"looks": 2, "after": 0}}, "a")
    watch.documents(a="None")
    assert steps(watch.listing(a="FINISHED")) == [("tracked", "finished")]
    assert not watch.tracker.is_doubtful(watch.job())
    assert watch.documents(a="None") == []


def test_doubts_go_with_the_job() -> None:
    watch = Watch({"lost": {"looks": 2, "after": 0}}, "a")
    watch.documents(a="None")
    watch.tracker.remove("a")
    watch.tracker.add("a", watch.now)
    assert not watch.tracker.is_doubtful(watch.job())
    assert watch.documents(a="None") == []


# time: holding


def test_by_default_time_does_nothing_to_a_held_job() -> None:
    watch = Watch({}, "a")
    watch.documents(a="HELD")
    assert watch.tracker.next_timer() is None
    assert watch.later(10**6) == []
    assert watch.tracker.status(watch.job()) is JobStatus.HELD


def test_held_for_too_long_is_killed_and_not_before() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    assert watch.tracker.next_timer() == 100
    assert watch.later(99.9) == []
    (event,) = watch.later(0.1)
    assert (event.source, event.dest, event.seen_by) == ("held", "killing", SeenBy.POLICY)
    assert (event.outcome, event.arc_state) == (TAKEN, "HELD")


def test_seen_held_again_its_time_goes_on() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.wait(60)
    watch.documents(a="HELD")
    assert steps(watch.later(40)) == [("held", "killing")]


def test_released_in_time_its_grace_begins_anew() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.wait(60)
    watch.documents(a="RUNNING")
    watch.documents(a="HELD")
    assert watch.later(99) == []
    assert steps(watch.later(1)) == [("held", "killing")]


def test_released_it_is_left_alone() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.documents(a="RUNNING")
    assert watch.later(10**6) == []


def test_other_for_too_long_counts_as_held() -> None:
    watch = Watch({"hold": {"action": "kill", "grace": 100, "other_after": 30}}, "a")
    watch.documents(a="OTHER")
    assert watch.later(29) == []
    (event,) = watch.later(1)
    assert (event.source, event.dest, event.arc_state) == ("other", "held", "OTHER")
    assert event.status_after is JobStatus.HELD
    assert watch.documents(a="OTHER") == []  # that was what made it held
    assert watch.later(99) == []
    assert steps(watch.later(1)) == [("held", "killing")]


def test_other_that_passes_is_nothing() -> None:
    watch = Watch({"hold": {"action": "kill", "grace": 100, "other_after": 30}}, "a")
    watch.documents(a="OTHER")
    watch.wait(29)
    watch.documents(a="RUNNING")
    watch.documents(a="OTHER")
    assert watch.later(29) == []
    assert steps(watch.later(1)) == [("other", "held")]


def test_a_refused_kill_is_tried_again_a_bounded_number_of_times() -> None:
    watch = Watch({"hold": {"action": "kill", "grace": 10}, "kill": {"attempts": 3}}, "a")
    watch.documents(a="HELD")
    outcomes = [event.outcome for _ in range(10) for event in watch.later(10, REFUSED)]
    assert outcomes == [REFUSED] * 3
    assert watch.job().state == "held"
    assert watch.tracker.next_timer() is None


def test_without_any_grace_a_refused_kill_is_not_asked_in_a_loop() -> None:
    watch = Watch({"hold": {"action": "kill", "grace": 0}}, "a")
    watch.documents(a="HELD")
    assert len(watch.act(REFUSED)) == 1
    assert watch.act(REFUSED) == []
    assert len(watch.later(1, REFUSED)) == 1


def test_the_consumer_is_asked() -> None:
    watch = Watch(ASK, "a")
    watch.documents(a="HELD")
    (event,) = watch.later(100)
    assert (event.source, event.dest, event.outcome) == ("held", "awaiting", None)
    assert event.status_after is JobStatus.HELD
    assert watch.documents(a="HELD") == []
    assert watch.later(10**6) == []


def test_kept_its_grace_begins_anew() -> None:
    watch = Watch(ASK, "a")
    watch.documents(a="HELD")
    watch.later(100)
    event = watch.verb("keep")
    assert (event.source, event.dest, event.seen_by) == ("awaiting", "held", SeenBy.KEEP)
    assert event.outcome == OpOutcome(ok=True)
    assert watch.later(99) == []
    assert steps(watch.later(1)) == [("held", "awaiting")]


def test_while_the_consumer_thinks_the_job_may_go_on() -> None:
    watch = Watch(ASK, "a")
    watch.documents(a="HELD")
    watch.later(100)
    assert steps(watch.documents(a="RUNNING")) == [("awaiting", "running")]
    event = watch.verb("keep")
    assert event.outcome is not None
    assert not event.outcome.ok
    assert event.source == event.dest == "running"


def test_the_consumer_may_kill() -> None:
    watch = Watch(ASK, "a")
    watch.documents(a="HELD")
    watch.later(100)
    event = watch.verb("kill")
    assert (event.source, event.dest, event.outcome) == ("awaiting", "killing", TAKEN)


def test_due_is_handed_out_once() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.wait(100)
    (due,) = watch.due()
    assert due.rule.effect == ("kill",)
    assert watch.due() == []
    assert watch.tracker.still(due)


def test_what_was_postponed_comes_again() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.wait(100)
    (due,) = watch.due()
    watch.tracker.postpone(due, 130)
    assert watch.tracker.next_timer() == 130
    assert watch.later(29) == []
    assert steps(watch.later(1)) == [("held", "killing")]


def test_postponed_and_released_meanwhile() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.wait(100)
    (due,) = watch.due()
    watch.tracker.postpone(due, 130)
    watch.documents(a="RUNNING")
    assert not watch.tracker.still(due)
    assert watch.later(1000) == []


def test_postponed_while_the_policy_changes_it_is_still_one() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.wait(100)
    (due,) = watch.due()
    watch.tracker.set_policy(Policy.from_dict(KILL), watch.now)
    watch.tracker.postpone(due, watch.now)
    assert [one.job for one in watch.due()] == [watch.job()]


def test_an_answer_that_comes_when_the_job_is_over_changes_nothing() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.wait(100)
    (due,) = watch.due()
    watch.listing(a="FINISHED")
    assert watch.tracker.fire(due, TAKEN, watch.now, watch.at) is None
    assert watch.job().state == "finished"


def test_an_answer_for_a_job_that_is_tracked_no_longer() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.wait(100)
    (due,) = watch.due()
    watch.tracker.remove("a")
    assert not watch.tracker.still(due)
    assert watch.tracker.fire(due, TAKEN, watch.now, watch.at) is None
    watch.tracker.add("a", watch.now)
    assert watch.tracker.fire(due, TAKEN, watch.now, watch.at) is None


def test_timers_of_jobs_tracked_no_longer_do_nothing() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.tracker.remove("a")
    assert watch.later(1000) == []
    assert watch.tracker.next_timer() is None


# time: killing


def test_a_kill_that_is_not_heeded_is_asked_again_and_again_but_not_for_ever() -> None:
    watch = Watch({"kill": {"repeat_after": 50, "attempts": 3}}, "a")
    watch.documents(a="RUNNING")
    watch.verb("kill")
    events = [event for _ in range(1000) for event in watch.later(1)]
    assert steps(events) == [("killing", "killing")] * 3
    assert [(event.seen_at - START).seconds for event in events] == [50, 100, 150]
    assert {event.seen_by for event in events} == {SeenBy.POLICY}
    assert {event.outcome for event in events} == {TAKEN}
    assert steps(watch.listing(a="KILLED")) == [("killing", "killed")]
    assert not watch.tracker.repeats


def test_a_refused_repetition_counts_too() -> None:
    watch = Watch({"kill": {"repeat_after": 50, "attempts": 1}}, "a")
    watch.verb("kill")
    assert [event.outcome for event in watch.later(50, REFUSED)] == [REFUSED]
    assert watch.later(1000) == []


def test_a_kill_is_not_repeated_if_the_policy_says_so() -> None:
    watch = Watch(NEVER_AGAIN, "a")
    watch.verb("kill")
    assert watch.tracker.next_timer() is None


def test_one_that_is_over_is_not_killed_again() -> None:
    watch = Watch({"kill": {"repeat_after": 50}}, "a")
    watch.verb("kill")
    watch.listing(a="FINISHED")
    assert watch.later(50) == []


# another policy at run time


def test_a_state_s_time_counts_under_another_policy_too() -> None:
    watch = Watch({}, "a")
    watch.documents(a="HELD")
    watch.wait(60)
    watch.tracker.set_policy(Policy.from_dict(KILL), watch.now)
    assert watch.tracker.next_timer() == 100
    assert steps(watch.later(40)) == [("held", "killing")]


def test_what_another_policy_finds_overdue_is_due_at_once() -> None:
    watch = Watch({}, "a")
    watch.documents(a="HELD")
    watch.wait(1000)
    watch.tracker.set_policy(Policy.from_dict(KILL), watch.now)
    assert watch.tracker.next_timer() == 1000
    assert steps(watch.act()) == [("held", "killing")]


def test_under_a_milder_policy_time_does_nothing_any_more() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.tracker.set_policy(Policy(), watch.now)
    assert watch.later(1000) == []


def test_a_transition_that_was_due_under_an_earlier_policy() -> None:
    watch = Watch(KILL, "a")
    watch.documents(a="HELD")
    watch.wait(100)
    (due,) = watch.due()
    watch.tracker.set_policy(Policy(), watch.now)
    assert watch.tracker.fire(due, TAKEN, watch.now, watch.at) is None
    assert watch.job().state == "held"


def test_how_held_is_reported_changes_for_new_events() -> None:
    watch = Watch({}, "a")
    assert watch.documents(a="HELD")[0].status_after is JobStatus.HELD
    watch.tracker.set_policy(Policy.load("dirac"), watch.now)
    assert watch.tracker.status(watch.job()) is JobStatus.RUNNING
    assert watch.verb("keep").status_after is JobStatus.RUNNING


def test_a_job_awaiting_a_decision_can_have_it_under_any_policy() -> None:
    watch = Watch(ASK, "a")
    watch.documents(a="HELD")
    watch.later(100)
    watch.tracker.set_policy(Policy(), watch.now)
    assert watch.verb("keep").dest == "held"


# verbs


@pytest.mark.parametrize("seen_by", [SeenBy.KILL, SeenBy.PURGE])
def test_a_refused_verb_moves_nothing_and_tells_why(seen_by: SeenBy) -> None:
    watch = Watch({}, "a")
    watch.documents(a="FINISHED" if seen_by is SeenBy.PURGE else "RUNNING")
    before = watch.job().state
    since = watch.job().since
    watch.wait(5)
    event = watch.verb("purge" if seen_by is SeenBy.PURGE else "kill", answer=REFUSED)
    assert event.source == event.dest == watch.job().state == before
    assert (event.outcome, event.seen_by) == (REFUSED, seen_by)
    assert watch.job().since == since


def test_kill() -> None:
    watch = Watch({}, "a")
    watch.documents(a="RUNNING")
    event = watch.verb("kill")
    assert (event.source, event.dest, event.outcome) == ("running", "killing", TAKEN)
    assert watch.documents(a="RUNNING") == []
    again = watch.verb("kill", answer=None)
    assert again.source == again.dest == "killing"
    assert again.outcome is not None
    assert again.outcome.ok
    assert steps(watch.documents(a="KILLED")) == [("killing", "killed")]


def test_a_kill_that_comes_too_late() -> None:
    watch = Watch({}, "a")
    watch.documents(a="FINISHED")
    assert watch.tracker.asks("kill", watch.job()) is None
    event = watch.verb("kill")
    assert event.outcome == OpOutcome(ok=False, reason="the job is already over")


def test_over_before_its_kill_was_answered() -> None:
    watch = Watch({}, "a")
    watch.documents(a="RUNNING")
    asked = watch.tracker.asks("kill", watch.job())
    watch.listing(a="FINISHED")
    event = watch.tracker.answer("kill", watch.job(), TAKEN, watch.now, watch.at, asked=asked)
    assert (event.source, event.dest) == ("finished", "finished")
    assert event.outcome == OpOutcome(ok=False, reason="the job is already over")


def test_what_the_ce_was_not_asked_because_it_seemed_settled() -> None:
    """Not over when the purge was decided upon, over when it is carried out."""
    watch = Watch({}, "a")
    watch.documents(a="RUNNING")
    assert watch.tracker.asks("purge", watch.job()) is None
    watch.listing(a="FINISHED")
    event = watch.tracker.answer("purge", watch.job(), None, watch.now, watch.at)
    assert event.source == event.dest == "finished"
    assert event.outcome is not None
    assert not event.outcome.ok
    assert "ask again" in (event.outcome.reason or "")


def test_an_answer_to_the_kill_before_a_purge_does_not_make_a_job_purged() -> None:
    watch = Watch(PURGE_KILLS, "a")
    watch.documents(a="RUNNING")
    asked = watch.tracker.asks("purge", watch.job())
    assert asked is not None
    assert asked.effect[0] == "kill"
    watch.listing(a="FINISHED")
    event = watch.tracker.answer("purge", watch.job(), TAKEN, watch.now, watch.at, asked=asked)
    assert event.source == event.dest == watch.job().state == "finished"
    assert event.outcome is not None
    assert not event.outcome.ok


def test_purge_of_a_job_that_is_over() -> None:
    watch = Watch({}, "a", "b")
    watch.documents(a="FINISHED")
    event = watch.verb("purge")
    assert (event.source, event.dest, event.outcome) == ("finished", "purged", TAKEN)
    assert event.status_after is JobStatus.UNKNOWN
    assert watch.tracker.active == 1  # b
    watch.tracker.remove("a")
    assert watch.tracker.active == 1


def test_purge_of_a_job_that_is_not_over_is_refused_by_default() -> None:
    watch = Watch({}, "a")
    assert watch.verb("purge").outcome == OpOutcome(
        ok=False, reason="the job is not over (tracked): kill it first, or wait"
    )
    watch.documents(a="RUNNING")
    event = watch.verb("purge")
    assert event.source == event.dest == "running"
    assert event.outcome == OpOutcome(
        ok=False, reason="the job is not over (RUNNING): kill it first, or wait"
    )
    watch.documents(a="FINISHED")
    assert watch.tracker.take_purgeable() == []


@pytest.mark.parametrize("end", ["KILLED", "FINISHED", "FAILED"])
def test_purge_may_kill_first_and_remove_at_whatever_end(end: str) -> None:
    watch = Watch(PURGE_KILLS, "a")
    watch.documents(a="RUNNING")
    event = watch.verb("purge")
    assert (event.source, event.dest, event.outcome) == ("running", "killing", TAKEN)
    assert watch.tracker.take_purgeable() == []
    watch.listing(a=end)
    assert watch.tracker.take_purgeable() == ["a"]
    assert watch.tracker.take_purgeable() == []
    assert watch.verb("purge").dest == "purged"
    assert watch.tracker.to_purge == {}


def test_a_kill_refused_before_a_purge_leaves_nothing_to_be_done() -> None:
    watch = Watch(PURGE_KILLS, "a")
    watch.documents(a="RUNNING")
    assert watch.verb("purge", answer=REFUSED).dest == "running"
    watch.documents(a="FINISHED")
    assert watch.tracker.take_purgeable() == []


def test_purge_of_one_that_is_being_killed() -> None:
    watch = Watch(PURGE_KILLS, "a")
    watch.verb("kill")
    event = watch.verb("purge")
    assert event.source == event.dest == "killing"
    assert event.outcome is not None
    assert event.outcome.ok
    watch.listing(a="KILLED")
    assert watch.tracker.take_purgeable() == ["a"]


@pytest.mark.parametrize("word", ["None", "WIPED"])
def test_what_is_gone_is_not_removed(word: str) -> None:
    watch = Watch({**PURGE_KILLS, "lost": {"looks": 1, "after": 0}}, "a")
    watch.verb("purge")
    watch.documents(a=word)
    assert watch.tracker.is_final(watch.job())
    assert watch.tracker.take_purgeable() == []
    assert watch.tracker.to_purge == {}


@pytest.mark.parametrize(("end", "purged"), [("KILLED", ["a"]), ("FINISHED", []), ("FAILED", [])])
def test_killed_by_policy_it_is_removed_only_if_the_kill_was_its_end(
    end: str, purged: list[str]
) -> None:
    watch = Watch(KILL_AND_PURGE, "a")
    watch.documents(a="HELD")
    assert steps(watch.later(100)) == [("held", "killing")]
    assert watch.tracker.to_purge == {"a": "killed"}
    watch.listing(a=end)
    assert watch.tracker.take_purgeable() == purged


def test_what_the_consumer_wants_purged_the_policy_does_not_spare() -> None:
    policy = {**KILL_AND_PURGE, **PURGE_KILLS}
    watch = Watch(policy, "a")
    watch.documents(a="HELD")
    watch.later(100)
    watch.verb("purge")
    watch.listing(a="FINISHED")
    assert watch.tracker.take_purgeable() == ["a"]


def test_the_policys_refused_kill_removes_nothing() -> None:
    watch = Watch(KILL_AND_PURGE, "a")
    watch.documents(a="HELD")
    watch.later(100, REFUSED)
    watch.documents(a="KILLED")
    assert watch.tracker.take_purgeable() == []


def test_a_job_that_is_tracked_anew_is_not_removed_for_its_earlier_life() -> None:
    watch = Watch(PURGE_KILLS, "a")
    watch.verb("purge")
    watch.listing(a="KILLED")
    watch.tracker.remove("a")
    watch.tracker.add("a", watch.now)
    assert watch.tracker.take_purgeable() == []


@pytest.mark.parametrize("verb", ["kill", "purge", "fetch"])
def test_of_a_job_that_is_gone_the_ce_is_not_asked(
    verb: Literal["kill", "purge", "fetch"],
) -> None:
    watch = Watch({"lost": {"looks": 1, "after": 0}}, "a")
    watch.documents(a="None")
    assert watch.tracker.asks(verb, watch.job()) is None
    assert watch.verb(verb).outcome == OpOutcome(ok=False, reason="the CE knows no such job")


def test_fetch() -> None:
    watch = Watch({}, "a")
    watch.documents(a="RUNNING")
    early = watch.verb("fetch")
    assert early.outcome is not None
    assert early.outcome.reason == "the job is not over (RUNNING): its outputs are not complete"
    watch.listing(a="FINISHED")
    event = watch.verb("fetch", answer=REFUSED)
    assert (event.source, event.dest, event.outcome) == ("finished", "finished", REFUSED)
    assert event.seen_by is SeenBy.FETCH
    assert watch.verb("fetch").outcome == TAKEN


# over a restart


def _row(watch: Watch, local: str) -> TrackedState:
    job = watch.job(local)
    return TrackedState(
        local,
        job.state,
        job.documented,
        job.listed,
        job.since,
        job.names,
        watch.tracker.to_purge.get(local),
    )


def test_a_restored_job_is_as_it_was() -> None:
    watch = Watch({}, "a", "b")
    watch.tracker.add("a", 0, ("out", "err"))
    watch.wait(5)
    watch.documents(a="RUNNING", b="RUNNING")
    watch.listing(b="FINISHED")
    again = Watch()
    for local in ("a", "b"):
        again.tracker.restore(_row(watch, local), watch.job(local).since, 5)
    for local in ("a", "b"):
        assert _row(again, local) == _row(watch, local)
    assert again.tracker.active == 1
    again.wait(5)
    assert again.documents(a="RUNNING") == []
    assert steps(again.documents(a="FINISHED")) == [("running", "finished")]
    assert again.listing(b="FINISHED") == []


def test_the_time_that_went_by_counts() -> None:
    watch = Watch(KILL)
    watch.now = 500
    watch.tracker.restore(TrackedState("a", "held", "HELD", None, 0, None, None), 450, 500)
    watch.tracker.restore(TrackedState("b", "held", "HELD", None, 0, None, None), -1000, 500)
    assert watch.tracker.next_timer() == 500
    assert [due.job.local for due in watch.due()] == ["b"]
    watch.wait(50)
    assert [due.job.local for due in watch.due()] == ["a"]


@pytest.mark.parametrize(
    ("state", "purge", "purgeable"),
    [
        ("killing", "any", []),
        ("finished", "any", ["a"]),
        ("killed", "killed", ["a"]),
        ("finished", "killed", []),
        ("finished", None, []),
    ],
)
def test_removals_to_come_outlive_a_restart(
    state: str, purge: Literal["any", "killed"] | None, purgeable: list[str]
) -> None:
    watch = Watch()
    watch.tracker.restore(TrackedState("a", state, None, None, 0, None, purge), 0, 0)
    assert watch.tracker.take_purgeable() == purgeable
    watch.listing(a="KILLED")
    assert watch.tracker.take_purgeable() == (["a"] if state == "killing" else [])


def test_what_is_tracked_already_is_not_restored() -> None:
    watch = Watch({}, "a")
    watch.documents(a="RUNNING")
    watch.tracker.restore(TrackedState("a", "finished", None, None, 0, None, "any"), 0, 0)
    assert watch.job().state == "running"
    assert watch.tracker.active == 1
    assert watch.tracker.to_purge == {}


def test_restored_strings_are_shared() -> None:
    watch = Watch()
    for local in ("a", "b"):
        state, documented, listed, out = (
            "".join(halves)
            for halves in (("run", "ning"), ("RUNN", "ING"), ("FINISH", "ING"), ("o", "ut"))
        )
        row = TrackedState(local, state, documented, listed, 0.0, (out, None), None)
        watch.tracker.restore(row, 0, 0)
    one, two = watch.job("a"), watch.job("b")
    for name in ("state", "documented", "listed", "names"):
        assert getattr(one, name) is getattr(two, name)


# a million of them


def test_a_record_has_no_dictionary() -> None:
    job = TrackedJob("a", 0, None)
    with pytest.raises(AttributeError):
        job.colour = 1  # type: ignore[attr-defined]
    assert sys.getsizeof(job) < 100


def test_memory_for_each_job() -> None:
    """All of it: record, id, dictionary, time, the poller's wheel."""
    jobs = 50_000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracker, wheel = Tracker(CE, Policy()), Wheel[TrackedJob](5.0)
        for number in range(jobs):
            local, now = f"{number:012x}", number / 1000
            row = TrackedState(local, "running", "RUNNING", None, now, ("out", "err"), None)
            tracker.restore(row, now, now)
            wheel.add(tracker.jobs[local], now + 60.0)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tracker.active == jobs
    assert (after - before) / jobs <= 400


def test_jobs_that_wait_for_nothing_have_no_timer() -> None:
    locals_ = [f"j{number}" for number in range(100)]
    watch = Watch(KILL, *locals_)
    watch.documents(**dict.fromkeys(locals_, "RUNNING"))
    assert watch.tracker.next_timer() is None


def test_a_denial_in_between_does_not_release_a_held_job() -> None:
    watch = Watch({"hold": {"other_after": 10.0, "grace": 60.0, "action": "ask"}}, "a")
    watch.documents(a="OTHER")
    watch.wait(10)
    assert steps(watch.act()) == [("other", "held")]
    assert watch.documents(a="None") == []
    assert watch.documents(a="OTHER") == []
    assert not watch.tracker.is_doubtful(watch.job())
    watch.wait(60)
    assert steps(watch.act()) == [("held", "awaiting")]


def test_what_the_listing_says_of_a_killed_job_is_not_told_of_it() -> None:
    watch = Watch({}, "a")
    (event,) = watch.documents(a="KILLED")
    assert event.arc_state == "KILLED"
    assert watch.listing(a="FAILED") == []
    assert watch.verb("purge").arc_state == "KILLED"


def test_a_handle_without_names_takes_none_away() -> None:
    watch = Watch({}, "a")
    watch.tracker.add("a", watch.now, ("out", None))
    watch.tracker.add("a", watch.now, (None, None))
    assert watch.job().names == ("out", None)

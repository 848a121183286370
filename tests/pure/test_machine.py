"""The machine that runs: total over what can be seen and asked, and monotonic."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend import HoldPolicy, JobStatus, OpOutcome, OutputPolicy, Policy, PurgePolicy
from arcbackend.lifecycle.definition import JOB, State, Verb
from arcbackend.lifecycle.machine import Lifecycle, Verdict
from arcbackend.states import STATUS

VERBS: tuple[Verb, ...] = get_args(Verb)
TAKEN = OpOutcome(ok=True)
REFUSED = OpOutcome(ok=False, reason="no")
FINAL = [state.name for state in JOB.states.values() if state.final]


class Job:
    """As little as the machine needs."""

    __slots__ = ("state",)

    def __init__(self, state: str) -> None:
        self.state = state


def _words(section: type[Any], field: str) -> tuple[str, ...]:
    return get_args(section.model_fields[field].annotation)


def _every_policy() -> Iterator[Policy]:
    """The shipped ones, and every combination of the words on which transitions depend."""
    yield from (Policy.load(name) for name in Policy.shipped())
    reports = cycle(_words(HoldPolicy, "report_as"))
    for action, active, needs, timed in product(
        _words(HoldPolicy, "action"),
        _words(PurgePolicy, "active"),
        _words(OutputPolicy, "needs"),
        (True, False),
    ):
        yield Policy.from_dict(
            {
                "name": f"{action} {active} {needs} {timed}",
                "hold": {
                    "action": action,
                    "report_as": next(reports),
                    "other_after": 60.0 if timed else None,
                },
                "kill": {"repeat_after": 60.0 if timed else None},
                "purge": {"active": active},
                "output": {"needs": needs},
            }
        )


POLICIES = list(_every_policy())
LIFECYCLES = [Lifecycle(JOB, policy) for policy in POLICIES]
DEFAULT = Lifecycle(JOB, Policy())
EVERY_STATE = pytest.mark.parametrize("state", JOB.states)
EVERY_ARC_STATE = pytest.mark.parametrize("arc_state", STATUS)
EVERY_VERB = pytest.mark.parametrize("verb", VERBS)


def _phase(state: str) -> int:
    return JOB.states[state].phase


# what is seen


@EVERY_STATE
@EVERY_ARC_STATE
def test_every_observation_of_every_state_means_something(state: str, arc_state: str) -> None:
    target, now = JOB.by_arc_state[arc_state], JOB.states[state]
    for lifecycle in LIFECYCLES:
        verdict = lifecycle.verdict(state, arc_state)
        if isinstance(verdict, Verdict):
            assert verdict is _expected(now, target)
        else:
            job = Job(state)
            moved = lifecycle.fire(verdict, job, confirmed=True)
            assert moved is not None
            assert (moved.source, job.state) == (state, target.name)
            assert _phase(job.state) >= _phase(state)
            assert not now.final


def _expected(now: State, target: State) -> Verdict:
    if target.phase < now.phase:
        return Verdict.STALE
    if target == now or (now.name, target.name) == ("awaiting", "held"):
        return Verdict.SAME
    assert now.final, f"{target.name} would be ignored of a job that is {now.name}"
    return Verdict.FINAL


@given(st.sampled_from(list(JOB.states)), st.text().filter(lambda text: text not in STATUS))
def test_a_state_that_no_server_is_known_to_say(state: str, arc_state: str) -> None:
    assert DEFAULT.verdict(state, arc_state) is Verdict.UNHEARD_OF


@pytest.mark.parametrize("state", FINAL)
@EVERY_ARC_STATE
def test_nothing_seen_leads_out_of_a_final_state(state: str, arc_state: str) -> None:
    for lifecycle in LIFECYCLES:
        assert isinstance(lifecycle.verdict(state, arc_state), Verdict)


@EVERY_ARC_STATE
def test_a_job_not_seen_yet_can_be_anywhere(arc_state: str) -> None:
    assert isinstance(DEFAULT.verdict("tracked", arc_state), str)


@pytest.mark.parametrize("arc_state", ["None", "WIPED"])
@EVERY_STATE
def test_what_is_denied_must_be_confirmed(state: str, arc_state: str) -> None:
    verdict = DEFAULT.verdict(state, arc_state)
    if isinstance(verdict, str):
        job = Job(state)
        assert DEFAULT.fire(verdict, job) is None
        assert job.state == state
        words = {"looks": "4", "seconds": "61"}
        moved = DEFAULT.fire(verdict, job, confirmed=True, words=words)
        assert moved is not None
        assert moved.outcome is not None
        assert moved.outcome.reason is not None
        assert "4 looks in 61 s" in moved.outcome.reason


def test_batch_system_states_come_and_go() -> None:
    job = Job("queuing")
    for seen in ("RUNNING", "HELD", "RUNNING", "QUEUING", "OTHER", "EXITINGLRMS", "QUEUING"):
        trigger = DEFAULT.verdict(job.state, seen)
        assert isinstance(trigger, str)
        assert DEFAULT.fire(trigger, job) is not None
        assert job.state == JOB.by_arc_state[seen].name


# what is asked


@EVERY_STATE
@EVERY_VERB
def test_every_verb_says_something_of_every_state(state: str, verb: Verb) -> None:
    for lifecycle in LIFECYCLES:
        rule = lifecycle.may_ask(verb, state)
        for answer in (TAKEN, REFUSED) if rule else (None, TAKEN, REFUSED):
            job = Job(state)
            moved = lifecycle.fire(verb, job, answer=answer, words={"state": "X"})
            assert moved is not None, (lifecycle.policy.name, answer)
            assert moved.source == state
            assert moved.outcome is not None
            assert moved.outcome.ok or moved.outcome.reason
            assert "{" not in (moved.outcome.reason or "")
            assert job.state == (moved.rule.dest or state)
            if rule:
                assert moved.outcome is answer
            else:
                settled = lifecycle.definition.settled(verb, JOB.states[state])
                assert settled is not None
                assert settled.ok == moved.outcome.ok


@EVERY_STATE
@EVERY_VERB
def test_what_the_ce_must_be_asked_is_not_settled_without_it(state: str, verb: Verb) -> None:
    for lifecycle in LIFECYCLES:
        rule = lifecycle.may_ask(verb, state)
        if rule is not None:
            assert rule.effect[0] in ("kill", "purge", "fetch")
            assert lifecycle.definition.settled(verb, JOB.states[state]) is None
            job = Job(state)
            assert lifecycle.fire(verb, job) is None
            assert job.state == state


@pytest.mark.parametrize("state", FINAL)
@EVERY_VERB
def test_only_a_purge_leads_out_of_a_final_state(state: str, verb: Verb) -> None:
    for lifecycle, answer in product(LIFECYCLES, (None, TAKEN, REFUSED)):
        job = Job(state)
        lifecycle.fire(verb, job, answer=answer)
        assert job.state == state or (verb, job.state, answer) == ("purge", "purged", TAKEN)


@EVERY_STATE
def test_a_purge_leaves_no_job_alive_that_it_calls_purged(state: str) -> None:
    for lifecycle in LIFECYCLES:
        rule = lifecycle.may_ask("purge", state)
        if rule is not None:
            assert (rule.dest == "purged") == (rule.effect[0] == "purge")
            assert rule.dest != "purged" or JOB.states[state].group == "over"


@pytest.mark.parametrize(
    ("needs", "possible"),
    [
        ("over", {"finished", "failed", "killed"}),
        ("batch", set(JOB.states) - {"expired", "lost", "purged"}
         - {"tracked", "accepting", "preparing", "submitting"}),
        ("nothing", set(JOB.states) - {"expired", "lost", "purged"}),
    ],
)  # fmt: skip
def test_when_outputs_can_be_had(needs: str, possible: set[str]) -> None:
    lifecycle = Lifecycle(JOB, Policy.from_dict({"output": {"needs": needs}}))
    assert {state for state in JOB.states if lifecycle.may_ask("fetch", state)} == possible


@pytest.mark.parametrize("active", ["refuse", "kill"])
def test_which_jobs_can_be_purged(active: str) -> None:
    lifecycle = Lifecycle(JOB, Policy.from_dict({"purge": {"active": active}}))
    for state in JOB.states.values():
        rule = lifecycle.may_ask("purge", state.name)
        if state.group == "over":
            assert rule is not None
            assert rule.effect == ("purge",)
        elif state.final or state.name == "killing" or active == "refuse":
            assert rule is None
        else:
            assert rule is not None
            assert rule.effect == ("kill", "purge-after")


# firing


@EVERY_STATE
def test_what_does_not_apply_changes_nothing(state: str) -> None:
    triggers = {rule.trigger for rule in JOB.rules} | {"explode", ""}
    for lifecycle in LIFECYCLES:
        for trigger in triggers:
            if not lifecycle.definition.rules_of(trigger, state):
                job = Job(state)
                answered = lifecycle.fire(trigger, job, confirmed=True, answer=TAKEN)
                assert answered is None
                assert job.state == state


@pytest.mark.parametrize(
    ("trigger", "state", "guards"),
    [
        ("saw_lost", "running", {"confirmed": False}),
        ("kill", "running", {}),
        ("kill", "running", {"confirmed": True}),
        ("purge", "finished", {}),
        ("fetch", "finished", {}),
        ("kill_unheeded", "killing", {}),
    ],
)
def test_a_guard_that_says_no(trigger: str, state: str, guards: dict[str, Any]) -> None:
    job = Job(state)
    assert DEFAULT.fire(trigger, job, **guards) is None
    assert job.state == state


def test_jobs_do_not_know_each_other() -> None:
    one, two = Job("running"), Job("running")
    DEFAULT.fire("saw_finished", one)
    assert (one.state, two.state) == ("finished", "running")


def test_what_moved_is_told() -> None:
    job = Job("running")
    moved = DEFAULT.fire("kill", job, answer=TAKEN)
    assert moved is not None
    assert (moved.source, moved.outcome, moved.rule.dest) == ("running", TAKEN, "killing")


# time


def test_timers_are_the_policys() -> None:
    policy = Policy.from_dict(
        {"hold": {"action": "ask", "grace": 7, "other_after": 5}, "kill": {"repeat_after": 3}}
    )
    lifecycle = Lifecycle(JOB, policy)
    found = {
        (state, rule.trigger): seconds
        for state in JOB.states
        for rule, seconds in lifecycle.timers(state)
    }
    assert found == {
        ("other", "other_too_long"): 5.0,
        ("held", "held_too_long"): 7.0,
        ("killing", "kill_unheeded"): 3.0,
    }


@pytest.mark.parametrize("state", FINAL)
def test_no_time_passes_for_what_is_final(state: str) -> None:
    assert not [rule for lifecycle in LIFECYCLES for rule in lifecycle.timers(state)]


# what states mean to a WMS


@pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=lambda one: one.policy.name)
def test_the_policy_says_how_held_is_reported_and_nothing_else(lifecycle: Lifecycle) -> None:
    report_as = lifecycle.policy.hold.report_as
    for name, state in JOB.states.items():
        expected = report_as if name in ("held", "awaiting") else state.status
        assert lifecycle.statuses[name] is expected


def test_only_jobs_that_are_over_have_a_final_status() -> None:
    assert {name for name in JOB.states if DEFAULT.statuses[name].is_final} == {
        name for name, state in JOB.states.items() if state.group == "over"
    }
    assert DEFAULT.statuses["purged"] is JobStatus.UNKNOWN
    assert DEFAULT.final == set(FINAL)

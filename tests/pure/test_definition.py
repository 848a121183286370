"""The machine's definition: the shipped one; malformed ones are refused with line and field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import arcbackend
from arcbackend import ConfigurationError, OpOutcome, Policy
from arcbackend.lifecycle.definition import JOB, Definition, Rule, worded

SHIPPED = Path(arcbackend.__file__).parents[1] / "machines" / "job.toml"
VERBS = ("kill", "keep", "purge", "fetch")

SMALL = """\
version = 1
name = "small"
initial = "new"

[[group]]
name = "alive"
title = "alive"

[[state]]
name = "new"
phase = 0
status = "unknown"
meaning = "Not seen yet."

[[state]]
name = "running"
group = "alive"
phase = 1
arc = ["RUNNING"]
status = "running"
meaning = "Runs."

[[state]]
name = "held"
group = "alive"
phase = 1
arc = ["HELD"]
status = "held"
meaning = "Does not."

[[state]]
name = "done"
phase = 2
arc = ["FINISHED", "FAILED"]
live = true
status = "done"
final = true
meaning = "Over."

[[state]]
name = "purged"
phase = 3
status = "unknown"
final = true
meaning = "Removed."

[[transition]]
trigger = "saw_running"
source = ["new", "alive"]
dest = "running"
meaning = "Started, or released."

[[transition]]
trigger = "saw_held"
source = ["new", "alive"]
dest = "held"
meaning = "Held."

[[transition]]
trigger = "saw_done"
source = ["new", "alive"]
dest = "done"
meaning = "It ended."

[[transition]]
trigger = "held_too_long"
source = ["held"]
dest = "running"
after = "hold.grace"
when = { "hold.action" = ["kill", "ask"] }
meaning = "Let be."

[[transition]]
trigger = "purge"
source = ["done"]
dest = "purged"
guard = "taken"
effect = ["purge"]
outcome = "answer"
meaning = "Taken."

[[transition]]
trigger = "purge"
source = ["done"]
guard = "refused"
outcome = "answer"
meaning = "Refused."

[[transition]]
trigger = "purge"
source = ["new", "alive"]
when = { "purge.active" = ["refuse"] }
outcome = { ok = false, reason = "not over ({state})" }
meaning = "Too early."

[[transition]]
trigger = "purge"
source = ["new", "alive"]
when = { "purge.active" = ["kill"] }
outcome = { ok = true, reason = "patience" }
meaning = "Later."

[[transition]]
trigger = "purge"
source = ["purged"]
outcome = { ok = false, reason = "no such job" }
meaning = "Too late."
"""


def transition(**fields: str) -> str:
    """One more transition, the line of the fault being marked by whoever asks for it."""
    lines = [f"{key} = {value}" for key, value in {**fields, "meaning": '"x"'}.items()]
    return "\n".join(("[[transition]]", *lines, ""))


def refused(text: str) -> tuple[int, str, str]:
    """Line, field and words of the complaint."""
    with pytest.raises(ConfigurationError) as caught:
        Definition.from_toml(text, "some/file.toml")
    found = re.fullmatch(
        r"some/file\.toml, line (\d+): ([\w.-]+): (.+)", caught.value.message, re.DOTALL
    )
    assert found, caught.value.message
    return int(found[1]), found[2], found[3]


def marked(text: str) -> int:
    """The line that says where the fault is."""
    (line,) = [
        number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# here")
    ]
    return line


def small() -> Definition:
    return Definition.from_toml(SMALL, "small.toml")


# the shipped machine


def test_the_shipped_machine_loads() -> None:
    assert Definition.from_toml(SHIPPED.read_text(), "job.toml") == JOB
    assert JOB.name == "job"
    assert JOB.initial == "tracked"


def test_it_speaks_of_every_verb() -> None:
    assert {rule.trigger for rule in JOB.rules} >= set(VERBS)


def test_every_line_of_meaning_is_a_sentence() -> None:
    states, rules = JOB.states.values(), JOB.rules
    for meaning in (*(state.meaning for state in states), *(rule.meaning for rule in rules)):
        assert meaning[0].isupper(), meaning
        assert meaning.endswith((".", ".)")), meaning


def test_a_kill_by_policy_has_the_same_grace_whatever_else_it_does() -> None:
    assert {rule.after for rule in JOB.rules if rule.trigger == "held_too_long"} == {"hold.grace"}


# what is refused, and where the fault is said to be

ONE_EDIT = [
    # what is written, in place of what, field, words
    ("version = 1", "version = 2  # here", "version", "1"),
    ('initial = "new"', 'initial = "old"  # here', "initial", "no state old"),
    ('initial = "new"', 'initial = "done"  # here', "initial", "done is final"),
    ('initial = "new"', 'initial = "new"\ncolour = 1  # here', "colour", "not permitted"),
    ('title = "alive"', 'title = "alive"\ncolour = 1  # here', "group.0.colour", "not permitted"),
    ('name = "held"', 'name = "held"\ncolour = 1  # here', "state.2.colour", "not permitted"),
    ('name = "held"', 'name = "held"\n"a.b" = 1  # here', "state.2.a.b", "not permitted"),
    ('dest = "done"', 'dest = "done"\ncolour = 1  # here', "transition.2.colour", "not permitted"),
    ('name = "held"', 'name = "running"  # here', "state.2.name", "there already"),
    ('name = "held"', 'name = "alive"  # here', "state.2.name", "there already"),
    ('name = "held"', 'name = "Held"  # here', "state.2.name", "pattern"),
    ("phase = 3", "phase = -1  # here", "state.4.phase", "greater than or equal"),
    ("phase = 3", 'phase = "late"  # here', "state.4.phase", "integer"),
    (
        '[[state]]\nname = "purged"\nphase = 3',
        '[[state]]  # here\nname = "purged"',
        "state.4.phase",
        "required",
    ),
    ('status = "held"', 'status = "hold"  # here', "state.2.status", "'held'"),
    ('meaning = "Over."', 'meaning = ""  # here', "state.3.meaning", "character"),
    ('meaning = "Over."', 'meaning = "Over.\\nOut."  # here', "state.3.meaning", "pattern"),
    ('meaning = "It ended."', 'meaning = ""  # here', "transition.2.meaning", "character"),
    (
        'group = "alive"\nphase = 1\narc = ["HELD"]',
        'group = "dead"  # here\nphase = 1\narc = ["HELD"]',
        "state.2.group",
        "no group dead",
    ),
    # ARC states
    (
        'arc = ["HELD"]',
        'arc = ["HELD", "RUNNING"]  # here',
        "state.2.arc",
        "RUNNING means running already",
    ),
    ("phase = 3", 'phase = 3\narc = ["WIPED"]  # here', "state.4.arc", "no transition saw_purged"),
    # observations
    (
        'trigger = "saw_held"',
        'trigger = "saw_hold"  # here',
        "transition.1.trigger",
        "no state hold",
    ),
    ('trigger = "saw_held"', 'trigger = "saw_new"  # here', "transition.1.trigger", "no state new"),
    ('dest = "held"', 'dest = "running"  # here', "transition.1.dest", "saw_held leads to held"),
    ('dest = "held"', 'dest = "hold"  # here', "transition.1.dest", "no state hold"),
    (
        'dest = "held"',
        'dest = "held"\nguard = "taken"  # here',
        "transition.1.guard",
        "not an observation",
    ),
    ('dest = "held"', 'dest = "held"\nguard = "sure"  # here', "transition.1.guard", "'confirmed'"),
    (
        'dest = "held"',
        'dest = "held"\noutcome = { ok = true }  # here',
        "transition.1.outcome",
        "only if it is guarded",
    ),
    (
        'dest = "held"',
        'dest = "held"\nguard = "confirmed"  # here\noutcome = "answer"',
        "transition.1.guard",
        "taken or refused",
    ),
    (
        'trigger = "saw_held"',
        'trigger = "saw_held"  # here\nafter = "hold.grace"',
        "transition.1.trigger",
        "no effect or time",
    ),
    (
        'trigger = "saw_held"',
        'trigger = "saw_held"  # here\neffect = ["kill"]',
        "transition.1.trigger",
        "no effect or time",
    ),
    ("phase = 0", "phase = 2", "transition.0.source", "new is of a later phase than running"),
    # verbs, guards, effects, outcomes
    ('guard = "refused"', 'guard = "refusd"  # here', "transition.5.guard", "'refused'"),
    ('guard = "refused"', 'guard = "confirmed"  # here', "transition.5.guard", "taken or refused"),
    ('effect = ["purge"]', 'effect = ["purgee"]  # here', "transition.4.effect.0", "'purge'"),
    (
        'effect = ["purge"]',
        'effect = ["purge-after"]  # here',
        "transition.4.effect",
        "kill, purge or fetch",
    ),
    (
        'guard = "refused"',
        'guard = "refused"\neffect = ["kill"]  # here',
        "transition.5.effect",
        "if the guard is taken",
    ),
    (
        'outcome = { ok = true, reason = "patience" }',
        'outcome = { ok = true, why = "patience" }  # here',
        "transition.7.outcome.OpOutcome.why",
        "not permitted",
    ),
    (
        'outcome = { ok = true, reason = "patience" }',
        'outcome = "answer"',
        "transition.7.guard",
        "taken or refused",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "field", "words"), ONE_EDIT, ids=[edit[1] for edit in ONE_EDIT]
)
def test_refused_with_line_and_field(old: str, new: str, field: str, words: str) -> None:
    assert SMALL.count(old) == 1
    text = SMALL.replace(old, new)
    line, where, what = refused(text)
    assert where == field
    assert words in what
    if "# here" in text:
        assert line == marked(text)


ONE_MORE = [
    (
        {"trigger": '"explode"  # here', "source": '["new"]', "outcome": "{ ok = true }"},
        "trigger",
        "no verb explode; verbs: kill, keep, purge, fetch",
    ),
    (
        {"trigger": '"purge"', "source": '["nowhere"]  # here', "outcome": "{ ok = true }"},
        "source",
        "no state or group nowhere",
    ),
    (
        {"trigger": '"purge"', "source": "[]  # here", "outcome": "{ ok = true }"},
        "source",
        "at least 1",
    ),
    (
        {"trigger": '"purge"  # here', "source": '["purged"]', "outcome": "{ ok = true }"},
        "trigger",
        "purge out of purged is there already",
    ),
    (
        {"trigger": '"purge"  # here', "source": '["held"]', "outcome": "{ ok = true }"},
        "trigger",
        "purge out of held is there already",
    ),
    (
        {"trigger": '"purge"  # here', "source": '["done"]', "outcome": "{ ok = true }"},
        "trigger",
        "purge out of done is there already",
    ),
    (
        {"trigger": '"saw_running"  # here', "source": '["held"]', "dest": '"running"'},
        "trigger",
        "saw_running out of held is there already",
    ),
    (
        {"trigger": '"saw_running"', "source": '["done"]  # here', "dest": '"running"'},
        "source",
        "done is of a later phase than running",
    ),
    (
        {
            "trigger": '"wake"',
            "source": '["done"]  # here',
            "dest": '"running"',
            "after": '"hold.grace"',
        },
        "source",
        "done is final: only a purge leads out",
    ),
    (
        {"trigger": '"wake"', "source": '["held"]', "after": '"hold.patience"  # here'},
        "after",
        "a policy has no field hold.patience",
    ),
    (
        {"trigger": '"wake"', "source": '["held"]', "after": '"grace"  # here'},
        "after",
        "a policy has no field grace",
    ),
    (
        {"trigger": '"wake"', "source": '["held"]', "after": '"name"  # here'},
        "after",
        "a policy has no field name",
    ),
    (
        {"trigger": '"wake"', "source": '["held"]', "after": '"hold.action"  # here'},
        "after",
        "hold.action is no time",
    ),
    (
        {"trigger": '"wake"', "source": '["held"]', "after": '"lost.looks"  # here'},
        "after",
        "lost.looks is no time",
    ),
    (
        {
            "trigger": '"purge"',
            "source": '["held"]',
            "outcome": "{ ok = true }",
            "after": '"hold.grace"  # here',
        },
        "after",
        "a verb does not wait",
    ),
    (
        {
            "trigger": '"wake"',
            "source": '["held"]',
            "after": '"hold.grace"',
            "guard": '"confirmed"  # here',
        },
        "guard",
        "only an observation is confirmed",
    ),
    (
        {
            "trigger": '"wake"',
            "source": '["held"]',
            "after": '"hold.grace"',
            "when": '{ "hold.action" = ["slay"] }  # here',
        },
        "when",
        "hold.action is never slay; it is one of report, ask, kill, kill-and-purge",
    ),
    (
        {
            "trigger": '"wake"',
            "source": '["held"]',
            "after": '"hold.grace"',
            "when": '{ "hold.mood" = ["bad"] }  # here',
        },
        "when",
        "a policy has no field hold.mood",
    ),
    (
        {
            "trigger": '"wake"',
            "source": '["held"]',
            "after": '"hold.grace"',
            "when": '{ "hold.grace" = ["60"] }  # here',
        },
        "when",
        "hold.grace is no choice",
    ),
    (
        {
            "trigger": '"wake"',
            "source": '["held"]',
            "after": '"hold.grace"',
            "when": '{ "hold.other_after" = ["60"] }  # here',
        },
        "when",
        "hold.other_after is no choice",
    ),
    # a verb must speak of every state, under every policy, whatever the CE answers
    ({"trigger": '"purge"', "source": '["held"]'}, "outcome", "a verb says what came of it"),
]


@pytest.mark.parametrize(("fields", "field", "words"), ONE_MORE)
def test_a_transition_more_that_is_refused(fields: dict[str, str], field: str, words: str) -> None:
    text = f"{SMALL}\n{transition(**fields)}"
    line, where, what = refused(text)
    assert where.split(".")[:3] == ["transition", "9", field]
    assert words in what
    header = len(SMALL.splitlines()) + 2
    assert line == (marked(text) if "# here" in text else header)


NOTHING_SAID = [
    (
        '["purged"]\noutcome',
        '["held"]\nwhen = { "purge.active" = [] }\noutcome',
        "purged",
        "purge says nothing of purged",
    ),
    (
        'when = { "purge.active" = ["kill"] }',
        'when = { "purge.active" = [] }',
        "new",
        "purge says nothing of new where purge.active is kill",
    ),
    (
        '"purge.active" = ["kill"] }',
        '"purge.active" = ["kill"], "output.needs" = ["batch"] }',
        "new",
        "purge says nothing of new where output.needs is over and purge.active is kill",
    ),
    (
        'guard = "refused"\noutcome = "answer"',
        'guard = "refused"\nwhen = { "purge.active" = ["kill"] }\noutcome = "answer"',
        "done",
        "purge says nothing of done where purge.active is refuse, unless it is taken",
    ),
]


@pytest.mark.parametrize(("old", "new", "state", "words"), NOTHING_SAID)
def test_a_verb_that_says_nothing_of_a_state(old: str, new: str, state: str, words: str) -> None:
    assert SMALL.count(old) == 1
    text = SMALL.replace(old, new).replace(f'name = "{state}"', f'name = "{state}"  # here')
    line, where, what = refused(text)
    assert where == f"state.{list(small().states).index(state)}.name"
    assert (line, what) == (marked(text), words)


def test_a_state_that_nothing_leads_to() -> None:
    text = f"""{SMALL}
[[state]]
name = "lonely"  # here
phase = 1
status = "unknown"
meaning = "x"

{transition(trigger='"purge"', source='["lonely"]', outcome="{ ok = true }")}"""
    assert refused(text) == (marked(text), "state.5.name", "nothing leads to lonely")


def test_a_final_state_may_be_purged() -> None:
    assert {"done"} == {
        name
        for rule in small().rules
        if rule.dest == "purged"
        for name in small().sources(rule)
        if small().states[name].final
    }


def test_guards_tell_transitions_apart_only_if_both_have_one() -> None:
    text = SMALL.replace(
        'guard = "taken"\neffect = ["purge"]\noutcome = "answer"', "outcome = { ok = true }"
    )
    text = text.replace('guard = "refused"', 'guard = "refused"  # other').replace(
        'trigger = "purge"\nsource = ["done"]\nguard',
        'trigger = "purge"  # here\nsource = ["done"]\nguard',
    )
    line, where, what = refused(text)
    assert (line, where) == (marked(text), "transition.5.trigger")
    assert "purge out of done" in what


@pytest.mark.parametrize(
    ("text", "line"),
    [("version = 1\nname\n", 2), (SMALL + "\n[[state]\n", SMALL.count("\n") + 2)],
)
def test_what_is_no_toml(text: str, line: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"^some\.toml: .*\(at line {line}, column \d+\)"):
        Definition.from_toml(text, "some.toml")


def test_nests_too_deep() -> None:
    with pytest.raises(ConfigurationError, match=r"^some\.toml: "):
        Definition.from_toml(f"version = {'[' * 100_000}", "some.toml")


@pytest.mark.parametrize("key", ["state", "transition"])
def test_a_machine_without_any(key: str) -> None:
    text = re.sub(rf"\[\[{key}\]\]\n(.+\n)+", "", SMALL)
    line, where, _ = refused(text)
    assert (line, where) == (1, key)


def test_the_fault_in_the_shipped_file_is_found_too() -> None:
    text = SHIPPED.read_text()
    old = 'dest = "submitting"'
    assert text.count(old) == 1
    text = text.replace(old, 'dest = "submiting"  # here')
    line, where, what = refused(text)
    assert (line, what) == (marked(text), "no state submiting")
    assert where.endswith(".dest")


# what it answers


def test_members() -> None:
    assert small().members("alive") == ("running", "held")
    assert small().members("done") == ("done",)
    assert small().members("nobody") == ()


def test_an_observation_does_not_lead_from_a_state_to_itself() -> None:
    (rule,) = [rule for rule in small().rules if rule.trigger == "saw_held"]
    assert list(small().sources(rule)) == ["new", "running"]


def test_by_arc_state() -> None:
    assert {arc: state.name for arc, state in small().by_arc_state.items()} == {
        "RUNNING": "running",
        "HELD": "held",
        "FINISHED": "done",
        "FAILED": "done",
    }


def _triggers(definition: Definition) -> list[str]:
    return [rule.trigger for rule in definition.rules]


def test_under_a_policy_only_its_transitions_exist() -> None:
    report = small().under(Policy())
    assert _triggers(report) == [*_triggers(small())[:3], "purge", "purge", "purge", "purge"]
    asking = small().under(Policy.from_dict({"hold": {"action": "ask"}}))
    assert "held_too_long" in _triggers(asking)
    assert asking.states == small().states
    # what one policy left out is not there under another
    assert _triggers(report.under(Policy.from_dict({"hold": {"action": "ask"}}))) == _triggers(
        report
    )


@pytest.mark.parametrize(
    ("hold", "timers"),
    [
        ({}, {}),
        ({"other_after": 1.0}, {"other": ["other_too_long"]}),
        ({"action": "ask"}, {"held": ["held_too_long"]}),
        ({"action": "kill"}, {"held": ["held_too_long"]}),
        (
            {"action": "kill-and-purge", "other_after": 1.0},
            {"held": ["held_too_long"], "other": ["other_too_long"]},
        ),
    ],
)
def test_timers(hold: dict[str, object], timers: dict[str, list[str]]) -> None:
    definition = JOB.under(Policy.from_dict({"hold": hold, "kill": {"repeat_after": None}}))
    found = {
        state: [rule.trigger for rule in rules]
        for state in definition.states
        if (rules := definition.timers_of(state))
    }
    assert found == timers


def test_killing_is_repeated_unless_the_policy_says_never() -> None:
    (rule,) = JOB.under(Policy()).timers_of("killing")
    assert (rule.trigger, rule.after) == ("kill_unheeded", "kill.repeat_after")


def test_of_two_transitions_that_one_timer_fires_the_taken_one_is_told() -> None:
    definition = JOB.under(Policy.from_dict({"hold": {"action": "kill-and-purge"}}))
    (rule,) = definition.timers_of("held")
    assert rule.effect == ("kill", "purge-killed")


def test_settled() -> None:
    refuse = small().under(Policy())
    assert refuse.settled("purge", refuse.states["held"]) == OpOutcome(
        ok=False, reason="not over ({state})"
    )
    kill = small().under(Policy.from_dict({"purge": {"active": "kill"}}))
    assert kill.settled("purge", kill.states["held"]) == OpOutcome(ok=True, reason="patience")
    assert kill.settled("purge", kill.states["done"]) is None
    assert kill.settled("kill", kill.states["done"]) is None


def test_what_kill_says_without_asking() -> None:
    """Of a job that is over or gone the CE is not asked: it would say 202 (arc-rest.md)."""
    for one in JOB.states.values():
        outcome = JOB.settled("kill", one)
        if one.group in ("over", "gone"):
            assert outcome is not None
            assert not outcome.ok
        elif one.name == "killing":
            assert outcome is not None
            assert outcome.ok
        else:
            assert outcome is None


def test_words_are_filled_in() -> None:
    outcome = OpOutcome(ok=False, reason="{a} and {b}, {a}")
    assert worded(outcome, {"a": "x", "c": "y"}) == OpOutcome(ok=False, reason="x and {b}, x")
    assert worded(outcome, {}) == outcome


@pytest.mark.parametrize("reason", [None, "plain"])
def test_where_nothing_is_to_be_filled_in_the_outcome_is_the_same(reason: str | None) -> None:
    outcome = OpOutcome(ok=True, reason=reason)
    assert worded(outcome, {"a": "x"}) is outcome


def test_kinds_of_transitions() -> None:
    kinds = {(rule.observed, rule.timed) for rule in small().rules}
    assert kinds == {(True, False), (False, True), (False, False)}
    assert all(isinstance(rule, Rule) for rule in small().rules)

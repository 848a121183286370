"""The diagrams show what the machine does: no less, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from arcbackend import Policy
from arcbackend.lifecycle.definition import JOB, Definition
from arcbackend.lifecycle.diagram import dot, mermaid
from arcbackend.lifecycle.picture import Box, Cause, Picture, duration, picture

ASK = {
    "name": "ask",
    "hold": {"action": "ask", "other_after": 90.0, "report_as": "waiting"},
    "purge": {"active": "kill"},
    "output": {"needs": "nothing"},
}
POLICIES: list[Policy | None] = [
    None,
    *map(Policy.load, Policy.shipped()),
    Policy.from_dict(ASK),
    Policy.from_dict({"hold": {"action": "kill-and-purge"}, "kill": {}, "lost": {"looks": 1}}),
]
EVERY = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.name if p else "plain")
Pairs = set[tuple[str, str]]


def machine(policy: Policy | None) -> Definition:
    return JOB.under(policy) if policy else JOB


def boxes(box: Box) -> Iterator[Box]:
    yield box
    for part in box.parts:
        if isinstance(part, Box):
            yield from boxes(part)


def members(drawn: Picture) -> dict[str, set[str]]:
    """Box or state → the states in it."""
    found = {box.name: {node.name for node in box.nodes()} for box in boxes(drawn.root)}
    return found | {node.name: {node.name} for node in drawn.root.nodes()}


def reachable(definition: Definition) -> set[str]:
    found = {definition.initial}
    while (
        more := {
            rule.dest
            for rule in definition.rules
            if rule.dest and found.intersection(definition.sources(rule))
        }
        - found
    ):
        found |= more
    return found


def observed(definition: Definition) -> Pairs:
    alive = reachable(definition)
    return {
        (source, rule.dest)
        for rule in definition.rules
        if rule.observed and rule.dest
        for source in definition.sources(rule)
        if source in alive
    }


def drawn_observations(drawn: Picture) -> Pairs:
    inside = members(drawn)
    visible = {node.name for node in drawn.root.nodes() if node.arc}
    pairs = {
        (source, dest)
        for arrow in drawn.arrows
        if arrow.cause is Cause.SEEN
        for source in inside[arrow.source]
        for dest in inside[arrow.dest] & visible
    }
    for box in boxes(drawn.root):
        if box.note.startswith("seen each from each"):
            names = inside[box.name]
            pairs |= {(s, d) for s in names for d in names & visible if s != d}
            for dest, source in re.findall(r"(\w+) from (\w+)", box.note[len("seen each from") :]):
                pairs.discard((source, dest))
    return pairs


@EVERY
def test_exactly_the_states_that_can_be_reached_are_drawn_once(policy: Policy | None) -> None:
    names = [node.name for node in picture(JOB, policy).root.nodes()]
    assert sorted(names) == sorted(reachable(machine(policy)))


@EVERY
def test_no_observation_is_drawn_that_does_not_exist(policy: Policy | None) -> None:
    assert drawn_observations(picture(JOB, policy)) <= observed(machine(policy))


@EVERY
def test_every_observation_is_drawn_or_leads_along_what_is_drawn(policy: Policy | None) -> None:
    pairs = drawn_observations(picture(JOB, policy))
    while more := {(a, d) for a, b in pairs for c, d in pairs if b == c and a != d} - pairs:
        pairs |= more
    assert observed(machine(policy)) <= pairs


@EVERY
def test_time_and_verbs_are_drawn_one_by_one(policy: Policy | None) -> None:
    drawn = picture(JOB, policy)
    inside = members(drawn)
    for cause in (Cause.TIME, Cause.VERB):
        wanted = {
            (source, rule.dest or source)
            for rule in machine(policy).rules
            for source in machine(policy).sources(rule)
            if source in reachable(machine(policy))
            and rule.guard != "refused"
            and not rule.observed
            and rule.timed is (cause is Cause.TIME)
            and (rule.dest or rule.timed)
        }
        shown = {
            (source, source if arrow.source == arrow.dest else arrow.dest)
            for arrow in drawn.arrows
            if arrow.cause is cause
            for source in inside[arrow.source]
        }
        assert shown == wanted


@EVERY
def test_what_moves_nothing_is_remarked(policy: Policy | None) -> None:
    remarks = picture(JOB, policy).remarks
    still = [
        rule
        for rule in machine(policy).rules
        if not (rule.observed or rule.timed or rule.dest or rule.guard == "refused")
    ]
    assert len(remarks) == len(still) + 1
    assert "{" not in "".join(remark.says for remark in remarks)


@EVERY
def test_few_enough_arrows_to_be_read(policy: Policy | None) -> None:
    assert len(picture(JOB, policy).arrows) <= 16


def test_a_policy_adds_its_transitions_and_its_numbers() -> None:
    report, kill, ask = dot(JOB, Policy.load("report")), dot(JOB, Policy.load("patient-kill")), ""
    ask = dot(JOB, Policy.from_dict(ASK))
    assert "other -> held" not in report
    assert "held -> killing" not in report
    assert re.search(r"other -> held .*after 30 min", kill)
    assert re.search(r"held -> killing .*after 1 h \[taken\] / kill ⇒ answer", kill)
    assert re.search(r"held -> awaiting .*after 1 h", ask)
    assert re.search(r"awaiting -> held .*keep ⇒ ok", ask)
    assert "awaiting" not in re.sub(r"all but awaiting", "", kill)
    assert "hold.max_kills" in kill


def test_without_a_policy_the_conditions_are_told() -> None:
    text = mermaid(JOB)
    assert "after hold.grace [taken] / kill ⇒ answer (if hold.action = kill)" in text
    assert "after hold.other_after" in text


def test_held_has_the_colour_of_what_it_is_reported_as() -> None:
    nodes = {node.name: node.status for node in picture(JOB, Policy.load("dirac")).root.nodes()}
    assert nodes["held"] == "running"
    plain = {node.name: node.status for node in picture(JOB).root.nodes()}
    assert plain["held"] == "held"


LINE = re.compile(
    r"""\ *(?:
        %%\ .*
      | classDef\ \w+\ [\w:#,]+
      | class\ [\w,]+\ \w+
      | state\ "[^":;\#]+"\ as\ \w+(?:\ \{)?
      | \}
      | (?:\[\*\]|\w+)\ -->\ \w+(?:\ :\ [^:;\#"]+)?
    )""",
    re.VERBOSE,
)


@EVERY
def test_mermaid_is_of_the_plain_kind_that_github_renders(policy: Policy | None) -> None:
    first, *lines = mermaid(JOB, policy).splitlines()
    assert first == "stateDiagram-v2"
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert sum(line.endswith("{") for line in lines) == sum(line.strip() == "}" for line in lines)


@EVERY
def test_the_same_machine_gives_the_same_text(policy: Policy | None) -> None:
    assert dot(JOB, policy) == dot(JOB, policy)
    assert mermaid(JOB, policy) == mermaid(JOB, policy)


SMALL = """
version = 1
name = "parcel"
initial = "sent"

[[state]]
name = "sent"
phase = 0
arc = ["SENT"]
status = "waiting"
meaning = "On its way."

[[state]]
name = "there"
phase = 1
arc = ["THERE"]
status = "done"
final = true
meaning = "At its end; \\"there\\"."

[[transition]]
trigger = "saw_sent"
source = ["sent"]
dest = "sent"
meaning = "Seen."

[[transition]]
trigger = "saw_there"
source = ["sent"]
dest = "there"
meaning = "Arrived."
"""


def test_another_machine_can_be_drawn_too() -> None:
    small = Definition.from_toml(SMALL, "parcel.toml")
    drawn = picture(small)
    assert [(arrow.source, arrow.dest) for arrow in drawn.arrows] == [("sent", "there")]
    assert "sent -> there" in dot(small)
    assert "sent --> there" in mermaid(small)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (1.5, "1.5 s"), (90, "90 s"), (600, "10 min"), (5400, "90 min"), (86400, "1 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text

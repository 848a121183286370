"""The states that jobs go through, as the three sources tell them, and when two tellings agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal, TypeAlias

from tests.simulator.likeness.descriptions import (
    KEEP_ALL,
    TRUE,
    WAITING,
    adl,
    awaited,
    fetched,
    script,
)

Source: TypeAlias = Literal["live", "status", "diagnose"]
"""``jobs?state=``, ``jobs?action=status`` and ``diagnose/status``."""

GONE = "gone"
"""What a source says of a job that it does not know any more."""


@dataclass(frozen=True)
class When:
    """Something that is done to a job.

    Attributes:
        source: what has to tell it.
        states: any of which it has to tell.
        action: an action on ids, or the name of a file that is uploaded then.
    """

    source: Source
    states: tuple[str, ...]
    action: str


@dataclass(frozen=True)
class Course:
    """What becomes of one job.

    Attributes:
        name: what tells it from the others.
        description: of the job.
        then: what is done to it, one after the other.
        ends: what the live list says in the end.
        closed: whether the batch system starts nothing meanwhile.
    """

    name: str
    description: str
    ends: str
    then: tuple[When, ...] = ()
    closed: bool = False


_SLEEP = adl("/bin/sleep", "600", staging=KEEP_ALL)
_STANDS = ("PREPARING",)

COURSES = (
    Course("done", TRUE, "FINISHED"),
    Course("failed by its exit code", script("exit 3"), "FAILED"),
    Course("failed for want of a program", adl("/nosuch/program"), "FAILED"),
    Course(
        "failed for a source of an unknown kind",
        adl(staging=fetched("x", "nosuch://host/x")),
        "FAILED",
    ),
    Course(
        "killed while it waits for an input",
        WAITING,
        "FAILED",
        (When("live", _STANDS, "kill"),),
    ),
    Course(
        "killed in the queue",
        _SLEEP,
        "FAILED",
        (When("status", ("QUEUING",), "kill"),),
        closed=True,
    ),
    Course("killed while it runs", _SLEEP, "FAILED", (When("status", ("RUNNING",), "kill"),)),
    Course(
        "input comes late",
        adl(staging=awaited("late") + KEEP_ALL),
        "FINISHED",
        (When("status", _STANDS, "put late"),),
    ),
    Course(
        "removed when it is done",
        TRUE,
        GONE,
        (When("status", ("FINISHED",), "clean"),),
    ),
    Course(
        "removed while it runs",
        adl("/bin/sleep", "3", staging=KEEP_ALL),
        GONE,
        (When("live", ("RUNNING",), "clean"),),
    ),
    Course(
        "removed while it waits for an input",
        WAITING,
        GONE,
        (When("status", _STANDS, "clean"), When("live", _STANDS, "kill")),
    ),
)

_ORDER = (
    ("ACCEPTING", "ACCEPTED"),
    ("PENDING:ACCEPTED",),
    ("PREPARING",),
    ("PREPARED", "PENDING:PREPARING"),
    ("SUBMITTING", "SUBMIT"),
    ("QUEUING", "RUNNING", "OTHER", "EXITINGLRMS", "INLRMS"),
    ("EXECUTED", "PENDING:INLRMS"),
    ("KILLING", "CANCELING"),
    ("FINISHING",),
    ("FINISHED", "FAILED", "KILLED"),
    ("WIPED", "DELETED"),
    ("None", GONE),
)
"""A job's way through A-REX; those that stand together come in whatever order."""

_PLACE = {state: number for number, states in enumerate(_ORDER) for state in states}


def disorder(telling: Sequence[str]) -> str | None:
    """Say which state cannot come where it is told; None: all can.

    What is told for a moment only, while A-REX moves its files (docs/explanation/arc-rest.md,
    Status), is passed over: nothing, and WIPED.
    """
    settled = [state for state in telling if state not in ("", "WIPED")]
    for before, after in pairwise(settled):
        if after not in _PLACE:
            return f"what is {after}?"
        if _PLACE.get(before, 0) > _PLACE[after]:
            return f"{after} after {before}"
    return None


def disagreement(
    course: Course, source: Source, one: Sequence[str], other: Sequence[str]
) -> str | None:
    """Say why two tellings cannot be of the same course of a job; None: they can.

    Each is a sample of what a source said, by which a state that did not last may have been missed.
    So

    - both end in the same state;
    - both have what something was waited for to happen then, in the same order;
    - of any two states that both have, the order in which one tells them is the other's, but for
      what was missed: told by one as ``A B A``, they may be ``A B`` or ``B A`` to the other, never
      ``B A B``.

    Two samples of one course always pass. Two states in exchanged order never do.

    Args:
        course: of which they are.
        source: of both.
        one, other: the states, none twice in a row.
    """
    if one[-1:] != other[-1:]:
        return f"ends as {_path(one[-1:])}, or {_path(other[-1:])}"
    awaited = {state for when in course.then if when.source == source for state in when.states}
    lasted, other_lasted = (_only(telling, awaited) for telling in (one, other))
    if lasted != other_lasted:
        return f"{_path(lasted)} lasted, or {_path(other_lasted)}"
    for pair in combinations(sorted({*one} & {*other}), 2):
        first, second = (_only(telling, set(pair)) for telling in (one, other))
        if not (_within(first, second) or _within(second, first)):
            return f"{_path(first)}, or {_path(second)}"
    return None


def _only(telling: Sequence[str], states: set[str]) -> list[str]:
    """Some of the states that are told, none twice in a row."""
    chosen = [state for state in telling if state in states]
    return [state for number, state in enumerate(chosen) if chosen[number - 1 : number] != [state]]


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether one sequence is the other with some left out."""
    rest = iter(whole)
    return all(state in rest for state in part)


def _path(states: Sequence[str]) -> str:
    return " → ".join(states) or "nothing"

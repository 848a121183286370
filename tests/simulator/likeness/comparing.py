"""Compares what was observed of two CEs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tests.simulator.likeness.recording import COURSES_ARE_IN, Observations
from tests.simulator.likeness.sequences import COURSES, Source, disagreement, disorder

SOURCES: tuple[Source, ...] = ("live", "status", "diagnose")


@dataclass(frozen=True)
class Difference:
    """Something in which two CEs differ.

    Attributes:
        conversation, step: where; in place of a step the name of a course.
        what: the part of the observation.
        expected, found: of the one and of the other.
    """

    conversation: str
    step: str
    what: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        return (
            f"{self.conversation} | {self.step} | {self.what}\n"
            f"    expected {_short(self.expected)}\n    found    {_short(self.found)}"
        )


@dataclass(frozen=True)
class Known:
    """Differences that are known.

    Attributes:
        conversation, step, what: where, as patterns of `fnmatch`.
        reason: why it is so, and why it may stay so.
        instances: where, as patterns of `fnmatch`.
    """

    conversation: str
    step: str
    what: str
    reason: str
    instances: str = "*"

    def holds_for(self, instance: str) -> bool:
        """Whether it is a difference from this instance."""
        return fnmatchcase(instance, self.instances)

    def covers(self, difference: Difference) -> bool:
        """Whether it is this difference."""
        return all(
            fnmatchcase(value, pattern)
            for value, pattern in (
                (difference.conversation, self.conversation),
                (difference.step, self.step),
                (difference.what, self.what),
            )
        )


def differences(expected: Observations, found: Observations) -> list[Difference]:
    """All differences between what is expected and what was found."""
    told: list[Difference] = []
    for name, steps in expected.items():
        if name == COURSES_ARE_IN:
            told += _of_courses(steps, found.get(name, {}))
            continue
        others = found.get(name, {})
        for step in {**steps, **others}:
            told += _of_step(name, step, steps.get(step, {}), others.get(step, {}))
    return told


def unknown(told: Sequence[Difference], known: Sequence[Known]) -> tuple[str, ...]:
    """What is wrong: differences that nobody knows, and known ones that there are not."""
    wrong = [str(each) for each in told if not any(one.covers(each) for one in known)]
    wrong += [
        f"no difference any more: {each.conversation} | {each.step} | {each.what}"
        for each in known
        if not any(each.covers(one) for one in told)
    ]
    return tuple(wrong)


def _of_step(
    conversation: str, step: str, expected: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Difference]:
    for what in {**expected, **found}:
        for at, one, other in _parts(what, expected.get(what), found.get(what)):
            yield Difference(conversation, step, at, one, other)


def _parts(at: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """The smallest parts in which two values differ, by their paths."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            yield from _parts(f"{at}.{key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (each, counterpart) in enumerate(zip(one, other, strict=True)):
            yield from _parts(f"{at}.{number}", each, counterpart)
    elif one != other:
        yield at, one, other


def _of_courses(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Difference]:
    for course in COURSES:
        one, other = expected.get(course.name), found.get(course.name)
        if one is None or other is None:
            if one is not other:
                yield Difference(COURSES_ARE_IN, course.name, "course", one, other)
            continue
        for source in SOURCES:
            why = disorder(other[source]) or disagreement(
                course, source, one[source], other[source]
            )
            if why is not None:
                yield Difference(
                    COURSES_ARE_IN, course.name, f"{source}: {why}", one[source], other[source]
                )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:600]}…"

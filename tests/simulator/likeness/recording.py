"""What CEs answer, recorded: one file for each instance of the stacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

from tests.integration.ce import Instance
from tests.simulator.likeness.conversations import chosen
from tests.simulator.likeness.endpoint import Endpoint
from tests.simulator.likeness.holding import hold
from tests.simulator.likeness.observing import Observation
from tests.simulator.likeness.people import People
from tests.simulator.likeness.sequences import COURSES
from tests.simulator.likeness.watching import watch

FOLDER = Path(__file__).parents[1] / "recorded"

Observations: TypeAlias = dict[str, dict[str, Observation]]
"""Conversation → step → what was observed."""


COURSES_ARE_IN = "courses"
"""In place of a conversation: what was told of jobs, from their submission to their end."""


_LIKE = {
    "arc-slurm-7.0.0-token": "arc-slurm-7.2.0-token",
    "arc-condor-7.0.0-token": "arc-slurm-7.2.0-token",
    "arc-slurm-7.0.0-token+proxy": "arc-slurm-7.2.0-token+proxy",
}
"""Recordings that are stored as differences from another. (And what is said to a request with REST
1.0 is stored if it is not what is said with 1.1.)"""


async def observe(endpoint: Endpoint, only: str = "") -> Observations:
    """Hold all conversations with a CE, or those with something in their names."""
    async with People.of_one_run(endpoint) as people:
        picked = [each for each in chosen(endpoint.kinds) if only in each.id]
        seen: Observations = await hold(endpoint, people, picked)
        if only in COURSES_ARE_IN and "proxy" not in endpoint.kinds:
            told = await watch(endpoint, await people.asker("-courses"), COURSES)
            seen[COURSES_ARE_IN] = {
                course: {str(source): telling for source, telling in tellings.items()}
                for course, tellings in told.items()
            }
    return seen


def recorded_of(instance: Instance) -> str:
    """The name of the recording that an instance, real or simulated, is to be like."""
    return f"arc-{instance.lrms}-{instance.version}-{instance.config}"


def path_of(instance: str) -> Path:
    return FOLDER / f"{instance}.json"


def read(instance: str) -> Observations:
    """A recording, whole."""
    stored = json.loads(path_of(instance).read_text())
    return _whole(stored["conversations"], _base_of(instance))


def _base_of(instance: str) -> Observations | None:
    """The recording that one tells only the differences from."""
    return read(_LIKE[instance]) if instance in _LIKE else None


def _whole(own: Observations, base: Observations | None) -> Observations:
    if base is not None:
        return {name: {**base.get(name, {}), **own.get(name, {})} for name in {**base, **own}}
    return {name: {**own.get(_newer(name), {}), **steps} for name, steps in own.items()}


def write(instance: str, seen: Observations) -> None:
    """Store a recording, a line for each step that is not as in what it is like.

    What differs from a recording is stored anew with it.
    """
    others = {
        other: read(other)
        for other, base in _LIKE.items()
        if base == instance and path_of(other).exists()
    }
    base = _base_of(instance)
    lines = []
    for name, steps in sorted(seen.items()):
        usual = seen.get(_newer(name), {}) if base is None else base.get(name, {})
        own = {step: said for step, said in steps.items() if usual.get(step) != said}
        if own or base is None:
            told = ",\n".join(f"   {json.dumps(step)}: {_line(said)}" for step, said in own.items())
            lines.append(f"  {json.dumps(name)}: {{\n{told}\n  }}")
    FOLDER.mkdir(exist_ok=True)
    path_of(instance).write_text(
        f'{{\n "like": {json.dumps(_LIKE.get(instance))},\n "conversations": {{\n'
        + ",\n".join(lines)
        + "\n }\n}\n"
    )
    for other, whole in others.items():
        write(other, whole)


def _newer(name: str) -> str:
    """The same conversation with REST 1.1, if this one is with 1.0."""
    return f"{name.removesuffix(' 1.0')} 1.1" if name.endswith(" 1.0") else ""


def _line(said: Observation) -> str:
    return json.dumps(said, sort_keys=True)

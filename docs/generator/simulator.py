"""The simulator: its settings, its faults, and what it has in common with the real CE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel

from arcbackend.simulator.fault_rules import Effect, Fault, Time
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.traps import TRAPS
from generator.markdown import fields, table


def traps() -> str:
    """Every trap."""
    return table(
        ("trap", "what the real CE does", "switched off", "ARC", "batch system", "source"),
        (
            (
                f"`{row.trap}`",
                row.fact,
                row.instead,
                ", ".join(row.versions),
                ", ".join(row.batch_systems),
                row.source,
            )
            for row in TRAPS
        ),
    )


def settings() -> str:
    """Every setting."""
    return fields(SimulatorSettings).replace("## ", "### ")


def faults() -> str:
    """The fields of a rule, and of each effect."""
    rule = fields(Fault).replace("## Top level", "### A fault")
    return "\n\n".join([rule, *_kinds("Effect", Effect), *_kinds("Time", Time)])


def _kinds(title: str, union: object) -> Iterator[str]:
    """The members of a union that is told apart by ``kind``."""
    members: tuple[type[BaseModel], ...] = get_args(get_args(union)[0])
    for member in members:
        kind = member.model_fields["kind"].default
        text = fields(member).replace("## Top level", f"### {title} `{kind}`")
        yield "\n".join(line for line in text.split("\n") if not line.startswith("| `kind` |"))

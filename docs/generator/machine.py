"""The life of a job: tables and diagrams, all from machines/job.toml."""

from __future__ import annotations

from arcbackend.lifecycle.definition import JOB, Rule, State, Verb
from arcbackend.lifecycle.diagram import mermaid
from arcbackend.lifecycle.policy import Policy
from arcbackend.models import JobStatus
from generator.markdown import enum_docstrings, table

_GROUPS = {group.name: group.title for group in JOB.groups}
_ASKED = {
    "kill": "kill",
    "purge": "clean",
    "fetch": "the files",
    "purge-after": "clean, when it is over",
    "purge-killed": "clean, when it is dead",
}


def arc_states() -> str:
    """ARC state → the machine's → JobStatus, and where it is seen."""
    return table(
        ["ARC state", "state", "JobStatus", "over", "in the live listing"],
        (
            (arc, state.name, state.status, _yes(state.group == "over"), _yes(state.live))
            for arc, state in JOB.by_arc_state.items()
        ),
    )


def statuses() -> str:
    """What each JobStatus means."""
    meanings = enum_docstrings(JobStatus)
    return table(["JobStatus", "meaning"], ((s, meanings[s.name]) for s in JobStatus))


def states() -> str:
    """The machine's states."""
    return table(
        ["state", "phase", "where", "ARC states", "JobStatus", "meaning"],
        (
            (
                f"**{state.name}**" if state.final else state.name,
                str(state.phase),
                _GROUPS.get(state.group or "", ""),
                ", ".join(state.arc),
                state.status,
                state.meaning,
            )
            for state in JOB.states.values()
        ),
    )


def observed() -> str:
    """Transitions that an observation fires."""
    return table(
        ["seen", "out of", "to", "guard", "meaning"],
        (
            (
                ", ".join(_target(rule).arc),
                _places(rule),
                _target(rule).name,
                rule.guard or "",
                rule.meaning,
            )
            for rule in JOB.rules
            if rule.observed
        ),
    )


def timed() -> str:
    """Transitions that time fires."""
    return table(
        ["in", "for", "under the policy", "asked of the CE", "guard", "to", "meaning"],
        (
            (
                _places(rule),
                f"`{rule.after}`",
                _when(rule),
                _asked(rule),
                rule.guard or "",
                rule.dest or "(stays)",
                rule.meaning,
            )
            for rule in JOB.rules
            if rule.timed
        ),
    )


def outcomes(verb: Verb) -> str:
    """What a verb does and says, for each place and policy."""
    return table(
        ["job", "under the policy", "asked of the CE", "guard", "to", "outcome", "meaning"],
        (
            (
                _places(rule),
                _when(rule),
                _asked(rule),
                rule.guard or "",
                rule.dest or "(stays)",
                _outcome(rule),
                rule.meaning,
            )
            for rule in JOB.rules
            if rule.trigger == verb
        ),
    )


def diagram(policy: str | None) -> str:
    """The diagram, for GitHub."""
    return f"```mermaid\n{mermaid(JOB, Policy.load(policy) if policy else None)}```"


def _target(rule: Rule) -> State:
    assert rule.dest is not None
    return JOB.states[rule.dest]


def _places(rule: Rule) -> str:
    """A rule's sources, in few words."""
    sources = set(JOB.sources(rule))
    others = [name for name in JOB.states if name not in sources]
    if len(others) == 1:
        return f"any but {others[0]}"
    left = [name for name in others if not JOB.states[name].final]
    if len(left) <= 1 and not any(JOB.states[name].final for name in sources):
        return f"any that is not {' or '.join(['over', 'gone', *left])}"
    return ", ".join(_GROUPS.get(name, name) for name in rule.source)


def _when(rule: Rule) -> str:
    return ", ".join(
        f"`{field}` = {' or '.join(f'`{v}`' for v in values)}"
        for field, values in rule.when.items()
    )


def _asked(rule: Rule) -> str:
    if rule.guard == "refused":
        return "(the same)"  # (as for the transition guarded "taken", which stands above it)
    return ", ".join(_ASKED[effect] for effect in rule.effect)


def _outcome(rule: Rule) -> str:
    if rule.outcome is None:
        return ""
    if rule.outcome == "answer":
        return "ok" if rule.guard == "taken" else "not ok: the reason"
    words = "ok" if rule.outcome.ok else "not ok"
    return f"{words}: `{rule.outcome.reason}`" if rule.outcome.reason else words


def _yes(truth: bool) -> str:
    return "yes" if truth else ""

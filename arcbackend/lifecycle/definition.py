"""A machine's definition: read from TOML, validated, and asked questions. No `transitions` here.

What a definition must satisfy is checked when it is loaded, so that nothing is left to fail when a
job comes by: see `Definition.from_toml`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import product
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError

from arcbackend.errors import ConfigurationError
from arcbackend.lifecycle.policy import Policy
from arcbackend.models import JobStatus, OpOutcome, Value

__all__ = ["JOB", "Definition", "Effect", "Group", "Rule", "State", "Verb", "worded"]

Verb = Literal["kill", "keep", "purge", "fetch"]
Guard = Literal["confirmed", "taken", "refused"]
Effect = Literal["kill", "purge", "fetch", "purge-after", "purge-killed"]

_VERBS: Final[tuple[str, ...]] = get_args(Verb)
_OBSERVED = "saw_"
# What the CE can be asked for, as the first effect of a transition.
_ASKED: Final[tuple[tuple[str, ...], ...]] = (("kill",), ("purge",), ("fetch",))
_MEANING = Annotated[str, Field(min_length=1, pattern=r"^[^\n]+$")]
_NAME = Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")]


class Group(Value):
    """States that stand together."""

    name: _NAME
    """Its name."""
    title: str
    """What diagrams call it."""


class State(Value):
    """One state of the machine."""

    name: _NAME
    """Its name."""
    group: str | None = None
    """Where it stands."""
    phase: int = Field(ge=0)
    """How far the job's life has come."""
    arc: tuple[str, ...] = ()
    """The ARC states that mean it."""
    live: bool = False
    """Whether the live listing is asked for them."""
    status: JobStatus
    """What it means to a WMS."""
    final: bool = False
    """Whether nothing but a purge leads out of it."""
    meaning: _MEANING
    """In one line."""


class Rule(Value):
    """One transition as it is written; ``source`` may name groups."""

    trigger: _NAME
    """What fires it."""
    source: tuple[str, ...] = Field(min_length=1)
    """States and groups that it leads out of."""
    dest: str | None = None
    """Where to; None: the job stays where it is."""
    guard: Guard | None = None
    """What must be true when it fires."""
    when: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """The policies that have it: field → values."""
    after: str | None = None
    """The policy's field with the seconds to be spent in the source."""
    effect: tuple[Effect, ...] = ()
    """What is asked of the CE for it, or noted for later."""
    outcome: OpOutcome | Literal["answer"] | None = None
    """What the verb's caller is told; ``answer``: what the CE said."""
    meaning: _MEANING
    """In one line."""

    @property
    def observed(self) -> bool:
        """True if it is an observation that fires it."""
        return self.trigger.startswith(_OBSERVED)

    @property
    def timed(self) -> bool:
        """True if it is time that fires it."""
        return self.after is not None

    def holds(self, policy: Policy) -> bool:
        """Whether this transition exists under a policy."""
        if self.after is not None and policy.value(self.after) is None:
            return False
        return all(policy.value(field) in values for field, values in self.when.items())


class _Document(Value):
    version: Literal[1]
    name: str
    initial: str
    group: tuple[Group, ...] = ()
    state: tuple[State, ...] = Field(min_length=1)
    transition: tuple[Rule, ...] = Field(min_length=1)


class _FaultError(Exception):
    """Something is wrong at a place in the document: ``("transition", 3, "dest")``."""

    def __init__(self, place: tuple[str | int, ...], what: str) -> None:
        super().__init__(what)
        self.place = place
        self.what = what


@dataclass(frozen=True)
class Definition:
    """A machine: its states, and the transitions between them.

    Attributes:
        name: what it is the machine of.
        initial: where every life begins.
        groups: in the order of a life.
        states: by name, in the order of a life.
        rules: the transitions as they are written.
    """

    name: str
    initial: str
    groups: tuple[Group, ...]
    states: Mapping[str, State]
    rules: tuple[Rule, ...]

    @classmethod
    def from_toml(cls, text: str, file: str) -> Definition:
        """Read and check a machine.

        Refused: an unknown key, state, group, guard, effect or policy field; an ARC state with two
        meanings; a state that cannot be reached; two transitions for one trigger and source of
        which not both are guarded; an observation that leads back to an earlier phase, or has no
        transition; a final state with a way out that is not a purge; a verb that says nothing of
        some state.

        Args:
            text: the TOML document.
            file: its name, for errors.

        Raises:
            ConfigurationError: naming file, line and field.
        """
        try:
            document = _Document.model_validate(tomllib.loads(text))
            definition = cls(
                name=document.name,
                initial=document.initial,
                groups=document.group,
                states={state.name: state for state in document.state},
                rules=document.transition,
            )
            for check in _CHECKS:
                check(definition, document)
        except (ValueError, RecursionError, _FaultError) as error:
            # (pydantic's ValidationError and tomllib's TOMLDecodeError are ValueErrors)
            raise ConfigurationError(_located(text, file, error)) from None
        return definition

    def under(self, policy: Policy) -> Definition:
        """This machine with the transitions that exist under a policy."""
        kept = tuple(rule for rule in self.rules if rule.holds(policy))
        return Definition(self.name, self.initial, self.groups, self.states, kept)

    def sources(self, rule: Rule) -> Iterator[str]:
        """The states that a transition leads out of, its own destination excepted."""
        for name in rule.source:
            for state in self.members(name):
                if not (rule.observed and state == rule.dest):
                    yield state

    def members(self, name: str) -> tuple[str, ...]:
        """The states that a name stands for: a group's, or the state itself."""
        if name in self.states:
            return (name,)
        return tuple(state.name for state in self.states.values() if state.group == name)

    def rules_of(self, trigger: str, state: str) -> list[Rule]:
        """The transitions that a trigger can fire in a state."""
        return self._by_trigger.get((trigger, state), [])

    @cached_property
    def _by_trigger(self) -> dict[tuple[str, str], list[Rule]]:
        found: dict[tuple[str, str], list[Rule]] = {}
        for rule in self.rules:
            for state in self.sources(rule):
                found.setdefault((rule.trigger, state), []).append(rule)
        return found

    @cached_property
    def reachable(self) -> frozenset[str]:
        """The states that a life can come to."""
        reached = {self.initial}
        while True:
            more = {
                rule.dest
                for rule in self.rules
                if rule.dest is not None and reached.intersection(self.sources(rule))
            }
            if more <= reached:
                return frozenset(reached)
            reached |= more

    @cached_property
    def by_arc_state(self) -> Mapping[str, State]:
        """ARC state → the machine's state that it means."""
        return {arc: state for state in self.states.values() for arc in state.arc}

    def settled(self, verb: Verb, state: State) -> OpOutcome | None:
        """What a verb says of a job in this state without asking the CE; None: the CE decides.

        Depends on the policy where transitions do: ask the machine ``under`` one.
        """
        for rule in self.rules_of(verb, state.name):
            if rule.guard is None and isinstance(rule.outcome, OpOutcome):
                return rule.outcome
        return None

    def timers_of(self, state: str) -> list[Rule]:
        """The transitions out of a state that time fires, one for each trigger."""
        timers: dict[str, Rule] = {}
        for rule in self.rules:
            if rule.timed and state in self.sources(rule):
                timers.setdefault(rule.trigger, rule)
        return list(timers.values())


def worded(outcome: OpOutcome, words: Mapping[str, str]) -> OpOutcome:
    """An outcome of the definition, with what is in braces filled in."""
    reason = outcome.reason
    if reason is None or "{" not in reason:
        return outcome
    for name, word in words.items():
        reason = reason.replace(f"{{{name}}}", word)
    return OpOutcome(ok=outcome.ok, reason=reason)


# --- checks, each of one thing -------------------------------------------------------------------


def _fault(index: int, field: str, what: str) -> _FaultError:
    return _FaultError(("transition", index, field), what)


def _check_names(definition: Definition, document: _Document) -> None:
    groups = {group.name for group in definition.groups}
    seen: set[str] = set(groups)
    for index, state in enumerate(document.state):
        if state.name in seen:
            raise _FaultError(("state", index, "name"), f"{state.name} is there already")
        seen.add(state.name)
        if state.group is not None and state.group not in groups:
            raise _FaultError(("state", index, "group"), f"no group {state.group}")
    if document.initial not in definition.states:
        raise _FaultError(("initial",), f"no state {document.initial}")
    for index, rule in enumerate(definition.rules):
        for name in rule.source:
            if not definition.members(name):
                raise _fault(index, "source", f"no state or group {name}")
        if rule.dest is not None and rule.dest not in definition.states:
            raise _fault(index, "dest", f"no state {rule.dest}")


def _check_arc_states(definition: Definition, document: _Document) -> None:
    seen: dict[str, str] = {}
    for index, state in enumerate(document.state):
        for arc in state.arc:
            if arc in seen:
                raise _FaultError(("state", index, "arc"), f"{arc} means {seen[arc]} already")
            seen[arc] = state.name
        trigger = _OBSERVED + state.name
        observed = [rule for rule in definition.rules if rule.trigger == trigger]
        if state.arc and not observed:
            raise _FaultError(("state", index, "arc"), f"no transition {trigger}")


def _check_observations(definition: Definition, _: _Document) -> None:
    for index, rule in enumerate(definition.rules):
        if not rule.observed:
            continue
        named = rule.trigger.removeprefix(_OBSERVED)
        if named not in definition.states or not definition.states[named].arc:
            raise _fault(index, "trigger", f"no state {named} that can be observed")
        if rule.dest != named:
            raise _fault(index, "dest", f"{rule.trigger} leads to {named}")
        if rule.effect or rule.timed:
            raise _fault(index, "trigger", "an observation has no effect or time")
        if rule.guard not in (None, "confirmed"):
            raise _fault(index, "guard", "the CE answers a verb, not an observation")
        if rule.outcome is not None and rule.guard is None:
            raise _fault(index, "outcome", "an observation has one only if it is guarded")
        for source in definition.sources(rule):
            if definition.states[source].phase > definition.states[named].phase:
                raise _fault(index, "source", f"{source} is of a later phase than {named}")


def _check_verbs(definition: Definition, _: _Document) -> None:
    for index, rule in enumerate(definition.rules):
        if not (rule.observed or rule.timed):
            if rule.trigger not in _VERBS:
                raise _fault(
                    index, "trigger", f"no verb {rule.trigger}; verbs: {', '.join(_VERBS)}"
                )
            if rule.outcome is None:
                raise _fault(index, "outcome", "a verb says what came of it")
        elif rule.trigger in _VERBS:
            raise _fault(index, "after", "a verb does not wait")
        if rule.outcome == "answer" and rule.guard not in ("taken", "refused"):
            raise _fault(index, "guard", 'the outcome "answer" needs the guard taken or refused')
        if rule.guard == "confirmed" and not rule.observed:
            raise _fault(index, "guard", "only an observation is confirmed")
        if (rule.guard == "taken") != (rule.effect[:1] in _ASKED):
            raise _fault(index, "effect", "begins with kill, purge or fetch if the guard is taken")


def _check_policy_fields(definition: Definition, _: _Document) -> None:
    for index, rule in enumerate(definition.rules):
        for field, values in rule.when.items():
            allowed = _choices(("transition", index, "when"), field)
            for value in values:
                if value not in allowed:
                    raise _fault(
                        index,
                        "when",
                        f"{field} is never {value}; it is one of {', '.join(allowed)}",
                    )
        if rule.after is not None:
            _policy_field(("transition", index, "after"), rule.after)
            default = Policy().value(rule.after)
            if default is not None and not isinstance(default, float):
                raise _fault(index, "after", f"{rule.after} is no time")


def _policy_field(place: tuple[str | int, ...], path: str) -> Any:
    section, _, name = path.partition(".")
    field = Policy.model_fields.get(section)
    model = field.annotation if field else None
    if isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields:
        return model.model_fields[name].annotation
    raise _FaultError(place, f"a policy has no field {path}")


def _choices(place: tuple[str | int, ...], path: str) -> tuple[str, ...]:
    annotation = _policy_field(place, path)
    if get_origin(annotation) is not Literal:
        raise _FaultError(place, f"{path} is no choice between words")
    return get_args(annotation)


def _check_determined(definition: Definition, _: _Document) -> None:
    """Two transitions for one trigger and source are told apart by guards or policies."""
    seen: dict[tuple[str, str], list[Rule]] = {}
    for index, rule in enumerate(definition.rules):
        for source in definition.sources(rule):
            earlier = seen.setdefault((rule.trigger, source), [])
            if any(_may_both_fire(rule, other) for other in earlier):
                raise _fault(
                    index,
                    "trigger",
                    f"{rule.trigger} out of {source} is there already, and no guard tells which",
                )
            earlier.append(rule)


def _may_both_fire(one: Rule, other: Rule) -> bool:
    if one.guard != other.guard and one.guard and other.guard:
        return False
    shared = one.when.keys() & other.when.keys()
    return all(set(one.when[field]) & set(other.when[field]) for field in shared)


def _check_final(definition: Definition, document: _Document) -> None:
    for index, rule in enumerate(definition.rules):
        if rule.trigger == "purge" or rule.dest is None:
            continue
        for source in definition.sources(rule):
            if definition.states[source].final and rule.dest != source:
                raise _fault(index, "source", f"{source} is final: only a purge leads out")
    if definition.states[document.initial].final:
        raise _FaultError(("initial",), f"{document.initial} is final")


def _check_reachable(definition: Definition, document: _Document) -> None:
    for index, state in enumerate(document.state):
        if state.name not in definition.reachable:
            raise _FaultError(("state", index, "name"), f"nothing leads to {state.name}")


def _check_total(definition: Definition, document: _Document) -> None:
    """Every verb says something of every state, under every policy that can be."""
    spoken = {rule.trigger for rule in definition.rules}
    for verb in _VERBS:
        if verb not in spoken:
            continue
        for index, state in enumerate(document.state):
            rules = definition.rules_of(verb, state.name)
            fields = sorted({field for rule in rules for field in rule.when})
            for values in product(*(_choices(("transition",), field) for field in fields)):
                chosen = dict(zip(fields, values, strict=True))
                guards = {
                    rule.guard
                    for rule in rules
                    if all(chosen[field] in named for field, named in rule.when.items())
                }
                if None in guards or guards >= {"taken", "refused"}:
                    continue
                what = f"{verb} says nothing of {state.name}"
                if fields:
                    what += (
                        f" where {' and '.join(f'{field} is {chosen[field]}' for field in fields)}"
                    )
                if guards:
                    what += f", unless it is {guards.pop()}"
                raise _FaultError(("state", index, "name"), what)


_CHECKS: tuple[Callable[[Definition, _Document], None], ...] = (
    _check_names,
    _check_observations,
    _check_arc_states,
    _check_verbs,
    _check_policy_fields,
    _check_determined,
    _check_final,
    _check_reachable,
    _check_total,
)


# --- where in the file a fault is ----------------------------------------------------------------

_HEADER = re.compile(r"\s*\[\[\s*(\w+)\s*\]\]")


def _located(text: str, file: str, error: Exception) -> str:
    """The fault in words, with file, line and field."""
    place: tuple[str | int, ...]
    if isinstance(error, _FaultError):
        place, what = error.place, error.what
    elif isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place, what = first["loc"], first["msg"]
    else:
        return f"{file}: {error}"  # (tomllib's message names the line)
    field = ".".join(str(part) for part in place)
    return f"{file}, line {_line_of(text, place)}: {field}: {what}"


def _line_of(text: str, place: Sequence[str | int]) -> int:
    """The line of a field, or, if it is not there, of the entry that lacks it (from 1)."""
    lines = text.splitlines()
    start = 0
    fields = [part for part in place if isinstance(part, str)]
    if len(place) > 1 and isinstance(place[1], int):
        headers = [
            number
            for number, line in enumerate(lines)
            if (match := _HEADER.match(line)) and match[1] == place[0]
        ]
        start = headers[place[1]] if place[1] < len(headers) else 0
        fields = fields[1:]
    for number in range(start + 1 if start else 0, len(lines)):
        if number > start and _HEADER.match(lines[number]):
            break
        if fields and re.match(rf"\s*\"?{re.escape(fields[0])}\"?\s*=", lines[number]):
            return number + 1
    return start + 1


def _shipped(name: str) -> Definition:
    file = f"{name}.toml"
    text = (resources.files("arcbackend.machines") / file).read_text(encoding="utf-8")
    return Definition.from_toml(text, f"machines/{file}")


JOB: Final = _shipped("job")
"""The life of a job."""

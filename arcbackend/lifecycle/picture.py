"""What a diagram of a machine shows: boxes, and few enough arrows to be read.

Observations may lead from every state to every later one: hundreds of edges. They are drawn as
what they amount to, without loss:

- An arrow out of a box leads out of each state in it; an observation's arrow onto a box leads to
  whichever of its states is seen.
- A pair of states joined by observations through a group in between has no arrow of its own.
- States that several transitions lead out of together get a box of their own.
- A group whose states can all follow one another is told so in words.

Verbs that leave a job where it is are no arrows but remarks. So are not the transitions guarded
``refused``: they are the other side of those guarded ``taken``, and the job stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from arcbackend.lifecycle.definition import Definition, Rule, State, worded
from arcbackend.lifecycle.policy import Policy
from arcbackend.models import JobStatus

__all__ = ["Arrow", "Box", "Cause", "Node", "Picture", "Remark", "duration", "picture"]

_States = frozenset[str]


class Cause(Enum):
    """Why a transition fires."""

    SEEN = "seen on the CE; what lies between may go unseen"
    TIME = "by policy, when time has gone by"
    VERB = "asked by the consumer"


@dataclass(frozen=True)
class Node:
    """A state."""

    name: str
    arc: tuple[str, ...]
    status: JobStatus
    final: bool
    meaning: str


@dataclass(frozen=True)
class Box:
    """States that are drawn together; ``note``: what goes on among them."""

    name: str
    title: str
    note: str
    parts: tuple[Node | Box, ...]

    def nodes(self) -> Iterator[Node]:
        """The states in it, at whatever depth."""
        for part in self.parts:
            if isinstance(part, Node):
                yield part
            else:
                yield from part.nodes()


@dataclass(frozen=True)
class Arrow:
    """A transition, or many; ``source`` and ``dest`` name nodes or boxes."""

    source: str
    dest: str
    cause: Cause
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Remark:
    """A verb that leaves the job where it is: where, and what it says."""

    where: str
    says: str


@dataclass(frozen=True)
class Picture:
    """What is to be drawn."""

    title: str
    initial: str
    root: Box
    arrows: tuple[Arrow, ...]
    remarks: tuple[Remark, ...]
    settings: tuple[tuple[str, str], ...]


def picture(definition: Definition, policy: Policy | None = None) -> Picture:
    """What to draw of a machine.

    Args:
        definition: the machine.
        policy: draw only what exists under it, with its numbers; None: draw everything, with the
            conditions on the policy.
    """
    return _Composer(definition.under(policy) if policy else definition, policy).compose()


def duration(seconds: float) -> str:
    """A time span for people."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"


@dataclass(frozen=True)
class _Flow:
    """Observations that lead out of some states onto one state, or onto a group."""

    dest: str
    label: str
    sources: _States
    direct: _States
    """Those of the sources that no group leads through."""


@dataclass(frozen=True)
class _Composer:
    definition: Definition
    policy: Policy | None

    def compose(self) -> Picture:
        policy = self.policy
        return Picture(
            title=f"the life of a {self.definition.name}"
            + (f" under the policy {policy.name}" if policy else ", whatever the policy"),
            initial=self.definition.initial,
            root=self._nested("root", "", frozenset(self.states)),
            arrows=tuple(self._merged([*self._seen(), *self._fired()])),
            remarks=tuple(self._remarks()),
            settings=tuple(_settings(policy)) if policy else (),
        )

    # --- states and groups ---

    @cached_property
    def states(self) -> Mapping[str, State]:
        """Those that can be reached."""
        reached = self.definition.reachable
        return {name: s for name, s in self.definition.states.items() if name in reached}

    @cached_property
    def groups(self) -> Mapping[str, _States]:
        members = {
            group.name: frozenset(self.definition.members(group.name)) & self.states.keys()
            for group in self.definition.groups
        }
        return {name: states for name, states in members.items() if states}

    @cached_property
    def units(self) -> Mapping[str, _States]:
        """Groups, and the states that are in none, in the order of a life."""
        found: dict[str, _States] = {}
        for name, state in self.states.items():
            unit = state.group or name
            found[unit] = self.groups.get(unit, frozenset({name}))
        return found

    def _sources(self, rule: Rule) -> _States:
        return frozenset(self.definition.sources(rule)) & self.states.keys()

    # --- observations ---

    @cached_property
    def _observed(self) -> Mapping[tuple[str, str], str]:
        """(source, dest) → label."""
        return {
            (source, rule.dest): self._label("", rule) if rule.guard else ""
            for rule in self.definition.rules
            if rule.observed and rule.dest is not None
            for source in self._sources(rule)
        }

    @cached_property
    def _flows(self) -> Sequence[_Flow]:
        flows: list[_Flow] = []
        for unit, members in self.units.items():
            found: dict[tuple[str, _States], list[str]] = {}
            for dest in self.states:
                into = {s: label for (s, d), label in self._observed.items() if d == dest}
                outside = frozenset(into) - members
                if dest in members and outside:
                    for label in {into[source] for source in outside}:
                        sources = frozenset(s for s in outside if into[s] == label)
                        found.setdefault((label, sources), []).append(dest)
            for (label, sources), dests in found.items():
                # (one flow into all that can be seen of a group is a flow onto the group)
                for dest in [unit] if len(found) == 1 else dests:
                    flows.append(_Flow(dest, label, sources, self._direct(sources, flows)))
        return flows

    def _direct(self, sources: _States, flows: Iterable[_Flow]) -> _States:
        direct = sources
        for unit in self.units.values():
            if unit <= direct and any(
                flow.dest in self.groups
                and not flow.label
                and unit <= flow.sources
                and self.groups[flow.dest] <= direct
                for flow in flows
            ):
                direct -= unit
        return direct

    def _seen(self) -> Iterator[Arrow]:
        for flow in self._flows:
            whole = flow.sources in self._composites.values()
            for source in self._cover(flow.sources if whole else flow.direct):
                yield Arrow(source, flow.dest, Cause.SEEN, (flow.label,) if flow.label else ())
        for group in self.groups:
            if not self._exchange(group):
                for source, dest in self._chain(group):
                    label = self._observed[source, dest]
                    yield Arrow(source, dest, Cause.SEEN, (label,) if label else ())

    def _inner(self, group: str) -> set[tuple[str, str]]:
        members = self.groups[group]
        return {(s, d) for s, d in self._observed if s in members and d in members}

    def _chain(self, group: str) -> Iterator[tuple[str, str]]:
        """The observations within a group, without those that lead through a state of it."""
        inner = self._inner(group)
        for source, dest in sorted(inner, key=lambda pair: [*map([*self.states].index, pair)]):
            through = (m for m in self.groups[group] if m not in (source, dest))
            if not any((source, m) in inner and (m, dest) in inner for m in through):
                yield source, dest

    def _exchange(self, group: str) -> str:
        """If all that can be seen of a group can follow one another: the words for it."""
        inner, members = self._inner(group), self.groups[group]
        seen = {dest for _, dest in inner}
        wanted = {(s, d) for s in members for d in seen if s != d}
        missing = sorted(wanted - inner)
        if len(seen) <= 1 or any(source in seen for source, _ in missing):
            return ""
        but = ", ".join(f"{dest} from {source}" for source, dest in missing)
        return "seen each from each" + (f", but not {but}" if but else "")

    # --- time and verbs ---

    def _fired(self) -> Iterator[Arrow]:
        for rule in self.definition.rules:
            if rule.observed or rule.guard == "refused":
                continue
            if rule.dest is None and not rule.timed:
                continue
            cause = Cause.TIME if rule.timed else Cause.VERB
            label = self._label("" if rule.timed else rule.trigger, rule)
            for source in self._cover(self._sources(rule)):
                yield Arrow(source, rule.dest or source, cause, (label,))

    def _remarks(self) -> Iterator[Remark]:
        if any(rule.guard == "refused" for rule in self.definition.rules):
            yield Remark(
                "wherever [taken]", "[refused] ⇒ answer, which is not ok (answer: what the CE said)"
            )
        for rule in self.definition.rules:
            if rule.observed or rule.timed or rule.dest is not None or rule.guard == "refused":
                continue
            sources = self._sources(rule)
            if not sources:
                continue
            all_but = self.states.keys() - sources
            if len(all_but) == 1:
                where = f"all but {min(all_but)}"
            elif not all_but:
                where = "all"
            else:
                where = ", ".join(map(self._called, self._cover(sources)))
            yield Remark(where, self._label(rule.trigger, rule, reasons=True))

    def _label(self, trigger: str, rule: Rule, *, reasons: bool = False) -> str:
        words = [trigger] if trigger else []
        if rule.after is not None:
            words.append(self._after(rule.after))
        if rule.guard is not None:
            words.append(f"[{self._guard(rule.guard)}]")
        if rule.effect:
            words.append(f"/ {', '.join(rule.effect)}")
        if rule.outcome == "answer":
            words.append("⇒ answer")
        elif rule.outcome is not None:
            words.append("⇒ ok" if rule.outcome.ok else "⇒ not ok")
            reason = worded(rule.outcome, {"state": "its ARC state"}).reason
            words[-1] += f", {reason}" if reasons and reason else ""
        if self.policy is None:
            words += [f"(if {field} = {' or '.join(v)})" for field, v in rule.when.items()]
        return " ".join(words)

    def _after(self, field: str) -> str:
        if self.policy is None:
            return f"after {field}"
        seconds = self.policy.value(field)
        return f"after {duration(seconds)}" if seconds else "at once"

    def _guard(self, guard: str) -> str:
        if guard != "confirmed" or self.policy is None:
            return guard
        lost = self.policy.lost
        return f"confirmed by {lost.looks} looks over {duration(lost.after)}"

    def _merged(self, arrows: Iterable[Arrow]) -> Iterator[Arrow]:
        """Arrows of one cause between the same two are one."""
        labels: dict[tuple[str, str, Cause], list[str]] = {}
        for arrow in arrows:
            found = labels.setdefault((arrow.source, arrow.dest, arrow.cause), [])
            found += [label for label in arrow.labels if label not in found]
        for (source, dest, cause), found in labels.items():
            yield Arrow(source, dest, cause, tuple(found))

    # --- boxes ---

    @cached_property
    def _composites(self) -> Mapping[str, _States]:
        """Boxes for what several units have in common, each within or beside every other."""
        wanted = [
            self._sources(rule)
            for rule in self.definition.rules
            if rule.dest is not None and not rule.observed
        ]
        wanted += [flow.sources for flow in self._flows if len(self._cut(flow.direct)) > 1]
        found: dict[str, _States] = {}
        for states in wanted:
            others = [*found.values(), *self.units.values()]
            if len(self._cut(states)) > 1 and all(
                states < other or states > other or not states & other for other in others
            ):
                found[f"together_{len(found) + 1}"] = states
        return found

    def _cut(self, states: _States) -> list[str]:
        """The units of which there is something among these states."""
        return [name for name, members in self.units.items() if members & states]

    def _cover(self, states: _States) -> list[str]:
        """As few boxes and nodes as make up these states."""
        boxes = {**self._composites, **self.groups}
        found: list[str] = []
        for name in sorted(boxes, key=lambda box: -len(boxes[box])):
            if len(boxes[name]) > 1 and boxes[name] <= states:
                found.append(name)
                states -= boxes[name]
        found += [name for name in self.states if name in states]
        order = [*self.states]
        return sorted(
            found, key=lambda name: order.index(min(boxes.get(name, {name}), key=order.index))
        )

    def _called(self, name: str) -> str:
        """What a box or node is called."""
        if name in self._composites:
            return self._title(self._composites[name])
        titles = {group.name: group.title for group in self.definition.groups}
        return titles.get(name, name)

    def _title(self, states: _States) -> str:
        """What is left out says it best."""
        others = [name for name, s in self.states.items() if not s.final and name not in states]
        final = any(self.states[name].final for name in states)
        return "" if final else ", ".join(f"not {name}" for name in ("over", *others))

    def _nested(self, name: str, title: str, states: _States) -> Box:
        inside = {n: s for n, s in self._composites.items() if s < states}
        tops = {n: s for n, s in inside.items() if not any(s < other for other in inside.values())}
        parts: list[Node | Box] = []
        placed: set[str] = set()
        for unit, members in self.units.items():
            if not members <= states or members & placed:
                continue
            for top, held in tops.items():
                if members <= held:
                    parts.append(self._nested(top, self._title(held), held))
                    placed |= held
                    break
            else:
                nodes = tuple(self._node(n) for n in self.states if n in members)
                if unit in self.groups:
                    parts.append(Box(unit, self._called(unit), self._exchange(unit), nodes))
                else:
                    parts += nodes
        return Box(name, title, "", tuple(parts))

    def _node(self, name: str) -> Node:
        state = self.states[name]
        status = self.policy.reported(state.status) if self.policy else state.status
        return Node(name, state.arc, status, state.final, state.meaning)


def _settings(policy: Policy) -> Iterator[tuple[str, str]]:
    """Every field of a policy, and its value for people."""
    for field, value in policy.settings():
        shown = "never" if value is None else str(value)
        if isinstance(value, float):
            shown = duration(value)
        yield field, shown

"""The machine that runs: one `transitions` machine for all jobs, under one policy.

Jobs are records of their own with the attribute ``state``; the machine holds none of them
(``Machine.add_model`` costs kilobytes and grows faster than linearly), it is only asked to trigger
an event on one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from transitions import EventData, Machine

from arcbackend.lifecycle.definition import Definition, Rule, Verb, worded
from arcbackend.lifecycle.policy import Policy
from arcbackend.models import JobStatus, OpOutcome

__all__ = ["HasState", "Lifecycle", "Moved", "Verdict"]

_NO_WORDS: Mapping[str, str] = MappingProxyType({})


class HasState(Protocol):
    """Whatever has a state of the machine."""

    state: str


class Verdict(Enum):
    """What an observation is to a job that is in some state, if it is no transition."""

    SAME = "same"
    """It is in that state already."""
    STALE = "stale"
    """It speaks of an earlier phase of the job's life: counted, not obeyed."""
    FINAL = "final"
    """The job is over: what becomes of it after that is not followed."""
    UNHEARD_OF = "unheard of"
    """No state of the machine means it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a trigger did to one job.

    Attributes:
        rule: the transition that fired; its ``dest`` is None if the job stayed where it was.
        source: the state before.
        outcome: what to tell of the job, None for what is only observed.
    """

    rule: Rule
    source: str
    outcome: OpOutcome | None


class Lifecycle:
    """A definition under a policy, running.

    Args:
        definition: the machine.
        policy: shapes it.
    """

    def __init__(self, definition: Definition, policy: Policy) -> None:
        self.policy = policy
        self.definition = definition.under(policy)
        self._machine = Machine(
            model=None,
            states=list(definition.states),
            initial=definition.initial,
            auto_transitions=False,
            send_event=True,
        )
        for rule in self.definition.rules:
            self._machine.add_transition(
                rule.trigger,
                list(self.definition.sources(rule)),
                rule.dest,
                conditions=[_GUARDS[rule.guard]] if rule.guard else [],
                before=partial(_note, rule),
            )
        self.statuses: Mapping[str, JobStatus] = MappingProxyType(
            {state.name: policy.reported(state.status) for state in definition.states.values()}
        )
        self.final = frozenset(name for name, state in definition.states.items() if state.final)
        self._verdicts = {
            name: {arc: self._verdict(name, arc) for arc in definition.by_arc_state}
            for name in definition.states
        }
        self._timers = {
            name: tuple(
                (rule, float(policy.value(rule.after)))
                for rule in self.definition.timers_of(name)
                if rule.after is not None
            )
            for name in definition.states
        }

    def verdict(self, state: str, arc_state: str) -> str | Verdict:
        """What seeing a job in an ARC state means: the trigger to fire, or why there is none."""
        return self._verdicts[state].get(arc_state, Verdict.UNHEARD_OF)

    def timers(self, state: str) -> Iterable[tuple[Rule, float]]:
        """What time does to a job in this state, and after how many seconds."""
        return self._timers[state]

    def may_ask(self, verb: Verb, state: str) -> Rule | None:
        """The transition for which a verb must ask the CE; None: the machine settles it alone."""
        for rule in self.definition.rules_of(verb, state):
            if rule.guard == "taken":
                return rule
        return None

    def fire(
        self,
        trigger: str,
        job: HasState,
        *,
        confirmed: bool = False,
        answer: OpOutcome | None = None,
        words: Mapping[str, str] = _NO_WORDS,
    ) -> Moved | None:
        """Fire a trigger on a job.

        Args:
            trigger: of the definition.
            job: its ``state`` is changed.
            confirmed: for the guard of that name: enough looks agree.
            answer: what the CE said of this job, for the guards taken and refused.
            words: for what stands in braces in an outcome.

        Returns:
            What happened; None if no transition applied, which is no error: time may have overtaken
            the reason to fire.
        """
        source = job.state
        event = self._machine.events.get(trigger)
        if event is None or source not in event.transitions:
            return None
        fired: list[Rule] = []
        event.trigger(job, fired=fired, confirmed=confirmed, answer=answer)
        if not fired:
            return None
        (rule,) = fired
        outcome = rule.outcome
        if outcome == "answer":
            outcome = answer
        elif outcome is not None:
            outcome = worded(outcome, words)
        return Moved(rule, source, outcome)

    def _verdict(self, state: str, arc_state: str) -> str | Verdict:
        target, now = self.definition.by_arc_state[arc_state], self.definition.states[state]
        trigger = f"saw_{target.name}"
        if self.definition.rules_of(trigger, state):
            return trigger
        if target.phase < now.phase:
            return Verdict.STALE
        # (awaiting is a held job, too: the CE says HELD of both)
        return Verdict.FINAL if now.final and target != now else Verdict.SAME


def _note(rule: Rule, event: EventData) -> None:
    event.kwargs["fired"].append(rule)


def _confirmed(event: EventData) -> bool:
    return bool(event.kwargs["confirmed"])


def _taken(event: EventData) -> bool:
    answer: OpOutcome | None = event.kwargs["answer"]
    return answer is not None and answer.ok


def _refused(event: EventData) -> bool:
    answer: OpOutcome | None = event.kwargs["answer"]
    return answer is not None and not answer.ok


_GUARDS: Mapping[str, Any] = {"confirmed": _confirmed, "taken": _taken, "refused": _refused}

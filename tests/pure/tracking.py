"""A tracker with a clock that the tests wind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from arcbackend import JobEvent, OpOutcome, Policy, SeenBy
from arcbackend.lifecycle.definition import Verb
from arcbackend.polling.tracker import Due, TrackedJob, Tracker

CE = "https://ce.example.org:443"
START = datetime(2026, 1, 1, tzinfo=UTC)
TAKEN = OpOutcome(ok=True)
REFUSED = OpOutcome(ok=False, reason="the CE says no")


class Watch:
    """A tracker, and what its poller would do with it.

    Args:
        policy: as a policy's file has it.
        jobs: to track from the start.
    """

    def __init__(self, policy: dict[str, Any] | None = None, *jobs: str) -> None:
        self.now = 0.0
        self.tracker = Tracker(CE, Policy.from_dict(policy or {}))
        for local in jobs:
            self.tracker.add(local, self.now)

    @property
    def at(self) -> datetime:
        return START + timedelta(seconds=self.now)

    def job(self, local: str = "a") -> TrackedJob:
        return self.tracker.jobs[local]

    def documents(self, **states: str) -> list[JobEvent]:
        return self.tracker.observe(states.items(), SeenBy.DOCUMENTS, self.now, self.at)

    def listing(self, **states: str) -> list[JobEvent]:
        return self.tracker.observe(states.items(), SeenBy.LISTING, self.now, self.at)

    def verb(self, verb: Verb, local: str = "a", answer: OpOutcome | None = TAKEN) -> JobEvent:
        """Asks the CE, if it must be, and hands the answer on."""
        job = self.job(local)
        asked = self.tracker.asks(verb, job)
        return self.tracker.answer(
            verb, job, answer if asked else None, self.now, self.at, asked=asked
        )

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def due(self) -> list[Due]:
        return list(self.tracker.due(self.now))

    def act(self, answer: OpOutcome | None = TAKEN) -> list[JobEvent]:
        """Everything that time does by now."""
        events = [
            self.tracker.fire(due, answer if due.rule.guard else None, self.now, self.at)
            for due in self.tracker.due(self.now)
        ]
        return [event for event in events if event is not None]

    def later(self, seconds: float, answer: OpOutcome | None = TAKEN) -> list[JobEvent]:
        self.wait(seconds)
        return self.act(answer)


def steps(events: list[JobEvent]) -> list[tuple[str, str]]:
    return [(event.source, event.dest) for event in events]

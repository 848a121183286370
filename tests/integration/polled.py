"""Pollers on a real CE: what they say, collected, and checked against the machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from arcbackend import (
    ARCBackend,
    EventsMissed,
    JobEvent,
    JobHandle,
    JobID,
    Policy,
    Poller,
    PollerEvent,
    SeenBy,
)
from arcbackend.lifecycle.definition import JOB, Rule
from tests.integration.ce import CE

_T = TypeVar("_T")
_OBSERVED = (SeenBy.DOCUMENTS, SeenBy.LISTING)


class Heard:
    """What one subscriber heard, in order."""

    def __init__(self) -> None:
        self.events: list[PollerEvent] = []
        self._news = trio.Event()

    async def listen(self, events: AsyncIterator[PollerEvent]) -> None:
        """Collect and print them, until there are no more."""
        async for event in events:
            self.events.append(event)
            print(told(event))
            self._news.set()
            self._news = trio.Event()

    def of(self, job: JobHandle | JobID) -> list[JobEvent]:
        """The events of one job."""
        id_ = job.id if isinstance(job, JobHandle) else job
        return [event for event in self.events if isinstance(event, JobEvent) and event.id == id_]

    def state(self, job: JobHandle | JobID) -> str:
        """Where a job is, by its last event."""
        events = self.of(job)
        return events[-1].dest if events else JOB.initial

    def are(self, jobs: Iterable[JobHandle | JobID], *states: str) -> bool:
        """Whether each job is in one of these states."""
        return all(self.state(job) in states for job in jobs)

    def entered(self, job: JobHandle | JobID, state: str) -> JobEvent | None:
        """The last event that brought a job into a state."""
        found = [event for event in self.of(job) if event.source != event.dest == state]
        return found[-1] if found else None

    async def until(
        self, what: Callable[[], _T], *, within: float = 180.0, publishing: CE | None = None
    ) -> _T:
        """Wait until the answer is true, asked whenever there is an event.

        Args:
            what: the question.
            within: seconds.
            publishing: a CE that tells the states of the batch system meanwhile.
        """
        with trio.fail_after(within):
            while not (answer := what()):
                news = self._news
                if publishing is not None:
                    await trio.to_thread.run_sync(publishing.publish)
                with trio.move_on_after(1.0):
                    await news.wait()
        return answer


def told(event: PollerEvent) -> str:
    """One line."""
    words = [f"{event.seen_at:%H:%M:%S.%f}", str(event.sequence), event.kind]
    if isinstance(event, JobEvent):
        words += [event.id[-8:], f"{event.source} -> {event.dest}", f"({event.arc_state})"]
        words += [f"by {event.seen_by}", f"{event.outcome}" if event.outcome else ""]
    return " ".join(words)


@asynccontextmanager
async def polled(
    backend: ARCBackend, policy: Policy | Path | str = "report"
) -> AsyncIterator[tuple[Poller, Heard]]:
    """A poller, and all that it says."""
    heard = Heard()
    async with backend.poller(policy) as poller, trio.open_nursery() as nursery:
        nursery.start_soon(heard.listen, poller.events())
        yield poller, heard
        nursery.cancel_scope.cancel()


def ends(events: Iterable[PollerEvent], policy: Policy | str = "report") -> dict[JobID, str]:
    """Check that everything happened as the machine allows it; tells where each job ended.

    That is: events numbered from 1 without a gap; for each job a chain from the initial state on,
    each source the dest before it; each step a transition that this policy has, fired by what the
    event says it was seen by, with an outcome where there is to be one.
    """
    policy = Policy.load(policy)
    machine = JOB.under(policy)
    states: dict[JobID, str] = {}
    for number, event in enumerate(events, 1):
        assert event.sequence == number
        assert not isinstance(event, EventsMissed)
        if not isinstance(event, JobEvent):
            continue
        assert event.source == states.get(event.id, machine.initial), told(event)
        assert any(
            event.source in machine.sources(rule)
            and event.dest == (rule.dest or event.source)
            and _fires(rule, event.seen_by)
            and (rule.outcome is None) == (event.outcome is None)
            for rule in machine.rules
        ), told(event)
        states[event.id] = event.dest
    return states


def _fires(rule: Rule, seen_by: SeenBy) -> bool:
    if seen_by in _OBSERVED:
        return rule.observed
    return rule.timed if seen_by is SeenBy.POLICY else rule.trigger == seen_by.value

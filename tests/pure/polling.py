"""A poller on a CE in memory, and an ear for what it tells: for the tests of the poller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import trio

from arcbackend import JobEvent, JobID, Policy, Poller, PollerEvent, PollerSnapshot
from arcbackend.delegations import Delegations
from arcbackend.ends import Ends
from arcbackend.jobids import job_id
from arcbackend.listing import LiveListing
from arcbackend.output.retrieve import Retriever
from arcbackend.polling.poller import open_poller
from arcbackend.polling.subscription import Subscription
from arcbackend.protocol.messages import Operation, Request, Response
from tests.pure.fake_session import FakeSession, Hook, config, items_of, remover_of


class Ear:
    """Everything that was heard, with the time on trio's clock."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, PollerEvent]] = []

    async def listen(self, subscription: Subscription) -> None:
        async for event in subscription:
            self.heard.append((trio.current_time(), event))

    @property
    def events(self) -> list[PollerEvent]:
        return [event for _, event in self.heard]

    def kinds(self) -> list[str]:
        """What was heard of the CE."""
        return [event.kind for event in self.events if event.kind != "job"]

    def of(self, local: str) -> list[JobEvent]:
        """What was heard of one job."""
        return [
            event
            for event in self.events
            if isinstance(event, JobEvent) and event.id.endswith(f"/{local}")
        ]

    def states(self, local: str) -> list[str]:
        """The states that a job came into."""
        return [event.dest for event in self.of(local) if event.dest != event.source]

    def when(self, local: str, state: str) -> float:
        """When it was heard that a job came into a state."""
        for at, event in self.heard:
            if not isinstance(event, JobEvent) or not event.id.endswith(f"/{local}"):
                continue
            if event.dest == state and event.source != state:
                return at
        raise AssertionError(f"{local} never came to be {state}: {self.states(local)}")

    def check(self, before: int = 0) -> None:
        """Sequences have no hole, and every event begins where the job's last one ended."""
        numbers = [event.sequence for event in self.events]
        assert numbers == list(range(before + 1, before + 1 + len(numbers)))
        last: dict[JobID, str] = {}
        for event in self.events:
            if isinstance(event, JobEvent):
                assert event.source == last.get(event.id, event.source)
                last[event.id] = event.dest


def ids(ce: FakeSession, *locals_: str) -> list[JobID]:
    return [job_id(ce.endpoint, local) for local in locals_]


def poller_on(
    ce: FakeSession, policy: Policy | Path | str = "report", **fields: Any
) -> AbstractAsyncContextManager[Poller]:
    """As ``ARCBackend.poller`` makes one."""
    settings = config(**{"endpoint": ce.endpoint, **fields})
    listing = LiveListing(ce, settings.live_listing, settings.live_listing_budget)
    return open_poller(
        lambda: Poller(
            session=ce,
            config=settings,
            listing=listing,
            ends=Ends(ce, items_of(ce)),
            remover=remover_of(ce, listing),
            retriever=Retriever(ce, listing, settings),
            delegations=Delegations(ce, settings, ce.clock),
            policy=Policy.load(policy),
        )
    )


@asynccontextmanager
async def following(
    ce: FakeSession,
    *locals_: str,
    policy: Policy | Path | str = "report",
    snapshot: PollerSnapshot | None = None,
    **fields: Any,
) -> AsyncIterator[tuple[Poller, Ear]]:
    """A poller that tracks these jobs, and an ear; what was heard is checked in the end."""
    ear = Ear()
    async with trio.open_nursery() as nursery, poller_on(ce, policy, **fields) as poller:
        nursery.start_soon(ear.listen, poller.events())
        if snapshot is not None:
            poller.restore(snapshot)
        poller.track(ids(ce, *locals_))
        yield poller, ear
    ear.check(0 if snapshot is None else snapshot.sequence)


def put(ce: FakeSession, state: str, *locals_: str, live: bool = False) -> None:
    """Jobs are in this state on the CE, by its documents, or only by its live listing."""
    for local in locals_:
        ce.jobs[local] = ce.ever[local] = local
        (ce.live if live else ce.documented)[local] = state


def names(count: int, prefix: str = "j") -> list[str]:
    return [f"{prefix}{number:05d}" for number in range(count)]


class Outage:
    """Requests fail while it lasts."""

    def __init__(self, ce: FakeSession, error: Exception, *operations: Operation) -> None:
        self.on = False
        self._error = error
        for operation in operations or tuple(Operation):
            ce.hooks[operation] = self._hook

    async def _hook(self, _request: Request) -> Response | None:
        if self.on:
            raise self._error
        return None


def slowly(seconds: float) -> Hook:
    """A hook that lets the CE answer, so many seconds later."""

    async def hook(_request: Request) -> None:
        await trio.sleep(seconds)

    return hook


def times(ce: FakeSession, operation: Operation) -> list[float]:
    """When requests for this operation came."""
    return [call.at for call in ce.calls if call.request.operation is operation]


def asked(ce: FakeSession, operation: Operation) -> list[str]:
    """The jobs that it was asked for, as often as they were."""
    return list(chain.from_iterable(ce.asked(operation)))


def gaps(moments: Sequence[float]) -> list[float]:
    """Seconds between one and the next."""
    return [after - before for before, after in pairwise(moments)]

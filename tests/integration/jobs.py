"""Specs and waits that many tests use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
import trio

from arcbackend import ARCBackend, JobHandle, JobID, JobStatus, SubmissionSpec
from arcbackend.protocol.requests import RequestBuilder
from tests.integration.ce import CE

TRUE = SubmissionSpec(executable="/bin/true")
SLEEP = SubmissionSpec(executable="/bin/sleep", arguments=("600",))


def local(job: JobHandle | JobID) -> str:
    """The CE's own short id."""
    return (job.id if isinstance(job, JobHandle) else job).rsplit("/", 1)[-1]


async def over(
    backend: ARCBackend, ids: Sequence[JobHandle | JobID], within: float = 300
) -> dict[JobID, JobStatus]:
    """Wait until every job is over, polling every second."""
    with trio.fail_after(within):
        while True:
            states = await backend.status(ids)
            if all(status.is_final for status in states.values()):
                return dict(states)
            await trio.sleep(1)


async def killed(
    backend: ARCBackend, ids: Sequence[JobHandle | JobID], within: float = 300
) -> dict[JobID, JobStatus]:
    """Kill until every job is over: A-REX can lose a kill (docs/explanation/arc-rest.md)."""
    with trio.fail_after(within):
        while True:
            states = await backend.status(ids)
            alive = [id_ for id_, status in states.items() if not status.is_final]
            if not alive:
                return dict(states)
            await backend.kill(alive)
            await trio.sleep(3)


async def gone(backend: ARCBackend, ids: Sequence[JobHandle | JobID], within: float = 180) -> None:
    """Wait until the CE knows none of the jobs."""
    with trio.fail_after(within):
        while set((await backend.status(ids)).values()) != {JobStatus.UNKNOWN}:
            await trio.sleep(1)


async def until(
    backend: ARCBackend,
    ids: Sequence[JobHandle | JobID],
    wanted: JobStatus,
    ce: CE,
    within: float = 120,
) -> None:
    """Wait until every job has a status, with the CE publishing what the batch system says."""
    with trio.fail_after(within):
        while set((await backend.status(ids)).values()) != {wanted}:
            await trio.to_thread.run_sync(ce.publish)
            await trio.sleep(0.5)


async def published(
    backend: ARCBackend, job: JobHandle | JobID, wanted: str, ce: CE, within: float = 60
) -> None:
    """Wait until the CE says a state of a job in its own words, of which a status tells less."""
    with trio.fail_after(within):
        while True:
            await trio.to_thread.run_sync(ce.publish)
            response = await backend._session.call(RequestBuilder("1.1").status([local(job)]))
            (answer,) = json.loads(response.body)["job"]
            if answer["state"] == wanted:
                return
            await trio.sleep(0.5)


def first_delegation(ce: CE) -> dict[str, int]:
    """The requests that come before the first jobs of an identity that has none."""
    if "proxy" not in ce.auth:
        return {}
    return {"delegations.list": 1, "delegations.new": 1, "delegations.put": 1}


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Count the requests that are sent, by operation."""
    counts: Counter[str] = Counter()
    with structlog.testing.capture_logs() as events:
        yield counts
    counts.update(event["operation"] for event in events if event["event"] == "arc.request")

"""Jobs that the batch system holds up: what the CE says of them, and what we make of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from arcbackend import ARCBackend, JobHandle, JobStatus
from tests.integration.ce import CE, eventually
from tests.integration.jobs import SLEEP, killed, local, over, published, until


@asynccontextmanager
async def sleeping(ce: CE) -> AsyncIterator[tuple[ARCBackend, JobHandle]]:
    """A job of ten minutes, which is gone afterwards."""
    async with ce.backend() as backend:
        (handle,) = (await backend.submit(SLEEP)).handles
        try:
            yield backend, handle
        finally:
            await killed(backend, [handle])
            await backend.purge([handle])


async def told(verb: Callable[[str], None], handle: JobHandle) -> None:
    """Have the batch system do something to a job."""
    await trio.to_thread.run_sync(verb, local(handle))


@pytest.mark.condor
async def test_a_suspended_job_is_held_and_runs_again(ce: CE) -> None:
    async with sleeping(ce) as (backend, handle):
        await until(backend, [handle], JobStatus.RUNNING, ce)
        await told(ce.batch.suspend, handle)
        await published(backend, handle, "HELD", ce)
        assert await backend.status([handle]) == {handle.id: JobStatus.HELD}
        await told(ce.batch.resume, handle)
        await published(backend, handle, "RUNNING", ce)
        assert await backend.status([handle]) == {handle.id: JobStatus.RUNNING}


@pytest.mark.condor
async def test_a_suspended_job_can_be_killed(ce: CE) -> None:
    async with sleeping(ce) as (backend, handle):
        await until(backend, [handle], JobStatus.RUNNING, ce)
        await told(ce.batch.suspend, handle)
        await published(backend, handle, "HELD", ce)
        assert (await backend.kill([handle]))[handle.id].ok
        assert await over(backend, [handle]) == {handle.id: JobStatus.ABORTED}


@pytest.mark.condor
async def test_a_job_held_before_its_start_is_other_and_goes_on_when_released(ce: CE) -> None:
    with ce.batch.closed():
        async with sleeping(ce) as (backend, handle):
            await eventually(lambda: local(handle) in ce.batch.jobs())
            await told(ce.batch.hold, handle)
            await published(backend, handle, "OTHER", ce)
            assert await backend.status([handle]) == {handle.id: JobStatus.RUNNING}
            await told(ce.batch.release, handle)
            await published(backend, handle, "QUEUING", ce)
            assert await backend.status([handle]) == {handle.id: JobStatus.WAITING}


@pytest.mark.condor
async def test_a_running_job_that_is_held_is_other_and_can_be_killed(ce: CE) -> None:
    async with sleeping(ce) as (backend, handle):
        await until(backend, [handle], JobStatus.RUNNING, ce)
        await told(ce.batch.hold, handle)
        await published(backend, handle, "OTHER", ce)
        assert await backend.status([handle]) == {handle.id: JobStatus.RUNNING}
        assert (await backend.kill([handle]))[handle.id].ok
        assert await over(backend, [handle]) == {handle.id: JobStatus.ABORTED}


@pytest.mark.condor
async def test_a_running_job_that_was_held_fails_when_released(ce: CE) -> None:
    """ARC has HTCondor remove what would start a second time: docs/explanation/arc-rest.md."""
    async with sleeping(ce) as (backend, handle):
        await until(backend, [handle], JobStatus.RUNNING, ce)
        await told(ce.batch.hold, handle)
        await published(backend, handle, "OTHER", ce)
        await told(ce.batch.release, handle)
        assert await over(backend, [handle]) == {handle.id: JobStatus.FAILED}


@pytest.mark.slurm
async def test_a_job_suspended_by_slurm_is_other_and_runs_again(ce: CE) -> None:
    async with sleeping(ce) as (backend, handle):
        await until(backend, [handle], JobStatus.RUNNING, ce)
        await told(ce.batch.suspend, handle)
        await published(backend, handle, "OTHER", ce)
        assert await backend.status([handle]) == {handle.id: JobStatus.RUNNING}
        await told(ce.batch.resume, handle)
        await published(backend, handle, "RUNNING", ce)
        assert await backend.status([handle]) == {handle.id: JobStatus.RUNNING}

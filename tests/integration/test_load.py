"""How many jobs run and wait: what the real CE publishes of jobs that do."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio

from arcbackend import (
    ARCBackend,
    ConfigurationError,
    CredentialSet,
    JobCounts,
    Resources,
    StaticCredentials,
)
from tests.integration.ce import CE
from tests.integration.jobs import SLEEP, counted_requests, killed

pytestmark = pytest.mark.once

# Of the 8 CPUs that there are, 2 are taken by the job beside these: two of them run.
LARGE = SLEEP.model_copy(update={"resources": Resources(cpus=3, memory_mb=30)})


async def test_jobs_that_run_and_wait(ce: CE) -> None:
    async def until(**expected: int) -> JobCounts:
        """The numbers, as soon as they are these. (What other tests leave may still be dying.)"""
        with trio.fail_after(300):
            while True:
                await trio.to_thread.run_sync(ce.publish)
                counts = await backend.counts()
                if all(getattr(counts, name) == number for name, number in expected.items()):
                    return counts
                await trio.sleep(0.5)

    async with ce.backend() as backend:
        # What other tests left: the CE may have lost the kill of a job.
        await trio.to_thread.run_sync(ce.batch.clear)
        await until(running=0, waiting=0)
        with ce.batch.foreign(cpus=2):
            handles = (await backend.submit(LARGE, 5)).handles
            # HTCondor's plug-in counts CPUs instead of the queue's jobs, and some seconds late.
            running = 3 if ce.instance.lrms == "slurm" else 8
            # A job handed on while the CE counts is in `waiting` twice, until it counts anew.
            counts = await until(ce_running=2, ce_waiting=3, running=running, waiting=3)
            print(counts)
            assert counts.queue == ce.queue
            assert [(one.queue, one.vo) for one in counts.shares] == [(ce.queue, None)]

            # How old it is: the provider has run a moment ago.
            assert counts.age is not None
            assert -2 < counts.age < 60
            assert counts.as_of is not None
            assert counts.as_of.utcoffset() == timedelta(0)

            # All queues together; the others are empty.
            async with ce.backend(queue=None) as every:
                total = await every.counts()
            assert (total.running, total.ce_running) == (counts.running, 2)
            assert (total.waiting, total.ce_waiting) == (3, 3)
            assert {one.queue for one in total.shares} >= {ce.queue}

            # No credentials are needed, and it is one request.
            async with ARCBackend(ce.config(), StaticCredentials(CredentialSet())) as stranger:
                with counted_requests() as requests:
                    assert (await stranger.counts()).ce_running == 2
                assert requests == {"versions": 1, "info": 1}
            async with ce.backend(queue="nosuchqueue") as wrong:
                with pytest.raises(ConfigurationError, match=f"it has .*{ce.queue}"):
                    await wrong.counts()
            await killed(backend, handles)
        await until(running=0, waiting=0, ce_running=0, ce_waiting=0)
        await backend.purge(handles)

"""What the real CE says of jobs that end in every way: reasons, and facts of their runs."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import structlog
import trio

from arcbackend import ARCBackend, Diagnostics, JobDetails, JobHandle, JobStatus
from tests.integration.ce import CE, RealCE
from tests.integration.endings import SLEEP, SMALL, all_ways, made, shell
from tests.integration.jobs import counted_requests, gone, killed, local, over, until
from tests.pure.test_diagnosis import REASONS

pytestmark = pytest.mark.once

OTHER = SMALL.model_copy(update={"queue": "other"})
WELL = {"ok"}
BY_REQUEST = {"killed at once", "killed waiting", "killed running"}
EXIT_CODES = {"ok": 0, "exit 3": 3, "SIGKILL": 137, "not executable": 126, "no output": 0}


def expected(ce: CE, case: str) -> str:
    slurm, condor = (REASONS[case] * 2)[:2]
    return condor if ce.instance.lrms == "condor" else slurm


def status_of(case: str) -> JobStatus:
    if case in WELL:
        return JobStatus.DONE
    return JobStatus.ABORTED if case in BY_REQUEST else JobStatus.FAILED


async def test_jobs_that_end_in_every_way(ce: CE) -> None:
    async with ce.backend() as backend:
        jobs = await all_ways(ce, backend)
        await trio.to_thread.run_sync(ce.publish)
        await _not_over(backend, jobs.running, jobs.waiting)
        # One by one, as each ends: its document may be of before.
        told: dict[str, Diagnostics] = {}
        with trio.fail_after(120):
            while len(told) < len(jobs.ended):
                left = [job for case, job in jobs.ended.items() if case not in told]
                states = await backend.status(left)
                for case, job in jobs.ended.items():
                    if case not in told and states[job.id].is_final:
                        told[case] = (await backend.diagnostics([job]))[job.id]
                await trio.sleep(0.5)
        for case, one in told.items():
            print(case, "|", one.arc_state, one.exit_code, one.failure_reason, one.reason)
        _right(ce, told)
        assert all(one.log and one.log_size and one.description for one in told.values())
        assert all("Job state change" in (one.log or "") for one in told.values())
        assert not any("hunter2" in one.model_dump_json() for one in told.values())

        await trio.to_thread.run_sync(ce.publish)
        with counted_requests() as requests:
            many = await backend.diagnostics(list(jobs.ended.values()))
        print(requests)
        assert list(many) == [job.id for job in jobs.ended.values()]
        _right(ce, {case: many[job.id] for case, job in jobs.ended.items()})
        assert requests["jobs.info"] == 1
        assert requests["jobs.diagnose"] <= 5  # those whose record leaves something open
        await _described(ce, backend, jobs.ended)

        ended = jobs.ended["exit 3"]
        if isinstance(ce, RealCE):
            await _megabytes_of_log(ce, backend, ended)
        await backend.purge([ended])
        await gone(backend, [ended])
        unknown, other = [ended, jobs.ended["ok"]], jobs.ended["ok"].id
        why = await backend.diagnostics(unknown)
        assert (why[ended.id].status, why[other].status) == (JobStatus.UNKNOWN, JobStatus.DONE)
        assert "purged" in (why[ended.id].reason or "")
        assert "purged" in ((await backend.describe(unknown))[ended.id].reason or "")
        await killed(backend, [jobs.running, jobs.waiting])
        await backend.purge(jobs.every)


async def _not_over(backend: ARCBackend, running: JobHandle, waiting: JobHandle) -> None:
    with counted_requests() as requests:
        runs = (await backend.diagnostics([running]))[running.id]
    assert requests.total() <= 5
    waits = (await backend.diagnostics([waiting]))[waiting.id]
    assert (runs.status, waits.status) == (JobStatus.RUNNING, JobStatus.WAITING)
    for one in (runs, waits):
        assert "INLRMS" in (one.log or "")
        assert (one.failure_reason, one.killed_by_request, one.record) == (None, None, None)
        assert (one.exit_code, one.reason) == (None, None)
    described = await backend.describe([running, waiting])
    assert all(one.batch_id for one in described.values())
    assert len({one.batch_id for one in described.values()}) == 2
    assert described[running.id].nodes
    assert described[waiting.id].nodes == ()
    assert described[running.id].wall_time_s is not None
    assert described[running.id].ended_at is None


def _right(ce: CE, told: dict[str, Diagnostics]) -> None:
    for case, one in told.items():
        assert one.reason is None, case
        assert one.status is status_of(case), case
        assert one.killed_by_request is (case in BY_REQUEST), case
        if case in WELL:
            assert (one.failure_reason, one.record) == (None, None)
        else:
            assert re.fullmatch(expected(ce, case), one.failure_reason or ""), (case, one)
            assert one.record
        if case in EXIT_CODES:
            assert one.exit_code == EXIT_CODES[case], case
        elif case in BY_REQUEST or case.startswith(("cancelled", "over", "no input")):
            assert one.exit_code is None, case


async def _described(ce: CE, backend: ARCBackend, jobs: dict[str, JobHandle]) -> None:
    with counted_requests() as requests:
        many = await backend.describe(list(jobs.values()))
    assert requests == {"jobs.info": 1}
    for case, job in jobs.items():
        told = many[job.id]
        assert (told.name, told.queue, told.reason) == (job.name, ce.queue, None)
        assert told.exit_code == EXIT_CODES.get(case, told.exit_code)
        assert told.as_of is not None
        assert told.submitted_at is not None
        assert abs(told.as_of - told.submitted_at) < timedelta(minutes=10)
        assert told.expires_at is not None
        assert told.expires_at > told.as_of
        if case not in ("no input", "killed at once", "cancelled waiting", "killed waiting"):
            _ran(told)
    job = jobs["ok"]
    with counted_requests() as requests:
        alone = (await backend.describe([job.id]))[job.id]
    assert requests == {"jobs.info": 1, "jobs.diagnose": 2}
    of_few = {"batch_id", "batch_system", "peak_memory_mb"}
    of_few.add("cpu_time_s")  # where it is measured, documents have whole seconds of it
    assert alone.model_dump(exclude=of_few) == many[job.id].model_dump(exclude=of_few)
    assert alone.batch_id
    assert alone.batch_system == ("condor" if ce.instance.lrms == "condor" else "SLURM")
    assert (alone.slots, alone.exit_code) == (2, 0)
    assert alone.completed_at is not None


def _ran(told: JobDetails) -> None:
    assert told.submitted_at is not None
    assert told.started_at is not None
    assert told.ended_at is not None
    assert told.submitted_at - timedelta(seconds=2) <= told.started_at <= told.ended_at
    assert told.wall_time_s is not None
    lasted = (told.ended_at - told.started_at).total_seconds()
    assert abs(told.wall_time_s - lasted) <= 2
    assert len(told.nodes) == 1


async def _megabytes_of_log(ce: RealCE, backend: ARCBackend, job: JobHandle) -> None:
    parts = re.findall("...", local(job))
    log = f"{ce.control_directory}/jobs/{'/'.join(parts)}/errors"
    ce.run("sh", "-c", f"seq 500000 >>{log}; echo the last line >>{log}")
    size = int(ce.run("stat", "--format=%s", log))
    assert size > 3_000_000
    with structlog.testing.capture_logs() as events:
        told = (await backend.diagnostics([job]))[job.id]
    received = sum(event["bytes_received"] for event in events if event["event"] == "arc.request")
    assert received < 200_000
    assert told.log_size == size
    assert told.log is not None
    first, *_, last = told.log.split("\n")
    assert first.isdigit()
    assert last == "the last line"
    assert len(told.log) <= 65_536


@pytest.mark.slurm
async def test_a_lost_node_and_a_refused_submission(ce: CE) -> None:
    async with ce.backend() as backend:
        lost = await made(backend, SLEEP)
        with ce.batch.inactive("other"):
            refused = await made(backend, shell("true", OTHER))
            await until(backend, [lost], JobStatus.RUNNING, ce)
            await trio.to_thread.run_sync(ce.batch.fail_node)
            states = await over(backend, [lost, refused])
        assert set(states.values()) == {JobStatus.FAILED}
        told = await backend.diagnostics([lost, refused])
        for case, job in {"lost node": lost, "not submitted": refused}.items():
            print(told[job.id].failure_reason)
            assert re.fullmatch(expected(ce, case), told[job.id].failure_reason or "")
        await backend.purge([lost, refused])

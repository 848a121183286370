"""The simulated batch systems: slots, queues, and what administrators do."""

from __future__ import annotations

import pytest

from arcbackend.simulator.batch import BatchError, Load
from arcbackend.simulator.jobs import BatchState, InnerState, Plan
from arcbackend.simulator.traps import Trap
from tests.simulator.laboratory import Laboratory, described

FOR_EVER = Plan(run_seconds=None)


def test_as_many_run_as_there_are_slots() -> None:
    lab = Laboratory(slots=3)
    jobs = [lab.make(Plan(run_seconds=100)) for _ in range(4)]
    lab.until(jobs[2], BatchState.RUNNING)
    assert lab.batch.free == 0
    assert jobs[3].batch is BatchState.QUEUED
    lab.until(jobs[0], BatchState.ENDED)
    lab.until(jobs[3], BatchState.RUNNING, within=1)
    assert lab.batch.free == 2


def test_a_big_job_keeps_its_turn() -> None:
    lab = Laboratory(slots=4)
    lab.running(Plan(run_seconds=50))
    big = lab.make(Plan(run_seconds=1), described(cpus=4))
    small = lab.make(Plan(run_seconds=1))
    lab.after(30)
    assert (big.batch, small.batch) == (BatchState.QUEUED, BatchState.QUEUED)
    lab.until(big, BatchState.RUNNING)
    assert small.batch is BatchState.QUEUED
    lab.until(small, BatchState.ENDED)


def test_a_job_that_no_node_can_run() -> None:
    lab = Laboratory(slots=4, lrms="slurm")
    job = lab.make(description=described(cpus=5))
    lab.until(job, InnerState.FINISHED)
    assert (job.failure, job.failed_in) == ("Job submission to LRMS failed\n", InnerState.SUBMIT)

    lab = Laboratory(slots=4, lrms="condor")
    job = lab.make(description=described(cpus=5))
    other = lab.running()
    lab.after(1100)
    assert job.batch is BatchState.QUEUED
    assert other.state is InnerState.FINISHED


@pytest.mark.parametrize(("lrms", "told"), [("slurm", "OTHER"), ("condor", "HELD")])
def test_suspended(lrms: str, told: str) -> None:
    lab = Laboratory(lrms=lrms)
    job = lab.running(Plan(run_seconds=100))
    lab.after(60)
    lab.batch.suspend(job.local)
    assert lab.told(job) == told
    assert lab.live(job) == "RUNNING"
    with pytest.raises(BatchError, match="suspended"):
        lab.batch.suspend(job.local)
    lab.after(1000)
    assert job.batch is BatchState.SUSPENDED
    lab.batch.resume(job.local)
    lab.after(35)
    assert lab.told(job) == "RUNNING"
    lab.until(job, BatchState.ENDED, within=6)
    lab.until(job, InnerState.FINISHED)
    assert job.failure == ""


def test_suspended_is_held_without_the_trap() -> None:
    lab = Laboratory(without_traps={Trap.SUSPENDED_IS_OTHER})
    job = lab.running()
    lab.batch.suspend(job.local)
    assert lab.told(job) == "HELD"


def test_slurm_holds_what_waits() -> None:
    lab = Laboratory(slots=1)
    running = lab.running()
    job, other = lab.make(), lab.make()
    lab.until(job, BatchState.QUEUED)
    lab.batch.hold(job.local)
    assert lab.told(job) == "QUEUING"
    with pytest.raises(BatchError):
        lab.batch.hold(running.local)
    lab.batch.cancel(running.local)
    lab.until(other, InnerState.FINISHED)
    assert job.batch is BatchState.KEPT
    lab.batch.release(job.local)
    lab.until(job, InnerState.FINISHED)
    assert job.failure == ""


def test_a_held_job_of_condor_that_had_started_is_removed() -> None:
    lab = Laboratory(lrms="condor", slots=1)
    job = lab.running()
    lab.batch.hold(job.local)
    assert lab.told(job) == "OTHER"
    assert lab.batch.free == 1
    lab.batch.release(job.local)
    assert lab.told(job) == "QUEUING"
    lab.until(job, InnerState.FINISHED)
    assert job.failure == "LRMS error: (-1) PeriodicRemove evaluated to TRUE\n"


def test_a_held_job_of_condor_goes_on_if_it_had_not_started() -> None:
    lab = Laboratory(lrms="condor", slots=1)
    lab.running(Plan(run_seconds=100))
    job = lab.make()
    lab.until(job, BatchState.QUEUED)
    lab.batch.hold(job.local)
    assert lab.told(job) == "OTHER"
    lab.after(200)
    assert job.batch is BatchState.HELD
    lab.batch.release(job.local)
    lab.until(job, InnerState.FINISHED)
    assert job.failure == ""


def test_a_held_job_starts_again_without_the_trap() -> None:
    lab = Laboratory(lrms="condor", without_traps={Trap.HELD_ONCE_STARTED_IS_REMOVED})
    job = lab.running(Plan(run_seconds=100))
    lab.after(90)
    lab.batch.hold(job.local)
    lab.batch.release(job.local)
    lab.until(job, BatchState.RUNNING)
    lab.after(90)
    assert job.batch is BatchState.RUNNING
    lab.until(job, InnerState.FINISHED)


def test_what_is_planned_to_be_held() -> None:
    lab = Laboratory()
    job = lab.running(Plan(run_seconds=10, hold_after=4, hold_seconds=100))
    lab.until(job, BatchState.SUSPENDED, within=4.1)
    lab.until(job, BatchState.RUNNING, within=100.1)
    lab.until(job, BatchState.ENDED, within=6.1)

    job = lab.running(Plan(run_seconds=10, hold_after=4))
    lab.until(job, BatchState.SUSPENDED)
    lab.after(10_000)
    assert job.batch is BatchState.SUSPENDED


@pytest.mark.parametrize(
    ("lrms", "waiting", "failure"),
    [
        ("slurm", False, "LRMS error: (271) Job was cancelled\n"),
        ("slurm", True, "LRMS error: (15) Job was cancelled\n"),
        ("condor", False, "LRMS error: (-1) RemoveReason: via condor_rm (by user condor)\n"),
    ],
)
def test_cancelled_by_an_administrator(lrms: str, waiting: bool, failure: str) -> None:
    lab = Laboratory(lrms=lrms, slots=1)
    job = lab.running()
    if waiting:
        job = lab.make()
        lab.until(job, BatchState.QUEUED)
    lab.batch.cancel(job.local)
    lab.until(job, InnerState.FINISHED)
    assert job.failure == failure
    assert not job.cancelled
    assert lab.told(job) == "FAILED"
    with pytest.raises(BatchError, match="has no job"):
        lab.batch.cancel(job.local)


@pytest.mark.parametrize(
    ("lrms", "asked", "runs", "failure"),
    [
        ("slurm", 20, 60, "LRMS error: (271) Job timeout\n"),
        ("slurm", 61, 120, "LRMS error: (271) Job timeout\n"),
        ("condor", 20, 20, "LRMS error: (271) job killed: wall\n"),
    ],
)
def test_over_time(lrms: str, asked: int, runs: float, failure: str) -> None:
    lab = Laboratory(lrms=lrms)
    job = lab.running(FOR_EVER, described(wall_time_s=asked))
    lab.until(job, InnerState.FINISHED)
    assert job.started is not None
    assert job.ended == job.started + runs
    assert (job.failure, job.exit_code) == (failure, None)


def test_the_end_of_its_time_can_be_called() -> None:
    lab = Laboratory()
    without, limited = lab.running(FOR_EVER), lab.running(FOR_EVER, described(wall_time_s=600))
    lab.batch.end_time(without.local)
    lab.batch.end_time(limited.local)
    lab.until(limited, InnerState.FINISHED)
    assert limited.failure == "LRMS error: (271) Job timeout\n"
    assert without.batch is BatchState.RUNNING


@pytest.mark.parametrize(
    ("lrms", "failure"),
    [
        ("slurm", "LRMS error: (265) Job failed\n"),
        ("condor", "LRMS error: (271) job killed: vmem\n"),
    ],
)
def test_over_memory(lrms: str, failure: str) -> None:
    lab = Laboratory(lrms=lrms)
    plan = Plan(run_seconds=600, memory=201 * 2**20)
    fits = lab.make(plan, described(memory_mb=101, cpus=2))
    job = lab.make(plan, described(memory_mb=100, cpus=2))
    lab.until(job, InnerState.FINISHED)
    assert job.failure == failure
    lab.until(fits, InnerState.FINISHED)
    assert fits.failure == ""


def test_a_lost_node() -> None:
    lab = Laboratory(slots=2)
    lost = [lab.running(), lab.running()]
    lab.batch.suspend(lost[0].local)
    waits = lab.make()
    lab.until(waits, BatchState.QUEUED)
    lab.batch.fail_node()
    for job in lost:
        lab.until(job, InnerState.FINISHED)
        assert job.failure == "LRMS error: (257) Node fail\n"
    lab.until(waits, InnerState.FINISHED)
    assert waits.failure == ""


def test_closed() -> None:
    lab = Laboratory()
    with lab.batch.closed():
        job = lab.make()
        lab.after(1000)
        assert job.batch is BatchState.QUEUED
        assert job.local in lab.batch.jobs()
    lab.until(job, InnerState.FINISHED)
    assert lab.batch.jobs() == {}


def test_an_inactive_queue_is_tried_for_twenty_seconds() -> None:
    lab = Laboratory(queues=("main", "other"))
    with lab.batch.inactive("other"):
        job = lab.make(queue="other")
        late = lab.make(queue="other")
        main = lab.make()
        lab.until(main, InnerState.FINISHED)
        lab.after(10)
        assert job.state is InnerState.SUBMIT
        lab.until(job, InnerState.FINISHED)
        assert job.failure == "Job submission to LRMS failed\n"
        assert late.failed_in is InnerState.SUBMIT
        late = lab.make(queue="other")
        lab.after(10)
    lab.until(late, InnerState.FINISHED)
    assert late.failure == ""


def test_others_jobs_take_slots() -> None:
    lab = Laboratory(slots=4)
    with lab.batch.foreign(cpus=3):
        first = lab.running(FOR_EVER)
        second = lab.make(Plan(run_seconds=5))
        lab.after(100)
        assert (first.batch, second.batch) == (BatchState.RUNNING, BatchState.QUEUED)
        assert lab.batch.load() == Load(2, 4, 1, 1, 3, 0, 1)
        with lab.batch.foreign(cpus=1):
            assert lab.batch.load("main").foreign_waiting == 1
    lab.until(second, InnerState.FINISHED)
    assert lab.batch.load() == Load(1, 1, 0)


def test_cleared() -> None:
    lab = Laboratory(slots=2)
    lab.batch.add_foreign(1)
    jobs = [lab.running(), lab.make()]
    lab.until(jobs[1], BatchState.QUEUED)
    lab.batch.clear()
    assert lab.batch.jobs() == {}
    assert lab.batch.load() == Load()
    assert lab.batch.free == 2
    for job in jobs:
        lab.until(job, InnerState.FINISHED)


SLURM = {
    "JobId": "1",
    "JobName": "a_job_of_many_w",
    "JobState": "SUSPENDED",
    "MinMemoryCPU": "50M",
    "NumCPUs": "2",
    "NumNodes": "1",
    "Partition": "main",
    "TimeLimit": "1-01:02:00",
}
CONDOR = {
    "ClusterId": "1",
    "JobStatus": "7",
    "JobTimeLimit": "90061",
    "RequestCpus": "2",
    "RequestMemory": "100",
}


@pytest.mark.parametrize(
    ("lrms", "fields"),
    [
        ("slurm", SLURM),
        ("condor", CONDOR),
    ],
)
def test_its_own_words(lrms: str, fields: dict[str, str]) -> None:
    lab = Laboratory(lrms=lrms)
    job = lab.running(
        description=described(cpus=2, name="a-job-of-many-words", memory_mb=50, wall_time_s=90_061)
    )
    lab.batch.suspend(job.local)
    assert lab.batch.jobs() == {job.local: fields}


@pytest.mark.parametrize(("lrms", "told"), [("slurm", "OTHER"), ("condor", "EXITINGLRMS")])
def test_what_has_ended_is_not_noticed_at_once(lrms: str, told: str) -> None:
    lab = Laboratory(lrms=lrms)
    job = lab.running()
    lab.until(job, BatchState.ENDED, within=1100)
    assert job.state is InnerState.INLRMS
    assert lab.told(job) == told
    assert lab.live(job) == "RUNNING"

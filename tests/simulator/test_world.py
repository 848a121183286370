"""A whole simulated CE, as the HTTP side sees it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from arcbackend.simulator.batch import Load
from arcbackend.simulator.descriptions import Description, Output
from arcbackend.simulator.jobs import BatchState, Job, Plan
from arcbackend.simulator.session_directory import Listing, SessionDirectory, Slice
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.traps import Trap, Traps
from arcbackend.simulator.world import JobRefused, UnknownItem, World
from tests.simulator.laboratory import described

EPOCH = 1_700_000_000.0
ME, YOU = "me", "you"
SETTLED = {"without_traps": {Trap.LISTED_LATE, Trap.WIPED_WHILE_ACCEPTED}}


class Clock:
    def __init__(self) -> None:
        self.time = 5.0

    def __call__(self) -> float:
        return self.time


Make = Callable[..., World]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock, tmp_path: Path) -> Make:
    def made(script: Any = None, **settings: Any) -> World:
        wanted = SimulatorSettings(**({"epoch": EPOCH} | settings))
        traps = Traps(wanted.arc_version, wanted.lrms, wanted.without_traps)
        return World(wanted, traps, tmp_path, clock, script=script)

    return made


def until(world: World, clock: Clock, job: Job, state: str) -> None:
    for _ in range(10_000):
        if world.live_state(job) == state or world.find(job.owner, job.local) is None:
            return
        clock.time += 0.05
    raise AssertionError(f"{job} is not {state}")


def listed(directory: SessionDirectory) -> dict[str, int | None]:
    listing = directory.get(b"")
    assert isinstance(listing, Listing)
    return {entry.name: entry.size for entry in listing.entries}


def content(directory: SessionDirectory, name: bytes) -> bytes:
    found = directory.get(name)
    assert isinstance(found, Slice)
    return b"".join(found.chunks())


def test_the_same_seed_makes_the_same_ids(make: Make) -> None:
    first, second, other = make(), make(), make(seed=1)
    ids = [[job.local for job in w.create_copies(50, ME, described())] for w in (first, second)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 50
    assert all(len(id_) == 12 and set(id_) <= set("0123456789abcdef") for id_ in ids[0])
    assert not set(ids[0]) & {job.local for job in other.create_copies(50, ME, described())}


def test_jobs_are_their_owners(make: Make) -> None:
    world = make(**SETTLED)
    mine, yours = world.create(ME, described()), world.create(YOU, described())
    assert list(world.jobs_of(ME)) == [mine]
    assert world.find(ME, mine.local) is mine
    assert world.find(ME, yours.local) is None
    assert world.find("nobody", mine.local) is None
    assert list(world.jobs_of("nobody")) == []


def test_a_new_job_is_odd_for_a_moment(make: Make, clock: Clock) -> None:
    world = make()
    job = world.create(ME, described())
    assert list(world.jobs_of(ME)) == []
    clock.time += 0.025
    assert list(world.jobs_of(ME)) == [job]
    assert world.live_state(job) == "WIPED"
    clock.time += 0.025
    assert world.live_state(job) in ("ACCEPTING", "PREPARING")


def test_and_is_not_without_the_traps(make: Make) -> None:
    world = make(**SETTLED)
    job = world.create(ME, described())
    assert list(world.jobs_of(ME)) == [job]
    assert world.live_state(job) == "ACCEPTING"


def test_live_and_published(make: Make, clock: Clock) -> None:
    world = make(**SETTLED)
    job = world.create(ME, described())
    assert world.published_state(job) == "ACCEPTING"
    until(world, clock, job, "FINISHED")
    assert world.published_state(job) == "ACCEPTED"
    world.publish()
    assert world.published_state(job) == "FINISHED"


def test_the_provider_runs_by_itself(make: Make, clock: Clock) -> None:
    world = make(publish_every=30)
    job = world.create(ME, described(executable="/bin/sleep", arguments=("100",)))
    clock.time += 29
    assert world.published_state(job) == "ACCEPTED"
    clock.time += 1
    assert world.published_state(job) == "RUNNING"
    clock.time += 1_000_000
    assert world.published_state(job) == "FINISHED"


def test_documents_are_fresh_without_the_trap(make: Make, clock: Clock) -> None:
    world = make(without_traps={Trap.STALE_STATUS})
    job = world.create(ME, described(executable="/bin/sleep", arguments=("100",)))
    clock.time += 10
    assert world.published_state(job) == "RUNNING"


@pytest.mark.parametrize(
    ("without", "told"), [((), "FAILED"), ((Trap.KILLED_IS_FAILED_UNPUBLISHED,), "KILLED")]
)
def test_killed_before_there_is_a_document(
    make: Make, clock: Clock, without: tuple[Trap, ...], told: str
) -> None:
    world = make(without_traps={*without, Trap.WIPED_WHILE_ACCEPTED})
    job = world.create(ME, described())
    world.kill(job)
    until(world, clock, job, "FAILED")
    assert world.published_state(job) == told
    world.publish()
    assert world.published_state(job) == "KILLED"


def test_queues(make: Make) -> None:
    world = make(queues=("main", "other"))
    assert world.create(ME, described()).queue == "main"
    assert world.create(ME, described(), queue="other").queue == "other"
    assert world.create(ME, described(queue="main"), queue="other").queue == "main"
    with pytest.raises(JobRefused, match="Requested queue nosuch is not allowed for this user"):
        world.create(ME, described(queue="nosuch"))


def test_a_limit_of_jobs(make: Make, clock: Clock) -> None:
    world = make(max_jobs=3)
    assert make().room() is None
    world.create(ME, described())
    assert world.room() == 2
    jobs = world.create_copies(5, YOU, described())
    assert len(jobs) == 2
    with pytest.raises(JobRefused, match="No more jobs allowed"):
        world.create(ME, described())
    until(world, clock, jobs[0], "FINISHED")
    assert world.room() == 0
    world.clean(jobs[0])
    clock.time += 1
    assert world.room() == 1


def test_a_limit_that_is_set_later_counts_from_then_on(make: Make, clock: Clock) -> None:
    world = make()
    before = world.create_copies(5, ME, described())
    world.limit(1)
    assert len(world.create_copies(5, ME, described())) == 1
    assert world.room() == 0
    until(world, clock, before[0], "FINISHED")
    world.clean(before[0])
    clock.time += 1
    assert world.find(ME, before[0].local) is None
    assert world.room() == 0
    world.limit(None)
    assert world.room() is None


def test_a_job_of_whomever(make: Make, tmp_path: Path) -> None:
    world = make()
    world.create(ME, described())
    job = world.create(YOU, described())
    assert world.job(job.local) is job
    with pytest.raises(KeyError):
        world.job("nosuch")
    assert world.session(job).root == world.sessions / job.local


def test_what_makes_no_sense_is_refused(make: Make) -> None:
    world = make()
    with pytest.raises(JobRefused, match="SIMULATOR_EXIT_CODE cannot be"):
        world.create(ME, described(environment={"SIMULATOR_EXIT_CODE": "x"}))
    assert list(world.jobs_of(ME)) == []


def test_a_script_says_what_each_copy_does(make: Make, clock: Clock) -> None:
    def script(description: Description, copy: int) -> Plan | None:
        return Plan(exit_code=copy) if description.name == "mine" else None

    world = make(script)
    jobs = world.create_copies(3, ME, described(name="mine"))
    other = world.create(ME, described(executable="/bin/false"))
    clock.time += 100
    assert [world.live_state(job) for job in (*jobs, other)] == ["FINISHED"] + ["FAILED"] * 3
    assert [job.exit_code for job in (*jobs, other)] == [0, 1, 2, 1]


def test_delegations_are_locked_as_long_as_jobs_use_them(make: Make, clock: Clock) -> None:
    world = make()
    asked = described(delegation="a", delegations=("b", "a"))
    jobs = world.create_copies(2, ME, asked, delegations=["c", "b"])
    assert list(world.locked_delegations(jobs[0])) == ["a", "c", "b"]
    assert not world.is_locked(YOU, "a")
    for job in jobs:
        assert world.is_locked(ME, "b")
        world.kill(job)
        world.clean(job)
        clock.time += 100
    assert world.find(ME, jobs[0].local) is None
    assert not any(world.is_locked(ME, id_) for id_ in "abc")


def test_what_a_simulated_job_leaves(make: Make, clock: Clock, tmp_path: Path) -> None:
    plan = Plan(
        run_seconds=100,
        stdout=b"out",
        stderr=b"err",
        files={"kept": b"42", "lost": b"", "d/e": b"x"},
    )
    world = make(lambda *_: plan)
    kept = ("out", "kept", "d/", "never")
    asked = described(
        inputs=("data",), stdout="out", stderr="err", outputs=tuple(Output(name) for name in kept)
    )
    job = world.create(ME, asked)
    assert list(tmp_path.glob("**/*")) == []
    session = world.session(job)
    assert listed(session) == {}
    session.write("data", b"input")
    world.uploaded(job, "./data")
    clock.time += 50
    assert listed(world.session(job)) == {"data": 5, "out": 3, "err": 3}
    until(world, clock, job, "FINISHED")
    assert listed(world.session(job)) == {"out": 3, "kept": 2, "d": None}
    assert content(world.session(job), b"d/e") == b"x"
    assert session.root.exists()
    world.clean(job)
    clock.time += 1
    assert world.find(ME, job.local) is None
    assert not session.root.exists()


def test_what_nobody_looks_at_is_not_on_the_disk(make: Make, clock: Clock, tmp_path: Path) -> None:
    world = make()
    jobs = world.create_copies(10, ME, described(outputs=(Output("/"), Output("x", "http://h/x"))))
    clock.time += 100
    assert {world.live_state(job) for job in jobs} == {"FINISHED"}
    assert list(tmp_path.glob("**/*")) == []
    assert listed(world.session(jobs[0])) == {"x": 0}


def test_a_killed_job_leaves_what_it_had(make: Make, clock: Clock) -> None:
    world = make(lambda *_: Plan(run_seconds=None, stdout=b"begun", files={"result": b""}))
    job = world.create(ME, described(stdout="out", stderr="out", outputs=(Output("/"),)))
    until(world, clock, job, "RUNNING")
    clock.time += 5
    world.kill(job)
    until(world, clock, job, "FAILED")
    assert listed(world.session(job)) == {"out": 5}


def test_an_output_that_was_not_left(make: Make, clock: Clock) -> None:
    world = make(lambda *_: Plan(files={}))
    job = world.create(ME, described(outputs=(Output("result", "http://h/x"),)))
    until(world, clock, job, "FAILED")
    assert "Failed to stat file" in job.failure


def test_what_is_over_is_kept_for_a_week(make: Make, clock: Clock) -> None:
    world = make()
    job = world.create(ME, described())
    clock.time += 6.9 * 86_400
    assert world.find(ME, job.local) is job
    clock.time += 0.2 * 86_400
    assert world.find(ME, job.local) is None


def test_a_service_that_keeps_its_jobs(make: Make, clock: Clock) -> None:
    world = make(**SETTLED)
    jobs = world.create_copies(3, ME, described(executable="/bin/sleep", arguments=("100",)))
    clock.time += 30
    new = world.create(ME, described())
    world.restart_service()
    assert len(list(world.jobs_of(ME))) == 4
    for job in (*jobs, new):
        until(world, clock, job, "FINISHED")


def test_a_service_that_loses_its_memory(make: Make, clock: Clock) -> None:
    world = make(slots=1, max_jobs=2)
    asked = described(executable="/bin/sleep", arguments=("100",), delegation="d")
    lost = world.create_copies(2, ME, asked)
    clock.time += 30
    assert world.live_state(lost[0]) == "RUNNING"
    assert lost[0].batch is BatchState.RUNNING
    world.restart_service(keep=False)
    assert world.find(ME, lost[0].local) is None
    assert world.room() == 2
    assert not world.is_locked(ME, "d")
    job = world.create(ME, described())
    clock.time += 30
    assert (world.live_state(job), job.batch) == ("RUNNING", BatchState.QUEUED)
    assert world.batch.load() == Load(1, 1, 2, waiting_cpus=2)
    clock.time += 300
    assert world.live_state(job) == "FINISHED"
    assert world.batch.load() == Load()


def test_its_clock(make: Make, clock: Clock) -> None:
    world = make(clock_skew=-3600)
    assert world.now() == EPOCH - 3600
    clock.time += 10
    job = world.create(ME, described())
    assert job.created == EPOCH - 3590
    world.skew(60)
    assert world.now() == EPOCH + 70
    assert world.create(ME, described()).created == EPOCH + 70
    clock.time += 30
    assert world.live_state(job) == "FINISHED"
    assert job.finished is not None
    assert job.finished > EPOCH + 70


def test_counts(make: Make, clock: Clock) -> None:
    world = make(slots=2)
    world.create_copies(3, ME, described(executable="/bin/sleep", arguments=("100",)))
    world.create(YOU, described(inputs=("data",)))
    clock.time += 30
    assert world.counts() == {"RUNNING": 3, "PREPARING": 1}


def test_a_job_has_less_than_half_a_kilobyte(make: Make, clock: Clock) -> None:
    world = make(slots=100)
    number = 30_000
    gc.collect()
    tracemalloc.start()
    try:
        world.create_copies(number, ME, described(executable="/bin/sleep", arguments=("9",)))
        for seconds in (0, 5, 60):
            clock.time += seconds
            world.publish()
            assert tracemalloc.get_traced_memory()[0] / number < 500
        for job in world.jobs_of(ME):
            world.kill(job)
        clock.time += 100
        world.publish()
        assert tracemalloc.get_traced_memory()[0] / number < 500
    finally:
        tracemalloc.stop()


async def test_time_is_trios(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Hours go by in no time, and nothing but those who ask has tasks."""
    wanted = SimulatorSettings(epoch=EPOCH, slots=1)
    world = World(wanted, Traps("7.2.0", "slurm"), tmp_path, trio.current_time)
    asked = described(executable="/bin/sleep", arguments=("36000",))
    first, second = world.create_copies(2, ME, asked)
    await trio.sleep(36_070)
    assert world.live_state(first) == "FINISHED"
    assert world.published_state(second) == "RUNNING"
    await trio.sleep(36_070)
    assert world.live_state(second) == "FINISHED"
    assert first.ended is not None
    assert second.started is not None
    assert second.started - first.ended == pytest.approx(wanted.pace.schedule, abs=0.01)


def test_records(make: Make, clock: Clock) -> None:
    world = make(**SETTLED)
    job = world.create(ME, described(executable="/bin/false"))
    assert world.diagnose(job, "status") == b"ACCEPTED"
    assert world.diagnose(job, "failed") is None
    assert world.diagnose(job, "xml") is None
    until(world, clock, job, "FAILED")
    assert world.diagnose(job, "status") == b"FINISHED"
    assert world.diagnose(job, "failed") == b"LRMS error: (1) Job failed\n"
    xml = world.diagnose(job, "xml")
    assert xml is not None
    assert b"arcrest:ACCEPTED" in xml
    with pytest.raises(UnknownItem):
        world.diagnose(job, "nosuch")


@pytest.mark.parametrize("late", [True, False])
def test_the_record_of_a_killed_job_can_be_late(make: Make, clock: Clock, late: bool) -> None:
    without = set() if late else {Trap.LATE_FAILURE_RECORD}
    world = make(pace={"unsettled": 0.1}, without_traps=without)
    job = world.create(ME, described(executable="/bin/sleep", arguments=("100",)))
    until(world, clock, job, "RUNNING")
    world.kill(job)
    until(world, clock, job, "FAILED")
    record = b"Job is canceled by external request\n"
    assert world.diagnose(job, "failed") == (b"" if late else record)
    clock.time += 0.2
    assert world.diagnose(job, "failed") == record


def activity(world: World, job: Job) -> dict[str, Any]:
    found = world.activity(job)["ComputingActivity"]
    assert isinstance(found, dict)
    return found


def test_documents_of_jobs(make: Make, clock: Clock) -> None:
    world = make(**SETTLED)
    job = world.create(ME, described(executable="/bin/sleep", arguments=("100",), name="n"))
    assert "arcrest:ACCEPTING" in activity(world, job)["State"]
    clock.time += 61
    told = [activity(world, job) for _ in range(2)]
    assert told[0] == told[1]
    assert "arcrest:RUNNING" in told[0]["State"]
    clock.time += 60
    assert activity(world, job)["_attributes"] != told[0]["_attributes"]
    clock.time += 100
    over = activity(world, job)
    assert "arcrest:FINISHED" in over["State"]
    clock.time += 100
    assert activity(world, job) == over


def test_the_document_of_the_ce(make: Make, clock: Clock) -> None:
    world = make(slots=3, queues=("main", "other"))
    world.endpoint = "https://localhost:4711"
    asked = described(executable="/bin/sleep", arguments=("100",), cpus=2)
    world.create_copies(3, ME, asked)
    first = world.information()
    assert "localhost" in str(first)
    clock.time += 30
    assert world.information() == first
    world.publish()
    now = world.information()
    assert now is not None
    (domain,) = now["Domains"]["AdminDomain"]
    (service,) = domain["Services"]["ComputingService"]
    main, other = service["ComputingShare"]
    assert [main[name] for name in ("RunningJobs", "WaitingJobs", "RequestedSlots")] == [
        "1",
        "2",
        "4",
    ]
    assert other["RunningJobs"] == "0"
    world.restart_service(keep=False)
    assert world.information() is None
    clock.time += 60
    assert world.information() is not None

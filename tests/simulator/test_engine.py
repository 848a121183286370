"""The simulated job manager: what becomes of jobs, and what REST says of them meanwhile."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from arcbackend.simulator.batch import BatchError, Foreign
from arcbackend.simulator.descriptions import Description, Input, Output
from arcbackend.simulator.jobs import BatchState, InnerState, Job, Plan
from arcbackend.simulator.traps import Trap
from arcbackend.simulator.views import CANCELLED, manager_state
from tests.simulator.laboratory import Laboratory, described

S = InnerState
FOR_EVER = Plan(run_seconds=None)
WAITS = described(inputs=("data",))


def states(lab: Laboratory, job: Job) -> list[str]:
    """The states that a job goes through from now on, without repetition."""
    seen = [manager_state(job)]
    while not job.over:
        due = lab.timeline.next()
        assert due is not None
        lab.timeline.advance(due)
        if manager_state(job) != seen[-1]:
            seen.append(manager_state(job))
    return seen


def test_a_job_that_does_well() -> None:
    lab = Laboratory()
    job = lab.make(Plan(run_seconds=10))
    assert lab.live(job) == "ACCEPTING"
    seen = states(lab, job)
    assert seen == ["ACCEPTED", "PREPARING", "SUBMIT", "INLRMS", "FINISHING", "FINISHED"]
    assert (lab.live(job), lab.told(job)) == ("FINISHED", "FINISHED")
    assert job.started is not None
    assert job.ended == job.started + 10
    assert job.finished is not None
    assert job.finished > job.ended
    assert job.exit_code == 0


@pytest.mark.parametrize(
    ("lrms", "failure"),
    [
        ("slurm", "LRMS error: (3) Job failed\n"),
        ("condor", "LRMS error: (3) Job failed with exit code 3\n"),
    ],
)
def test_an_exit_code(lrms: str, failure: str) -> None:
    lab = Laboratory(lrms=lrms)
    job = lab.make(Plan(exit_code=3))
    assert "CANCELING" in states(lab, job)
    assert (job.failure, job.failed_in, job.exit_code) == (failure, S.INLRMS, 3)
    assert (lab.live(job), lab.told(job)) == ("FAILED", "FAILED")


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        (S.PREPARING, "Data download failed\n"),
        (S.SUBMIT, "Job submission to LRMS failed\n"),
        (S.INLRMS, "LRMS error: (257) Node fail\n"),
        (S.FINISHING, "Data upload failed\n"),
    ],
)
def test_planned_failures(state: InnerState, failure: str) -> None:
    lab = Laboratory()
    job = lab.make(Plan(fail_in=state))
    states(lab, job)
    assert (job.failure, job.failed_in) == (failure, state)
    assert lab.told(job) == "FAILED"


def test_a_planned_reason() -> None:
    lab = Laboratory()
    job = lab.make(Plan(fail_in=S.SUBMIT, failure="because"))
    states(lab, job)
    assert job.failure == "because\n"


def test_a_description_that_a_rex_cannot_process() -> None:
    lab = Laboratory()
    job = lab.make(description=described(fault="Could not process job description"))
    assert states(lab, job) == ["ACCEPTED", "FINISHING", "FINISHED"]
    assert job.failure == "Could not process job description\n"


def test_without_an_executable_nothing_is_run() -> None:
    lab = Laboratory()
    job = lab.make(description=described(executable=""))
    assert states(lab, job) == ["ACCEPTED", "PREPARING", "FINISHING", "FINISHED"]
    assert job.failure == ""


def test_inputs_are_awaited() -> None:
    lab = Laboratory()
    job = lab.make(description=described(inputs=("a", "b")))
    lab.after(100)
    assert lab.live(job) == "PREPARING"
    lab.manager.uploaded(job, "a")
    lab.manager.uploaded(job, "c")
    lab.after(100)
    assert lab.live(job) == "PREPARING"
    lab.manager.uploaded(job, "b")
    lab.manager.uploaded(job, "b")
    lab.until(job, S.FINISHED)
    assert job.failure == ""


def test_inputs_that_come_early() -> None:
    lab = Laboratory()
    job = lab.make(description=WAITS)
    lab.manager.uploaded(job, "data")
    lab.until(job, S.FINISHED)
    assert job.failure == ""


def test_inputs_are_awaited_for_ten_minutes() -> None:
    lab = Laboratory()
    job = lab.make(description=described(inputs=("b", "a")))
    lab.after(590)
    assert job.state is S.PREPARING
    lab.until(job, S.FINISHED, within=20)
    assert job.failure == "User file: a - Timeout waiting\nUser file: b - Timeout waiting\n"
    assert job.failed_in is S.PREPARING


def test_inputs_that_the_ce_fetches() -> None:
    lab = Laboratory()
    job = lab.make(description=described(inputs=(Input("data", "http://h/x"),)))
    lab.after(lab.settings.pace.fetch)
    assert job.state is S.PREPARING
    lab.until(job, S.FINISHED)
    assert job.failure == ""


def test_without_a_proxy_nothing_is_fetched_by_https() -> None:
    wanted = described(inputs=(Input("data", "https://h/x"),))
    lab = Laboratory()
    job = lab.make(description=wanted)
    states(lab, job)
    assert "Can not load certificate file" in job.failure
    assert job.failed_in is S.PREPARING

    lab = Laboratory(without_traps={Trap.NO_PROXY_NO_HTTPS})
    job = lab.make(description=wanted)
    states(lab, job)
    assert job.failure == ""


FETCHING = described(inputs=(Input("data", "http://h/x"),))
STORING = described(outputs=(Output("result", "http://h/x"),))


@pytest.mark.parametrize("failure", [None, "why"])
@pytest.mark.parametrize(("asked", "state"), [(FETCHING, S.PREPARING), (STORING, S.FINISHING)])
def test_real_transfers(asked: Description, state: InnerState, failure: str | None) -> None:
    lab = Laboratory(stages=True)
    job = lab.make(description=asked)
    lab.after(600)
    assert job.state is state
    ((_, done),) = lab.transferred
    done(failure)
    lab.until(job, S.FINISHED)
    assert (job.failure, job.failed_in) == (("why\n", state) if failure else ("", None))
    done("late")
    assert "late" not in job.failure


@pytest.mark.parametrize("asked", [FETCHING, STORING])
def test_a_kill_does_not_wait_for_a_transfer(asked: Description) -> None:
    lab = Laboratory(stages=True)
    job = lab.make(description=asked)
    lab.after(600)
    lab.manager.kill(job)
    lab.until(job, S.FINISHED)
    ((_, done),) = lab.transferred
    done(None)
    assert job.failure == f"{CANCELLED}\n"


def test_an_input_that_is_not_there() -> None:
    lab = Laboratory()
    wanted = described(inputs=(Input("data", "http://h/x"),))
    job = lab.make(Plan(fail_in=S.PREPARING), wanted)
    states(lab, job)
    assert job.failure.startswith(
        "Failed in data staging: Failed checking source replica http://h/x"
    )


def test_an_output_that_is_not_there() -> None:
    lab = Laboratory()
    lab.lacks = "result"
    job = lab.make(description=described(outputs=(Output("result", "http://h/up"),)))
    states(lab, job)
    assert f"Failed to stat file /var/spool/arc/sessiondir/{job.local}/result" in job.failure
    assert job.failed_in is S.FINISHING


@pytest.mark.parametrize("state", list(S)[:5])
def test_killed(state: InnerState) -> None:
    """In whatever state it is, it is FAILED in the live list, and KILLED in its document."""
    lab = Laboratory(pace={"finish": 1.0})
    job = lab.make(Plan(run_seconds=100), WAITS if state is S.PREPARING else None)
    lab.until(job, state)
    lab.manager.kill(job)
    seen = states(lab, job)
    assert ("CANCELING" in seen) == (state in (S.SUBMIT, S.INLRMS))
    assert job.failure == f"{CANCELLED}\n"
    assert job.exit_code == (0 if state is S.FINISHING else None)
    assert not job.in_batch
    assert lab.batch.free == lab.settings.slots
    lab.after(10)
    assert lab.tidied == [job]
    assert (lab.live(job), lab.told(job)) == ("FAILED", "KILLED")


def test_killed_is_killed_without_the_trap() -> None:
    lab = Laboratory(without_traps={Trap.KILLED_IS_FAILED_LIVE})
    job = lab.running()
    lab.manager.kill(job)
    states(lab, job)
    assert lab.live(job) == "KILLED"


def test_a_kill_while_the_batch_system_has_let_go() -> None:
    """A payload that is done is of a job that is killed."""
    lab = Laboratory(pace={"notice": 60})
    job = lab.running(Plan(run_seconds=1))
    lab.until(job, BatchState.ENDED)
    lab.manager.kill(job)
    lab.until(job, S.FINISHED, within=5)
    assert (job.cancelled, job.exit_code, job.failure) == (True, 0, f"{CANCELLED}\n")
    lab.after(100)
    assert job.state is S.FINISHED


def test_a_suspended_job_is_killed() -> None:
    lab = Laboratory()
    job = lab.running()
    lab.batch.suspend(job.local)
    lab.manager.kill(job)
    lab.until(job, S.FINISHED, within=5)
    assert lab.told(job) == "KILLED"


def test_a_kill_of_a_job_that_is_over_does_nothing() -> None:
    lab = Laboratory()
    job = lab.make()
    states(lab, job)
    lab.manager.kill(job)
    lab.after(100)
    assert (lab.live(job), lab.told(job), job.failure) == ("FINISHED", "FINISHED", "")


def test_cleaned() -> None:
    lab = Laboratory()
    job = lab.make()
    states(lab, job)
    lab.manager.clean(job)
    lab.manager.clean(job)
    assert lab.removed == []
    lab.until(job, S.DELETED, within=1)
    assert lab.removed == [job]


def test_cleaned_while_active() -> None:
    lab = Laboratory()
    job = lab.running(Plan(run_seconds=60))
    for _ in range(3):
        lab.manager.clean(job)
        lab.after(10)
        assert lab.live(job) == "RUNNING"
    lab.until(job, S.DELETED)
    assert lab.removed == [job]


def test_killed_and_cleaned() -> None:
    lab = Laboratory()
    job = lab.make(FOR_EVER)
    lab.manager.kill(job)
    lab.manager.clean(job)
    lab.until(job, S.DELETED, within=10)
    assert lab.removed == [job]
    assert lab.batch.jobs() == {}


def test_a_first_document_stays_until_the_provider_runs() -> None:
    lab = Laboratory()
    job = lab.make()
    assert job.published is None
    states(lab, job)
    assert job.published == "ACCEPTED"
    lab.manager.publish()
    assert job.published == "FINISHED"


def test_a_job_killed_at_once_has_no_document() -> None:
    lab = Laboratory()
    job = lab.make()
    lab.manager.kill(job)
    states(lab, job)
    assert job.published is None
    lab.manager.publish()
    assert job.published == "KILLED"


def test_only_what_has_changed_is_published() -> None:
    lab = Laboratory()
    job = lab.make()
    states(lab, job)
    lab.manager.publish()
    first = job.published_at
    lab.after(100)
    lab.manager.publish()
    assert job.published_at == first
    assert lab.manager.published == first + 100 if first else False


def test_scripts_run_a_few_at_a_time() -> None:
    lab = Laboratory(slots=100, pace={"scripts": 2, "submit": 10})
    jobs = [lab.make(FOR_EVER) for _ in range(5)]
    lab.after(11)
    assert [job.state for job in jobs] == [S.INLRMS] * 2 + [S.SUBMIT] * 3
    lab.after(11)
    assert [job.state for job in jobs] == [S.INLRMS] * 4 + [S.SUBMIT]


def test_a_limit_of_running_jobs() -> None:
    lab = Laboratory(max_running=1)
    first, second, third = (lab.make(Plan(run_seconds=100)) for _ in range(3))
    lab.after(10)
    assert [manager_state(job) for job in (second, third)] == ["PENDING:PREPARING"] * 2
    assert lab.live(second) == lab.told(second) == "PREPARED"
    lab.manager.kill(second)
    lab.until(second, S.FINISHED)
    lab.until(first, S.FINISHED)
    lab.until(third, BatchState.RUNNING)


def test_restarted() -> None:
    lab = Laboratory()
    good = lab.make()
    states(lab, good)
    assert lab.manager.restart(good) == "Job has not failed"
    once = lab.make(Plan(exit_code=3))
    states(lab, once)
    assert lab.manager.restart(once) == "No more restarts allowed"
    twice = lab.make(Plan(exit_code=3), described(reruns=1))
    states(lab, twice)
    assert lab.manager.restart(twice) is None
    lab.until(twice, S.INLRMS)
    assert (twice.failure, twice.number) == ("", 4)
    lab.until(twice, S.FINISHED)
    assert twice.failure == "LRMS error: (3) Job failed\n"
    assert lab.manager.restart(twice) == "No more restarts allowed"


def test_restarted_from_where_it_failed() -> None:
    lab = Laboratory()
    lab.lacks = "result"
    upload = described(outputs=(Output("result", "http://h/up"),), reruns=1)
    job = lab.make(description=upload)
    states(lab, job)
    lab.lacks = None
    assert lab.manager.restart(job) is None
    lab.until(job, S.FINISHING)
    lab.until(job, S.FINISHED)
    assert (job.failure, job.number) == ("", 1)


def test_a_service_that_starts_again_begins_its_steps_anew() -> None:
    lab = Laboratory(pace={"submit": 10, "scripts": 1})
    running = lab.running()
    jobs = [lab.make(FOR_EVER), lab.make(FOR_EVER), lab.make(FOR_EVER, WAITS)]
    lab.after(5)
    lab.manager.start_again(lab.jobs)
    lab.after(7)
    assert [job.state for job in jobs] == [S.SUBMIT, S.SUBMIT, S.PREPARING]
    for job in jobs[:2]:
        lab.until(job, BatchState.RUNNING)
    lab.manager.uploaded(jobs[2], "data")
    lab.until(jobs[2], BatchState.RUNNING)
    assert running.batch is BatchState.RUNNING


def test_counts() -> None:
    lab = Laboratory(queues=("main", "other"))
    job = lab.make(queue="other")
    lab.make()
    assert lab.manager.counts()[S.ACCEPTED] == 2
    states(lab, job)
    lab.manager.clean(job)
    lab.until(job, S.DELETED)
    assert sum(lab.manager.counts("other").values()) == 0
    assert sum(lab.manager.counts().values()) == 1


ORDER = (
    S.ACCEPTED,
    S.PREPARING,
    S.SUBMIT,
    S.INLRMS,
    S.CANCELING,
    S.FINISHING,
    S.FINISHED,
    S.DELETED,
)
PLANS = st.builds(
    Plan,
    run_seconds=st.sampled_from([None, 0.0, 1.0, 70.0]),
    exit_code=st.sampled_from([0, 0, 3]),
    hold_after=st.sampled_from([None, None, 0.5]),
    hold_seconds=st.sampled_from([None, 5.0]),
    fail_in=st.sampled_from([None, None, None, S.PREPARING, S.SUBMIT, S.INLRMS, S.FINISHING]),
)


class Life(RuleBasedStateMachine):
    """Whatever is done to jobs: none is lost, none goes back, and no slot is given twice."""

    lrms = "slurm"

    def __init__(self) -> None:
        super().__init__()
        self.lab = Laboratory(
            lrms=self.lrms, slots=3, max_running=4, pace={"scripts": 2}, publish_every=60
        )
        self.furthest: dict[Job, int] = {}
        self.ends: dict[Job, float] = {}
        self.foreign: list[Foreign] = []
        self.history: dict[Job, set[str | None]] = {}

    def note(self) -> None:
        for job in self.lab.jobs:
            self.history.setdefault(job, {None, "ACCEPTED"}).add(self.lab.told(job))

    @rule(plan=PLANS, cpus=st.integers(1, 4), awaits=st.booleans(), copies=st.integers(1, 4))
    def make(self, plan: Plan, cpus: int, awaits: bool, copies: int) -> None:
        inputs = ("data",) if awaits else ()
        for _ in range(copies):
            self.lab.make(plan, described(cpus=cpus, inputs=inputs, wall_time_s=200))
        self.note()

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 30.0, 700.0]))
    def wait(self, seconds: float) -> None:
        end = self.lab.timeline.now + seconds
        while (due := self.lab.timeline.next()) is not None and due <= end:
            self.lab.timeline.advance(due)
            self.note()
        self.lab.timeline.advance(end)

    @rule(data=st.data(), verb=st.sampled_from(["kill", "clean", "uploaded", "expire"]))
    def ask(self, data: st.DataObject, verb: str) -> None:
        if self.lab.jobs:
            job = data.draw(st.sampled_from(self.lab.jobs))
            more: tuple[Any, ...] = ("data",) if verb == "uploaded" else ()
            getattr(self.lab.manager, verb)(job, *more)
            self.note()

    @rule(
        data=st.data(),
        verb=st.sampled_from(["suspend", "resume", "hold", "release", "cancel", "end_time"]),
    )
    def administer(self, data: st.DataObject, verb: str) -> None:
        if self.lab.jobs:
            job = data.draw(st.sampled_from(self.lab.jobs))
            with suppress(BatchError):
                getattr(self.lab.batch, verb)(job.local)
            self.note()

    @rule()
    def add_foreign(self) -> None:
        self.foreign.append(self.lab.batch.add_foreign())

    @rule(verb=st.sampled_from(["close", "open", "fail_node"]))
    def administer_all(self, verb: str) -> None:
        getattr(self.lab.batch, verb)()
        self.note()

    @rule()
    def publish(self) -> None:
        self.lab.manager.publish()

    @rule()
    def start_again(self) -> None:
        alive = [job for job in self.lab.jobs if job.state is not S.DELETED]
        self.lab.manager.start_again(alive)

    @invariant()
    def no_slot_is_given_twice(self) -> None:
        load = self.lab.batch.load()
        assert self.lab.batch.free == 3 - load.running_cpus >= 0
        here = [job for job in self.lab.jobs if job.in_batch]
        assert {job.local for job in here} == self.lab.batch.jobs().keys()
        mine = load.running + load.waiting - load.foreign_running - load.foreign_waiting
        assert mine == len(here)
        waits = [job for job in here if job.batch not in (BatchState.RUNNING, BatchState.SUSPENDED)]
        assert load.waiting_cpus == sum(job.description.cpus for job in waits)

    @invariant()
    def none_is_lost(self) -> None:
        counts = self.lab.manager.counts()
        for state in S:
            expected = sum(job.state is state for job in self.lab.jobs)
            assert counts[state] == (0 if state is S.DELETED else expected)
        gone = [job for job in self.lab.jobs if job.state is S.DELETED]
        assert set(self.lab.removed) == set(gone)
        assert len(self.lab.removed) == len(gone)
        early = [job for job in self.lab.jobs if job.state in (S.ACCEPTED, S.PREPARING, S.SUBMIT)]
        assert self.lab.manager.wanted("main") == sum(job.description.cpus for job in early)
        busy = sum(job.state in (S.SUBMIT, S.INLRMS) for job in self.lab.jobs)
        assert busy <= 4

    @invariant()
    def none_goes_back(self) -> None:
        for job in self.lab.jobs:
            now = ORDER.index(job.state)
            assert now >= self.furthest.get(job, 0)
            self.furthest[job] = now

    @invariant()
    def what_is_published_was_once_so(self) -> None:
        for job in self.lab.jobs:
            assert job.published in self.history.get(job, {None})

    @invariant()
    def none_ends_twice(self) -> None:
        for job in self.lab.jobs:
            if job.finished is not None:
                assert self.ends.setdefault(job, job.finished) == job.finished

    def teardown(self) -> None:
        """What nothing holds back ends by itself; and what does not, when it is killed."""
        self.lab.batch.open()
        for foreign in self.foreign:
            self.lab.batch.remove_foreign(foreign)
        for job in self.lab.jobs:
            self.lab.manager.uploaded(job, "data")
            if job.description.cpus > self.lab.settings.slots:
                self.lab.manager.kill(job)  # HTCondor would keep it for ever
        for _ in range(2 * len(self.lab.jobs) + 10):
            for job in self.lab.jobs:
                for verb in (self.lab.batch.release, self.lab.batch.resume):
                    with suppress(BatchError):
                        verb(job.local)
            self.lab.after(250)
        slots = self.lab.settings.slots
        stuck = any(job.description.cpus > slots for job in self.lab.jobs)  # and counts as running
        for job in self.lab.jobs:
            assert job.over or job.description.cpus > slots or (stuck and job.pending)
            self.lab.manager.kill(job)
            self.lab.manager.clean(job)
        self.lab.after(100)
        assert all(job.state is S.DELETED for job in self.lab.jobs)
        assert self.lab.batch.jobs() == {}


class LifeBehindCondor(Life):
    lrms = "condor"


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=100, stateful_step_count=30, deadline=None)
TestLifeBehindCondor = LifeBehindCondor.TestCase
TestLifeBehindCondor.settings = TestLife.settings

"""Jobs that are really executed: as processes, in their session directories."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from arcbackend.simulator.descriptions import Description, Input, Output
from arcbackend.simulator.execution import LocalRunner
from arcbackend.simulator.jobs import BatchState, Job, Plan
from arcbackend.simulator.settings import Pace, SimulatorSettings
from arcbackend.simulator.traps import Traps
from arcbackend.simulator.world import World
from tests.simulator.laboratory import described
from tests.web import served

ME = "me"
# As fast as they can be: what is waited for here is real.
PACE = Pace(
    accept=0,
    prepare=0,
    fetch=0,
    submit=0,
    schedule=0,
    notice=0,
    finish=0,
    upload=0,
    kill=0,
    clean=0,
)
ALL = (Output("/"),)
Start = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @asynccontextmanager
    async def started(script: Any = None, **settings: Any) -> AsyncIterator[World]:
        wanted = SimulatorSettings(execution="local", pace=PACE, **settings)
        traps = Traps(wanted.arc_version, wanted.lrms)
        async with trio.open_nursery() as nursery:
            yield World(
                wanted,
                traps,
                tmp_path,
                trio.current_time,
                endpoint="https://ce.example:443",
                script=script,
                start_soon=nursery.start_soon,
            )
            nursery.cancel_scope.cancel()

    return started


def shell(text: str, **more: Any) -> Description:
    how: dict[str, Any] = {"stdout": "out", "stderr": "err", "outputs": ALL}
    return described(executable="/bin/sh", arguments=("-c", text), **(how | more))


def scripted(world: World, text: str, **more: Any) -> Job:
    """A job whose text passes no other shell than its own."""
    asked = {"inputs": (Input("run", executable=True),), "stdout": "out", "outputs": ALL} | more
    job = world.create(ME, described(executable="run", **asked))
    world.session(job).write("run", f"#!/bin/sh\n{text}\n".encode())
    world.uploaded(job, "run")
    return job


async def until(world: World, job: Job, *states: str) -> str:
    """Wait until a job is in one of these states, live or as it would be published."""
    with trio.fail_after(30):
        while True:
            world.publish()
            for state in (world.live_state(job), world.published_state(job)):
                if state in states:
                    return state
            await trio.sleep(0.01)


async def until_over(world: World, job: Job) -> str:
    return await until(world, job, "FINISHED", "FAILED")


async def until_there(path: Path) -> None:
    with trio.fail_after(30):
        while not path.exists() or not path.read_text():  # noqa: ASYNC240
            await trio.sleep(0.01)


def read(world: World, job: Job, name: str) -> str:
    return (world.session(job).root / name).read_text()


def state(pid: int) -> str:
    """The state of a process, as Linux has it: R, S, T, …"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def alive(pid: int) -> bool:
    """Whether a process runs: what is dead and not yet waited for does not."""
    return state(pid) != "Z"


async def until_dead(pid: int) -> None:
    with trio.fail_after(30):
        while alive(pid):
            await trio.sleep(0.01)


async def test_a_job_runs(start: Start) -> None:
    async with start() as world:
        job = world.create(ME, shell("echo hello; echo oops >&2; exit 3"))
        assert await until_over(world, job) == "FAILED"
        assert (read(world, job, "out"), read(world, job, "err")) == ("hello\n", "oops\n")
        assert (job.failure, job.exit_code) == ("LRMS error: (3) Job failed\n", 3)
        assert job.usage is not None
        assert job.usage.cpu_seconds >= 0


async def test_what_it_finds(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "hunter2")
    async with start() as world:
        environment = {"NAME": "a 'b' $c\nd", "HOME": "elsewhere"}
        job = world.create(ME, shell("pwd; umask; env -0 >env", environment=environment))
        assert await until_over(world, job) == "FINISHED"
        root = world.session(job).root
        assert read(world, job, "out") == f"{root}\n0077\n"
        found = dict(pair.split("=", 1) for pair in read(world, job, "env").split("\0") if pair)
        assert found["NAME"] == "a 'b' $c\nd"
        assert found["HOME"] == os.fspath(root)
        assert found["PATH"] == os.environ["PATH"]
        assert found["GRID_GLOBAL_JOBID"] == job.local
        assert found["GRID_GLOBAL_JOBURL"] == f"https://ce.example:443/arex/{job.local}"
        assert found["SLURM_JOB_ID"] == "1"
        assert "SECRET_OF_THE_HOST" not in found


async def test_arguments_pass_a_shell(start: Start) -> None:
    """As on a real CE: quotes and blanks are kept, and what a shell expands is expanded."""
    async with start() as world:
        words = ("a  b", "'", '"', "\\", "$HOME", "`echo x`", "*", "")
        job = world.create(
            ME,
            described(
                executable="/usr/bin/printf", stdout="out", outputs=ALL, arguments=("[%s]", *words)
            ),
        )
        assert await until_over(world, job) == "FINISHED"
        home = world.session(job).root
        assert read(world, job, "out") == f"[a  b]['][\"][\\][{home}][x][*][]"


async def test_inputs(start: Start, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("fetched\n")
    with served(tmp_path) as url:
        await _inputs(start, f"{url}/x")


async def _inputs(start: Start, url: str) -> None:
    async with start() as world:
        inputs = (Input("run", executable=True), Input("data"), Input("far", url))
        job = world.create(
            ME,
            described(
                executable="run",
                inputs=inputs,
                stdin="data",
                stdout="out",
                outputs=(Output("out"),),
            ),
        )
        session = world.session(job)
        session.write("run", b"#!/bin/sh\ntr a-z A-Z\ncat far\nls\n")
        world.uploaded(job, "run")
        session.write("data", b"text\n")
        world.uploaded(job, "data")
        assert await until_over(world, job) == "FINISHED"
        assert read(world, job, "out") == "TEXT\nfetched\ndata\nfar\nout\nrun\n"
        assert os.listdir(session.root) == ["out"]


@pytest.mark.parametrize(
    ("lrms", "executable", "code", "told"),
    [
        ("slurm", "/no/such/program", 1, None),
        ("condor", "/no/such/program", 1, 1),
        ("slurm", "nosuch", 1, None),
        ("slurm", "/etc/passwd", 126, 126),
    ],
)
async def test_what_cannot_be_executed(
    start: Start, lrms: str, executable: str, code: int, told: int | None
) -> None:
    async with start(lrms=lrms) as world:
        job = world.create(ME, described(executable=executable, stderr="err", outputs=ALL))
        assert await until_over(world, job) == "FAILED"
        assert f"LRMS error: ({code}) Job failed" in job.failure
        assert job.exit_code == told
        assert read(world, job, "err") != ""


async def test_a_signal(start: Start) -> None:
    async with start() as world:
        job = world.create(ME, shell("kill -9 $$"))
        assert await until_over(world, job) == "FAILED"
        assert job.exit_code == 137


async def test_streams_that_are_one(start: Start) -> None:
    async with start() as world:
        job = world.create(ME, shell("echo a; echo b >&2; echo c", stdout="x", stderr="x"))
        assert await until_over(world, job) == "FINISHED"
        assert read(world, job, "x") == "a\nb\nc\n"


async def test_only_what_is_kept_is_left(start: Start) -> None:
    async with start() as world:
        asked = shell("mkdir d e; touch d/a e/b c", outputs=(Output("d/"), Output("out")))
        job = world.create(ME, asked)
        assert await until_over(world, job) == "FINISHED"
        root = world.session(job).root
        assert sorted(path.name for path in root.rglob("*")) == ["a", "d", "out"]
        world.clean(job)
        with trio.fail_after(30):
            while root.exists():
                await trio.sleep(0.01)
                assert world.find(ME, "x") is None


async def test_its_proxy(start: Start) -> None:
    async with start() as world:
        look = shell('ls -l "$X509_USER_PROXY"; cat "$X509_USER_PROXY"; echo "$X509_CERT_DIR"')
        job = world.create(ME, look, proxy=b"chain and key\n")
        assert b"chain" not in repr(job.submission).encode()
        assert await until_over(world, job) == "FINISHED"
        listed, held, trusted = read(world, job, "out").splitlines()
        assert listed.startswith("-rw-------")
        assert held == "chain and key"
        assert trusted.endswith("/certificates")


async def test_an_output_that_is_not_there(start: Start) -> None:
    async with start() as world:
        job = world.create(ME, shell("true", outputs=(Output("result", "http://h/up"),)))
        assert await until_over(world, job) == "FAILED"
        assert "Failed to stat file" in job.failure


GROUP = "sleep 600 & echo $! >child; echo $$ >leader; {}wait"


async def test_killed_with_all_that_belongs_to_it(start: Start) -> None:
    async with start() as world:
        job = scripted(world, GROUP.format(""))
        root = world.session(job).root
        await until_there(root / "leader")
        pids = [int(read(world, job, name)) for name in ("child", "leader")]
        assert all(alive(pid) for pid in pids)
        world.kill(job)
        assert await until_over(world, job) == "FAILED"
        assert world.batch.free == world.settings.slots
        for pid in pids:
            await until_dead(pid)


async def test_what_ignores_a_signal_is_killed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcbackend.simulator.execution._GRACE", 0.05)
    async with start() as world:
        job = scripted(world, GROUP.format("trap '' TERM; while :; do sleep 600; done; "))
        await until_there(world.session(job).root / "leader")
        pid = int(read(world, job, "leader"))
        world.batch.cancel(job.local)
        await until_dead(pid)


async def test_nothing_is_left_in_the_background(start: Start) -> None:
    async with start() as world:
        job = scripted(world, "sleep 600 & echo $! >child")
        assert await until_over(world, job) == "FINISHED"
        await until_dead(int(read(world, job, "child")))


async def test_nothing_is_left_when_the_simulator_ends(start: Start, tmp_path: Path) -> None:
    async with start() as world:
        job = scripted(world, GROUP.format("trap '' TERM; "))
        await until_there(world.session(job).root / "leader")
        pids = [int(read(world, job, name)) for name in ("child", "leader")]
    for pid in pids:
        await until_dead(pid)
    assert list((tmp_path / "scripts").iterdir()) == []


async def test_suspended(start: Start) -> None:
    async with start(lrms="condor") as world:
        job = world.create(ME, shell("echo $$ >pid; while [ ! -e go ]; do sleep 0.01; done"))
        await until_there(world.session(job).root / "pid")
        pid = int(read(world, job, "pid"))
        world.batch.suspend(job.local)
        assert await until(world, job, "HELD") == "HELD"
        with trio.fail_after(30):
            while state(pid) != "T":
                await trio.sleep(0.01)
        world.session(job).write("go", b"")
        world.batch.resume(job.local)
        assert await until_over(world, job) == "FINISHED"


async def test_a_suspended_job_is_killed(start: Start) -> None:
    async with start() as world:
        job = scripted(world, GROUP.format(""))
        await until_there(world.session(job).root / "leader")
        pid = int(read(world, job, "leader"))
        world.batch.suspend(job.local)
        world.kill(job)
        assert await until_over(world, job) == "FAILED"
        await until_dead(pid)


async def test_a_plan_holds_real_jobs_too(start: Start) -> None:
    plan = Plan(hold_after=0, hold_seconds=0.1)
    async with start(lambda *_: plan) as world:
        job = world.create(ME, shell("sleep 0.2"))
        assert await until(world, job, "OTHER") == "OTHER"
        assert await until_over(world, job) == "FINISHED"


async def test_over_time(start: Start) -> None:
    async with start(lrms="condor") as world:
        job = scripted(world, GROUP.format(""), wall_time_s=1)
        assert await until_over(world, job) == "FAILED"
        assert job.failure == "LRMS error: (271) job killed: wall\n"
        await until_dead(int(read(world, job, "leader")))


async def test_as_many_run_as_there_are_slots(start: Start) -> None:
    async with start(slots=2) as world:
        jobs = world.create_copies(4, ME, shell("while [ ! -e go ]; do sleep 0.01; done"))
        await until_there_all(world, jobs[:2])
        assert [job.batch for job in jobs] == [BatchState.RUNNING] * 2 + [BatchState.QUEUED] * 2
        for job in jobs:
            world.session(job).write("go", b"")
        for job in jobs:
            assert await until_over(world, job) == "FINISHED"


async def until_there_all(world: World, jobs: list[Job]) -> None:
    with trio.fail_after(30):
        while not all(world.live_state(job) == "RUNNING" and job.started for job in jobs):
            await trio.sleep(0.01)


async def test_without_a_nursery_nothing_is_executed(tmp_path: Path) -> None:
    wanted = SimulatorSettings(execution="local")
    with pytest.raises(ValueError, match="start_soon"):
        World(wanted, Traps("7.2.0", "slurm"), tmp_path, trio.current_time)


async def test_a_process_that_cannot_be_started(start: Start, monkeypatch: Any) -> None:
    def cannot(*_: Any, **__: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("arcbackend.simulator.execution.subprocess.Popen", cannot)
    async with start() as world:
        job = world.create(ME, shell("true"))
        assert await until_over(world, job) == "FAILED"
        assert "Resource temporarily unavailable" in read(world, job, "err")


async def test_an_old_process_does_not_end_a_new_one(tmp_path: Path) -> None:
    """What was killed ends later than what was started in its place."""
    ends: list[str] = []
    async with trio.open_nursery() as nursery:
        (tmp_path / "session").mkdir()
        runner = LocalRunner(
            nursery.start_soon,
            lambda _: tmp_path / "session",
            tmp_path,
            lambda: "https://h:1",
            tmp_path / "trusted",
        )
        asked = shell("trap 'sleep 0.2; exit 1' TERM; echo $$ >pid; while :; do sleep 0.01; done")
        settings = SimulatorSettings(execution="local", pace=PACE)
        world = World(
            settings,
            Traps("7.2.0", "slurm"),
            tmp_path,
            trio.current_time,
            start_soon=lambda *_: None,
        )
        job = world.create(ME, asked)
        runner.start(job, lambda _: ends.append("old"))
        await until_there(tmp_path / "session" / "pid")
        runner.kill(job)
        (tmp_path / "session" / "pid").unlink()
        runner.start(job, lambda _: ends.append("new"))
        await until_there(tmp_path / "session" / "pid")
        with trio.fail_after(30):
            while ends != ["old"]:
                await trio.sleep(0.01)
        pid = int((tmp_path / "session" / "pid").read_text())
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(30):
            while ends != ["old", "new"]:
                await trio.sleep(0.01)

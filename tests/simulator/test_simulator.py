"""The facade: `Simulator`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from arcbackend import ConfigurationError, JobStatus, SubmissionSpec
from arcbackend.simulator import Pace, Plan, Simulator
from arcbackend.simulator.descriptions import Description

CLOCK = SubmissionSpec(executable="/bin/sh", arguments=("-c", "date +%s; exec sleep 600"))


async def test_a_process_starts_though_nobody_asks() -> None:
    pace = Pace(accept=0, prepare=0, submit=0, schedule=0)
    async with Simulator(execution="local", pace=pace) as ce, ce.backend() as backend:
        (job,) = (await backend.submit(CLOCK)).handles
        submitted = time.time()
        await trio.sleep(4)
        assert int((await backend.tail(job)).data) < submitted + 3


async def test_its_end_leaves_no_process_and_no_file() -> None:
    async with Simulator(execution="local", publish_every=0.1) as ce, ce.backend() as backend:
        (job,) = (await backend.submit(CLOCK)).handles
        with trio.fail_after(30):
            while (await backend.status([job]))[job.id] is not JobStatus.RUNNING:
                await trio.sleep(0.1)
        sessions = ce.world.sessions
        running = _processes_in(sessions)
        assert running
    assert not sessions.exists()
    with trio.fail_after(10):  # what init takes over is a zombie for a moment
        while _living(running):
            await trio.sleep(0.01)


async def test_a_script_tells_what_jobs_do(autojump_clock: trio.testing.MockClock) -> None:
    def script(description: Description, copy: int) -> Plan:
        return Plan(run_seconds=3600.0 * copy, stdout=b"%d" % copy, exit_code=copy)

    async with Simulator(script=script) as ce, ce.backend() as backend:
        handles = (await backend.submit(SubmissionSpec(executable="/bin/true"), 3)).handles
        await trio.sleep(3600 * 1.5)
        states = list((await backend.status(handles)).values())
        assert states == [JobStatus.DONE, JobStatus.FAILED, JobStatus.RUNNING]
        assert (await backend.tail(handles[1])).data == b"1"


async def test_two_of_one_name_are_refused() -> None:
    async with Simulator(name="one"):
        with pytest.raises(ConfigurationError, match="one"):
            async with Simulator(name="one"):
                pass
        async with Simulator(name="two"):
            pass


def _living(numbers: list[str]) -> list[str]:
    """Those of some processes that there are."""
    return [number for number in numbers if Path(f"/proc/{number}").exists()]


def _processes_in(folder: Path) -> list[str]:
    """The processes that work somewhere below a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "cwd").readlink()
        except OSError:  # it has gone, or is somebody else's
            continue
        if where.is_relative_to(folder):
            found.append(process.name)
    return found

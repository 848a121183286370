"""One job's life: submit, status, kill, purge, as its user drives them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from arcbackend import (
    ConfigurationError,
    FileRef,
    JobHandle,
    JobID,
    JobStatus,
    OutputMember,
    OutputSpec,
    Resources,
    SubmissionSpec,
)
from tests.integration import jobs
from tests.integration.ce import CE, eventually, in_files
from tests.integration.jobs import SLEEP, TRUE, gone, local, over, until
from tests.web import served


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server on loopback with one file, ``fetchable``, which takes uploads too."""
    (tmp_path / "fetchable").write_text("fetchable\n")
    with served(tmp_path) as url:
        yield url


async def test_a_job_runs_with_its_inputs_and_is_purged(ce: CE, tmp_path: Path) -> None:
    script, data, empty = (tmp_path / name for name in ("run.sh", "data.txt", "empty"))
    script.write_text(
        "#!/bin/sh\n"
        "cat in/data.txt empty > kept.txt; cp kept.txt lost.txt\n"
        'echo out; echo err >&2; test "$1" = one\n'
    )
    data.write_text("payload\n")
    empty.touch()
    spec = SubmissionSpec(
        executable="run.sh",
        arguments=("one",),
        inputs=(
            FileRef(name="run.sh", source=script),
            FileRef(name="in/data.txt", source=data),
            FileRef(name="empty", source=empty),
        ),
        outputs=OutputSpec(members=(OutputMember(pattern="kept.txt"),)),
        stdout="o.txt",
        stderr="e.txt",
    )
    async with ce.backend() as backend:
        submission = await backend.submit(spec)
        for path in (script, data, empty):
            path.unlink()  # inputs are consumed during submit
        assert submission.failures == {}
        (handle,) = submission.handles
        assert handle.id.startswith(f"{ce.endpoint}/arex/rest/1.0/jobs/")
        assert (handle.stdout, handle.stderr) == ("o.txt", "e.txt")
        assert await over(backend, [handle]) == {handle.id: JobStatus.DONE}
        session = f"{ce.session_directory}/{local(handle)}"
        assert ce.run("cat", *(f"{session}/{name}" for name in ("kept.txt", "o.txt", "e.txt"))) == (
            "payload\nout\nerr\n"
        )
        assert sorted(ce.run("ls", session).split()) == ["e.txt", "kept.txt", "o.txt"]
        outcomes = await backend.purge([handle])
        assert outcomes[handle.id].ok
        await gone(backend, [handle])
        assert ce.run("sh", "-c", f"ls {session} 2>/dev/null || echo none") == "none\n"


@pytest.mark.slurm
async def test_large_inputs_arrive_whole(ce: CE, tmp_path: Path) -> None:
    """Larger than what is held in memory, so streamed; two jobs from one file."""
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 40_000)  # 10 MB
    spec = SubmissionSpec(
        executable="/usr/bin/md5sum",
        arguments=("big",),
        inputs=(FileRef(name="big", source=big),),
    )
    async with ce.backend() as backend:
        submission = await backend.submit(spec, count=2)
        await over(backend, submission.handles)
        expected = subprocess.run(["md5sum", big], capture_output=True, check=True, text=True)
        for handle in submission.handles:
            said = ce.run("cat", f"{ce.session_directory}/{local(handle)}/stdout")
            assert said.split()[0] == expected.stdout.split()[0]
        await backend.purge(submission.handles)


@pytest.mark.slurm
async def test_inputs_by_url_are_fetched_by_the_ce(ce: CE, web: str) -> None:
    spec = SubmissionSpec(
        executable="/bin/cat",
        arguments=("fetched",),
        inputs=(FileRef(name="fetched", source=f"{web}/fetchable"),),
    )
    async with ce.backend() as backend:
        submission = await backend.submit(spec)
        (handle,) = submission.handles
        assert await over(backend, [handle]) == {handle.id: JobStatus.DONE}
        assert ce.run("cat", f"{ce.session_directory}/{local(handle)}/stdout") == "fetchable\n"
        await backend.purge([handle])


@pytest.mark.slurm
async def test_outputs_with_a_destination_are_uploaded_by_the_ce(
    ce: CE, web: str, tmp_path: Path
) -> None:
    spec = SubmissionSpec(
        executable="/bin/sh",
        arguments=("-c", "echo made > made; echo kept > kept"),
        outputs=OutputSpec(
            members=(
                OutputMember(pattern="made", destination=f"{web}/uploaded"),
                OutputMember(pattern="kept"),
            )
        ),
    )
    async with ce.backend() as backend:
        submission = await backend.submit(spec)
        (handle,) = submission.handles
        assert await over(backend, [handle]) == {handle.id: JobStatus.DONE}
        assert (tmp_path / "uploaded").read_text() == "made\n"
        left = ce.run("ls", f"{ce.session_directory}/{local(handle)}").split()
        assert ("kept" in left, "made" in left) == (True, False)
        await backend.purge([handle])


@pytest.mark.slurm
@pytest.mark.parametrize("queue", ["main", "other"])
async def test_resources_reach_the_batch_system(ce: CE, queue: str) -> None:
    spec = SubmissionSpec(
        executable="/bin/sleep",
        arguments=("600",),
        resources=Resources(cpus=3, memory_mb=1000, wall_time_s=5400, queue=queue),
        tag="sized",
    )
    async with ce.backend() as backend:
        submission = await backend.submit(spec)
        (handle,) = submission.handles
        try:
            with trio.fail_after(60):
                while local(handle) not in (batch := await trio.to_thread.run_sync(ce.batch_jobs)):
                    await trio.sleep(0.5)
        finally:
            await backend.kill([handle])
        job = batch[local(handle)]
        print(job)
        assert job["Partition"] == queue
        assert job["NumNodes"].split("-")[0] == "1"
        assert job["NumCPUs"] == "3"
        assert job["TimeLimit"] == "01:30:00"
        # 1000 MiB for three cores: 334 for each.
        assert job["MinMemoryCPU"] == "334M"
        assert job["JobName"].startswith("sized_")


@pytest.mark.condor
async def test_resources_reach_htcondor(ce: CE) -> None:
    spec = SubmissionSpec(
        executable="/bin/sleep",
        arguments=("600",),
        resources=Resources(cpus=3, memory_mb=1000, wall_time_s=5400),
    )
    async with ce.backend() as backend:
        (handle,) = (await backend.submit(spec)).handles
        try:
            await eventually(lambda: local(handle) in ce.batch_jobs(), within=60, every=0.5)
            job = ce.batch_jobs()[local(handle)]
        finally:
            await backend.kill([handle])
        assert job["RequestCpus"] == "3"
        # 1000 MiB for three cores: 334 for each.
        assert job["RequestMemory"] == "1002"
        assert job["JobTimeLimit"] == "5400"


async def test_a_finished_job_is_never_reported_as_running(ce: CE) -> None:
    """The CE's status document says otherwise for up to a minute: shown beside it."""
    spec = SubmissionSpec(executable="/bin/sleep", arguments=("2",))
    async with ce.backend() as backend, ce.backend(live_listing="never") as stale:
        (handle,) = (await backend.submit(spec)).handles
        began = time.monotonic()
        while not (await backend.status([handle]))[handle.id].is_final:
            await trio.sleep(0.5)
            assert time.monotonic() - began < 50
        documented = (await stale.status([handle]))[handle.id]
        assert ce.finished_at(local(handle)) < time.time()
        assert (await backend.status([handle]))[handle.id] is JobStatus.DONE
        print(f"documented: {documented}")
        await backend.purge([handle])


async def test_a_failed_job_is_failed_and_a_killed_one_aborted(ce: CE) -> None:
    """From the first moment on: the live listing says FAILED of both."""
    async with ce.backend() as backend:
        failing = SubmissionSpec(executable="/bin/sh", arguments=("-c", "exit 3"))
        (failed,) = (await backend.submit(failing)).handles
        (killed,) = (await backend.submit(SLEEP)).handles
        assert (await backend.kill([killed]))[killed.id].ok
        with trio.fail_after(180):
            while True:
                states = await backend.status([failed, killed])
                assert states[killed.id] is not JobStatus.FAILED
                assert states[failed.id] is not JobStatus.ABORTED
                if all(status.is_final for status in states.values()):
                    break
                await trio.sleep(0.3)
                await backend.kill([killed])  # the CE can lose a kill
        assert states == {failed.id: JobStatus.FAILED, killed.id: JobStatus.ABORTED}
        await backend.purge([failed, killed])


async def test_kill_tells_the_truth_where_the_ce_does_not(ce: CE) -> None:
    """The table of docs/reference/outcomes.md."""
    async with ce.backend() as backend:
        (done,) = (await backend.submit(TRUE)).handles
        await over(backend, [done])
        (running,) = (await backend.submit(SLEEP)).handles
        await until(backend, [running], JobStatus.RUNNING, ce)
        unknown = JobID(running.id.rsplit("/", 1)[0] + "/nosuchjob")
        outcomes = await backend.kill([done, running, unknown, running])
        assert list(outcomes) == [done.id, running.id, unknown]
        assert outcomes[running.id].ok
        assert (outcomes[done.id].ok, outcomes[done.id].reason) == (
            False,
            "the job is already over",
        )
        assert (outcomes[unknown].ok, outcomes[unknown].reason) == (
            False,
            "the CE knows no such job",
        )
        assert (await backend.kill([running]))[running.id].ok
        await over(backend, [running])
        assert (await backend.kill([running]))[running.id].reason == "the job is already over"
        await backend.purge([done, running])


async def test_purge_tells_the_truth_where_the_ce_does_not(ce: CE) -> None:
    """The table of docs/reference/outcomes.md; a job that runs keeps its files."""
    async with ce.backend() as backend:
        (done,) = (await backend.submit(TRUE)).handles
        await over(backend, [done])
        (running,) = (await backend.submit(SLEEP)).handles
        await until(backend, [running], JobStatus.RUNNING, ce)
        unknown = JobID(running.id.rsplit("/", 1)[0] + "/nosuchjob")
        outcomes = await backend.purge([running, done, unknown, done])
        assert list(outcomes) == [running.id, done.id, unknown]
        assert outcomes[done.id].ok
        assert outcomes[running.id].ok is False
        assert "not over (RUNNING)" in (outcomes[running.id].reason or "")
        assert outcomes[unknown].reason == "the CE knows no such job"
        await gone(backend, [done])
        assert (await backend.purge([done]))[done.id].reason == "the CE knows no such job"
        # Had the CE taken the purge, the killed job would vanish.
        await backend.kill([running])
        assert (await over(backend, [running]))[running.id] is JobStatus.ABORTED
        await trio.sleep(3)
        assert (await backend.status([running]))[running.id] is JobStatus.ABORTED
        assert (await backend.purge([running]))[running.id].ok


OTHER_PROCESS = """
import json, sys, trio
from arcbackend import *
config, files, handle = json.load(sys.stdin)
async def main():
    handle_ = JobHandle.model_validate(handle)
    async with ARCBackend(config, FileCredentials(**files)) as backend:
        said = [(await backend.status([job]))[handle_.id] for job in (handle_, handle_.id)]
        killed = (await backend.kill([handle_.id.rsplit("/", 1)[-1]]))[handle_.id]
    print(json.dumps([said, killed.ok]))
trio.run(main)
"""


@pytest.mark.slurm
async def test_a_handle_drives_every_verb_from_another_process(ce: CE, tmp_path: Path) -> None:
    credentials = ce.credentials()
    async with ce.backend(credentials) as backend:
        (handle,) = (await backend.submit(SLEEP)).handles
        given = [
            {"endpoint": ce.endpoint, "ca_file": str(ce.ca_file), "auth": ce.auth},
            in_files(credentials, tmp_path),
            json.loads(handle.model_dump_json()),
        ]
        assert JobHandle.model_validate_json(handle.model_dump_json()) == handle
        done = subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=True,
        )
        said, killed = json.loads(done.stdout.splitlines()[-1])  # behind the log
        assert set(said) <= {"waiting", "running"}
        assert killed is True
        assert await jobs.killed(backend, [handle]) == {handle.id: JobStatus.ABORTED}
        assert (await backend.purge([handle]))[handle.id].ok


async def test_ids_of_another_ce_are_refused(ce: CE) -> None:
    async with ce.backend() as backend:
        with pytest.raises(ConfigurationError, match=r"https://elsewhere\.example:443"):
            await backend.status([JobID("https://elsewhere.example/arex/rest/1.0/jobs/abc")])

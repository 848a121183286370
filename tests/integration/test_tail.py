"""The ends of files that jobs write, running and over: on the real CE."""

from __future__ import annotations

import pytest
import structlog
import trio

from arcbackend import (
    ARCBackend,
    FileTail,
    JobHandle,
    JobID,
    JobStatus,
    OutputSpec,
    Resources,
    SubmissionSpec,
)
from tests.integration.ce import CE
from tests.integration.jobs import local, over

# Slurm: what is read lies in the session directory of A-REX, whatever the batch system.
pytestmark = [pytest.mark.slurm, pytest.mark.once]

SCRIPT = r"""
echo begun; echo err >&2; : > empty; truncate -s 5G sparse; printf end >> sparse
mkdir -p logs/deep; printf xyz > logs/deep/f; printf '\303\251' > "$(printf 'logs/\303\251 a\377')"
ln -s /etc/passwd link; ln -s /etc linkdir; ln -s ../.. logs/up; mkfifo fifo logs/fifo
ln -s logs/deep/f inside; echo s > secret; chmod 0 secret
i=0; while [ ! -e stop ]; do i=$((i+1)); echo "line $i"; sleep 0.2; done; echo last
"""
SPEC = SubmissionSpec(
    executable="/bin/sh",
    arguments=("-c", SCRIPT.replace("\n", "; ").replace("do;", "do").strip("; ")),
    outputs=OutputSpec(include_unlisted=True),
    resources=Resources(memory_mb=10),
)


async def until_there(backend: ARCBackend, job: JobHandle, name: str | None = None) -> FileTail:
    """Its end, as soon as there is anything."""
    with trio.fail_after(120):
        while not (tail := await backend.tail(job, name)).data:
            await trio.sleep(0.5)
    return tail


async def test_a_running_job(ce: CE) -> None:
    async with ce.backend(limits={"stall_timeout": 5}) as backend:
        (handle,) = (await backend.submit(SPEC)).handles
        early = await backend.tail(handle)
        assert (early.name, early.data) == ("stdout", b"")

        # Its output grows, and each look is a new one.
        await until_there(backend, handle)
        with trio.fail_after(60):
            while (first := await backend.tail(handle)).size in (None, 0, len("begun\n")):
                await trio.sleep(0.2)
            while (second := await backend.tail(handle)).size == first.size:
                await trio.sleep(0.2)
        assert first.size is not None
        assert second.size is not None
        assert second.size > first.size
        assert second.data.startswith(first.data)
        assert first.text.startswith("begun\nline 1\n")
        third = await backend.tail(handle, bytes=6)
        assert len(third.data) == 6
        assert third.size == third.offset + 6
        assert third.size >= second.size
        assert (await backend.tail(handle, "stderr")).data == b"err\n"

        # A bare id, from another backend; the same while the job has no document yet, and after.
        async with ce.backend() as fresh:
            assert (await fresh.tail(handle.id)).text.startswith("begun\n")
            ce.publish()
            assert (await fresh.tail(JobID(local(handle)))).text.startswith("begun\n")

        # Other files; with a name that XML cannot be trusted with in the directory, and without.
        assert (await backend.tail(handle, "logs/deep/f")) == FileTail(
            name="logs/deep/f", data=b"xyz", offset=0, size=3
        )
        hostile = await backend.tail(handle, "logs/é a\udcff")
        assert (hostile.data, hostile.reason) == ("é".encode(), None)
        assert (await backend.tail(handle, "logs/deep/f", 1)).data == b"z"
        assert await backend.tail(handle, "empty") == FileTail(name="empty", size=0)

        # A file of 5 GB costs what is asked of it.
        with structlog.testing.capture_logs() as events, trio.fail_after(30):
            sparse = await backend.tail(handle, "sparse", 10)
        received = [event["bytes_received"] for event in events if event["event"] == "arc.request"]
        print(received)
        assert sum(received) < 10_000
        assert sparse == FileTail(
            name="sparse", data=b"\0" * 7 + b"end", offset=5 * 2**30 - 7, size=5 * 2**30 + 3
        )

        # What is no regular file is not read, nor what a link leads to; nor does it hang.
        with trio.fail_after(30):
            for name in ("link", "fifo", "inside", "nosuch"):
                tail = await backend.tail(handle, name)
                assert "no such file (yet), or no regular one" in (tail.reason or ""), name
            for name in ("linkdir/passwd", "logs/up/x", "logs/fifo/x", "stdout/x"):
                tail = await backend.tail(handle, name)
                assert "is no directory, or a link to one" in (tail.reason or ""), name
            for name in ("../" + local(handle) + "/stdout", "/etc/passwd", "logs/../stdout", ""):
                tail = await backend.tail(handle, name)
                assert tail.reason, name
            assert (await backend.tail(handle, "logs")).reason == "it is a directory"
            assert "HTTP 404" in ((await backend.tail(handle, "secret")).reason or "")
            for job in ("nosuchjob", f"{ce.endpoint}/arex/rest/1.0/jobs/another"):
                tail = await backend.tail(JobID(job))
                assert "knows no such job" in (tail.reason or "")

        # A file that is made new, shorter, while it is read.
        session = f"{ce.session_directory}/{local(handle)}"
        ce.run("sh", "-c", f"echo short > {session}/sparse")
        assert (await backend.tail(handle, "sparse")).data == b"short\n"

        # Over.
        ce.run("touch", f"{session}/stop")
        assert await over(backend, [handle]) == {handle.id: JobStatus.DONE}
        last = await backend.tail(handle)
        assert last.text.endswith("\nlast\n")
        assert await backend.tail(handle) == last
        await backend.purge([handle])
        with trio.fail_after(60):
            while "purged" not in ((await backend.tail(handle)).reason or ""):
                await trio.sleep(0.5)


async def test_a_job_that_discards_its_output(ce: CE) -> None:
    spec = SPEC.model_copy(update={"stdout": None, "arguments": ("-c", "true")})
    async with ce.backend() as backend:
        (handle,) = (await backend.submit(spec)).handles
        for job in (handle, handle.id):
            tail = await backend.tail(job)
            assert tail == FileTail(reason="the job discards its standard output")
        await over(backend, [handle])
        await backend.purge([handle])

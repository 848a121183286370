"""``arcbackend fetch`` on the real CE, as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from arcbackend import JobOutput, OutputSpec, Resources, SubmissionSpec
from tests.integration.ce import CE, in_files
from tests.integration.jobs import local, over
from tests.secrecy import parts

pytestmark = pytest.mark.slurm

# A large file that takes no room on the CE, and small ones.
SCRIPT = (
    "echo out; truncate -s 400M big; i=0; while [ $i -lt 100 ]; do echo $i > f$i; i=$((i+1)); done"
)
BIG = 400 * 2**20
FILES = 100 + len(["big", "stdout", "stderr", "ce.log"])


def _lines(files: dict[str, str]) -> list[str]:
    """What must not be seen of what is in the files."""
    return [line for path in files.values() for line in parts(Path(path).read_bytes())]


def _options(files: dict[str, str]) -> list[str]:
    """The same files on the command line."""
    return [f"--{name.replace('_', '-')}={path}" for name, path in files.items()]


async def test_a_user_fetches(ce: CE, tmp_path: Path) -> None:
    settings = tmp_path / "arc.toml"
    settings.write_text(f'auth = "{ce.auth}"\n')
    command = [sys.executable, "-m", "arcbackend", "fetch", "--ca-file", os.fspath(ce.ca_file)]
    command += ["--config", os.fspath(settings)]
    credentials = ce.credentials()
    given = in_files(credentials, tmp_path / "credentials")
    secrets = _lines(given)

    async def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
        with trio.fail_after(120):
            done = await trio.run_process(
                [*command, *words],
                stdin=stdin.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert b"Traceback" not in done.stderr
        said = (done.stdout + done.stderr).decode()
        assert not any(secret in said for secret in secrets)
        return done

    async with ce.backend(credentials) as backend:
        spec = SubmissionSpec(
            executable="/bin/sh",
            arguments=("-c", SCRIPT),
            outputs=OutputSpec(include_unlisted=True),
            resources=Resources(memory_mb=10),
        )
        (handle,) = (await backend.submit(spec)).handles
        await over(backend, [handle])
        signed = _options(given)

        # Interrupted in the middle of the large file.
        dest = tmp_path / "interrupted"
        process = await trio.lowlevel.open_process(
            [*command, *signed, "--dest", os.fspath(dest), handle.id],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with trio.fail_after(60):
            while not list(dest.glob("*/.arcbackend-*.part")):
                await trio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 128 + signal.SIGINT
        assert process.stderr is not None
        assert b"Traceback" not in await process.stderr.receive_some()
        assert not list(dest.glob("*/*.part"))
        assert not list(dest.glob("*/big"))

        # All of it, told by a handle on standard input, and what is no job.
        dest = tmp_path / "dest"
        done = await run(
            *(*signed, "--json", "--dest", os.fspath(dest), "-"),
            stdin=f"{handle.model_dump_json()}\n{ce.endpoint}/arex/nosuch\n",
        )
        assert done.returncode == 1
        manifests = {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}
        assert len(manifests) == 2
        manifest = manifests[handle.id]
        assert manifest.pop("id") == handle.id
        output = JobOutput.model_validate(manifest)
        assert (output.complete, len(output.files)) == (True, 101)
        assert output.size > BIG
        assert (dest / local(handle) / "big").stat().st_size == BIG
        (dest / local(handle) / "big").unlink()
        counts = done.stderr.decode().splitlines()[-1]
        assert counts.startswith(f"2/2 jobs, {FILES}/{FILES} files, 419/419 MB")

        # Limits of a configuration, and the CE by the job's URL.
        with settings.open("a") as file:
            file.write("[limits]\nmax_file_bytes = 1_000_000\n")
        done = await run(*signed, "--dest", os.fspath(dest), handle.id)
        assert done.returncode == 1
        what, job, size, folder, reason = done.stdout.decode().rstrip("\n").split("\t")
        assert (what, job, folder) == ("incomplete", handle.id, os.fspath(dest / local(handle)))
        assert int(size) < 1_000_000
        assert "limits.max_file_bytes = 1000000" in reason

        await backend.purge([handle])

    # Who is not known cannot ask.
    signed = _options(in_files(ce.credentials(lifetime=-3600), tmp_path / "expired"))
    done = await run(*signed, "--dest", os.fspath(dest), handle.id)
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"the CE does not accept the " in done.stderr

"""``arcbackend simulator serve``, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from arcbackend import (
    ARCBackend,
    ARCConfig,
    BearerToken,
    JobStatus,
    StaticCredentials,
    SubmissionSpec,
)

COMMAND = [sys.executable, "-m", "arcbackend", "simulator", "serve"]


@contextmanager
def served(*flags: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The running command, and what it has printed."""
    process = subprocess.Popen(
        [*COMMAND, "--json", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline() or process.communicate()[1])
        finally:
            process.kill()


async def test_a_job_on_it_and_what_is_left_at_the_end(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('lrms = "condor"\n[pace]\nnotice = 0.0\n')
    with served("--settings", str(settings), "--execution", "local") as (process, told):
        files = [Path(told[name]) for name in ("ca_file", "token_file", "proxy_file")]
        token = BearerToken(value=files[1].read_text())
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        config = ARCConfig.from_dict({"endpoint": told["endpoint"], "ca_file": told["ca_file"]})
        async with ARCBackend(config, StaticCredentials(token)) as backend:
            spec = SubmissionSpec(executable="/bin/sh", arguments=("-c", "echo $((6*7))"))
            (job,) = (await backend.submit(spec)).handles
            with trio.fail_after(60):
                while (await backend.status([job]))[job.id] is not JobStatus.DONE:
                    await trio.sleep(0.1)
            tail = await backend.tail(job)
            assert tail.data == b"42\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not any(file.exists() for file in files)


def test_credentials_where_one_wants_them(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "token").write_text("old")
    os.chmod(folder / "token", 0o644)
    with served("--credentials", str(folder)) as (process, told):
        assert told["token_file"] == str(folder / "token")
        assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
        assert (folder / "token").read_text() != "old"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT
    assert sorted(file.name for file in folder.iterdir()) == ["ca.pem", "proxy.pem", "token"]


def test_a_wrong_setting(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("slots = 0\n")
    done = subprocess.run(
        [*COMMAND, "--settings", str(settings)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert str(settings) in done.stderr
    assert "slots" in done.stderr

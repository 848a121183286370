"""``arcbackend fetch``, as its users run it, against a CE that does as it is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from arcbackend import JobHandle, JobID, JobOutput
from tests.wire.fake_ce import LOG, FakeCE, raw
from tests.wire.helpers import Serve, tree
from tests.wire.http import Seen, answer
from tests.wire.server import Peer, Server

TOKEN = "a-token-that-nobody-may-see"
NO_RICH = "import sys; sys.modules['rich'] = None; from arcbackend.cli import main; "
GONE = "the CE knows no such job, or no longer has its output (purged or expired)"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """What is said last on standard error, where nothing is on standard output."""
        assert self.out == ""
        last = self.err.splitlines()[-1]
        assert last.startswith("arcbackend: ")
        return last


class Command:
    """The command, with what it takes to reach a server."""

    def __init__(self, server: Server, ca_file: Path, folder: Path) -> None:
        self.server = server
        self.dest = folder / "dest"
        self.token = folder / "token"
        self.token.write_text(TOKEN + "\n")
        self.ca = ("--ca-file", os.fspath(ca_file))

    def url(self, job: str) -> str:
        return f"{self.server.endpoint}/arex/rest/1.0/jobs/{job}"

    def words(
        self, *arguments: str | Path, program: Sequence[str] = ("-m", "arcbackend")
    ) -> list[str]:
        options = ("--dest", self.dest, "--token-file", self.token, *self.ca)
        words = (sys.executable, *program, "fetch", *options, *arguments)
        return [os.fspath(word) for word in words]

    async def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> Done:
        """Run it to its end."""
        with trio.fail_after(60):
            done = await trio.run_process(
                self.words(*arguments),
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env={**os.environ, "COLUMNS": "100", **(env or {})},
            )
        assert TOKEN.encode() not in done.stdout + done.stderr
        assert b"Traceback" not in done.stderr
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


Against = Callable[[FakeCE], AbstractAsyncContextManager[Command]]


@pytest.fixture
def against(serve: Serve, ca_file: Path, tmp_path: Path) -> Against:
    """Serve a CE, and give the command that reaches it."""

    @asynccontextmanager
    async def make(ce: FakeCE) -> AsyncIterator[Command]:
        async with serve(ce.script) as server:
            yield Command(server, ca_file, tmp_path)
            await server.until_idle()

    return make


def two() -> FakeCE:
    return FakeCE({"a": {b"stdout": b"o", b"d": {b"f": b"12"}}, "b": {b"\xff": b"x"}}, sizes=True)


# what comes of it


async def test_a_line_for_each_job(against: Against) -> None:
    async with against(two()) as command:
        done = await command(command.url("a"), command.url("b"), "a", command.url("nosuch"))
        assert done.code == 1  # not for every job
        size = len(LOG)
        assert sorted(done.lines) == [
            ["complete", command.url("a"), str(size + 3), str(command.dest / "a")],
            ["complete", command.url("b"), str(size + 1), str(command.dest / "b")],
            ["incomplete", command.url("nosuch"), "0", "-", GONE],
        ]
        expected = {"stdout": b"o", "d/f": b"12", "ce.log": LOG}
        assert tree(command.dest / "a") == expected
        assert done.err == f"3/3 jobs, 5/5 files, {2 * size + 4}/{2 * size + 4} bytes\n"
        again = await command(command.url("a"), "--quiet")
        assert (again.code, again.err) == (0, "")
        assert tree(command.dest / "a") == expected


async def test_manifests(against: Against) -> None:
    async with against(two()) as command:
        done = await command("--json", "b", command.url("a"), "nosuch")
        found = {}
        for line in done.out.splitlines():
            manifest = json.loads(line)
            job = manifest.pop("id")
            found[job] = JobOutput.model_validate(manifest)
        assert set(found) == {command.url(job) for job in ("a", "b", "nosuch")}
        a, b = found[command.url("a")], found[command.url("b")]
        assert (a.complete, a.stdout) == (True, command.dest / "a" / "stdout")
        assert [path.name for path in b.files] == ["\\xff"]  # JSON is text
        assert found[command.url("nosuch")].reason == GONE
        assert done.code == 1


async def test_jobs_on_standard_input(against: Against) -> None:
    ce = two()
    async with against(ce) as command:
        handle = JobHandle(id=JobID(command.url("a")), copy_index=0, name="n", stdout="d/f")
        stdin = f"{handle.model_dump_json()}\n\nb\n".encode()
        done = await command("-", "--json", stdin=stdin)
        assert done.code == 0
        (a,) = [line for line in done.out.splitlines() if "/jobs/a" in line]
        assert json.loads(a)["stdout"] == str(command.dest / "a" / "d" / "f")
        nothing = await command("-", stdin=b"\n")
        assert (nothing.code, nothing.out, nothing.err) == (0, "", "")


async def test_each_line_comes_as_soon_as_its_job_is_done(against: Against) -> None:
    ce = two()
    said = trio.Event()

    async def hold(_peer: Peer, _seen: Seen) -> bool:
        await said.wait()  # or this hangs
        return False

    ce.lies["b/session/%FF"] = ce.lies["b/session/%ff"] = hold
    async with against(ce) as command, running(command.words(*map(command.url, "ab"))) as process:
        assert process.stdout is not None
        first = await process.stdout.receive_some()
        assert first.decode().split("\t")[1] == command.url("a")
        said.set()
        assert command.url("b").encode() in await process.stdout.receive_some()
        assert await process.wait() == 0


@asynccontextmanager
async def running(
    words: list[str], *, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> AsyncIterator[trio.Process]:
    """A process, for so long."""
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        env.pop(name, None)
    process = await trio.lowlevel.open_process(
        words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env
    )
    try:
        with trio.fail_after(60):
            yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()


async def everything(stream: trio.abc.ReceiveStream | None) -> bytes:
    assert stream is not None
    return b"".join([bytes(data) async for data in stream])


# what goes wrong


async def test_limits_of_the_configuration(against: Against, tmp_path: Path) -> None:
    file = tmp_path / "arc.toml"
    async with against(two()) as command:
        file.write_text(f"endpoint = '{command.server.endpoint}'\n[limits]\nmax_file_bytes = 15\n")
        assert (await command("--config", file, "a")).code == 0
        file.write_text("[limits]\nmax_file_bytes = 1\n")
        done = await command("--config", file, command.url("a"))
        assert done.code == 1
        ((*_, reason),) = done.lines
        assert "limits.max_file_bytes = 1" in reason
        assert done.err.endswith("1/3 files, 1/1 bytes, 2 not fetched\n")


async def test_what_the_caller_has_to_mend_is_2(against: Against, tmp_path: Path) -> None:
    ce = two()
    async with against(ce) as command:
        assert "--endpoint" in (await command("a")).complaint
        wrong: list[tuple[tuple[str | Path, ...], str]] = [
            ((command.url("a"), "https://other.example.org/arex/x"), "another CE"),
            ((command.url("a"), "--token-file", tmp_path / "none"), "token_file"),
            ((command.url("a"), "--dest", command.token), "cannot be written to"),
        ]
        for arguments, told in wrong:
            done = await command(*arguments)
            assert done.code == 2, arguments
            assert told in done.complaint
        done = await command("a", "--endpoint", "ce.example.org")
        assert done.code == 2
        assert done.err.startswith("usage: ")


async def test_a_ce_that_cannot_be_asked_is_3(against: Against) -> None:
    ce = two()
    async with against(ce) as command:
        ce.lies["diagnose/status"] = raw(answer(500, reason="User can't be assigned configuration"))
        done = await command(command.url("a"))
        assert done.code == 3
        assert "credentials" in done.complaint
        ce.lies["diagnose/status"] = raw(b"gibberish\r\n\r\n")
        done = await command(command.url("a"))
        assert done.code == 3
        assert "not HTTP" in done.complaint
        url = command.url("a")
    done = await command(url)
    assert done.code == 3
    assert "refused" in done.complaint


async def test_the_log_holds_no_token(against: Against) -> None:
    async with against(two()) as command:
        done = await command("--log", command.url("a"))
        assert done.code == 0
        *log, counts = done.err.splitlines()
        assert {json.loads(line)["event"] for line in log} == {"arc.request"}
        assert counts.startswith("3/3 files")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_interrupted_it_leaves_what_is_whole(
    against: Against, number: int, code: int
) -> None:
    ce = two()
    under_way = trio.Event()

    async def hang(peer: Peer, _seen: Seen) -> bool:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + bytes(2_000_000))
        under_way.set()
        await peer.until_gone()
        raise trio.EndOfChannel

    ce.jobs["b"][b"big"] = b"?" * 5_000_000
    ce.lies["/big"] = hang
    async with against(ce) as command, running(command.words(*map(command.url, "ab"))) as process:
        assert process.stdout is not None
        line = await process.stdout.receive_some()
        await under_way.wait()
        while not list(command.dest.glob("b/.arcbackend-*")):
            await trio.sleep(0.01)
        process.send_signal(number)
        err = await everything(process.stderr)
        assert await process.wait() == code
        assert line.startswith(b"complete")
        assert await everything(process.stdout) == b""
        assert err.splitlines()[-1] == b"arcbackend: interrupted"
        assert b"Traceback" not in err
        assert set(tree(command.dest)) >= {"a/stdout", "a/d/f", "a/ce.log"}
        assert not [name for name in tree(command.dest) if "big" in name or ".part" in name]


async def test_a_reader_that_goes_away(against: Against) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        async with against(two()) as command:
            words = command.words(command.url("a"))
            async with running(words, stdout=writer) as process:
                err = await everything(process.stderr)
                assert await process.wait() == 1
                assert b"Traceback" not in err
    finally:
        os.close(writer)


# on a terminal


class Terminal:
    """What a process shows on a terminal."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()

    def shown(self) -> str:
        """All of it, when the process has ended."""
        os.close(self.theirs)
        pieces = []
        while True:
            try:
                piece = os.read(self.ours, 65536)
            except OSError:  # Linux: nobody has it open any more
                break
            if not piece:
                break
            pieces.append(piece)
        os.close(self.ours)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(pieces).decode())


async def test_a_bar_and_then_the_lines(against: Against) -> None:
    screen = Terminal()
    async with against(two()) as command:
        words = command.words(command.url("a"), command.url("b"))
        async with running(words, stdout=screen.theirs, stderr=screen.theirs) as process:
            assert await process.wait() == 0
    shown = screen.shown()
    *bar, first, second = shown.splitlines()
    assert {first.split("\t")[0], second.split("\t")[0]} == {"complete"}
    assert "━" in bar[-1]
    assert "100%" in bar[-1]
    assert "2/2 jobs, 5/5 files" in bar[-1]
    assert "complete" not in "".join(bar)


async def test_lines_into_a_file_beside_the_bar(against: Against, tmp_path: Path) -> None:
    screen = Terminal()
    async with against(two()) as command:
        words = command.words(command.url("a"))
        async with running(words, stderr=screen.theirs) as process:
            out = await everything(process.stdout)
            assert await process.wait() == 0
    assert out.decode().split("\t")[:2] == ["complete", command.url("a")]
    shown = screen.shown()
    assert "100%" in shown
    assert "complete" not in shown


async def test_without_rich_there_are_lines(against: Against) -> None:
    screen = Terminal()
    async with against(two()) as command:
        program = ("-c", NO_RICH + "sys.exit(main())")
        words = command.words(command.url("a"), program=program)
        async with running(words, stderr=screen.theirs) as process:
            assert await process.wait() == 0
    assert screen.shown() == f"3/3 files, {len(LOG) + 3}/{len(LOG) + 3} bytes\r\n"

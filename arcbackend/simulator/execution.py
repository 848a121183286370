"""Jobs that are really executed: as processes of this machine, in their session directories.

They are trusted no less than the program that serves them: there is no sandbox. What ARC's job
script does around a payload is done as far as a payload can tell (submit_common.sh of A-REX): the
arguments pass a shell between double quotes, the home directory is the session directory.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from urllib.parse import urlsplit

import trio

from arcbackend.simulator.batch import Exit
from arcbackend.simulator.jobs import Job, Usage

__all__ = ["LocalRunner"]

_DEATH = 5.0  # s, from SIGKILL to the end
_GRACE = 5.0  # s, between SIGTERM and SIGKILL
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_PROXY = "user.proxy"
_USER = "griduser"


class _Process:
    """One job's processes."""

    def __init__(self, job: Job, popen: subprocess.Popen[bytes]) -> None:
        self.job = job
        self.popen = popen
        self.killed = trio.Event()

    def signal(self, number: int) -> None:
        """Signal all of them. Their leader has not been waited for: its id is nobody else's."""
        if self.popen.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, number)


class LocalRunner:
    """Executes jobs.

    Args:
        start_soon: starts a task in the simulator's nursery. When that is cancelled, every process
            is killed.
        session: tells a job's session directory, which must exist.
        scripts: a directory for the scripts that start jobs.
        endpoint: tells the CE's address, which jobs are told.
        trusted: a directory with the authorities that jobs with a proxy are to trust.
        slurm: whether they find what Slurm sets.
    """

    def __init__(
        self,
        start_soon: Callable[..., None],
        session: Callable[[Job], Path],
        scripts: Path,
        endpoint: Callable[[], str],
        trusted: Path,
        *,
        slurm: bool = False,
    ) -> None:
        self._start_soon = start_soon
        self._session = session
        self._scripts = scripts
        self._endpoint = endpoint
        self._trusted = trusted
        self._slurm = slurm
        self._processes: dict[Job, _Process] = {}
        self._started = 0

    def start(self, job: Job, ended: Callable[[Exit], None]) -> None:
        """Start a job; see `Runner.start`."""
        session = self._session(job)
        program = _program(job)
        if not (session / program).is_file():
            text = f'Path "{program}" does not seem to exist\n'
            self._start_soon(_not_started, session, job, text, ended)
            return
        environment = _environment(job, session, self._endpoint())
        if self._slurm:
            environment |= _slurm_environment(job)
        if job.submission.proxy is not None:
            environment["X509_USER_PROXY"] = os.fspath(session / _PROXY)
            environment["X509_CERT_DIR"] = os.fspath(self._trusted)
        self._started += 1
        script = self._scripts / f"{job.local}.{self._started}"
        before = getrusage(RUSAGE_SELF).ru_maxrss
        try:
            script.write_bytes(_script(job, program, session))
            _leave_proxy(job, session)
            popen = subprocess.Popen(  # noqa: S603 - it is what jobs are for
                ["/bin/sh", os.fspath(script)],
                cwd=session,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            self._start_soon(_not_started, session, job, f"{error}\n", ended)
            return
        process = self._processes[job] = _Process(job, popen)
        self._start_soon(self._follow, process, script, before, ended)

    def kill(self, job: Job) -> None:
        """End a job; see `Runner.kill`."""
        process = self._processes.get(job)
        if process is not None:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
            process.killed.set()

    def stop(self, job: Job) -> None:
        """Suspend a job."""
        process = self._processes.get(job)
        if process is not None:
            process.signal(signal.SIGSTOP)

    def go_on(self, job: Job) -> None:
        """Let a suspended job go on."""
        process = self._processes.get(job)
        if process is not None:
            process.signal(signal.SIGCONT)

    async def _follow(
        self, process: _Process, script: Path, before: int, ended: Callable[[Exit], None]
    ) -> None:
        """Wait for a job's end, and leave none of its processes."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_kill_at_last, process)
                await _wait_for_end(process.popen.pid)
                nursery.cancel_scope.cancel()
        finally:
            # What it has left in the background goes with it, as a batch system sees to it.
            process.signal(signal.SIGKILL)
            with trio.move_on_after(_DEATH, shield=True):
                await _wait_for_end(process.popen.pid)
            exit_ = _reap(process.popen, before)
            with suppress(OSError):
                os.unlink(script)
            if self._processes.get(process.job) is process:
                del self._processes[process.job]
        ended(exit_)


async def _not_started(session: Path, job: Job, text: str, ended: Callable[[Exit], None]) -> None:
    """Say to the job's standard error, as ARC's script does, why there is none."""
    await trio.lowlevel.checkpoint()
    if job.description.stderr:
        with suppress(OSError):
            (session / job.description.stderr.lstrip("/")).write_text(text)
    ended(Exit(1, told=False))


async def _kill_at_last(process: _Process) -> None:
    await process.killed.wait()
    await trio.sleep(_GRACE)
    process.signal(signal.SIGKILL)


async def _wait_for_end(pid: int) -> None:
    """Wait until a child has ended, without taking note of it."""
    descriptor = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _reap(popen: subprocess.Popen[bytes], before: int) -> Exit:
    """Take note of the end of a child that has ended or been sent SIGKILL."""
    pid, status, used = os.wait4(popen.pid, os.WNOHANG)
    if pid == 0:  # pragma: no cover - the kernel cannot kill it
        return Exit(128 + signal.SIGKILL, told=False)
    popen.returncode = code = os.waitstatus_to_exitcode(status)
    # Linux lets a child begin with its parent's memory: less than that is not known.
    memory = used.ru_maxrss * 1024 if used.ru_maxrss > before else None
    usage = Usage(used.ru_utime + used.ru_stime, memory)
    return Exit(code if code >= 0 else 128 - code, usage=usage)


def _leave_proxy(job: Job, session: Path) -> None:
    """Put the job's proxy where ARC's script puts it on the node."""
    if job.submission.proxy is None:
        return
    with suppress(FileNotFoundError):
        os.unlink(session / _PROXY)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(session / _PROXY, flags, 0o600), "wb") as file:
        file.write(job.submission.proxy)


def _program(job: Job) -> str:
    """The executable's path, as write_grami_executable in JobDescriptionHandler.cpp has it."""
    path = job.description.executable.strip()
    return path if path.startswith(("/", "$", "./")) else f"./{path}"


def _environment(job: Job, session: Path, endpoint: str) -> dict[str, str]:
    """What a job finds, before what it asked for: nothing of this process's but the PATH."""
    return {
        "PATH": os.environ.get("PATH", _PATH),
        "HOME": os.fspath(session),
        "USER": _USER,
        "LOGNAME": _USER,
        "SHELL": "/bin/sh",
        "TMPDIR": "/tmp",  # noqa: S108 - as a batch system sets it
        "GRID_GLOBAL_JOBID": job.local,
        "GRID_GLOBAL_JOBURL": f"{endpoint}/arex/{job.local}",
        "GRID_GLOBAL_JOBINTERFACE": "org.nordugrid.arcrest",
        "GRID_GLOBAL_JOBHOST": urlsplit(endpoint).hostname or "",
    }


def _slurm_environment(job: Job) -> dict[str, str]:
    """The most of what Slurm adds that somebody may look for."""
    return {
        "SLURM_JOB_ID": str(job.number),
        "SLURM_JOB_PARTITION": job.queue,
        "SLURM_CPUS_ON_NODE": str(job.description.cpus),
    }


def _script(job: Job, program: str, session: Path) -> bytes:
    """The script that a job is, for /bin/sh."""
    asked = job.description
    lines = [f"export {_single(f'{name}={value}')}" for name, value in asked.environment.items()]
    lines.append(f"HOME={_single(os.fspath(session))}")
    words = " ".join(_double(word) for word in (program, *asked.arguments))
    stdin, stdout, stderr = (
        _single(f"./{name}") if name and name != "/dev/null" else "/dev/null"
        for name in (asked.stdin, asked.stdout, asked.stderr)
    )
    streams = f"<{stdin} >{stdout} " + ("2>&1" if stderr == stdout else f"2>{stderr}")
    lines.append(f"{words} {streams}")
    lines.append("exit $?")
    return os.fsencode("\n".join(lines) + "\n")


def _single(text: str) -> str:
    """In single quotes: as it is."""
    return "'" + text.replace("'", "'\\''") + "'"


def _double(text: str) -> str:
    """In double quotes, as ARC puts arguments: the shell expands ``$`` and backquotes."""
    text = text.rstrip("\n").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'

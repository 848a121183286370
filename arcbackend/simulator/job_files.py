"""What A-REX and jobs do in session directories, as far as it is not really done by processes.

A directory is made when somebody first looks into it, or a process needs it: of a million simulated
jobs nobody looks at, nothing is on the disk. What the job has done by then is caught up with.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

from arcbackend.simulator.jobs import InnerState, Job
from arcbackend.simulator.session_directory import NotDone, SessionDirectory
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.traps import Lrms, Traps

__all__ = ["JobFiles"]


_OF_SCRIPT: Mapping[Lrms, tuple[str, ...]] = {
    "slurm": (),
    "condor": ("condorjob.jdl", "condorjob.sh", "log"),
}
"""What ARC's scripts leave in a session directory."""


class _Done(IntEnum):
    """How far it is, with a simulated job's files."""

    NOTHING = 0
    FETCHED = 1
    STARTED = 2
    ENDED = 3
    TIDIED = 4


class _Session:
    """One that is on the disk."""

    __slots__ = ("directory", "done")

    def __init__(self, directory: SessionDirectory) -> None:
        self.directory = directory
        self.done = _Done.NOTHING


class JobFiles:
    """The session directories of one CE; `engine.Files` says what most is for.

    Args:
        root: of them all.
        settings: of the CE.
        traps: of the CE.
        removed: is told of a job that is gone.
    """

    def __init__(
        self,
        root: Path,
        settings: SimulatorSettings,
        traps: Traps,
        removed: Callable[[Job], None],
    ) -> None:
        self._root = root
        self._traps = traps
        self._limit = settings.limits.session_bytes
        self._log_bytes = settings.limits.log_bytes
        self._real = settings.execution == "local"
        self._of_script = _OF_SCRIPT[settings.lrms]
        self._removed = removed
        self._sessions: dict[Job, _Session] = {}

    def session(self, job: Job) -> SessionDirectory:
        """A job's session directory, as it is by now."""
        session = self._made(job)
        if not self._real:
            self._catch_up(job, session)
        return session.directory

    def path(self, job: Job) -> Path:
        """Where a job's session directory is, which exists from now on."""
        return self._made(job).directory.root

    def make_ready(self, job: Job) -> None:
        """Make what is to be executed executable."""
        session = self._made(job) if self._real else self._sessions.get(job)
        if session is not None:
            for one in job.description.inputs:
                if one.executable:
                    session.directory.make_executable(one.name)
            self._submit(session.directory)

    def missing(self, job: Job) -> str | None:
        """The name of an output that is to be stored and is not there; None: all are."""
        for output in job.description.outputs:
            name = output.name
            if output.target is None or name.endswith("/") or name.startswith("@"):
                continue
            if self._real:
                there = self._made(job).directory.has(name)
            else:
                there = name in _left_by(job) or name in self._had_before(job)
            if not there:
                return name
        return None

    def tidy(self, job: Job) -> None:
        """Remove what is not kept."""
        if self._real:
            self._made(job).directory.keep_only(_kept(job))

    def remove(self, job: Job) -> None:
        """Remove a job's directory, and forget the job."""
        self.forget(job)
        self._removed(job)

    def forget(self, job: Job) -> None:
        """Remove a job's directory, if there is one."""
        session = self._sessions.pop(job, None)
        if session is not None:
            shutil.rmtree(session.directory.root, ignore_errors=True)

    def _made(self, job: Job) -> _Session:
        session = self._sessions.get(job)
        if session is None:
            directory = SessionDirectory(self._root / job.local, self._traps, self._limit)
            directory.make()
            session = self._sessions[job] = _Session(directory)
        return session

    def _catch_up(self, job: Job, session: _Session) -> None:
        """Do what a simulated job would have done by now."""
        directory = session.directory
        over = job.state is InnerState.FINISHED
        if session.done is _Done.TIDIED and not over:
            session.done = _Done.NOTHING  # it was started again
        if session.done < _Done.FETCHED and job.submitted is not None:
            for one in job.description.inputs:
                if one.source is not None:
                    _write(directory, one.name, b"")
            self._submit(directory)
            session.done = _Done.FETCHED
        if session.done < _Done.STARTED and job.started is not None:
            for name, written in self._streams(job):
                _write(directory, name, written)
            session.done = _Done.STARTED
        if session.done < _Done.ENDED and job.exit_code is not None:
            for name, held in _left_by(job).items():
                _write(directory, name, held)
            session.done = _Done.ENDED
        if session.done < _Done.TIDIED and over:
            directory.keep_only(_kept(job))
            session.done = _Done.TIDIED

    def _submit(self, directory: SessionDirectory) -> None:
        """Leave what ARC's script leaves that passes a job to the batch system."""
        for name in self._of_script:
            _write(directory, name, b"# a simulated job has none\n")

    def _had_before(self, job: Job) -> set[str]:
        asked = job.description
        return {asked.stdout, asked.stderr, *(one.name for one in asked.inputs)}

    def _streams(self, job: Job) -> Iterator[tuple[str, bytes]]:
        """What a simulated job writes: all at once when it starts."""
        asked, plan = job.description, job.plan
        stdout, stderr = plan.stdout[: self._log_bytes], plan.stderr[: self._log_bytes]
        if asked.stdout == asked.stderr:
            stdout, stderr = stdout + stderr, b""
        for name, written in ((asked.stderr, stderr), (asked.stdout, stdout)):
            if name and name != "/dev/null":
                yield name, written


def _left_by(job: Job) -> Mapping[str, bytes]:
    """The files that a simulated job leaves: what its plan says, or else what is to be kept of it
    or stored, empty.
    """
    if job.plan.files is not None:
        return job.plan.files
    asked = job.description
    streams = (asked.stdout, asked.stderr)
    return {
        output.name: b""
        for output in asked.outputs
        if not output.name.endswith("/")
        and not output.name.startswith("@")
        and output.name not in streams
    }


def _kept(job: Job) -> list[str]:
    return [output.name for output in job.description.outputs if output.target is None]


def _write(directory: SessionDirectory, name: str, content: bytes) -> None:
    with suppress(NotDone, OSError):  # a payload would fail to, likewise
        directory.write(name, content)

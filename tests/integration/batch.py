"""The batch systems behind the real CEs: their jobs, and what holds these up.

A job is named by ARC's short id, which its working directory ends in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType

Run = Callable[..., str]
"""Runs a command inside the CE and returns its output."""


class Batch(ABC):
    """One batch system. What its verbs do to a job shows in ARC after ``ce.publish()``."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def _as_user(self, command: str) -> str:
        """Run a command as the user whom jobs belong to."""
        return self._run("su", "griduser", "-s", "/bin/sh", "-c", f"cd /tmp && {command}")

    @abstractmethod
    def jobs(self) -> dict[str, dict[str, str]]:
        """ARC's short id → the fields that the batch system has of the job."""

    def saved(self) -> set[str]:
        """The jobs that would survive a crash of the batch system's daemon. (Slurm only)"""
        raise NotImplementedError

    @abstractmethod
    def closed(self) -> AbstractContextManager[None]:
        """Start no job meanwhile."""

    @abstractmethod
    def foreign(self, cpus: int) -> AbstractContextManager[None]:
        """Run a job meanwhile that has not come through the CE."""

    @abstractmethod
    def cancel(self, id_: str) -> None:
        """Remove a job, waiting or running, as an administrator."""

    @abstractmethod
    def clear(self) -> None:
        """Remove every job, as an administrator."""

    @abstractmethod
    def end_time(self, id_: str) -> None:
        """Let the time limit of a running job that has one be over within half a minute."""

    def inactive(self, queue: str) -> AbstractContextManager[None]:
        """Take no job for this queue meanwhile. (Slurm only)"""
        raise NotImplementedError

    def fail_node(self) -> None:
        """Lose the node with all that runs on it; it comes back by itself. (Slurm only)"""
        raise NotImplementedError

    @abstractmethod
    def suspend(self, id_: str) -> None:
        """Stop a running job where it is. Slurm: OTHER; HTCondor: HELD."""

    @abstractmethod
    def resume(self, id_: str) -> None:
        """Let a suspended job go on."""

    @abstractmethod
    def hold(self, id_: str) -> None:
        """Keep a job out. Slurm: only one that waits, QUEUING; HTCondor: any, OTHER."""

    @abstractmethod
    def release(self, id_: str) -> None:
        """Let a held job in again. One that HTCondor had started before is then removed: ARC asks
        for no second start."""


class Slurm(Batch):
    def jobs(self) -> dict[str, dict[str, str]]:
        """As ``scontrol show job`` prints them."""
        jobs = {}
        for line in self._run("scontrol", "-o", "show", "job").splitlines():
            fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if "WorkDir" in fields:
                jobs[fields["WorkDir"].rsplit("/", 1)[-1]] = fields
        return jobs

    def saved(self) -> set[str]:
        # slurmctld takes a job at once, and writes down every five seconds which it has.
        command = "grep -aoE 'sessiondir/[0-9a-f]+' /var/spool/slurmctld/job_state || true"
        return {line.partition("/")[2] for line in self._run("sh", "-c", command).splitlines()}

    @contextmanager
    def closed(self) -> Iterator[None]:
        self._run("scontrol", "update", "partitionname=main", "state=DOWN")
        try:
            yield
        finally:
            self._run("scontrol", "update", "partitionname=main", "state=UP")

    @contextmanager
    def foreign(self, cpus: int) -> Iterator[None]:
        flags = f"--partition=main --cpus-per-task={cpus} --mem=10 --output=/dev/null"
        number = self._as_user(f"sbatch --parsable {flags} --wrap 'sleep 600'").strip()
        try:
            yield
        finally:
            self._run("scancel", number)

    def cancel(self, id_: str) -> None:
        self._run("scancel", self.jobs()[id_]["JobId"])

    def clear(self) -> None:
        self._run("scancel", "--user=griduser")

    def end_time(self, id_: str) -> None:
        # Slurm rounds limits to minutes, and looks at them every 30 s. It refuses an end in the
        # past, as "now" would be if the second changes on the way.
        self._run("scontrol", "update", f"jobid={self.jobs()[id_]['JobId']}", "endtime=now+9")

    @contextmanager
    def inactive(self, queue: str) -> Iterator[None]:
        """Take no job for this queue meanwhile; A-REX tries for twenty seconds."""
        self._run("scontrol", "update", f"partitionname={queue}", "state=INACTIVE")
        try:
            yield
        finally:
            self._run("scontrol", "update", f"partitionname={queue}", "state=UP")

    def fail_node(self) -> None:
        """Lose the node with all that runs on it; it comes back by itself."""
        self._run("scontrol", "update", "nodename=stack", "state=DOWN", "reason=test")

    def suspend(self, id_: str) -> None:
        self._control("suspend", id_)

    def resume(self, id_: str) -> None:
        self._control("resume", id_)

    def hold(self, id_: str) -> None:
        self._control("hold", id_)

    def release(self, id_: str) -> None:
        self._control("release", id_)

    def _control(self, verb: str, id_: str) -> None:
        self._run("scontrol", verb, self.jobs()[id_]["JobId"])


class Condor(Batch):
    FIELDS = ("Iwd", "ClusterId", "JobStatus", "RequestCpus", "RequestMemory", "JobTimeLimit")
    LIMIT = "/etc/condor/config.d/99-closed"

    def jobs(self) -> dict[str, dict[str, str]]:
        """The fields named above, of the jobs that have not left the queue."""
        jobs = {}
        for line in self._run("condor_q", "-allusers", "-autoformat:t", *self.FIELDS).splitlines():
            fields = dict(zip(self.FIELDS, line.split("\t"), strict=True))
            jobs[fields["Iwd"].rsplit("/", 1)[-1]] = fields
        return jobs

    @contextmanager
    def closed(self) -> Iterator[None]:
        self._run("sh", "-c", f"echo MAX_JOBS_RUNNING = 0 >{self.LIMIT}")
        try:
            self._run("condor_reconfig", "-schedd")
            yield
        finally:
            self._run("rm", self.LIMIT)
            self._run("condor_reconfig", "-schedd")

    @contextmanager
    def foreign(self, cpus: int) -> Iterator[None]:
        lines = ["executable=/bin/sleep", "arguments=600", f"request_cpus={cpus}"]
        lines += ["request_memory=10", "queue"]
        asked = "".join(f"{line}\\n" for line in lines)
        cluster = self._as_user(f"printf '{asked}' | condor_submit -terse").split(".")[0]
        try:
            yield
        finally:
            self._run("condor_rm", cluster)

    def cancel(self, id_: str) -> None:
        self._control("condor_rm", id_)

    def clear(self) -> None:
        left = 'test -z "$(condor_q -allusers -autoformat ClusterId)"'
        self._run("sh", "-c", f"{left} || condor_rm -all || {left}")

    def end_time(self, id_: str) -> None:
        """The limit is kept to the second, and seen every two seconds."""

    def suspend(self, id_: str) -> None:
        self._control("condor_suspend", id_)

    def resume(self, id_: str) -> None:
        self._control("condor_continue", id_)

    def hold(self, id_: str) -> None:
        self._control("condor_hold", id_)

    def release(self, id_: str) -> None:
        self._control("condor_release", id_)

    def _control(self, command: str, id_: str) -> None:
        self._run(command, self.jobs()[id_]["ClusterId"])


BY_STACK: Mapping[str, type[Batch]] = MappingProxyType({"arc-slurm": Slurm, "arc-condor": Condor})

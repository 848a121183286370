"""The real CE as tests see it: the command ``stack``, and backends that talk to it."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
import yaml

from arcbackend import ARCBackend, ARCConfig, BearerToken, StaticCredentials
from tests.integration.batch import BY_STACK

HERE = Path(__file__).parent
STACK = HERE / "stacks" / "stack"
CANNOT_RUN_HERE = 77


class CannotRunHere(Exception):
    """This machine cannot run the stack; the message says why."""


@dataclass(frozen=True)
class Instance:
    """One entry of the manifest: a stack in one version and one configuration."""

    stack: str
    version: str
    config: str
    markers: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.stack}-{self.version}-{self.config}"


def manifest() -> list[Instance]:
    """Every instance that stacks.yml names."""
    document = yaml.safe_load((HERE / "stacks.yml").read_text())
    return [
        Instance(stack["id"], version, config, tuple(stack.get("markers", ())))
        for stack in document["stacks"]
        for version in stack["versions"]
        for config in stack["configurations"]
    ]


def call_stack(*arguments: str, input_: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run ``stack``; its progress and complaints go where pytest captures them."""
    done = subprocess.run(
        [str(STACK), *arguments], stdout=subprocess.PIPE, input=input_, check=False
    )
    if done.returncode == CANNOT_RUN_HERE:
        raise CannotRunHere(f"stack {arguments[0]}: see above")
    done.check_returncode()
    return done


class RealCE:
    """A running instance.

    Attributes:
        session_directory: of all jobs, as seen from inside.
        control_directory: A-REX's own records, as seen from inside.
        queue: the first of the CE's queues, which jobs go to unless they say otherwise.
        batch: the batch system behind it.
    """

    session_directory = "/var/spool/arc/sessiondir"
    control_directory = "/var/spool/arc/jobstatus"

    def __init__(self, instance: Instance, description: dict[str, Any]) -> None:
        self.instance = instance
        self.endpoint: str = description["endpoint"]
        self.arc_version: str = description["arc_version"]
        self.ca_file = Path(description["ca_file"])
        self.queue: str = description["queue"]
        self.batch = BY_STACK[instance.stack](self.run)
        self._flags = ("--version", instance.version, "--config", instance.config)

    @classmethod
    def start(cls, instance: Instance) -> RealCE:
        flags = ("--version", instance.version, "--config", instance.config)
        call_stack("build", instance.stack, "--version", instance.version)
        return cls(instance, json.loads(call_stack("start", instance.stack, *flags).stdout))

    @classmethod
    def running(cls, instance: Instance) -> RealCE | None:
        """The instance, if it runs already."""
        for found in json.loads(call_stack("status").stdout):
            key = (found["stack"], found["version"], found["config"])
            if found["running"] and key == (instance.stack, instance.version, instance.config):
                return cls(instance, found)
        return None

    def stop(self) -> None:
        self._stack("stop")

    def _stack(self, command: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return call_stack(command, self.instance.stack, *self._flags, *arguments)

    def run(self, *command: str) -> str:
        """Run a command inside the CE; returns its output."""
        return self._stack("exec", "--", *command).stdout.decode()

    def publish(self) -> None:
        """Run the information provider, which the CE does once a minute by itself."""
        self.run("/usr/share/arc/CEinfo.pl", "--splitjobs", "--config", "/run/arched-arex.cfg")

    def kill_daemon(self, name: str, signal: str = "KILL") -> None:
        self._stack("kill-daemon", name, "--signal", signal)

    def restart_daemon(self, name: str) -> None:
        self._stack("restart-daemon", name)

    def partition_down(self) -> AbstractContextManager[None]:
        """Hold all jobs back in the batch system."""
        return self.batch.closed()

    @contextmanager
    def limited_to(self, *, jobs: int) -> Iterator[None]:
        """Let the CE take no more than so many jobs in all, those that are over included."""
        self.run("cp", "/etc/arc.conf", "/etc/arc.conf.kept")
        self.run("sed", "-i", f"s/^maxjobs = .*/maxjobs = -1 -1 -1 {jobs} 6/", "/etc/arc.conf")
        try:
            self._restart()
            yield
        finally:
            self.run("mv", "/etc/arc.conf.kept", "/etc/arc.conf")
            self._restart()

    def _restart(self) -> None:
        """Let the part that takes new jobs read its configuration."""
        self.kill_daemon("arex-ws", "TERM")
        self.restart_daemon("arex-ws")

    def token(
        self,
        subject: str = "test-user",
        scopes: Sequence[str] | None = None,
        lifetime: float = 36_000,
        audience: str | None = None,
    ) -> str:
        """A fresh token."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "token"
            flags = [flag for scope in scopes or () for flag in ("--scope", scope)]
            if audience is not None:
                flags += ["--audience", audience]
            self._stack(
                "token", "--out", str(out), "--subject", subject, f"--lifetime={lifetime}", *flags
            )
            return out.read_text()

    def config(self, **settings: Any) -> ARCConfig:
        return ARCConfig.from_dict(
            {"endpoint": self.endpoint, "ca_file": self.ca_file, "queue": self.queue, **settings}
        )

    def backend(self, token: str | None = None, **settings: Any) -> ARCBackend:
        credentials = StaticCredentials(BearerToken(value=token or self.token()))
        return ARCBackend(self.config(**settings), credentials)

    def batch_jobs(self) -> dict[str, dict[str, str]]:
        """ARC's short id → the fields that the batch system has of the job."""
        return self.batch.jobs()


async def eventually(what: Callable[[], Any], within: float = 180.0, every: float = 1.0) -> Any:
    """Ask until the answer is true; asked in a thread."""
    deadline = time.monotonic() + within
    while True:
        answer = await trio.to_thread.run_sync(what)
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within:g} s"
        await trio.sleep(every)

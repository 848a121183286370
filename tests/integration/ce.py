"""A CE as tests see it, and the real one: the command ``stack``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import trio
import yaml

from arcbackend import (
    ARCBackend,
    ARCConfig,
    BearerToken,
    CredentialSet,
    StaticCredentials,
    X509Proxy,
)
from tests.integration.batch import BY_STACK, Batch

HERE = Path(__file__).parent
STACK = HERE / "stacks" / "stack"
CANNOT_RUN_HERE = 77


class CannotRunHere(Exception):
    """This machine cannot run the stack; the message says why."""


@dataclass(frozen=True)
class Instance:
    """One entry of the manifest: a stack, or a simulator, in one version and one configuration."""

    stack: str
    version: str
    config: str
    markers: frozenset[str] = frozenset()
    simulates: str | None = None
    """The batch system that a simulator is to have; None: it is a real CE."""

    @property
    def id(self) -> str:
        return f"{self.stack}-{self.version}-{self.config}"

    @property
    def lrms(self) -> str:
        """The batch system: slurm or condor."""
        return self.simulates or self.stack.removeprefix("arc-")


def manifest() -> list[Instance]:
    """Every instance that stacks.yml names."""
    document = yaml.safe_load((HERE / "stacks.yml").read_text())
    of_configuration = document["configurations"]
    return [
        Instance(
            stack["id"],
            version,
            config,
            frozenset(stack["markers"] + of_configuration[config]),
            stack.get("simulates"),
        )
        for stack in document["stacks"] + document["simulators"]
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


class ProxyTraits(TypedDict, total=False):
    """What is special about a proxy; what is what: stacks/stacklib/proxies.py."""

    limited: bool
    key: Literal["rsa", "ec"]
    bits: int
    depth: int
    path_length: int
    listed: bool
    foreign_ca: bool


class CE(ABC):
    """A running instance.

    Attributes:
        instance: which.
        endpoint: ``https://host:port``.
        arc_version: of A-REX, as its package is called.
        ca_file: the authority that its certificate is of.
        auth: what the configuration lets in, in the words of `ARCConfig.auth`.
        queue: the first of the CE's queues, which jobs go to unless they say otherwise.
        batch: the batch system behind it.
        session_directory: of all jobs, where `run` finds it.
    """

    instance: Instance
    endpoint: str
    arc_version: str
    ca_file: Path
    auth: str
    queue: str
    batch: Batch
    session_directory: str

    def __init__(self) -> None:
        self._proxies: dict[tuple[str, float], bytes] = {}

    @abstractmethod
    def stop(self) -> None:
        """End it."""

    @abstractmethod
    def run(self, *command: str) -> str:
        """Run a command where the session directories are; returns its output."""

    @abstractmethod
    def publish(self) -> None:
        """Run the information provider, which the CE does once a minute by itself."""

    def partition_down(self) -> AbstractContextManager[None]:
        """Hold all jobs back in the batch system."""
        return self.batch.closed()

    @abstractmethod
    def finished_at(self, local: str) -> float:
        """When A-REX was done with a job, by its own record, in seconds since 1970."""

    @abstractmethod
    def records(self, local: str) -> str:
        """A-REX's own records of a job that is over, such that any change to them shows."""

    @abstractmethod
    def limited_to(self, *, jobs: int) -> AbstractContextManager[None]:
        """Let the CE take no more than so many jobs in all, those that are over included."""

    @abstractmethod
    def token(
        self,
        subject: str = "test-user",
        scopes: Sequence[str] | None = None,
        lifetime: float = 36_000,
        audience: str | None = None,
    ) -> str:
        """A fresh token."""

    @abstractmethod
    def proxy(
        self,
        user: str = "test-user",
        lifetime: float = 36_000,
        **traits: Unpack[ProxyTraits],
    ) -> bytes:
        """A fresh proxy of a fresh user certificate."""

    @abstractmethod
    def subject(self, user: str) -> str:
        """The distinguished name that a user's proxies are of."""

    def credentials(
        self, user: str = "test-user", *, lifetime: float = 36_000, token: str | None = None
    ) -> CredentialSet:
        """What a user needs in this configuration: a fresh token, a proxy that is made once.

        Args:
            user: whose; the same in each kind.
            lifetime: of each, in seconds.
            token: instead of the fresh token; only where one is let in.
        """
        kinds, key = self.auth.split("+"), (user, lifetime)
        assert token is None or "token" in kinds, f"no token in configuration {self.auth}"
        if "proxy" in kinds and key not in self._proxies:
            self._proxies[key] = self.proxy(user, lifetime)
        token = token or (self.token(user, lifetime=lifetime) if "token" in kinds else None)
        return CredentialSet(
            token=BearerToken(value=token) if token else None,
            proxy=X509Proxy(pem=self._proxies[key]) if "proxy" in kinds else None,
        )

    def config(self, **settings: Any) -> ARCConfig:
        return ARCConfig.from_dict(
            {
                "endpoint": self.endpoint,
                "ca_file": self.ca_file,
                "auth": self.auth,
                "queue": self.queue,
                **settings,
            }
        )

    def backend(self, credentials: CredentialSet | None = None, **settings: Any) -> ARCBackend:
        """A backend with these credentials; None: those of the user whom most tests are."""
        provider = StaticCredentials(credentials or self.credentials())
        return ARCBackend(self.config(**settings), provider)

    def batch_jobs(self) -> dict[str, dict[str, str]]:
        """ARC's short id → the fields that the batch system has of the job."""
        return self.batch.jobs()


class RealCE(CE):
    """A running stack.

    Attributes:
        control_directory: A-REX's own records, as seen from inside.
    """

    session_directory = "/var/spool/arc/sessiondir"
    control_directory = "/var/spool/arc/jobstatus"

    def __init__(self, instance: Instance, description: dict[str, Any]) -> None:
        super().__init__()
        self.instance = instance
        self.endpoint: str = description["endpoint"]
        self.arc_version: str = description["arc_version"]
        self.auth: str = description["auth"]
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
        """Run the information provider, which the CE does once a minute by itself.

        It writes the jobs' documents; its output is the CE's own, which A-REX writes.
        """
        # It dies if a job is removed while it writes, so it is run again.
        script = (
            'cd "$1" && new=$(mktemp info.XXXXXX) && for try in 1 2 3 4 5; do '
            '/usr/share/arc/CEinfo.pl --splitjobs --config /run/arched-arex.cfg >"$new" '
            '&& mv "$new" info.xml && exit; done; exit 1'
        )
        self.run("sh", "-c", script, "sh", self.control_directory)

    def finished_at(self, local: str) -> float:
        """As the file system has it."""
        return float(self.run("stat", "-c", "%.9Y", self._status_file(local)))

    def records(self, local: str) -> str:
        """Its files, without the document that the information provider writes as it likes."""
        record = re.sub("...", r"\g<0>/", local).rstrip("/")  # jobs/<three by three>/
        found = self.run(
            *("find", f"{self.control_directory}/jobs/{record}", self._status_file(local)),
            *("-type", "f", "!", "-name", "xml", "-printf", "%p %s %T@ %m %y\\n"),
        )
        assert f"{record}/local " in found
        assert ".status " in found
        return found

    def _status_file(self, local: str) -> str:
        """Where the state of a job is that is over."""
        return f"{self.control_directory}/finished/{local}.status"

    def kill_daemon(self, name: str, signal: str = "KILL") -> None:
        self._stack("kill-daemon", name, "--signal", signal)

    def restart_daemon(self, name: str) -> None:
        self._stack("restart-daemon", name)

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
        flags = [flag for scope in scopes or () for flag in ("--scope", scope)]
        if audience is not None:
            flags += ["--audience", audience]
        made = self._made("token", "--subject", subject, f"--lifetime={lifetime}", *flags)
        return made.decode()

    def proxy(
        self,
        user: str = "test-user",
        lifetime: float = 36_000,
        **traits: Unpack[ProxyTraits],
    ) -> bytes:
        flags = [f"--lifetime={lifetime}", "--user", user]
        if not traits.pop("listed", True):
            flags.append("--unlisted")
        for name, value in traits.items():
            if value is not False:
                flags.append(f"--{name.replace('_', '-')}")
            if not isinstance(value, bool):
                flags.append(str(value))
        return self._made("proxy", *flags)

    def subject(self, user: str) -> str:
        """As arcctl's test CA has it."""
        return f"/DC=org/DC=nordugrid/DC=ARC/O=TestCA/CN={user}"

    def _made(self, command: str, *flags: str) -> bytes:
        """What a command of the stack writes into a file."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / command
            self._stack(command, "--out", str(out), *flags)
            return out.read_bytes()


def in_files(credentials: CredentialSet, folder: Path) -> dict[str, str]:
    """Write them into files, for another process; tells which, in `FileCredentials`' words."""
    contents: dict[str, bytes] = {}
    if credentials.token is not None:
        contents["token_file"] = credentials.token.value.get_secret_value().encode()
    if credentials.proxy is not None:
        contents["proxy_file"] = credentials.proxy.pem.get_secret_value()
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
        os.utime(folder / name, (0, 0))  # what is new may still be being written
    return {name: str(folder / name) for name in contents}


async def eventually(what: Callable[[], Any], within: float = 180.0, every: float = 1.0) -> Any:
    """Ask until the answer is true; asked in a thread."""
    deadline = time.monotonic() + within
    while True:
        answer = await trio.to_thread.run_sync(what)
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within:g} s"
        await trio.sleep(every)

"""The namespaces of an instance: started, entered, ended."""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .errors import StackError
from .instance import Instance

_ENTER = Path(__file__).with_name("enter")
_NAMESPACES = ("--mount", "--pid", "--uts", "--ipc")

# Nothing of the caller's goes inside, where it could change what the daemons do.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
CLEAN_ENVIRONMENT = ["env", "--ignore-environment", *(f"{k}={v}" for k, v in ENVIRONMENT.items())]
"""What to put before a command that runs inside."""


@dataclass(frozen=True)
class Process:
    """A process that is told apart from a later one with the same id by its start time."""

    pid: int
    started: int

    @classmethod
    def find(cls, pid: int) -> Self | None:
        """Return the process that has this id now."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name, in brackets, may hold anything: count from the last one on.
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid, int(fields[18]))

    @property
    def is_alive(self) -> bool:
        """Tell whether this very process still runs."""
        return type(self).find(self.pid) == self

    @property
    def arguments(self) -> list[str]:
        """Return its command line."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_text(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            return []

    def children(self) -> list["Process"]:
        """Return the processes that it started and that still run."""
        try:
            pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [child for pid in pids if (child := Process.find(int(pid)))]


def launch(instance: Instance, rootfs: Path) -> Process:
    """Start the instance's first process in fresh namespaces, and write down which it is."""
    command = ["unshare", *_NAMESPACES, "--fork", "--kill-child", str(_ENTER)]
    with (instance.log / "init.log").open("w") as log:
        started = subprocess.Popen(
            [*command, str(rootfs), str(instance.state)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    process = Process.find(started.pid)
    if process is None:
        raise StackError(f"unshare ended at once; see {instance.log}/init.log")
    # For a moment it shows no command line yet, which it is recognised by.
    while process.is_alive and not _is_ours(process, instance):
        time.sleep(0.001)
    _file(instance).write_text(json.dumps({"pid": process.pid, "started": process.started}))
    return process


def running(instance: Instance) -> Process | None:
    """Return the instance's first process if it is still the one that was started."""
    try:
        recorded = json.loads(_file(instance).read_text())
    except (FileNotFoundError, ValueError):
        return None
    process = Process(recorded["pid"], recorded["started"])
    return process if process.is_alive and _is_ours(process, instance) else None


def kill(instance: Instance) -> None:
    """End every process of the instance and wait until they are gone."""
    # By the command line too: a `start` that was killed may not have written its process down.
    for process in _processes(instance):
        inside = process.children()
        # unshare ignores SIGTERM while it waits; with it dies its child, and with process 1 of a
        # namespace all that the namespace holds.
        os.kill(process.pid, signal.SIGKILL)
        for each in (process, *inside):
            _wait_gone(each, instance)
    _file(instance).unlink(missing_ok=True)


def enter_command(instance: Instance, command: list[str]) -> list[str]:
    """Return the command that runs `command` inside."""
    process = running(instance)
    inside = process.children() if process else []
    if not inside:
        raise StackError(f"{instance.name} is not running: start it first")
    target = ("--target", str(inside[0].pid))
    return ["nsenter", *target, *_NAMESPACES, "--root", "--wd", "--", *command]


def run_inside(
    instance: Instance, command: list[str], timeout: float = 30, input_: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command inside and return what it printed, whatever its exit code."""
    return subprocess.run(
        enter_command(instance, command),
        input=input_,
        capture_output=True,
        text=True,
        errors="replace",
        env=ENVIRONMENT,
        timeout=timeout,
        check=False,
    )


def _file(instance: Instance) -> Path:
    return instance.state / "process.json"


def _is_ours(process: Process, instance: Instance) -> bool:
    arguments = process.arguments
    return arguments[:1] == ["unshare"] and str(instance.state) in arguments


def _processes(instance: Instance) -> list[Process]:
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    found = (Process.find(pid) for pid in pids)
    return [process for process in found if process and _is_ours(process, instance)]


def _wait_gone(process: Process, instance: Instance, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while process.is_alive:
        if time.monotonic() > deadline:
            raise StackError(f"{instance.name}: process {process.pid} does not die: end it by hand")
        time.sleep(0.01)

"""Killing and restarting single daemons of a running instance."""

import shlex
import time

from . import namespace
from .definition import Definition
from .errors import StackError
from .instance import Instance

_LOG = "/var/log/restart.log"


def kill_daemon(instance: Instance, name: str, signal: str, timeout: float = 30) -> None:
    """Send a signal to a daemon and wait until it is gone."""
    pid = _pid(instance, name)
    if pid is None:
        raise StackError(f"{instance.name}: {name} does not run")
    _shell(instance, f"kill -s {shlex.quote(signal)} {pid}")
    deadline = time.monotonic() + timeout
    while _pid(instance, name) == pid:
        if time.monotonic() > deadline:
            raise StackError(f"{instance.name}: {name} is still there after SIG{signal}")
        time.sleep(0.05)


def restart_daemon(instance: Instance, name: str) -> None:
    """Start a daemon again, ending it first if it runs, and wait until it answers."""
    if _pid(instance, name) is not None:
        kill_daemon(instance, name, "KILL")
    pidfile = Definition.load(instance.stack).daemons[name]
    _shell(instance, f"/stack/daemon {name} {pidfile} >>{_LOG} 2>&1", timeout=60)


def _pid(instance: Instance, name: str) -> int | None:
    """Return the process, as numbered inside, of a daemon that runs."""
    definition = Definition.load(instance.stack)
    definition.check_daemon(name)
    pidfile = definition.daemons[name]
    # A process that has ended but is not reaped yet is gone too.
    found = namespace.run_inside(
        instance,
        [
            "sh",
            "-c",
            f'pid=$(cat {pidfile}) && grep -q "^State:.[^ZX]" /proc/$pid/status && echo $pid',
        ],
    )
    return int(found.stdout) if found.returncode == 0 else None


def _shell(instance: Instance, command: str, timeout: float = 30) -> None:
    done = namespace.run_inside(instance, ["sh", "-c", command], timeout)
    if done.returncode:
        raise StackError(
            f"{instance.name}: {command!r} failed ({done.returncode}): {done.stderr.strip()};"
            f" see {instance.log}"
        )

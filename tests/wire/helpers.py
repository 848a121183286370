"""What the wire tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from arcbackend import ARCBackend, JobOutput
from arcbackend.protocol.messages import Operation, Request
from arcbackend.transport import Transport
from tests.wire.server import Script, Server

Connect = Callable[..., AbstractAsyncContextManager[Transport]]
Serve = Callable[[Script], AbstractAsyncContextManager[Server]]
Open = Callable[..., AbstractAsyncContextManager[tuple[ARCBackend, Server]]]

LIST = Request(Operation.JOBS_LIST, "GET", "/arex/rest/1.1/jobs", None, idempotent=True)
PUT = Request(Operation.SESSION_PUT, "PUT", "/arex/rest/1.1/jobs/a/session/f", None, True)
NEW = Request(
    Operation.JOBS_NEW, "POST", "/arex/rest/1.1/jobs?action=new", None, False, body=b"&()", ids=3
)


def assert_at_rest(transport: Transport) -> None:
    """No slot is taken, and every open connection is idle and known to its pool."""
    assert transport._slots.value == transport._settings.connections
    pools = [lease.pool for lease in transport._leases.values() if lease.pool is not None]
    assert all(lease.in_use == 0 for lease in transport._leases.values())
    assert not any(pool._requests for pool in pools)
    connections = [connection for pool in pools for connection in pool.connections]
    live = [connection for connection in connections if not connection.is_closed()]
    assert all(connection.is_idle() for connection in live), live
    assert transport._network.open == len(live)
    assert transport._network.open <= transport._settings.connections


def descriptors() -> list[str]:
    """The files and directories that are open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return sorted(path for path in found if path.startswith("/") and "pytest" in path)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below, by its path, a character for each byte."""
    return {
        os.fsencode(path.relative_to(folder)).decode("latin-1"): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def reasons(output: JobOutput) -> dict[str, str]:
    """What was not fetched, and why."""
    return {member.name: member.reason for member in output.refused}

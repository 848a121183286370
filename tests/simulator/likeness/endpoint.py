"""A CE that conversations are held with: a real one or the simulator."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.integration.ce import CE

PROXIES: dict[str, dict[str, Any]] = {
    "proxy": {},
    "other proxy": {},
    "limited proxy": {"limited": True},
    "proxy of a proxy": {"depth": 2},
    "user certificate": {"depth": 0},
    "ec proxy": {"key": "ec", "bits": 256},
    "p-521 proxy": {"key": "ec", "bits": 521},
    "unlisted proxy": {"listed": False},
    "expired proxy": {"lifetime": -60},
    "foreign proxy": {"foreign_ca": True},
}
"""What the kinds of proxies are, in the words of `CE.proxy`."""

_TRIES = 3


class Endpoint:
    """What conversations need of a CE; a real one answers some of it by starting a process.

    Attributes:
        url: https, host and port.
        ca_file: of its certificate.
        queue: its first queue.
        kinds: of credentials that it lets in.
    """

    def __init__(self, ce: CE) -> None:
        self._ce = ce
        self._publishing = trio.Lock()
        self.url = ce.endpoint
        self.ca_file = ce.ca_file
        self.queue = ce.queue
        self.kinds = frozenset(ce.auth.split("+"))

    async def token(
        self,
        subject: str,
        scopes: Sequence[str] | None = None,
        lifetime: float = 36_000,
        audience: str | None = None,
    ) -> str:
        """Make a token; None: with all scopes, and the audience that the CE wants."""
        return await trio.to_thread.run_sync(self._ce.token, subject, scopes, lifetime, audience)

    async def proxy(self, kind: str, user: str) -> bytes:
        """Make a proxy of one of the `PROXIES`, in PEM."""
        return await trio.to_thread.run_sync(lambda: self._ce.proxy(user, **PROXIES[kind]))

    async def publish(self) -> None:
        """Run the information provider, once at a time."""
        async with self._publishing:
            for left in range(_TRIES - 1, -1, -1):
                try:
                    await trio.to_thread.run_sync(self._ce.publish)
                except subprocess.CalledProcessError:
                    # It dies of a job that is removed meanwhile (docs/explanation/arc-rest.md).
                    if not left:
                        raise
                else:
                    return

    async def plant(self, job: str, script: str) -> None:
        """Run a shell script in a job's session directory, as the user whom jobs belong to."""
        there = f"cd {self._ce.session_directory}/{job} && {script}"
        user = () if self._ce.instance.simulates else ("su", "griduser", "-s")
        command = (*user, "/bin/sh", "-c", there)
        await trio.to_thread.run_sync(lambda: self._ce.run(*command))

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Let the batch system start no job meanwhile."""
        holding = self._ce.partition_down()
        await trio.to_thread.run_sync(holding.__enter__)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(holding.__exit__, None, None, None)

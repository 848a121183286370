"""Asks a CE something beside a conversation."""

from __future__ import annotations

import json
import ssl
from urllib.parse import urlsplit

import trio

from tests.simulator.likeness.driver import Answer, Connection
from tests.simulator.likeness.steps import JSON, JSON_BODY, ids

_STATES = (
    *("ACCEPTING", "ACCEPTED", "PREPARING", "PREPARED", "SUBMITTING", "QUEUING", "RUNNING", "HELD"),
    *("EXITINGLRMS", "OTHER", "EXECUTED", "FINISHING", "KILLING", "FINISHED", "FAILED", "KILLED"),
    *("WIPED", "None"),
)


class Asker:
    """One user, with a connection that is opened anew when the server has closed it."""

    def __init__(self, url: str, context: ssl.SSLContext, token: str) -> None:
        self._url = url
        self._context = context
        self._token = token
        self._connection: Connection | None = None
        self._lock = trio.Lock()

    async def ask(self, what: str, body: bytes | None = None, method: str = "") -> Answer:
        """Send one request; what is behind ``/arex/rest/1.1/``."""
        lines = (
            f"{method or ('GET' if body is None else 'POST')} /arex/rest/1.1/{what} HTTP/1.1",
            f"Host: {urlsplit(self._url).netloc}",
            f"{JSON[0]}: {JSON[1]}",
            f"{JSON_BODY[0]}: {JSON_BODY[1]}",
            *([f"Authorization: Bearer {self._token}"] if self._token else []),
            f"Content-Length: {len(body or b'')}",
        )
        request = "\r\n".join((*lines, "", "")).encode() + (body or b"")
        async with self._lock:
            kept = self._connection is not None
            answer = await self._ask(request)
            if kept and answer.outcome == "closed":  # it was idle for too long
                answer = await self._ask(request)
        return answer

    async def _ask(self, request: bytes) -> Answer:
        if self._connection is None:
            self._connection = await Connection.open(self._url, self._context)
        answer = await self._connection.ask([request], "GET", 60)
        if answer.closed or not answer.status:
            await self._left()
        return answer

    async def _left(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def close(self) -> None:
        """Close the connection."""
        async with self._lock:
            await self._left()

    async def live(self) -> dict[str, str]:
        """The state of each job, as the live list says it."""
        answer = await self.ask(f"jobs?state={','.join(_STATES)}")
        return {job["id"]: job["state"] for job in _jobs(answer)}

    async def published(self, *jobs: str) -> dict[str, str]:
        """The states in the jobs' documents."""
        answer = await self.ask("jobs?action=status", ids(*jobs))
        return {job["id"]: job["state"] for job in _jobs(answer)}

    async def remove_all(self) -> None:
        """Have all jobs removed, as soon as they are dead; it is not waited for."""
        jobs = list(await self.live())
        for action in ("kill", "clean") if jobs else ():
            await self.ask(f"jobs?action={action}", ids(*jobs))


def _jobs(answer: Answer) -> list[dict[str, str]]:
    """The jobs of a document; 7.0.0 has a single one by itself."""
    assert answer.status in (200, 201), f"{answer.status} {answer.reason}, {answer.body[:200]!r}"
    listed = (json.loads(answer.body) if answer.body else {}).get("job", [])
    return listed if isinstance(listed, list) else [listed]

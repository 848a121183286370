"""Clients of a simulator in this process, for tests: they send what they are told to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from arcbackend.simulator import Simulator

JOBS = "/arex/rest/1.1/jobs"
DELEGATIONS = "/arex/rest/1.1/delegations"
XMLNS = 'xmlns="http://www.eu-emi.eu/es/2010/12/adl"'
KEEP_ALL = "<OutputFile><Name>/</Name></OutputFile>"


def adl(
    executable: str = "/bin/true", *, inputs: Sequence[str] = (), environment: str = "", **more: Any
) -> bytes:
    """A description; its inputs are to be uploaded, and everything is kept."""
    staged = "".join(f"<InputFile><Name>{name}</Name></InputFile>" for name in inputs)
    variables = "".join(
        f"<Environment><Name>{name}</Name><Value>{value}</Value></Environment>"
        for name, value in more.items()
    )
    return (
        f"<ActivityDescription {XMLNS}><Application><Executable><Path>{executable}</Path>"
        f"</Executable><Output>out</Output><Error>err</Error>{environment}{variables}</Application>"
        f"<DataStaging>{staged}{KEEP_ALL}</DataStaging></ActivityDescription>"
    ).encode()


class Client:
    """One client, on one connection at a time.

    Attributes:
        ce: what it asks.
        token: that it shows; None: none.
    """

    def __init__(self, ce: Simulator, token: str | None, certificate: bytes | None = None) -> None:
        self.ce = ce
        self.token = token
        self.http = httpx.AsyncClient(
            transport=ce.transport(certificate), base_url=ce.endpoint, trust_env=False
        )

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | str = b"",
        *,
        accept: str = "application/json",
        kind: str | None = "application/json",
        headers: Sequence[tuple[str, str]] = (),
        timeout: float = 60.0,  # noqa: ASYNC109 - of the client
    ) -> httpx.Response:
        """Send a request whose target goes out as it is."""
        fields = [("Accept", accept), *headers]
        if kind is not None and method not in ("GET", "HEAD"):
            fields.append(("Content-Type", kind))
        if self.token is not None:
            fields.append(("Authorization", f"Bearer {self.token}"))
        return await self.http.request(
            method,
            "/",
            content=body if body or method in ("POST", "PUT") else None,
            headers=fields,
            timeout=timeout,
            extensions={"target": target.encode()},
        )

    async def get(self, target: str, **more: Any) -> httpx.Response:
        return await self.ask("GET", target, **more)

    async def post(self, target: str, body: bytes | str = b"", **more: Any) -> httpx.Response:
        return await self.ask("POST", target, body, **more)

    async def put(self, target: str, body: bytes | str = b"", **more: Any) -> httpx.Response:
        return await self.ask("PUT", target, body, **more)

    async def new(self, body: bytes | None = None, query: str = "") -> list[str]:
        """Create jobs; returns their ids."""
        answer = await self.post(
            f"{JOBS}?action=new{query}", adl() if body is None else body, kind="application/xml"
        )
        assert answer.status_code == 201, said(answer)
        return [job["id"] for job in answer.json()["job"]]

    async def act(self, action: str, *jobs: str, **more: Any) -> list[dict[str, Any]]:
        """Do something with jobs; returns what is said of each."""
        answer = await self.post(f"{JOBS}?action={action}", ids(*jobs), **more)
        assert answer.status_code == 201, said(answer)
        told: list[dict[str, Any]] = answer.json()["job"]
        return told

    async def states(self, *jobs: str) -> list[str]:
        """The published states of jobs."""
        return [each["state"] for each in await self.act("status", *jobs)]

    async def live(self, job: str) -> str | None:
        """The state of a job in the live list; None: it is not there."""
        answer = await self.get(f"{JOBS}?state={','.join(STATES)}")
        found = {each["id"]: each["state"] for each in answer.json()["job"]}
        return found.get(job)


STATES = (
    *("ACCEPTING", "ACCEPTED", "PREPARING", "PREPARED", "SUBMITTING", "QUEUING", "RUNNING", "HELD"),
    *("EXITINGLRMS", "OTHER", "EXECUTED", "FINISHING", "KILLING", "FINISHED", "FAILED", "KILLED"),
    "WIPED",
)


def ids(*jobs: str) -> bytes:
    """A list of ids."""
    return json.dumps({"job": [{"id": job} for job in jobs]}).encode()


def said(answer: httpx.Response) -> str:
    """Status and reason phrase."""
    return f"{answer.status_code} {answer.reason_phrase}"


@asynccontextmanager
async def asking(
    *, who: str | None = "user", scopes: Sequence[str] | None = None, **settings: Any
) -> AsyncIterator[Client]:
    """A client of a fresh simulator."""
    async with Simulator(**settings) as ce:
        client = Client(ce, None if who is None else ce.token(who, scopes=scopes))
        async with client.http:
            yield client

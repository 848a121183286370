"""A CE in memory, behind a `Session` that has no network: for the tests of the verbs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

import trio

from arcbackend import ARCConfig, TransportError
from arcbackend.ends import Ends
from arcbackend.items import ItemReader
from arcbackend.jobids import JobRef, resolve
from arcbackend.listing import LiveListing
from arcbackend.protocol import responses
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.protocol.requests import RequestBuilder, RestVersion
from arcbackend.removal import Remover
from arcbackend.session import Session
from arcbackend.status import StatusReader
from arcbackend.transport import StreamedResponse
from tests.pure.replies import CE, job, reply

Hook: TypeAlias = Callable[[Request], Awaitable[Response | None]]

KILLED_RECORD = b"2026-01-01 Job is canceled by external request\n"
_PIECE = 16 * 1024
_ADL = "{http://www.eu-emi.eu/es/2010/12/adl}"


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached the CE, and when, on trio's clock."""

    at: float
    request: Request


class FakeSession(Session):
    """A CE that does what A-REX does, unless a hook for the operation answers instead of it.

    A hook may also raise, wait, or return None: then the CE goes on as usual.
    """

    def __init__(self, version: RestVersion = "1.1") -> None:
        self.endpoint = CE
        self.version: RestVersion = version
        self.calls: list[Call] = []
        self.hooks: dict[Operation, Hook] = {}
        # What is on the CE: local id → the job's name, and each job that ever was.
        self.jobs: dict[str, str] = {}
        self.ever: dict[str, str] = {}
        self._made = 0
        self.killed: set[str] = set()
        self.cleaned: set[str] = set()
        self.uploads: dict[tuple[str, str], bytes] = {}
        # For the status verb: what documents, listing and failure records say.
        self.documented: dict[str, str] = {}
        self.live: dict[str, str] = {}
        self.records: dict[str, bytes] = {}
        # Other items of the control data, and GLUE2 documents.
        self.items: dict[tuple[str, str], bytes] = {}
        self.documents: dict[str, dict[str, Any]] = {}

    def clock(self) -> datetime:
        """The time of day."""
        return datetime.now(UTC)

    async def builder(self) -> RequestBuilder:
        return RequestBuilder(self.version)

    async def call(
        self,
        request: Request,
        *,
        content: Callable[[], AsyncIterable[bytes]] | None = None,
        content_length: int | None = None,
    ) -> Response:
        self.calls.append(Call(trio.current_time(), request))
        await trio.lowlevel.checkpoint()
        hook = self.hooks.get(request.operation)
        response = await hook(request) if hook else None
        if response is None:
            sent = b"".join([piece async for piece in content()]) if content else b""
            assert content_length in (None, len(sent))
            response = self.answer(request, sent)
        error = responses.failure(request, response, self.endpoint)
        if error is not None:
            raise error
        return response

    @asynccontextmanager
    async def stream(
        self, request: Request, *, read_timeout: float
    ) -> AsyncGenerator[StreamedResponse]:
        response = await self.call(request)

        async def pieces() -> AsyncGenerator[bytes]:
            for start in range(0, len(response.body), _PIECE):
                await trio.lowlevel.checkpoint()
                yield response.body[start : start + _PIECE]

        length = {"content-length": str(len(response.body))}
        headers = length | dict(response.headers)
        async with aclosing(pieces()) as chunks:
            yield StreamedResponse(response.status, response.reason, headers, cast("Any", chunks))

    def count(self, operation: Operation) -> int:
        """How many requests for this operation there were."""
        return sum(call.request.operation is operation for call in self.calls)

    def counted(self) -> Counter[Operation]:
        """How many requests there were, by operation."""
        return Counter(call.request.operation for call in self.calls)

    def asked(self, operation: Operation) -> list[list[str]]:
        """The id lists of this operation's requests."""
        return [ids_of(call.request) for call in self.calls if call.request.operation is operation]

    def create(self, request: Request) -> list[str]:
        """Make the jobs that a request asks for; their ids, in its order."""
        assert request.body is not None
        root = ET.fromstring(request.body)
        each = [root] if root.tag == f"{_ADL}ActivityDescription" else list(root)
        names = [one.findtext(f"{_ADL}ActivityIdentification/{_ADL}Name") or "" for one in each]
        query = parse_qs(urlsplit(request.target).query)
        return [self.add(name) for name in names * int(query.get("instances", ["1"])[0])]

    def add(self, name: str) -> str:
        """Make one job. Ids tell nothing of the order in which jobs were made."""
        self._made += 1
        local = f"j{self._made * 7919 % 1_000_003:07d}"
        self.jobs[local] = self.ever[local] = name
        return local

    def drop(self, local: str) -> None:
        """Make as if this job had never been made."""
        del self.jobs[local], self.ever[local]

    def answer(self, request: Request, sent: bytes = b"") -> Response:
        """What the CE does and says."""
        match request.operation:
            case Operation.JOBS_NEW:
                return reply({"job": [created(local) for local in self.create(request)]})
            case Operation.JOBS_LIST:
                live = [{"id": local, "state": state} for local, state in self.live.items()]
                every = [{"id": local} for local in self.jobs]
                return reply({"job": live if "?state=" in request.target else every}, 200)
            case Operation.SESSION_PUT:
                _, local, _, name = request.target.rsplit("/", 3)
                if local in self.jobs:
                    self.uploads[local, unquote(name)] = sent
                return Response(200, "OK") if local in self.jobs else Response(404, "Not Found")
            case Operation.DIAGNOSE:
                local, _, item = request.target.split("/")[-3:]
                found = self.items.get((local, item), self.records.get(local))
                return Response(404, "No") if found is None else ranged(request, found)
            case operation:
                return reply({"job": [self._of(operation, local) for local in ids_of(request)]})

    def _of(self, operation: Operation, local: str) -> dict[str, Any]:
        if operation is Operation.JOBS_STATUS:
            if local in self.documented:
                return job(local, state=self.documented[local])
            return job(local, "404", state="None")
        if local not in self.jobs:
            return job(local, "404")
        if operation is Operation.JOBS_INFO:
            document = {"ComputingActivity": self.documents.get(local, {"Name": self.jobs[local]})}
            return job(local, info_document=document)
        (self.killed if operation is Operation.JOBS_KILL else self.cleaned).add(local)
        if local in self.killed & self.cleaned:
            del self.jobs[local]  # as A-REX does with a job that is dead and marked
        return job(local, "202")


def ranged(request: Request, whole: bytes) -> Response:
    """What A-REX says of a file, or of the range of it that is asked for."""
    asked = request.headers.get("Range", "bytes=0-").removeprefix("bytes=")
    first, _, last = asked.partition("-")
    start, end = int(first), min(int(last or len(whole)) + 1, len(whole))
    if start == 0 and end == len(whole):
        return Response(200, "OK", body=whole)
    if start >= len(whole):
        return Response(416, "Range not satisfiable")
    span = {"content-range": f"bytes {start}-{end - 1}/{len(whole)}"}
    return Response(206, "Partial content", span, whole[start:end])


def ids_of(request: Request) -> list[str]:
    """The ids that a request on an id list names."""
    assert request.body is not None
    return [item["id"] for item in json.loads(request.body)["job"]]


def local_of(request: Request) -> str:
    """The job that an upload goes to."""
    return request.target.split("/")[-3]


def created(local: str) -> dict[str, Any]:
    """One element of an answer to a request for new jobs."""
    return {"status-code": "201", "reason": "Created", "id": local, "state": "ACCEPTING"}


def not_created(reason: str) -> dict[str, Any]:
    """The same, of a job that was not made."""
    return {"status-code": "500", "reason": reason}


def refs(*locals_: str) -> list[JobRef]:
    return resolve(CE, locals_)


def config(**fields: Any) -> ARCConfig:
    return ARCConfig.from_dict({"endpoint": CE, **fields})


def away() -> TransportError:
    """The failure of a request that may have reached the CE."""
    return TransportError("read timeout", ce=CE)


def once(hook: Hook, *, after: int = 0) -> Hook:
    """A hook that takes one call only: the first, or that ``after`` so many."""
    seen = 0

    async def guarded(request: Request) -> Response | None:
        nonlocal seen
        seen += 1
        return await hook(request) if seen == after + 1 else None

    return guarded


def answering(response: Response) -> Hook:
    """A hook that always answers the same."""

    async def hook(_request: Request) -> Response:
        return response

    return hook


def raising(error: Callable[[], Exception], *, after: float = 0.0) -> Hook:
    """A hook that always fails, so many seconds after the call."""

    async def hook(_request: Request) -> None:
        await trio.sleep(after)
        raise error()

    return hook


def for_each(code: str, only: Sequence[str] | None = None) -> Hook:
    """A hook that answers an id list with this code for each id, or for those of ``only``."""

    async def hook(request: Request) -> Response | None:
        ids = ids_of(request)
        if only is not None and not set(ids) & set(only):
            return None
        return reply(
            {
                "job": [
                    {**job(local, code if only is None or local in only else "202"), "reason": "no"}
                    for local in ids
                ]
            }
        )

    return hook


def items_of(ce: FakeSession) -> ItemReader:
    """What reads the items of jobs on this CE."""
    return ItemReader(ce, 120.0)


def reader_of(ce: FakeSession, listing: LiveListing, batch: int = 100) -> StatusReader:
    """The status verb on this CE."""
    return StatusReader(ce, listing, Ends(ce, items_of(ce)), batch)


def remover_of(ce: FakeSession, listing: LiveListing, batch: int = 100) -> Remover:
    """The verbs kill and purge on this CE."""
    return Remover(ce, listing, reader_of(ce, listing, batch), batch)

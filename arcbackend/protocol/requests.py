"""ARC REST requests, built without I/O.

Source of paths and parameters: the ARC REST specification 1.0 and 1.1, and ``processJobs`` in
A-REX's ``src/services/a-rex/rest/rest.cpp``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote

from arcbackend.protocol.messages import Operation, Request, Scope

__all__ = [
    "MAX_ID_LIST_BYTES",
    "RequestBuilder",
    "RestVersion",
    "from_byte",
    "id_batches",
    "is_sendable",
    "versions",
]

RestVersion = Literal["1.0", "1.1"]

MAX_ID_LIST_BYTES = 2**20 - 1
"""A-REX reads 1 MiB of an id list and silently drops the rest (``ParseJobIds`` in rest.cpp)."""

MAX_REQUEST_LINE = 4096
"""A-REX reads lines of so many bytes (``PayloadHTTPIn::readline`` in hed/mcc/http)."""

_ACCEPT_JSON = {"Accept": "application/json"}
_ACCEPT_XML = {"Accept": "text/xml"}
# Exactly this: with "; charset=utf-8" behind it A-REX drops every id and still answers 201.
_SEND_JSON = {**_ACCEPT_JSON, "Content-Type": "application/json"}
_DESCRIPTION_TYPES = {"adl": "application/xml", "xrsl": "application/rsl"}

_LIST_HEAD, _LIST_TAIL, _ITEM_EXTRA = '{"job":[', "]}", len('{"id":""},')


def versions() -> Request:
    """Ask which REST versions the CE speaks. Needs no authentication."""
    return Request(
        Operation.VERSIONS, "GET", "/arex/rest", None, idempotent=True, headers=_ACCEPT_JSON
    )


@dataclass(frozen=True, slots=True)
class RequestBuilder:
    """Builds requests for one negotiated REST version."""

    version: RestVersion

    def list_jobs(self, states: Sequence[str] = ()) -> Request:
        """List the identity's jobs; with ``states``, those in these states, as of now."""
        query = f"?state={','.join(states)}" if states else ""
        return Request(
            Operation.JOBS_LIST,
            "GET",
            f"{self._jobs}{query}",
            Scope.READ,
            idempotent=True,
            headers=_ACCEPT_JSON,
        )

    def new_jobs(
        self,
        description: bytes,
        *,
        language: Literal["adl", "xrsl"],
        copies: int,
        instances: int | None = None,
        instances_min: int | None = None,
    ) -> Request:
        """Create jobs: one per description in the body, or ``instances`` of a single one (1.1)."""
        query = "action=new"
        if instances is not None:
            if self.version == "1.0":
                raise ValueError("instances= needs ARC REST 1.1")
            query += f"&instances={instances}"
            if instances_min is not None:
                query += f"&instances_min={instances_min}"
        return Request(
            Operation.JOBS_NEW,
            "POST",
            f"{self._jobs}?{query}",
            Scope.CREATE,
            idempotent=False,
            headers={**_ACCEPT_JSON, "Content-Type": _DESCRIPTION_TYPES[language]},
            body=description,
            ids=copies,
        )

    def status(self, ids: Sequence[str]) -> Request:
        """Ask the state documents of jobs: up to a minute old."""
        return self._on_jobs(Operation.JOBS_STATUS, "status", Scope.READ, ids)

    def info(self, ids: Sequence[str]) -> Request:
        """Ask the GLUE2 documents of jobs: up to a minute old."""
        return self._on_jobs(Operation.JOBS_INFO, "info", Scope.READ, ids)

    def kill(self, ids: Sequence[str]) -> Request:
        """Mark jobs to be killed."""
        return self._on_jobs(Operation.JOBS_KILL, "kill", Scope.CANCEL, ids)

    def clean(self, ids: Sequence[str]) -> Request:
        """Mark jobs to be removed, with their session directories."""
        return self._on_jobs(Operation.JOBS_CLEAN, "clean", Scope.CANCEL, ids)

    def put_file(self, local: str, name: str) -> Request:
        """Upload an input file; the body goes to the transport beside the request.

        Idempotent as long as the same content is sent: A-REX writes over what is there without
        truncating it.
        """
        return Request(
            Operation.SESSION_PUT,
            "PUT",
            f"{self._jobs}/{local}/session/{escape_path(name.encode())}",
            Scope.MODIFY,
            idempotent=True,
            headers={"Content-Type": "application/octet-stream"},
            ids=1,
        )

    def list_directory(self, local: str, path: bytes = b"", *, sizes: bool = False) -> Request:
        """List a directory of a job's session directory, or that itself.

        With ``sizes`` in XML, which alone has them, but is not well-formed as soon as a name holds
        a control character or is no UTF-8. Else in JSON, which can always be read.
        """
        return Request(
            Operation.SESSION_LIST,
            "GET",
            f"{self._jobs}/{local}/session/{escape_path(path)}",
            Scope.READ,
            idempotent=True,
            headers=_ACCEPT_XML if sizes else _ACCEPT_JSON,
            ids=1,
        )

    def get_file(self, local: str, path: bytes) -> Request:
        """Download a file of a job's session directory."""
        return Request(
            Operation.SESSION_GET,
            "GET",
            f"{self._jobs}/{local}/session/{escape_path(path)}",
            Scope.READ,
            idempotent=True,
            ids=1,
        )

    def diagnose(self, local: str, item: str) -> Request:
        """Read one item of a job's control data (``errors``, ``failed``, ``description``, …)."""
        return Request(
            Operation.DIAGNOSE,
            "GET",
            f"{self._jobs}/{local}/diagnose/{item}",
            Scope.READ,
            idempotent=True,
            ids=1,
        )

    @property
    def _jobs(self) -> str:
        return f"/arex/rest/{self.version}/jobs"

    def _on_jobs(
        self, operation: Operation, action: str, scope: Scope, ids: Sequence[str]
    ) -> Request:
        body = json.dumps({"job": [{"id": local} for local in ids]}, separators=(",", ":")).encode()
        if len(body) > MAX_ID_LIST_BYTES:
            raise ValueError(f"an id list of {len(body)} bytes: A-REX reads {MAX_ID_LIST_BYTES}")
        return Request(
            operation,
            "POST",
            f"{self._jobs}?action={action}",
            scope,
            idempotent=True,
            headers=_SEND_JSON,
            body=body,
            ids=len(ids),
        )


def from_byte(request: Request, offset: int) -> Request:
    """The same download, from a byte on: A-REX honours a range with a beginning, and no other."""
    return replace(request, headers={**request.headers, "Range": f"bytes={offset}-"})


def is_sendable(request: Request) -> bool:
    """Tell whether A-REX reads the request line to its end: it closes the connection otherwise."""
    return len(f"{request.method} {request.target} HTTP/1.1") < MAX_REQUEST_LINE


def escape_path(name: bytes) -> str:
    """Percent-encode a file's path in a session directory: all but unreserved bytes and ``/``.

    A-REX cuts a query at the first ``?``, or else ``;``, before it unescapes (``GetPath`` in
    rest.cpp), so both must be escaped.
    """
    return quote(name, safe="/")


def id_batches(ids: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Split ids into lists of at most ``most`` that A-REX reads to the end, evenly long.

    ids: a CE's own job ids (ASCII, see `arcbackend.jobids`).
    """
    if not ids:
        return
    per_id = max(map(len, ids)) + _ITEM_EXTRA
    room = MAX_ID_LIST_BYTES - len(_LIST_HEAD) - len(_LIST_TAIL)
    most = max(1, min(most, room // per_id))
    batches = -(-len(ids) // most)
    size = -(-len(ids) // batches)
    for start in range(0, len(ids), size):
        yield ids[start : start + size]

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

from arcbackend.protocol.messages import TOKEN_DELEGATION, Operation, Request, Scope

__all__ = [
    "MAX_ID_LIST_BYTES",
    "RequestBuilder",
    "RestVersion",
    "from_byte",
    "head_of",
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
_SEND_PEM = {"Content-Type": "application/x-pem-file"}

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

    def service_info(self) -> Request:
        """Ask the CE's GLUE2 document: up to a minute old. Needs no authentication."""
        return Request(
            Operation.INFO,
            "GET",
            f"/arex/rest/{self.version}/info",
            None,
            idempotent=True,
            headers=_ACCEPT_JSON,
        )

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
        delegation: str | None = None,
    ) -> Request:
        """Create jobs: one per description in the body, or ``instances`` of a single one (1.1).

        ``delegation`` (1.1) is the id of the one that all of them use.
        """
        query = "action=new"
        if delegation is not None:
            if self.version == "1.0":
                raise ValueError("delegation_id= needs ARC REST 1.1")
            query += f"&delegation_id={delegation}"
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

    def list_delegations(self) -> Request:
        """List the identity's delegations, of whatever type."""
        return Request(
            Operation.DELEGATIONS_LIST,
            "GET",
            self._delegations,
            Scope.READ,
            idempotent=True,
            headers=_ACCEPT_JSON,
        )

    def new_delegation(self) -> Request:
        """Ask the CE for a key pair of its own, whose certificate request it answers with."""
        return Request(
            Operation.DELEGATIONS_NEW,
            "POST",
            f"{self._delegations}?action=new",
            Scope.CREATE,
            idempotent=False,
        )

    def new_token_delegation(self, token: str) -> Request:
        """Leave a token with the CE (1.1)."""
        if self.version == "1.0":  # A-REX ignores the type then, and makes a key pair
            raise ValueError("type=jwt needs ARC REST 1.1")
        return Request(
            Operation.DELEGATIONS_NEW,
            "POST",
            f"{self._delegations}?action=new&type=jwt",
            Scope.CREATE,
            idempotent=False,
            headers={TOKEN_DELEGATION: token},
        )

    def put_delegation(self, delegation: str, chain: bytes) -> Request:
        """Store the chain (PEM) that answers the CE's certificate request."""
        return Request(
            Operation.DELEGATIONS_PUT,
            "PUT",
            f"{self._delegations}/{delegation}",
            Scope.CREATE,
            idempotent=True,
            headers=_SEND_PEM,
            body=chain,
        )

    def get_delegation(self, delegation: str) -> Request:
        """Read what the CE has stored: a chain without its key; or a token, the whole of it."""
        return self._on_delegation(Operation.DELEGATIONS_GET, "get", Scope.READ, delegation)

    def renew_delegation(self, delegation: str) -> Request:
        """Ask for a certificate request for a delegation's key.

        A-REX makes a delegation of this id if it has none; a token's it destroys.
        """
        return self._on_delegation(Operation.DELEGATIONS_RENEW, "renew", Scope.CREATE, delegation)

    def delete_delegation(self, delegation: str) -> Request:
        """Remove a delegation; A-REX keeps those that a job needs."""
        return self._on_delegation(Operation.DELEGATIONS_DELETE, "delete", Scope.CANCEL, delegation)

    @property
    def _delegations(self) -> str:
        return f"/arex/rest/{self.version}/delegations"

    def _on_delegation(
        self, operation: Operation, action: str, scope: Scope, delegation: str
    ) -> Request:
        return Request(
            operation,
            "POST",
            f"{self._delegations}/{delegation}?action={action}",
            scope,
            idempotent=True,
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


def from_byte(request: Request, offset: int, last: int | None = None) -> Request:
    """The same download, from a byte on, to the end or to a last one.

    A-REX honours a range with a beginning, and no other (``ExtractRange`` in rest.cpp). It answers
    200, without a range, if that is the whole file.
    """
    end = "" if last is None else last
    return replace(request, headers={**request.headers, "Range": f"bytes={offset}-{end}"})


def head_of(request: Request) -> Request:
    """What comes before a download, its length among it, without the download."""
    return replace(request, operation=Operation.SESSION_HEAD, method="HEAD")


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

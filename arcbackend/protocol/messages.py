"""Requests and responses as values, for every ARC REST operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Operation", "Request", "Response", "Scope"]


class Scope(StrEnum):
    """Token scopes of the WLCG profile for computing.

    Source: A-REX's ``tokenscopes = wlcg``, tried one by one (docs/explanation/arc-rest.md).
    """

    READ = "compute.read"
    CREATE = "compute.create"
    MODIFY = "compute.modify"
    CANCEL = "compute.cancel"


class Operation(StrEnum):
    """What a request does, in the words of the ARC REST specification."""

    VERSIONS = "versions"
    JOBS_LIST = "jobs.list"
    JOBS_NEW = "jobs.new"
    JOBS_STATUS = "jobs.status"
    JOBS_INFO = "jobs.info"
    JOBS_KILL = "jobs.kill"
    JOBS_CLEAN = "jobs.clean"
    SESSION_PUT = "session.put"
    SESSION_LIST = "session.list"
    SESSION_GET = "session.get"
    DIAGNOSE = "jobs.diagnose"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to a CE.

    Attributes:
        operation: what it does; names the parser of the response.
        method: HTTP method.
        target: path and query as they go on the wire, percent-encoded ASCII, from the root.
        headers: further header fields; the transport adds authorization, host and length.
        body: the body, or None. A streamed body is handed to the transport beside the request.
        idempotent: True if repeating it does no harm, so that the transport may.
        scope: the token scope it needs; None if it needs no authentication at all.
        ids: how many jobs it concerns, for logs.
    """

    operation: Operation
    method: str
    target: str
    scope: Scope | None
    idempotent: bool
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    ids: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response.

    Attributes:
        status: HTTP status code.
        reason: HTTP reason phrase: A-REX puts its error texts here.
        headers: header fields, names in lower case.
        body: the whole body.
        elapsed: seconds from having a connection to the last byte.
    """

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    elapsed: float = 0.0

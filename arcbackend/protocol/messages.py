"""Requests and responses as values, for every ARC REST operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["TOKEN_DELEGATION", "Operation", "Request", "Response", "Scope"]

TOKEN_DELEGATION = "X-Token-Delegation"  # noqa: S105  (the name of a header field)
"""The header field with a token to be delegated: a secret, as Authorization is."""


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
    INFO = "info"
    JOBS_LIST = "jobs.list"
    JOBS_NEW = "jobs.new"
    JOBS_STATUS = "jobs.status"
    JOBS_INFO = "jobs.info"
    JOBS_KILL = "jobs.kill"
    JOBS_CLEAN = "jobs.clean"
    SESSION_PUT = "session.put"
    SESSION_LIST = "session.list"
    SESSION_GET = "session.get"
    SESSION_HEAD = "session.head"
    DIAGNOSE = "jobs.diagnose"
    DELEGATIONS_LIST = "delegations.list"
    DELEGATIONS_NEW = "delegations.new"
    DELEGATIONS_PUT = "delegations.put"
    DELEGATIONS_GET = "delegations.get"
    DELEGATIONS_RENEW = "delegations.renew"
    DELEGATIONS_DELETE = "delegations.delete"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to a CE.

    Attributes:
        operation: what it does; names the parser of the response.
        method: HTTP method.
        target: path and query as they go on the wire, percent-encoded ASCII, from the root.
        headers: further header fields; the transport adds authorization, host and length. Not
            shown: a token to be delegated is among them.
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

    def redact(self, text: str) -> str:
        """Take a delegated token out of a text that the CE has sent."""
        token = self.headers.get(TOKEN_DELEGATION)
        return text.replace(token, "…") if token else text


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

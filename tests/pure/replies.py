"""Replies of a CE, as A-REX words them, for the tests of the parsers."""

from __future__ import annotations

import json
from typing import Any

from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.protocol.requests import RequestBuilder, head_of, versions

CE = "https://ce.example.org:443"

BUILDER = RequestBuilder("1.1")
STATUS = BUILDER.status(["a", "b"])
NEW = BUILDER.new_jobs(b"<x/>", language="adl", copies=2)

# One request of every operation there is.
REQUESTS: dict[Operation, Request] = {
    request.operation: request
    for request in (
        versions(),
        BUILDER.service_info(),
        BUILDER.list_jobs(),
        NEW,
        STATUS,
        BUILDER.info(["a", "b"]),
        BUILDER.kill(["a", "b"]),
        BUILDER.clean(["a", "b"]),
        BUILDER.put_file("a", "data"),
        BUILDER.list_directory("a"),
        BUILDER.get_file("a", b"f"),
        head_of(BUILDER.get_file("a", b"f")),
        BUILDER.diagnose("a", "failed"),
        BUILDER.list_delegations(),
        BUILDER.new_delegation(),
        BUILDER.put_delegation("a", b"chain"),
        BUILDER.get_delegation("a"),
        BUILDER.renew_delegation("a"),
        BUILDER.delete_delegation("a"),
    )
}

# What A-REX says, and proxies before it.
UNKNOWN_USER = Response(500, "User can't be assigned configuration")
NO_IDENTITY = Response(403, "Operation is not allowed", body=b"No supported identity found")
NO_SCOPE = Response(403, "Forbidden", body=b"Token scopes do not match requires scopes")
FULL = Response(500, "No more jobs allowed")


def reply(document: Any, status: int = 201, reason: str = "Created") -> Response:
    """A reply with a JSON document."""
    return Response(status, reason, body=json.dumps(document).encode())


def job(local: str, code: Any = "200", **more: Any) -> dict[str, Any]:
    """One element of a reply to an operation on an id list."""
    return {"status-code": code, "reason": "OK", "id": local, **more}

"""The listing of one directory of a job: with sizes where they can be had."""

from __future__ import annotations

from http import HTTPStatus

from arcbackend.output.containment import MemberPath, Refused, joined
from arcbackend.protocol.messages import Request
from arcbackend.protocol.outputs import Listing, parse_directory, parse_sized_directory
from arcbackend.protocol.requests import RequestBuilder, is_sendable
from arcbackend.session import Session

__all__ = ["GONE", "UNREADABLE", "check_sendable", "list_directory"]

GONE = "the CE knows no such job, or no longer has its output (purged or expired)"
"""Why there is nothing of a job whose session directory cannot be listed."""

UNREADABLE = "the CE cannot read this file, or it is gone (HTTP 404)"
"""Why there is nothing of a file that is listed."""


async def list_directory(
    session: Session, builder: RequestBuilder, local: str, path: MemberPath, *, most: int
) -> Listing | None:
    """The entries of a directory of a job; None if the CE has none of that path (HTTP 404).

    Args:
        session: the CE.
        builder: builds requests for it.
        local: the job.
        path: the directory; ``()`` is the job's own.
        most: entries that may be.

    Raises:
        Refused: its path is longer than A-REX reads.
        TooManyEntries: they are far more than ``most``.
        AuthenticationError, TransportError, ProtocolError: it could not be asked for.
    """
    for sizes in (True, False):
        request = builder.list_directory(local, joined(path), sizes=sizes)
        check_sendable(request)
        response = await session.call(request)
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        if not sizes:
            break
        if (listing := parse_sized_directory(response, most=most)) is not None:
            return listing
        # Most often a name that XML cannot be trusted with: asked again.
    return parse_directory(response, session.endpoint, most=most)


def check_sendable(request: Request) -> None:
    """Check that A-REX reads the request line to its end.

    Raises:
        Refused: it does not.
    """
    if not is_sendable(request):
        raise Refused("its path is longer than A-REX reads")

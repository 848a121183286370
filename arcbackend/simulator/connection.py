"""A connection, as what answers requests on it sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, TypeAlias

from arcbackend.x509 import CertificateChain

__all__ = ["REASON", "App", "Connection", "Message", "Receive", "Send", "of", "reason_apart"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI application."""

REASON = b"arc-reason"
"""Private header field of an answer: its reason phrase, for which ASGI has no place. It does not
leave the process."""

_KEY = "connection"


class Connection(ABC):
    """One connection; in an ASGI scope's ``state``.

    Attributes:
        chain: the certificates that the client has shown, and that are good; None: none.
        client: its address, ``host:port``.
        judged: whether it is decided whose the connection is.
        owner: whose it is; None: nobody's who is let in.
        spoilt: whether nobody is let in on it any more.
    """

    def __init__(self, client: str, chain: CertificateChain | None = None) -> None:
        self.chain = chain
        self.client = client
        self.judged = False
        self.owner: str | None = None
        self.spoilt = False

    @abstractmethod
    async def cut(self) -> None:
        """Close it at once, whatever is on its way."""

    @property
    def state(self) -> dict[str, Any]:
        """What a scope's ``state`` holds."""
        return {_KEY: self}


def of(scope: Mapping[str, Any]) -> Connection:
    """The connection of a request."""
    connection = scope["state"][_KEY]
    assert isinstance(connection, Connection)
    return connection


def reason_apart(start: Message) -> tuple[bytes, Message]:
    """The reason phrase of an answer, and the message that begins it without the private field."""
    fields = start.get("headers", ())
    reason = next((value for name, value in fields if name == REASON), None)
    if reason is None:
        status = start["status"]
        known = status in HTTPStatus.__members__.values()
        return HTTPStatus(status).phrase.encode() if known else b"", start
    return reason, {**start, "headers": [field for field in fields if field[0] != REASON]}

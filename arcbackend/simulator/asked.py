"""One request to a simulated CE, as what answers it needs it, and answers that many have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from arcbackend.simulator.connection import Connection, Receive
from arcbackend.simulator.identities import Caller, Permission
from arcbackend.simulator.replies import Document, Field, Reply, accepted, rendered
from arcbackend.simulator.settings import RestVersion
from arcbackend.simulator.traps import Trap, Traps

__all__ = ["Answered", "Asked", "ClientGone", "not_implemented"]


class Answered(Exception):  # noqa: N818 - a short cut, no error
    """The request is answered.

    Attributes:
        reply: the answer.
    """

    def __init__(self, status: int, reason: str, body: bytes = b"", *fields: Field) -> None:
        super().__init__(status, reason)
        self.reply = Reply(status, reason, body, fields)


class ClientGone(Exception):  # noqa: N818 - nobody's error
    """The client went before its request was complete."""


class Asked:
    """A request.

    Attributes:
        scope: of ASGI.
        connection: that it came on.
        caller: who asks; None: nobody who is let in.
        method: HTTP method.
        target: as it was sent.
        rest: of the path, unescaped: what is behind the part that has been looked at.
        query: the parameters.
        version: of the REST interface.
    """

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Receive,
        traps: Traps,
        *,
        connection: Connection,
        caller: Caller | None,
        target: bytes,
        rest: str,
        query: Mapping[str, str],
        version: RestVersion,
    ) -> None:
        self.scope = scope
        self.connection = connection
        self.caller = caller
        self.method: str = scope["method"]
        self.target = target
        self.rest = rest
        self.query = query
        self.version = version
        self._receive = receive
        self._traps = traps
        self._more = True

    def header(self, name: bytes) -> str | None:
        """The first header field of that name (in lower case); None: there is none."""
        return next(self.headers(name), None)

    def headers(self, name: bytes) -> Iterator[str]:
        """The header fields of that name (in lower case)."""
        return (value.decode("latin-1") for key, value in self.scope["headers"] if key == name)

    def parameter(self, name: str) -> str:
        """A parameter that REST 1.1 has and 1.0 ignores; empty: it is not there."""
        return self.query.get(name, "") if self.version == "1.1" else ""

    async def piece(self) -> bytes | None:
        """The next piece of the body; None behind its end.

        Raises:
            ClientGone: it does not come to its end.
        """
        if not self._more:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._more = message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def body(self, limit: int | None) -> bytes:
        """The first bytes of the body; the rest is read and forgotten.

        Args:
            limit: how many; None: all of them.

        Raises:
            ClientGone: it does not come to its end.
        """
        kept = bytearray()
        while (piece := await self.piece()) is not None:
            kept += piece if limit is None else piece[: max(limit - len(kept), 0)]
        return bytes(kept)

    # Answers

    def known(self, status: int = 500) -> Caller:
        """Who asks.

        Raises:
            Answered: nobody who is let in.
        """
        if self.caller is not None:
            return self.caller
        if Trap.UNAUTHENTICATED_IS_500 in self._traps:
            raise Answered(status, "User can't be assigned configuration")
        raise Answered(401, "Unauthorized", b"", (b"www-authenticate", b"Bearer"))

    def permitted(self, permission: Permission) -> Caller:
        """Who asks.

        Raises:
            Answered: nobody who is let in, or somebody who may not do that.
        """
        caller = self.known()
        if (why := caller.refusal(permission)) is not None:
            plain = (b"content-type", b"text/plain")
            raise Answered(403, "Operation is not allowed", why.encode(), plain)
        return caller

    def document(
        self,
        root: str,
        document: Document,
        status: int = 200,
        reason: str = "OK",
        fields: tuple[Field, ...] = (),
    ) -> Reply:
        """An answer that is a document, in the rendering that the client takes."""
        how, said = accepted(self.headers(b"accept"))
        return Reply(status, reason, rendered(root, document, how), [*said, *fields])


def not_implemented(what: str = "Not Implemented") -> Reply:
    """The answer to a method, or an action, that is not there."""
    return Reply(501, what)

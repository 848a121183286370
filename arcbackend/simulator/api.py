"""A-REX's REST interface as an ASGI application (``ARexRest::process`` in rest.cpp).

Paths are taken apart as A-REX does it, which no framework's routing does: slashes count once,
escapes are undone before the path is split, and what is not there is told in A-REX's words.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from itertools import takewhile
from typing import Any, Final

from arcbackend.simulator.api_delegations import DelegationsApi
from arcbackend.simulator.api_files import FilesApi
from arcbackend.simulator.api_jobs import JobsApi
from arcbackend.simulator.asked import Answered, Asked, ClientGone, not_implemented
from arcbackend.simulator.connection import App, Message, Receive, Send, of
from arcbackend.simulator.delegations import Delegations
from arcbackend.simulator.identities import Identities
from arcbackend.simulator.replies import Reply
from arcbackend.simulator.settings import RestVersion
from arcbackend.simulator.targets import next_token, read
from arcbackend.simulator.traps import Trap, Traps
from arcbackend.simulator.world import World

__all__ = ["ARexApp"]

# PayloadHTTPIn::readline gives up behind 4096 bytes, and has read five pieces of 1023 by then.
_LONGEST_LINE: Final = 5 * 1023
_LINE_END: Final = len(" HTTP/1.1\r\n ")
_READ: Final = frozenset({"GET", "HEAD"})
_LIST_HEAD = "<HTML>\r\n<HEAD>\r\n<TITLE>ARex: Jobs list</TITLE>\r\n</HEAD>\r\n<BODY>\r\n<UL>\r\n"


class ARexApp:
    """One CE's interface.

    Args:
        world: the CE.
        identities: tells who asks.
        delegations: of its users.
    """

    def __init__(self, world: World, identities: Identities, delegations: Delegations) -> None:
        self._world = world
        self._traps: Traps = world.traps
        self._identities = identities
        self._jobs = JobsApi(world, delegations)
        self._files = FilesApi(world)
        self._delegations = DelegationsApi(world, delegations)
        self._versions: dict[str, RestVersion] = {
            version: version for version in world.settings.rest_versions
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        connection = of(scope)
        target: bytes = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        if len(scope["method"]) + len(target) + _LINE_END > _LONGEST_LINE:
            if Trap.LONG_REQUEST_LINE_CLOSES in self._traps:
                await connection.cut()
            else:
                await Reply(414, "URI Too Long")(scope, receive, send)
            return
        seen = list(takewhile(_is_short, scope["headers"]))
        if len(seen) < len(scope["headers"]) and Trap.LONG_FIELD_ENDS_HEAD not in self._traps:
            await Reply(431, "Request Header Fields Too Large")(scope, receive, send)
            return
        scope["headers"] = seen
        body = _Body(receive, send)
        try:
            answer = await self._answer(scope, body.receive, target)
        except Answered as answered:
            answer = answered.reply
        except ClientGone:
            return
        await answer(scope, body.receive, body.send)

    async def _answer(
        self, scope: MutableMapping[str, Any], receive: Receive, target: bytes
    ) -> App:
        connection = of(scope)
        authorization = next(
            (value for name, value in scope["headers"] if name == b"authorization"), None
        )
        caller = self._identities.caller(
            connection, None if authorization is None else authorization.decode("latin-1")
        )
        found = read(target, semicolon=Trap.QUERY_CUT_BEFORE_UNESCAPING in self._traps)
        if found is None:
            raise Answered(404, "Not Found")
        asked = Asked(
            scope,
            receive,
            self._traps,
            connection=connection,
            caller=caller,
            target=target,
            rest=found.path,
            query=found.query,
            version="1.0",
        )
        # Here A-REX splits before it looks for a query.
        first, _ = next_token(found.whole)
        if first != "rest":
            return self._beside(asked, first)
        _, rest = next_token(found.path)
        version, rest = next_token(rest)
        if not version:
            return self._of_versions(asked)
        if version not in self._versions:
            raise Answered(404, "Version Not Supported")
        asked.version = self._versions[version]
        function, asked.rest = next_token(rest)
        match function:
            case "jobs":
                local, rest = next_token(asked.rest)
                if not local:
                    return await self._jobs.answer(asked)
                asked.rest = rest
                return await self._files.answer(asked, local)
            case "delegations":
                return await self._delegations.answer(asked)
            case "info":
                return self._information(asked)
        raise Answered(404, "Functionality Not Supported" if function else "Not Found")

    def _beside(self, asked: Asked, first: str) -> App:
        """What A-REX has besides REST, of which there is the list of jobs only."""
        caller = asked.known(403)
        if first or asked.method not in _READ:
            raise Answered(404, "Not Found")
        base = f"https://{asked.header(b'host')}/arex"
        lines = [
            f'<LI><I>job</I> <A HREF="{base}/{job.local}">{job.local}</A>'
            f' <A HREF="{base}/*logs/{job.local}">logs</A>\r\n'
            for job in self._world.jobs_of(caller.owner)
        ]
        end = f'</UL>\r\n<A HREF="{base}/*info">SERVICE DESCRIPTION</A></BODY>\r\n</HTML>'
        body = (_LIST_HEAD + "".join(lines) + end).encode()
        return Reply(200, "OK", body, [(b"content-type", b"text/html")])

    def _of_versions(self, asked: Asked) -> App:
        if asked.method not in _READ:
            return not_implemented()
        return asked.document("versions", {"version": list(self._versions)})

    def _information(self, asked: Asked) -> App:
        if asked.rest:
            raise Answered(404, "Not Found")
        if asked.method not in _READ:
            return not_implemented()
        if asked.query.get("schema", "") not in ("", "glue2"):
            return not_implemented("Schema not implemented")
        if Trap.INFO_NEEDS_NO_CREDENTIALS not in self._traps:
            asked.known()
        document = self._world.information()
        if document is None:
            return asked.document("InfoRoot", "")
        return asked.document("InfoRoot", document)


class _Body:
    """The body of a request: A-REX reads all of it, what it does not want after it has answered.

    hypercorn closes a connection whose request was not read to its end.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._more = True

    async def receive(self) -> Message:
        message = await self._receive()
        self._more = message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._more and message["type"] == "http.response.body" and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            while self._more:
                await self.receive()
            message = {"type": "http.response.body"}
        await self._send(message)


def _is_short(field: tuple[bytes, bytes]) -> bool:
    """Whether A-REX can read a header field: not longer than a request line."""
    name, value = field
    return len(name) + len(value) + 4 <= _LONGEST_LINE

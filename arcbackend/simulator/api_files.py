"""A job's session directory and its records in A-REX's REST interface (``processJob``)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote_from_bytes
from xml.sax.saxutils import escape

from arcbackend.simulator.asked import Answered, Asked, not_implemented
from arcbackend.simulator.connection import App, Receive, Send
from arcbackend.simulator.identities import Permission
from arcbackend.simulator.jobs import Job
from arcbackend.simulator.ranges import Part, part, sent
from arcbackend.simulator.replies import Field, Reply, accepted, head, rendered
from arcbackend.simulator.session_directory import (
    Hangs,
    Listing,
    NotDone,
    NotFound,
    Properties,
    SessionDirectory,
    WrongPath,
)
from arcbackend.simulator.targets import next_token
from arcbackend.simulator.traps import Trap, Traps
from arcbackend.simulator.world import World

__all__ = ["FilesApi"]

_BINARY: Final = (b"content-type", b"application/octet-stream")
_XML: Final = (b"content-type", b"application/xml")
_TEXT: Final = (b"content-type", b"text/plain")
# What of A-REX's control directory may be had.
_ITEMS: Final = frozenset(
    [
        "failed",
        "local",
        "errors",
        "description",
        "diag",
        "comment",
        "status",
        "acl",
        "xml",
        "input",
        "output",
        "input_status",
        "output_status",
        "statistics",
    ]
)
_DEPTHS: Final = {"0": 0, "1": 1}
_DEEPEST: Final = 10
_PARTIAL = "Partial content"
_UNSATISFIABLE = "Range not satisfiable"


class FilesApi:
    """Answers requests for ``jobs/<id>/session`` and ``jobs/<id>/diagnose``.

    Args:
        world: the CE.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._traps: Traps = world.traps

    async def answer(self, asked: Asked, local: str) -> App:
        """Answer a request for something of a job."""
        what, asked.rest = next_token(asked.rest)
        if what == "session":
            return await self._session(asked, local)
        if what == "diagnose":
            return self._record(asked, local)
        if what:
            raise Answered(404, "Wrong job sub-resource requested")
        raise Answered(404, "Missing job sub-resource")

    def _job(self, asked: Asked, local: str) -> Job:
        job = self._world.find(asked.known().owner, local)
        if job is None:
            silent = Trap.UNKNOWN_JOB_IS_404_OK in self._traps
            raise Answered(404, "OK" if silent else "Not Found")
        return job

    # Records

    def _record(self, asked: Asked, local: str) -> App:
        item = asked.rest
        if item not in _ITEMS:
            raise Answered(404, "Diagnostic item not found")
        if asked.method not in ("GET", "HEAD"):
            return not_implemented()
        asked.permitted(Permission.INFO)
        content = self._world.diagnose(self._job(asked, local), item)
        if content is None:
            raise Answered(404, "Not found")
        kind = _XML if item == "xml" else _TEXT
        wanted = asked.header(b"range") if asked.method == "GET" else None
        found = part(len(content), wanted, self._traps, record=True)
        status, reason, fields = _said(found, kind)
        body = content[found.first : found.first + found.length]
        return Reply(status, reason, body, fields)

    # The session directory

    async def _session(self, asked: Asked, local: str) -> App:
        job = self._job(asked, local)
        session = self._world.session(job)
        path = os.fsencode(asked.rest)
        handlers: dict[str, Callable[[], App]] = {
            "GET": lambda: self._get(asked, session, path),
            "HEAD": lambda: self._get(asked, session, path),
            "DELETE": lambda: self._delete(asked, session, path),
            "PROPFIND": lambda: self._propfind(asked, session, path, local),
        }
        try:
            if asked.method == "PUT":
                return await self._put(asked, job, session, path)
            if asked.method in handlers:
                return handlers[asked.method]()
        except WrongPath:
            raise Answered(404, "Wrong path") from None
        except NotFound:
            raise Answered(404, "Not found") from None
        except NotDone as failed:
            raise Answered(500, failed.reason) from None
        return not_implemented()

    def _get(self, asked: Asked, session: SessionDirectory, path: bytes) -> App:
        wanted = asked.header(b"range") if asked.method == "GET" else None
        try:
            found = session.get(path, wanted)
        except Hangs:
            asked.permitted(Permission.DATA_READ)
            return _Never()
        except NotFound:
            asked.permitted(Permission.DATA_READ)
            raise
        if isinstance(found, Listing):
            asked.permitted(Permission.DATA_INFO)
            return self._listed(asked, found)
        asked.permitted(Permission.DATA_READ)
        status, reason, fields = _said(found.part, _BINARY)
        length: int | None = found.part.length
        if not length and asked.method == "GET" and Trap.EMPTY_FILE_IS_CHUNKED in self._traps:
            length = None
        return _File(status, reason, fields, length, found.chunks)

    def _listed(self, asked: Asked, found: Listing) -> Reply:
        how, fields = accepted(asked.headers(b"accept"))
        if how == "xml":
            return Reply(200, "OK", found.xml(self._traps), fields)
        if how == "json" and Trap.NAMES_ARE_BYTES not in self._traps:
            text = json.dumps(found.document(), ensure_ascii=False)
            return Reply(200, "OK", text.encode("utf-8", "replace"), fields)
        return Reply(200, "OK", rendered("list", found.document(), how), fields)

    async def _put(self, asked: Asked, job: Job, session: SessionDirectory, path: bytes) -> App:
        asked.permitted(Permission.DATA_WRITE)
        length = asked.header(b"content-length") or ""
        known = int(length[:19]) if length.isascii() and length.isdigit() else None
        if known is None and asked.header(b"transfer-encoding") is None:
            known = 0
        with session.put(path, sent(asked.header(b"content-range"), known)) as upload:
            while (piece := await asked.piece()) is not None:
                upload.write(piece)
            if upload.complete:
                self._world.uploaded(job, upload.name)
        return Reply(200, "OK")

    def _delete(self, asked: Asked, session: SessionDirectory, path: bytes) -> App:
        asked.permitted(Permission.DATA_WRITE)
        session.delete(path)
        return Reply(202, "Accepted")

    def _propfind(self, asked: Asked, session: SessionDirectory, path: bytes, local: str) -> App:
        asked.permitted(Permission.DATA_INFO)
        depth = _DEPTHS.get(asked.header(b"depth") or "", _DEEPEST)
        host = asked.header(b"host") or ""
        where = f"https://{host}".encode() + asked.target.partition(b"?")[0].rstrip(b"/")
        own: bytes | None = None
        told = []
        for each in session.properties(path, depth):
            own = each.path if own is None else own
            below = quote_from_bytes(each.path[len(own) :], safe="/")
            name = each.path.rpartition(b"/")[2] or os.fsencode(local)
            told.append(_response(where.decode("latin-1") + below, name, each))
        body = (
            f'<?xml version="1.0"?>\n<d:multistatus xmlns:d="DAV:">{"".join(told)}'
            "</d:multistatus>\n"
        )
        return Reply(200, "OK", body.encode("utf-8", "surrogateescape"), [_XML])


def _said(found: Part, kind: Field) -> tuple[int, str, list[Field]]:
    """Status, reason and header fields of an answer that is a part of a file."""
    if found.whole:
        return 200, "OK", [kind]
    fields = [kind, (b"content-range", (found.content_range or "").encode())]
    if found.length:
        return 206, _PARTIAL, fields
    return 416, _UNSATISFIABLE, fields


def _response(where: str, name: bytes, found: Properties) -> str:
    """What PROPFIND says of one name (``STATtoPROP``)."""
    if not found.found:
        return (
            f"<d:response><d:href>{escape(where)}</d:href>"
            "<d:status>HTTP/1.1 404 Not Found</d:status></d:response>"
        )
    if found.size is None:
        where, kind = f"{where}/", "<d:resourcetype><d:collection/></d:resourcetype>"
    else:
        kind = f"<d:resourcetype/><d:getcontentlength>{found.size}</d:getcontentlength>"
    return (
        f"<d:response><d:href>{escape(where)}</d:href><d:propstat><d:prop>"
        f"<d:displayname>{escape(os.fsdecode(name))}</d:displayname>{kind}"
        f"<d:getlastmodified>{_time(found.modified)}</d:getlastmodified>"
        f"<d:creationdate>{_time(found.changed)}</d:creationdate></d:prop>"
        "<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
    )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


class _File:
    """An answer that is a file, or a part of one."""

    def __init__(
        self,
        status: int,
        reason: str,
        fields: list[Field],
        length: int | None,
        chunks: Callable[[], Iterator[bytes]],
    ) -> None:
        self._status = status
        self._reason = reason
        self._fields = fields
        self._length = length  # None: it is sent in chunks
        self._chunks = chunks

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        fields = list(self._fields)
        if self._length is not None:
            fields.append((b"content-length", b"%d" % self._length))
        await send(head(scope, self._status, self._reason, fields))
        left = self._length or 0
        if scope["method"] != "HEAD":
            chunks = self._chunks()
            try:
                for piece in chunks:
                    left -= len(piece)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            finally:
                if isinstance(chunks, Generator):
                    chunks.close()
            if left:
                return  # the file has become shorter meanwhile: the connection ends here
        await send({"type": "http.response.body"})


class _Never:
    """No answer at all: A-REX waits for somebody to write into a FIFO."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

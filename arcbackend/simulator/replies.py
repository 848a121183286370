"""Answers, as A-REX gives them: status, reason, header fields, and documents in three renderings.

A document is what JSON has: strings, mappings and lists. Each element of a list under a name is an
XML element of that name, and `ATTRIBUTES` are those of an element.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Literal, TypeAlias
from xml.sax.saxutils import escape, quoteattr

from arcbackend.simulator.connection import REASON, Message, Receive, Send

__all__ = [
    "ALWAYS",
    "ATTRIBUTES",
    "Document",
    "Field",
    "Format",
    "Reply",
    "accepted",
    "escaped",
    "rendered",
]

Document: TypeAlias = "str | Mapping[str, Document | Sequence[Document]]"
Field: TypeAlias = tuple[bytes, bytes]
Format: TypeAlias = Literal["json", "xml", "html"]

ATTRIBUTES = "_attributes"

ALWAYS: tuple[Field, ...] = (
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
)
"""What all answers have, "to make dumb security probes happy" (arc-arex-ws-start)."""

_NEWLINES = re.compile(r"[\r\n]")
_HEAD = "HEAD"
_OK = 200


class Reply:
    """A whole answer, as an ASGI application that gives it.

    Args:
        status: HTTP status code.
        reason: the reason phrase; newlines in it become blanks.
        body: the body.
        fields: header fields beside those that all answers have.
    """

    __slots__ = ("_body", "_fields", "_reason", "_status")

    def __init__(
        self, status: int, reason: str, body: bytes = b"", fields: Iterable[Field] = ()
    ) -> None:
        self._status = status
        self._reason = reason
        self._body = body
        self._fields = fields

    def __repr__(self) -> str:
        return f"<Reply {self._status} {self._reason}>"

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Give it."""
        fields = [(b"content-length", b"%d" % len(self._body)), *self._fields]
        await send(head(scope, self._status, self._reason, fields))
        await send({"type": "http.response.body", "body": self._body})


def head(scope: Mapping[str, Any], status: int, reason: str, fields: Iterable[Field]) -> Message:
    """The message that begins an answer."""
    keeps = scope["http_version"] == "1.1" and not any(
        name == b"connection" and value.lower() != b"keep-alive" for name, value in scope["headers"]
    )
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (REASON, _NEWLINES.sub(" ", reason).encode("latin-1", "replace")),
            *fields,
            (b"connection", b"keep-alive" if keeps else b"close"),
            *ALWAYS,
        ],
    }


def accepted(accepts: Iterable[str]) -> tuple[Format, Sequence[Field]]:
    """How a document is rendered, and what the answer says of it (``ProcessAcceptedFormat``).

    The first type that A-REX knows counts, whatever its quality; without one it is HTML, and the
    answer does not say so.

    Args:
        accepts: the header fields ``Accept``.
    """
    for part in ",".join(accepts).split(","):
        match part.strip(" ").partition(";")[0]:
            case "application/json":
                return "json", ((b"content-type", b"application/json"),)
            case "text/xml" | "application/xml":
                return "xml", ((b"content-type", b"application/xml"),)
            case "text/html":
                return "html", ((b"content-type", b"text/html"),)
    return "html", ()


def rendered(root: str, document: Document, how: Format) -> bytes:
    """A document in one of its renderings.

    Args:
        root: name of the outermost element, which JSON does not have.
        document: what it holds.
        how: the rendering.
    """
    if how == "json":
        return _json(document).encode() if document else b""
    if how == "xml":
        text = "\n".join(_xml(root, document, ""))
    else:
        text = f"<HTML><HEAD>{root}</HEAD><BODY>{_html(document)}</BODY></HTML>"
    return text.encode("utf-8", "surrogateescape")


# JSON (RenderToJson in rest.cpp, json_encode in StringConv.cpp)

_SPECIAL = re.compile(r'[\x00-\x1f\x7f-\xff"\\]')
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"'}


def escaped(text: str) -> str:
    """A string as A-REX writes it in JSON, without quotes: byte by byte."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    as_bytes = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return _SPECIAL.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04X}", as_bytes)


def _json(document: Document | Sequence[Document]) -> str:
    if isinstance(document, str):
        return f'"{escaped(document)}"'
    if isinstance(document, Mapping):
        pairs = (f'"{escaped(name)}":{_json(value)}' for name, value in document.items())
        return "{" + ",".join(pairs) + "}"
    return "[" + ",".join(map(_json, document)) + "]"


# XML (as libxml2 writes it)


def _xml(name: str, document: Document, indent: str) -> Iterable[str]:
    if isinstance(document, str):
        text = escape(document)
        yield f"{indent}<{name}>{text}</{name}>" if text else f"{indent}<{name}/>"
        return
    attributes = document.get(ATTRIBUTES, {})
    assert isinstance(attributes, Mapping)
    told = "".join(f" {key}={quoteattr(str(value))}" for key, value in attributes.items())
    children = [
        line
        for key, value in document.items()
        if key != ATTRIBUTES
        for each in ([value] if isinstance(value, str | Mapping) else value)
        for line in _xml(key, each, indent + "  ")
    ]
    if not children:
        yield f"{indent}<{name}{told}/>"
        return
    yield f"{indent}<{name}{told}>"
    yield from children
    yield f"{indent}</{name}>"


# HTML (RenderToHtml in rest.cpp)


def _html(document: Document) -> str:
    if isinstance(document, str):
        return document
    rows = [
        f"<tr><td>{key}</td><td>{_html(each)}</td></tr>"
        for key, value in document.items()
        if key != ATTRIBUTES
        for each in ([value] if isinstance(value, str | Mapping) else value)
    ]
    return f'<table border="1">{"".join(rows)}</table>' if rows else ""

"""XML from outside: what may be read of it is elements and texts, no document type, no entity."""

from __future__ import annotations

from xml.etree import ElementTree as ET
from xml.parsers import expat

__all__ = ["Document", "XmlError", "read", "texts"]

# Deeper than any job description; what goes through a tree need not be careful then.
_DEEPEST = 50


class XmlError(Exception):
    """A text is no XML, or none that is read here."""


class Document:
    """What was read.

    Attributes:
        root: the outermost element.
        sources: of each child of the root, its own text, in UTF-8, with the root's namespaces.
        source: of the root, likewise.
    """

    def __init__(self, root: ET.Element, source: bytes, sources: list[bytes]) -> None:
        self.root = root
        self.source = source
        self.sources = sources


def read(body: bytes) -> Document:
    """Read a document.

    Raises:
        XmlError: it is not well-formed, has a document type, or is nested too deeply.
    """
    return _Reader(_as_utf8(body)).document()


def texts(element: ET.Element) -> str:
    """The text that is in an element itself, not in those inside."""
    return "".join([element.text or "", *(child.tail or "" for child in element)])


def _as_utf8(body: bytes) -> bytes:
    """The text without its XML declaration, in UTF-8."""
    declared: list[str | None] = []

    def declaration(_version: str, encoding: str | None, _standalone: int) -> None:
        declared.append(encoding)

    end = body.find(b"?>") + 2 if body.lstrip().startswith(b"<?xml") else 0
    if end <= 1:
        return body
    parser = expat.ParserCreate()
    parser.XmlDeclHandler = declaration
    try:
        parser.Parse(body[:end].lstrip(), False)
        encoding = next(iter(declared), None) or "utf-8"
        return body[end:].decode(encoding).encode()
    except (expat.ExpatError, LookupError, UnicodeError) as error:
        raise XmlError(str(error)) from None


class _Reader:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._builder = ET.TreeBuilder()
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._depth = 0
        self._namespaces: list[bytes] = []
        self._parser = parser = expat.ParserCreate("utf-8", "}")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartNamespaceDeclHandler = self._namespace
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._builder.data

    def document(self) -> Document:
        try:
            self._parser.Parse(self._body, True)
        except expat.ExpatError as error:
            raise XmlError(str(error)) from None
        inherited = b"".join(self._namespaces)
        sources = [
            _declaring(self._body[begin:end], inherited)
            for begin, end in zip(self._begins, self._ends, strict=True)
        ]
        return Document(self._builder.close(), self._body.strip(), sources)

    def _doctype(self, *_: object) -> None:
        raise XmlError("a document type is not read")

    def _namespace(self, prefix: str | None, uri: str | None) -> None:
        if self._depth == 0:  # the root's: its children inherit them
            name = f"xmlns:{prefix}" if prefix else "xmlns"
            self._namespaces.append(f' {name}="{_attribute(uri or "")}"'.encode())

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._depth == 1:
            self._begins.append(self._parser.CurrentByteIndex)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise XmlError("it is nested too deeply")
        self._builder.start(_name(tag), {_name(key): text for key, text in attributes.items()})

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._builder.end(_name(tag))
        if self._depth == 1:
            # Of an empty element, expat tells another place.
            end = self._after_tag(self._begins[-1])
            if self._body[end - 2 : end] != b"/>":
                end = self._after_tag(self._parser.CurrentByteIndex)
            self._ends.append(end)

    def _after_tag(self, at: int) -> int:
        """Where a tag ends that begins here."""
        quote = b""
        for position in range(at, len(self._body)):
            character = self._body[position : position + 1]
            if quote:
                quote = b"" if character == quote else quote
            elif character in (b'"', b"'"):
                quote = character
            elif character == b">":
                return position + 1
        raise XmlError("a tag does not end")


def _name(tag: str) -> str:
    """A name as ElementTree writes it: expat gives ``uri}name``."""
    return "{" + tag if "}" in tag else tag


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _declaring(element: bytes, inherited: bytes) -> bytes:
    """An element's text with the namespaces that it inherited, unless it declares its own."""
    tag_end = min(at for at in (element.find(b">"), element.find(b" ")) if at >= 0)
    if element[tag_end - 1 : tag_end] == b"/":
        tag_end -= 1
    head = element[: element.find(b">")]
    if not inherited or b"xmlns=" in head or b"xmlns:" in head:
        return element
    return element[:tag_end] + inherited + element[tag_end:]

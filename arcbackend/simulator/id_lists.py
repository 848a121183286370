"""Lists of job ids in a request's body, as A-REX reads them, wrong ones included. Pure.

A-REX has a reader of JSON of its own (``ParseFromJson`` in rest.cpp). It stops at what it does not
understand and keeps what it has read by then; it takes a single object for a list of one; and it
loses the first character of numbers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from arcbackend.simulator import safe_xml

__all__ = ["in_json", "in_xml", "is_json"]

_DEEPEST = 200
_SPACE = re.compile(r"[ \t\n\v\f\r]*")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE = re.compile(r".([^,}\] \t\n\v\f\r]*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u..(?P<byte>[0-9A-Fa-f]{2})|(?P<other>.))", re.DOTALL)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def is_json(content: bytes) -> bool:
    """Whether it is JSON at all."""
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def in_json(content: bytes) -> list[str]:
    """The ids in ``{"job":[{"id":"…"},…]}``, or in what A-REX takes for it."""
    quick = _well_formed(content)
    if quick is not None:
        return quick
    root = _Node("jobs")
    text, _, _ = content.partition(b"\0")
    _read(root, None, text.decode("latin-1"), 0, 0)
    ids = [job.text_of("id") for job in root.children if job.name == "job"]
    return [id_.encode("latin-1").decode("utf-8", "surrogateescape") for id_ in ids if id_]


def in_xml(content: bytes) -> list[str]:
    """The ids in ``<jobs><job><id>…</id></job>…</jobs>``."""
    try:
        root = safe_xml.read(content).root
    except safe_xml.XmlError:
        return []
    found = [job.findtext("{*}id") or "" for job in root.iterfind("{*}job")]
    return [id_ for id_ in found if id_]


def _well_formed(content: bytes) -> list[str] | None:
    """The ids of a list that any reader reads alike; None if it is another one."""
    if not content.isascii() or b"\\" in content or b"\0" in content:
        return None
    try:
        jobs = json.loads(content)["job"]
        ids = [job["id"] for job in jobs]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    once = content.count(b'"job"') == 1 and content.count(b'"id"') == len(ids)
    if not once or not isinstance(jobs, list) or not all(isinstance(id_, str) for id_ in ids):
        return None
    return ids if all(ids) else None


@dataclass
class _Node:
    """An XML element, which A-REX turns JSON into."""

    name: str
    text: str = ""
    children: list[_Node] = field(default_factory=list)

    def text_of(self, name: str) -> str:
        """The text of the first child of that name."""
        return next((child.text for child in self.children if child.name == name), "")


def _read(node: _Node, parent: _Node | None, text: str, at: int, depth: int) -> int | None:
    """Read a value into a node; tells where it ends, None where it is not understood."""
    at = _skip(text, at)
    if at >= len(text):
        return at
    if text[at] in "{[":
        if depth > _DEEPEST:
            return None
        if text[at] == "{":
            return _read_object(node, text, at + 1, depth)
        return _read_list(node, parent, text, at + 1, depth)
    found = (_STRING if text[at] == '"' else _BARE).match(text, at)
    if found is None:
        return None
    node.text = _plain(found[1]) if text[at] == '"' else found[1]
    return found.end()


def _read_object(node: _Node, text: str, at: int, depth: int) -> int | None:
    at = _skip(text, at)
    if text[at : at + 1] == "}":
        return at + 1
    while True:
        if (name := _STRING.match(text, at)) is None:
            return None
        at = _skip(text, name.end())
        if text[at : at + 1] != ":":
            return None
        child = _Node(_plain(name[1]))
        node.children.append(child)
        end = _read(child, node, text, at + 1, depth + 1)
        if end is None:
            return None
        at = _skip(text, end)
        if text[at : at + 1] == "}":
            return at + 1
        if text[at : at + 1] != ",":
            return None
        at = _skip(text, at + 1)


def _read_list(node: _Node, parent: _Node | None, text: str, at: int, depth: int) -> int | None:
    """Read elements into a node, and into siblings of the same name behind it."""
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        if parent is not None:
            parent.children.remove(node)
        return at + 1
    item = node
    while True:
        end = _read(item, parent, text, at, depth + 1)
        if end is None:
            return None
        at = _skip(text, end)
        if text[at : at + 1] == "]":
            return at + 1
        if text[at : at + 1] != ",":
            return None
        at += 1
        item = _Node(node.name)
        if parent is not None:
            parent.children.append(item)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _plain(text: str) -> str:
    """A string without its escapes, of which A-REX takes the last byte only."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(_unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    if (byte := found["byte"]) is not None:
        return chr(int(byte, 16))
    return _ESCAPED.get(found["other"], found["other"])

"""What a job left, as the CE tells it: listings of its session directory, names of its streams.

A name in a listing is bytes, one ``\\u00XX`` of JSON for each (docs/explanation/arc-rest.md). The
payload chose it: nothing here trusts one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Any
from xml.sax.saxutils import unescape

from arcbackend.errors import ProtocolError
from arcbackend.protocol.activity import activity_of
from arcbackend.protocol.messages import Operation, Response
from arcbackend.protocol.rendering import as_list

__all__ = [
    "Listing",
    "Streams",
    "TooManyEntries",
    "content_length",
    "content_part",
    "content_range",
    "parse_directory",
    "parse_sized_directory",
    "streams_of_description",
    "streams_of_document",
]

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_NOWHERE = "/dev/null"
# Neither blanks at the ends nor <>&'"\\
_PLAIN_CHARACTER = rb"!#-%(-;=?-\[\]-~"
_PLAIN_NAME = rb"[%b](?:[ %b]*[%b])?" % ((_PLAIN_CHARACTER,) * 3)
_PLAIN_ENTRY = re.compile(
    rb'\s*<(?:file size="(\d{1,18})">('
    + _PLAIN_NAME
    + rb")</file>|dir>("
    + _PLAIN_NAME
    + rb")</dir>)"
)
# Patterns instead of parsers, since a description may be of any client, and the CE may be hostile:
# they take time in proportion to the text, whatever it is.
_ADL_APPLICATION = re.compile(r"<(/?)(?:\w{1,20}:)?Application>")
_ADL_STREAM = r"<(?:\w{{1,20}}:)?{}>([^<]*)</"
_XRSL_STREAM = r"\(\s*{}\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'()]+))\s*\)"
_ENTITIES = {"&quot;": '"', "&apos;": "'"}
_COMMAS = 10  # of an entry: one and those in the name
_MAX_DESCRIPTION = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Listing:
    """One directory.

    Attributes:
        files: names of regular files. A-REX lists no links, FIFOs, sockets and devices.
        directories: names of directories.
        illegible: names that stand for no bytes.
        sizes: file → bytes; empty if the listing does not tell.
    """

    files: tuple[bytes, ...] = ()
    directories: tuple[bytes, ...] = ()
    illegible: tuple[str, ...] = ()
    sizes: Mapping[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Streams:
    """Which files hold standard output and error: paths in the session directory; None: discarded.

    They may be one and the same.
    """

    stdout: str | None
    stderr: str | None


class TooManyEntries(ProtocolError):  # noqa: N818  (named like the rest of the tree)
    """A listing so long that it is not taken apart: no fault of the CE's."""


def parse_directory(response: Response, ce: str, *, most: int) -> Listing:
    """The entries of one directory, each name once.

    Raises:
        TooManyEntries: they are far more than ``most``.
        ProtocolError: it is no listing.
    """

    def broken(what: str) -> ProtocolError:
        return ProtocolError(
            what, ce=ce, operation=Operation.SESSION_LIST.value, excerpt=response.body
        )

    # Before the parser makes an object of each: 3 bytes of JSON can become 50 of memory.
    if response.body.count(b",") > _COMMAS * (most + 1000):
        raise TooManyEntries(
            f"the listing has far more than {most} entries",
            ce=ce,
            operation=Operation.SESSION_LIST.value,
        )
    try:
        document: Any = json.loads(response.body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise broken("the listing is not JSON") from None
    if not isinstance(document, dict):
        raise broken("the listing is not a JSON object")
    names: dict[bytes, bool] = {}
    illegible: dict[str, None] = {}
    for key in ("file", "dir"):
        for name in as_list(document.get(key)):
            if not isinstance(name, str):
                raise broken("the listing holds a name that is not a string")
            try:
                names.setdefault(name.encode("latin-1"), key == "file")
            except UnicodeEncodeError:
                illegible[name] = None
    files = tuple(name for name, is_file in names.items() if is_file)
    directories = tuple(name for name, is_file in names.items() if not is_file)
    return Listing(files, directories, tuple(illegible))


def parse_sized_directory(response: Response, *, most: int) -> Listing | None:
    """The entries of a directory in XML, with sizes; None unless it is plain, and not too long.

    Plain is what A-REX's printer neither escapes nor can get wrong: printable ASCII without markup.
    Of a directory with any other name, the listing in JSON is to be asked for.
    """
    body = response.body.strip()
    if body == b"<list/>":
        return Listing()
    if body.count(b"\n") > most + 1000:
        return None  # before an object is made of each entry
    head, *lines = body.split(b"\n")
    if head != b"<list>" or not lines or lines.pop() != b"</list>":
        return None
    sizes: dict[bytes, int] = {}
    directories: dict[bytes, None] = {}
    for line in lines:
        match = _PLAIN_ENTRY.fullmatch(line)
        if match is None:
            return None
        size, file, directory = match.groups()
        if directory is not None:
            directories[directory] = None
        else:
            sizes[file] = int(size)
    if sizes.keys() & directories.keys():
        return None
    return Listing(tuple(sizes), tuple(directories), sizes=sizes)


def content_length(headers: Mapping[str, str]) -> int | None:
    """Bytes that the answer announces; None if it comes in chunks.

    Raises:
        ValueError: it has neither a length nor chunks, so that its end could not be told from a
            broken connection.
    """
    text = headers.get("content-length", "")
    if text.isascii() and text.isdigit():
        return int(text[:18])
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return None
    raise ValueError("the answer has neither a length nor chunks")


def content_part(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """First byte, last byte, and size of the whole file in a 206; None if it makes no sense."""
    match = _RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        return None
    first, last, size = (int(group) for group in match.groups())
    return (first, last, size) if first <= last < size else None


def content_range(headers: Mapping[str, str]) -> tuple[int, int] | None:
    """First byte and size of the whole file in a 206; None if it does not run to the file's end."""
    part = content_part(headers)
    if part is None:
        return None
    first, last, size = part
    return (first, size) if last == size - 1 else None


def streams_of_document(document: Any) -> Streams | None:
    """The streams in a job's GLUE2 document; None before the information provider saw the job."""
    activity = activity_of(document)
    if "StdOut" not in activity and "StdErr" not in activity:
        return None
    return Streams(_stream(activity.text("StdOut")), _stream(activity.text("StdErr")))


def streams_of_description(response: Response) -> Streams | None:
    """The streams in a job's description, ADL or xRSL; None if it is not there."""
    if response.status != HTTPStatus.OK or not response.body.strip():
        return None
    text = response.body[:_MAX_DESCRIPTION].decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        tags = list(islice(_ADL_APPLICATION.finditer(text), 2))
        part = text[tags[0].end() : tags[-1].start()] if tags else ""
        return Streams(*(_adl_stream(name, part) for name in ("Output", "Error")))
    stdout, stderr = (
        next(_found(_XRSL_STREAM.format(name), text), None) for name in ("stdout", "stderr")
    )
    if next(_found(_XRSL_STREAM.format("join"), text), "").lower() in ("yes", "true"):
        stderr = stdout
    return Streams(_stream(stdout), _stream(stderr))


def _adl_stream(name: str, part: str) -> str | None:
    found = next(_found(_ADL_STREAM.format(name), part), "")
    return _stream(unescape(found.strip(), _ENTITIES))


def _found(pattern: str, text: str) -> Iterator[str]:
    for match in re.finditer(pattern, text, re.IGNORECASE):
        yield next((group for group in match.groups() if group is not None), "")


def _stream(name: Any) -> str | None:
    return name if isinstance(name, str) and name not in ("", _NOWHERE) else None

"""Listings of session directories, heads of downloads, names of streams: read from any bytes."""

from __future__ import annotations

import json
from time import process_time
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arcbackend.errors import ProtocolError
from arcbackend.protocol.messages import Response
from arcbackend.protocol.outputs import (
    Listing,
    Streams,
    TooManyEntries,
    content_length,
    content_part,
    content_range,
    parse_directory,
    parse_sized_directory,
    streams_of_description,
    streams_of_document,
)
from arcbackend.protocol.requests import RequestBuilder, from_byte, head_of, is_sendable
from tests.pure.replies import CE

BUILDER = RequestBuilder("1.1")
# As A-REX 7.0.0 answered (names: one \u00XX for each byte that is not printable ASCII).
RECORDED = (
    rb'{"dir":["emptydir","dir with \u00C3\u00A9","sub"],"file":["--","a?b;c#d","with space",'
    rb'"inv\u00FFalid","..foo","%2e%2e%2f","\u00C3\u00A9.txt","new\nline","q\"uo\u005Cte"]}'
)
RECORDED_XML = (
    b'<list>\n  <dir>sub</dir>\n  <file size="0">empty</file>\n'
    b'  <file size="17">a b</file>\n</list>'
)


def directory(body: bytes, most: int = 100) -> Listing:
    return parse_directory(Response(200, "OK", body=body), CE, most=most)


def sized(body: bytes) -> Listing | None:
    return parse_sized_directory(Response(200, "OK", body=body), most=100)


def test_a_recorded_listing() -> None:
    listing = directory(RECORDED)
    assert listing.directories == (b"emptydir", b"dir with \xc3\xa9", b"sub")
    assert listing.files == (
        b"--",
        b"a?b;c#d",
        b"with space",
        b"inv\xffalid",
        b"..foo",
        b"%2e%2e%2f",
        b"\xc3\xa9.txt",
        b"new\nline",
        b'q"uo\\te',
    )
    assert listing.illegible == ()


@pytest.mark.parametrize(
    ("document", "files", "directories"),
    [
        ({"file": [], "dir": []}, (), ()),
        ({}, (), ()),
        ({"file": "one", "dir": ""}, (b"one",), ()),
        ({"file": None, "dir": "one"}, (), (b"one",)),
        ({"file": ["a", "a", "b"], "dir": ["a", "c"]}, (b"a", b"b"), (b"c",)),
        (
            {"file": ["../../x", "", "a\0"]},
            (b"../../x", b"", b"a\0"),
            (),
        ),  # containment's to refuse
    ],
)
def test_shapes(document: Any, files: tuple[bytes, ...], directories: tuple[bytes, ...]) -> None:
    listing = directory(json.dumps(document).encode())
    assert (listing.files, listing.directories) == (files, directories)


def test_names_that_are_no_bytes() -> None:
    listing = directory(b'{"file":["\\u20AC","ok","\\ud800","raw \xff"]}')
    assert listing.files == (b"ok",)
    assert listing.illegible == ("€", "\ud800", "raw \ufffd")


@pytest.mark.parametrize(
    "body", [b"", b"<list/>", b"[]", b'"x"', b"{", b'{"file":[1]}', b'{"dir":[["a"]]}', b"[" * 9999]
)
def test_what_is_no_listing(body: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"session\.list on https://ce"):
        directory(body)


def test_a_listing_without_end_is_not_taken_apart() -> None:
    entries = b'{"file":[' + b'"a",' * 200_000 + b'"b"]}'
    with pytest.raises(TooManyEntries, match="far more than 100 entries"):
        directory(entries)
    assert directory(entries, most=100_000).files == (b"a", b"b")


@given(st.binary(max_size=300))
@example(RECORDED)
def test_any_bytes_are_a_listing_or_an_error(body: bytes) -> None:
    try:
        listing = directory(body)
    except ProtocolError:
        return
    assert not set(listing.files) & set(listing.directories)


@given(st.lists(st.binary(min_size=1, max_size=30), unique=True))
def test_every_name_of_bytes_comes_back(names: list[bytes]) -> None:
    body = json.dumps({"file": [name.decode("latin-1") for name in names], "dir": []}).encode()
    assert directory(body).files == tuple(names)
    for name in names:
        target = BUILDER.get_file("job", b"d/" + name.replace(b"/", b"")).target
        assert target.isascii()
        assert not set(target) & set("?;#\n\r \"'<>\\")
        escaped = target.removeprefix("/arex/rest/1.1/jobs/job/session/")
        assert unquote_to_bytes(escaped) == b"d/" + name.replace(b"/", b"")


# listings with sizes


def test_a_recorded_listing_with_sizes() -> None:
    assert sized(RECORDED_XML) == Listing(
        (b"empty", b"a b"), (b"sub",), sizes={b"empty": 0, b"a b": 17}
    )
    assert sized(b"<list/>\n") == Listing()


@pytest.mark.parametrize(
    "name",
    [b"", b" ", b" a", b"a ", b"\xc3\xa9", b"a\x01", b"&amp;", b"a&b", b"a>b", b"a\n", b'"', b"'"],
)
def test_names_that_xml_is_not_trusted_with(name: bytes) -> None:
    assert sized(b'<list>\n  <file size="1">' + name + b"</file>\n</list>") is None
    assert sized(b"<list>\n  <dir>" + name + b"</dir>\n</list>") is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        RECORDED,
        b"<list>",
        b"<list>\n</list>x",
        b"<list><file size='1'>a</file></list>",
        b'<list>\n  <file size="-1">a</file>\n</list>',
        b'<list>\n  <file size="1">a</file><file size="1">b</file>\n</list>',
        b'<list>\n  <file size="1">a</file>\n  <dir>a</dir>\n</list>',
        b"<!DOCTYPE x>\n<list/>",
        b"<list>\n" + b"  <dir>a</dir>\n" * 2000 + b"</list>",
    ],
)
def test_what_is_not_plain(body: bytes) -> None:
    assert sized(body) is None


@given(st.binary(max_size=100) | st.text('<>list/\n file="1d', max_size=60).map(str.encode))
def test_any_bytes_are_a_plain_listing_or_none(body: bytes) -> None:
    listing = sized(body)
    if listing is not None:
        assert listing.sizes.keys() == set(listing.files)


# heads


def test_lengths() -> None:
    assert content_length({"content-length": "17"}) == 17
    assert content_length({"transfer-encoding": "chunked"}) is None
    for headers in ({}, {"content-length": "x"}, {"content-length": "²"}):
        with pytest.raises(ValueError, match="neither"):
            content_length(headers)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 2-2/3", (2, 3)),
        ("bytes 0-99/100", (0, 100)),
        ("bytes 0-98/100", None),
        ("bytes 5-2/3", None),
        ("bytes */*", None),
        ("bytes 0-9/*", None),
        ("", None),
        ("bytes 0-9/10, bytes 0-9/10", None),
    ],
)
def test_ranges(value: str, expected: tuple[int, int] | None) -> None:
    assert content_range({"content-range": value}) == expected
    part = content_part({"content-range": value})
    if expected is not None:
        first, size = expected
        assert part == (first, size - 1, size)
    else:
        assert part == ((0, 98, 100) if value == "bytes 0-98/100" else None)


def test_requests() -> None:
    request = BUILDER.get_file("job", b"a/\xc3\xa9 %2e?;")
    assert request.target == "/arex/rest/1.1/jobs/job/session/a/%C3%A9%20%252e%3F%3B"
    assert from_byte(request, 17).headers["Range"] == "bytes=17-"
    assert from_byte(request, 17, 17).headers["Range"] == "bytes=17-17"
    assert (head_of(request).method, head_of(request).target) == ("HEAD", request.target)
    assert head_of(request).scope is request.scope
    assert BUILDER.list_directory("job").target == "/arex/rest/1.1/jobs/job/session/"
    assert BUILDER.list_directory("job").headers == {"Accept": "application/json"}
    assert BUILDER.list_directory("job", b"d", sizes=True).headers == {"Accept": "text/xml"}
    assert is_sendable(BUILDER.get_file("job", b"x" * 4000))
    assert not is_sendable(BUILDER.get_file("job", b"x" * 4100))
    assert not is_sendable(BUILDER.get_file("job", b"%" * 1400))


# streams

ADL = (
    '<?xml version="1.0"?><ActivityDescription xmlns="x"><Application><Executable/>'
    "<Output>{}</Output><Error>{}</Error></Application><DataStaging><OutputFile><Name>Output"
    "</Name></OutputFile></DataStaging></ActivityDescription>"
)


@pytest.mark.parametrize(
    ("text", "streams"),
    [
        (ADL.format("out.txt", "logs/err"), Streams("out.txt", "logs/err")),
        (ADL.format(" a &amp;&lt;&quot; b\n", "é"), Streams('a &<" b', "é")),
        (ADL.format("/dev/null", ""), Streams(None, None)),
        (ADL.replace("<Output>{}</Output><Error>{}</Error>", ""), Streams(None, None)),
        ("<a:Application><a:Output>o</a:Output></a:Application>", Streams("o", None)),
        ("<x><Output>o</Output></x>", Streams(None, None)),
        ('&(executable="x")(stdout="o 1")(stderr = e)', Streams("o 1", "e")),
        ("&( StdOut = 'o' )(join=\"yes\")", Streams("o", "o")),
        ('&(executable="x")', Streams(None, None)),
    ],
)
def test_streams_of_descriptions(text: str, streams: Streams) -> None:
    assert streams_of_description(Response(200, "OK", body=text.encode())) == streams


def test_no_description() -> None:
    assert streams_of_description(Response(404, "Not found")) is None
    assert streams_of_description(Response(200, "OK", body=b" \n")) is None


@pytest.mark.parametrize(
    ("document", "streams"),
    [
        ({"StdOut": "o", "StdErr": "e", "Name": "n"}, Streams("o", "e")),
        ({"StdOut": "/dev/null", "StdErr": "/dev/null"}, Streams(None, None)),
        ({"StdOut": "o"}, Streams("o", None)),
        ({"StdOut": ["o"], "StdErr": 1}, Streams("o", None)),
        ({"Name": "before the information provider ran"}, None),
        ("", None),
    ],
)
def test_streams_of_documents(document: Any, streams: Streams | None) -> None:
    assert streams_of_document({"ComputingActivity": document}) == streams
    assert streams_of_document(document) is None


@given(
    st.binary(max_size=200)
    | st.text("<>/ApplicationOutput&(stdout=\"' ", max_size=99).map(str.encode)
)
def test_any_bytes_are_a_description(body: bytes) -> None:
    streams_of_description(Response(200, "OK", body=body))


@pytest.mark.parametrize(
    "unit",
    [
        "<Application>",
        "<Output>",
        "<Application><Output>",
        " ",
        "(stdout=",
        '(stdout="',
        "( ",
        "<a",
    ],
)
def test_hostile_descriptions_take_no_time(unit: str) -> None:
    for head in ("<", "<Application><Output>", "&"):
        body = (head + unit * (2_000_000 // len(unit))).encode()
        began = process_time()
        streams_of_description(Response(200, "OK", body=body))
        assert process_time() - began < 5

"""Lists of ids, read as A-REX reads them: what it says to each was recorded (likeness tests)."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arcbackend.simulator.id_lists import in_json, in_xml, is_json


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"job":[{"id":"a"},{"id":"b"}]}', ["a", "b"]),
        (b' { "job" : [ { "id" : "a" } , {"id":"b"} ] } ', ["a", "b"]),
        (b'{"job":{"id":"a"}}', ["a"]),
        (b'{"job":[{"id":"a"},{"id":"b"', ["a", "b"]),
        (b'{"job":[{"id":"a"},{"id":"b', ["a"]),
        (b'{"job":[{"id":"a"}]} x', ["a"]),
        (b'{"job":[{"id":17}]}', ["7"]),
        (b'{"job":[{"id":null}]}', ["ull"]),
        (b'{"job":[{"id":""},{"id":"a"}]}', ["a"]),
        (b'{"x":1,"job":[{"x":"y","id":"a"}]}', ["a"]),
        (b'{"job":[{"id":"a"}],"job":[{"id":"b"}]}', ["a", "b"]),
        (b'{"job":[{"id":"a","id":"b"}]}', ["a"]),
        (b'{"job":[{"id":["a","b"]}]}', ["a"]),
        (b'{"job":[{"id":"a\\u0062c"}]}', ["abc"]),
        (b'{"job":[{"id":"a\\"b\\n"}]}', ['a"b\n']),
        (b'{"job":["a","b"]}', []),
        (b'[{"id":"a"}]', []),
        (b'{"Job":[{"Id":"a"}]}', []),
        (b'{"job":[]}', []),
        (b"{}", []),
        (b"[]", []),
        (b"", []),
        (b"garbage", []),
        (b'{"job":[{"id":"a\0b"}]}', []),
        (b"[" * 100_000, []),
        (b'{"job":[{"id":"\xff"}]}', ["\udcff"]),
    ],
)
def test_json(body: bytes, ids: list[str]) -> None:
    assert in_json(body) == ids


@given(st.lists(st.text(min_size=1).filter(lambda text: "\0" not in text)))
@example(["a"])
def test_what_is_in_order_is_read(ids: list[str]) -> None:
    body = json.dumps({"job": [{"id": id_} for id_ in ids]}, ensure_ascii=False)
    sent = body.encode("utf-8", "surrogatepass")
    expected = [
        id_.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape") for id_ in ids
    ]
    assert in_json(sent) == expected


@given(st.binary())
def test_nothing_breaks_it(body: bytes) -> None:
    in_json(body)
    in_xml(body)
    is_json(body)


@given(st.lists(st.sampled_from(list('{}[]":,\\ a1')), max_size=60))
def test_nothing_like_json_breaks_it(parts: list[str]) -> None:
    in_json("".join(parts).encode())


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b"<jobs><job><id>a</id></job><job><id>b</id></job></jobs>", ["a", "b"]),
        (b"<x><job><id>a</id></job></x>", ["a"]),
        (b"<jobs><job><id></id></job></jobs>", []),
        (b"<jobs><id>a</id></jobs>", []),
        (b"<jobs><job><id>a</id></job>", []),
        (b"garbage", []),
        (b"", []),
    ],
)
def test_xml(body: bytes, ids: list[str]) -> None:
    assert in_xml(body) == ids

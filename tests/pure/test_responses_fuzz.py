"""Whatever bytes a CE sends, a parser returns a value or raises an `InterCEdeError`."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arcbackend.errors import InterCEdeError, ProtocolError
from arcbackend.protocol.messages import Request, Response
from arcbackend.protocol.responses import (
    failure,
    parse_answers,
    parse_listing,
    parse_new_jobs,
    parse_versions,
)
from tests.pure.replies import CE, REQUESTS, STATUS, job

Parse = Callable[[Response], object]

PARSERS: dict[str, Parse] = {
    "versions": lambda response: parse_versions(response, CE),
    "listing": lambda response: parse_listing(response, CE),
    "answers": lambda response: parse_answers(STATUS, response, ["a", "b"], CE),
    "new jobs": lambda response: parse_new_jobs(response, 2, CE),
}
EACH = pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)

VALID = [
    json.dumps(document).encode()
    for document in (
        {"version": ["1.0", "1.1"]},
        {"job": [{"id": "a", "state": "FINISHED"}, {"id": "b", "state": "FAILED"}]},
        {"job": {"id": "a", "state": "FINISHED"}},
        {"job": [job("a", state="RUNNING"), job("b", "404", state="None")]},
        {"job": [{"status-code": "201", "reason": "Created", "id": "a", "state": "ACCEPTING"}]},
        {"job": [{"status-code": "500", "reason": "No more jobs allowed"}]},
    )
]

_leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_named = st.sampled_from(["job", "version", "id", "state", "status-code", "reason"]) | st.text()
json_values = st.recursive(
    _leaf | st.sampled_from(["a", "b", "200", "201", "FINISHED"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_named, inner, max_size=6),
    max_leaves=20,
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "job": json_values
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "id": json_values | st.sampled_from(["a", "b"]),
                    "state": json_values,
                    "status-code": json_values | st.sampled_from(["200", 201]),
                    "reason": json_values,
                    "info_document": json_values,
                },
            ),
            max_size=4,
        ),
        "version": json_values,
    },
)


def _attempt(parse: Parse, body: bytes) -> None:
    complaint = None
    try:
        parse(Response(201, "Created", body=body))
    except ProtocolError as error:
        complaint = error
    if complaint is not None:
        assert complaint.ce == CE
        assert complaint.operation
        assert body.startswith(complaint.excerpt)
        assert len(complaint.excerpt) == min(len(body), 200)
        assert len(str(complaint)) < 2000
        assert "\n" not in str(complaint)


@EACH
@given(body=st.binary(max_size=200))
def test_arbitrary_bytes(parse: Parse, body: bytes) -> None:
    _attempt(parse, body)


@EACH
@given(document=json_values | likely)
def test_arbitrary_json(parse: Parse, document: Any) -> None:
    _attempt(parse, json.dumps(document).encode())


@EACH
@given(valid=st.sampled_from(VALID), end=st.integers(0, 300))
def test_truncated_replies(parse: Parse, valid: bytes, end: int) -> None:
    _attempt(parse, valid[:end])


@EACH
@given(
    valid=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=3)), max_size=5),
)
def test_mutated_replies(parse: Parse, valid: bytes, changes: list[tuple[int, bytes]]) -> None:
    body = bytearray(valid)
    for position, piece in changes:
        body[position : position + 1] = piece
    _attempt(parse, bytes(body))


def _answer(more: str) -> bytes:
    return f'{{"job":[{{"id":"a","status-code":"200",{more}}}]}}'.encode()


HOSTILE = {
    "deep lists": b"[" * 200_000,
    "deep lists, closed": b'{"job":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"job":' * 100_000,
    "a huge integer": b'{"job":[{"id":"a","status-code":' + b"9" * 100_000 + b"}]}",
    "a huge exponent": b'{"job":[{"id":"a","status-code":1e999999}]}',
    "not a number": b'{"job":[{"id":"a","status-code":NaN,"state":Infinity}]}',
    "a lone surrogate": _answer(r'"reason":"\ud800","state":"\udfff"'),
    "a surrogate in an id": b'{"job":[{"id":"\\ud800","status-code":"200"}]}',
    "NUL in texts": _answer(r'"reason":"\u0000","state":"\u0000"'),
    "raw NUL": b"\0",
    "UTF-16": '{"job":[]}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + VALID[3],
    "invalid UTF-8": b'{"job":[{"id":"a","status-code":"200","reason":"\xff\xfe"}]}',
    "one key twice": b'{"job":[{"id":"a","status-code":"200"}],"job":7}',
}


@EACH
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies(parse: Parse, name: str) -> None:
    _attempt(parse, HOSTILE[name])


def test_texts_of_ten_megabytes_are_cut() -> None:
    long = "x" * 10**7
    body = json.dumps({"job": [job("a", state=long) | {"reason": long}]}).encode()
    response = Response(201, "Created", body=body)
    began = process_time()
    answer = parse_answers(STATUS, response, ["a"], CE).found["a"]
    assert len(answer.reason) <= 500
    assert len(answer.state or "") <= 100
    # Not read to the end either: nothing else runs meanwhile.
    assert process_time() - began < 1


def test_texts_of_a_reply_fit_into_one_log_line() -> None:
    body = HOSTILE["a lone surrogate"]
    answer = parse_answers(STATUS, Response(201, "Created", body=body), ["a"], CE).found["a"]
    assert answer.reason.isprintable()
    assert (answer.state or "").isprintable()


@given(
    request=st.sampled_from(list(REQUESTS.values())),
    status=st.integers(100, 999),
    reason=st.text(max_size=60)
    | st.sampled_from(["No more jobs allowed", "User can't be assigned configuration"]),
    body=st.binary(max_size=60) | st.sampled_from(VALID),
)
@example(REQUESTS[STATUS.operation], 500, "\ud800\x00", b"\xff")
def test_arbitrary_status_and_reason(
    request: Request, status: int, reason: str, body: bytes
) -> None:
    response = Response(status, reason, body=body)
    error = failure(request, response, CE)
    assert error is None or isinstance(error, InterCEdeError)
    if error is not None:
        assert len(str(error)) < 2000
        assert "\n" not in str(error)

"""Items of a job's control data, of which no more is read than asked."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from arcbackend import AuthenticationError, ProtocolError, TransportError
from arcbackend.items import Ending, ItemReader
from arcbackend.protocol.messages import Operation, Request, Response
from tests.pure.fake_session import FakeSession, answering, away, items_of, once, raising
from tests.pure.replies import NO_SCOPE

DIAGNOSE = Operation.DIAGNOSE
KiB = 1024


@pytest.fixture
def ce() -> FakeSession:
    return FakeSession()


@pytest.fixture
def items(ce: FakeSession) -> ItemReader:
    return items_of(ce)


@pytest.mark.parametrize(
    ("content", "most", "read"),
    [(b"", 10, b""), (b"abc", 10, b"abc"), (b"abc", 3, b"abc"), (b"abc" * KiB, 4, b"abca")],
)
async def test_the_beginning(
    ce: FakeSession, items: ItemReader, content: bytes, most: int, read: bytes
) -> None:
    ce.items["a", "local"] = content
    assert await items.beginning("a", "local", most) == read
    assert ce.count(DIAGNOSE) == 1


async def test_what_is_not_there(items: ItemReader) -> None:
    assert await items.beginning("a", "local", 10) is None
    assert await items.ending("a", "errors", 10) is None


@pytest.mark.parametrize(
    ("size", "most", "requests"),
    [
        (0, 10, 1),
        (10, 10, 1),
        (64 * KiB, 10, 1),
        (64 * KiB, 64 * KiB, 1),
        (64 * KiB + 1, 10, 2),
        (64 * KiB + 1, 64 * KiB, 2),
        (3_000_000, 8 * KiB, 2),
    ],
)
async def test_the_end(
    ce: FakeSession, items: ItemReader, size: int, most: int, requests: int
) -> None:
    content = bytes(position % 251 for position in range(size))
    ce.items["a", "errors"] = content
    assert await items.ending("a", "errors", most) == Ending(content[-most:], size)
    assert ce.count(DIAGNOSE) == requests


async def test_a_log_that_shrinks_in_between(ce: FakeSession, items: ItemReader) -> None:
    async def shrink(_request: Request) -> None:
        ce.items["a", "errors"] = b"new"

    ce.items["a", "errors"] = b"x" * 100_000
    ce.hooks[DIAGNOSE] = once(shrink, after=1)
    with pytest.raises(ProtocolError, match="HTTP 416 to a request for the end"):
        await items.ending("a", "errors", 10)


async def test_a_ce_that_gives_no_ranges(ce: FakeSession, items: ItemReader) -> None:
    ce.hooks[DIAGNOSE] = answering(Response(200, "OK", body=b"y" * 10))
    assert await items.ending("a", "errors", 4) == Ending(b"yyyy", 10)
    ce.hooks[DIAGNOSE] = answering(Response(200, "OK", body=b"y" * 1_000_000))
    with pytest.raises(ProtocolError, match="HTTP 200 to a request for the end"):
        await items.ending("a", "errors", 10)
    chunked = Response(200, "OK", {"content-length": ""}, b"y" * 1_000_000)
    ce.hooks[DIAGNOSE] = answering(chunked)
    with pytest.raises(ProtocolError, match="of no known length"):
        await items.ending("a", "errors", 10)


async def test_failures_are_told(ce: FakeSession, items: ItemReader) -> None:
    ce.hooks[DIAGNOSE] = answering(NO_SCOPE)
    for read in (items.beginning, items.ending):
        with pytest.raises(AuthenticationError):
            await read("a", "errors", 10)
    ce.hooks[DIAGNOSE] = raising(away)
    with pytest.raises(TransportError, match="read timeout"):
        await items.beginning("a", "errors", 10)


async def test_a_record_is_looked_for_more_than_once(
    autojump_clock: MockClock, ce: FakeSession, items: ItemReader
) -> None:
    assert await items.record("a") is None
    assert ce.count(DIAGNOSE) == 3
    ce.hooks[DIAGNOSE] = once(answering(Response(200, "OK", body=b" \n")))
    ce.items["a", "failed"] = b"why\xff"
    assert await items.record("a") == "why\ufffd"
    ce.hooks[DIAGNOSE] = once(answering(Response(500, "broken")))
    assert await items.record("a") == "why\ufffd"

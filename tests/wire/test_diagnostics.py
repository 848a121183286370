"""diagnostics against a CE that lies, stalls and never ends, over a real socket."""

from __future__ import annotations

import tracemalloc

import pytest
import trio

from arcbackend import ARCBackend, Diagnostics, JobID, JobStatus, TransportError
from tests.wire.fake_ce import LOG, FakeCE, Lie, file, raw
from tests.wire.helpers import Open
from tests.wire.http import Seen
from tests.wire.server import Peer

ERRORS = "/diagnose/errors"
PIECE = b"x" * 65_536


async def only(backend: ARCBackend) -> Diagnostics:
    (told,) = (await backend.diagnostics([JobID("job")])).values()
    return told


def holding(content: bytes) -> Lie:
    """Serve this as the item."""

    async def lie(peer: Peer, seen: Seen) -> bool:
        await peer.send(file(content, seen))
        return True

    return lie


async def endless(peer: Peer, _seen: Seen) -> bool:
    """Announce a terabyte, whatever range is asked for, and send on."""
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
    while True:
        await peer.send(PIECE)


async def silent(peer: Peer, _seen: Seen) -> bool:
    await peer.until_gone()
    raise trio.EndOfChannel


async def dripping(peer: Peer, _seen: Seen) -> bool:
    """A byte now and then."""
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        await peer.send(b"x")
        await trio.sleep(0.05)


async def test_a_short_log_is_one_request(opened: Open) -> None:
    ce = FakeCE({"job": {}})
    async with opened(ce) as (backend, _):
        told = await only(backend)
        assert (told.status, told.reason) == (JobStatus.DONE, None)
        assert (told.log, told.log_size) == (LOG.decode().strip(), len(LOG))
        assert sum(count for target, count in ce.asked.items() if target.endswith(ERRORS)) == 1


async def test_of_a_long_log_the_end_is_read(opened: Open) -> None:
    content = b"".join(b"line %d\n" % number for number in range(50_000))
    ce = FakeCE({"job": {}}, lies={ERRORS: holding(content)})
    async with opened(ce) as (backend, server):
        told = await only(backend)
        assert told.log_size == len(content)
        assert told.log is not None
        assert content.decode().endswith(f"\n{told.log}\n")
        assert 65_000 < len(told.log) <= 65_536
        ranges = [seen.headers["range"] for seen in server.requests if ERRORS in seen.target]
        assert ranges == ["bytes=0-65535", f"bytes={len(content) - 65_536}-"]


async def test_a_log_without_end_fills_no_memory(opened: Open) -> None:
    ce = FakeCE({"job": {}}, lies={ERRORS: endless})
    async with opened(ce) as (backend, _):
        await backend.describe([JobID("job")])  # what is set up once is not counted
        tracemalloc.start()
        try:
            with trio.fail_after(30):
                told = await only(backend)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert "HTTP 200 to a request for the end" in (told.reason or "")
        assert told.status is JobStatus.DONE
        assert peak < 8_000_000


async def test_cancelled_in_the_middle_it_leaves_nothing(opened: Open) -> None:
    ce = FakeCE({"job": {}}, lies={ERRORS: silent})
    async with opened(ce) as (backend, _):
        with trio.move_on_after(0.3) as scope:
            await only(backend)
        assert scope.cancelled_caught
        ce.lies.clear()
        assert (await only(backend)).reason is None


@pytest.mark.parametrize("lie", [silent, dripping])
async def test_an_item_that_does_not_come_is_given_up(opened: Open, lie: Lie) -> None:
    ce = FakeCE({"job": {}, "other": {}}, lies={f"job{ERRORS}": lie})
    async with opened(ce, timeouts={"read": 0.5}) as (backend, _):
        ids = [JobID("job"), JobID("other")]
        first, second = (await backend.diagnostics(ids)).values()
        assert "0.5 s" in (first.reason or "")
        assert (second.reason, second.log) == (None, LOG.decode().strip())
        with pytest.raises(TransportError, match=r"0\.5 s"):
            await only(backend)


async def test_a_connection_that_breaks_is_that_job_s_reason(opened: Open) -> None:
    broken = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    ce = FakeCE({"job": {}, "other": {}}, lies={f"job{ERRORS}": broken})
    async with opened(ce) as (backend, _):
        ids = [JobID("job"), JobID("other")]
        first, second = (await backend.diagnostics(ids)).values()
        assert first.reason
        assert second.reason is None

"""tail against a CE that lies, stalls and breaks off, and files that change meanwhile."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from arcbackend import (
    AuthenticationError,
    ConfigurationError,
    FileTail,
    JobHandle,
    JobID,
    ProtocolError,
    TransportError,
)
from tests.wire.fake_ce import JOBS, FakeCE, Lie, Tree, file, once, raw
from tests.wire.helpers import Open
from tests.wire.http import Seen, answer
from tests.wire.server import Peer

FILE = f"{JOBS}/job/session/f"
LINES = b"".join(b"line %d\n" % number for number in range(1000))
BOTH = pytest.mark.parametrize("sizes", [False, True], ids=["JSON", "XML"])
JOB = JobID("job")


def of_file(lie: Callable[[Peer, Seen], Awaitable[bool]]) -> Lie:
    """Lie about a download only, not about the size before it."""

    async def guarded(peer: Peer, seen: Seen) -> bool:
        return seen.method == "GET" and await lie(peer, seen)

    return guarded


def ranges(ce: FakeCE, answered: bytes) -> tuple[Lie, list[str]]:
    """A lie that answers the same to each download, and the ranges asked for."""
    asked: list[str] = []

    async def lie(peer: Peer, seen: Seen) -> bool:
        asked.append(seen.headers.get("range", ""))
        await peer.send(answered)
        return True

    return of_file(lie), asked


# what is there


@BOTH
@pytest.mark.parametrize("most", [1, 7, len(LINES) - 1, len(LINES), len(LINES) + 1, 10**6])
async def test_the_end_of_a_file(opened: Open, sizes: bool, most: int) -> None:
    ce = FakeCE({"job": {b"f": LINES}}, sizes=sizes)
    async with opened(ce) as (backend, server):
        tail = await backend.tail(JOB, "f", most)
        end = LINES[-most:]
        offset = len(LINES) - len(end)
        assert tail == FileTail(name="f", data=end, offset=offset, size=len(LINES))
        assert tail.text == end.decode()
        downloads = [seen for seen in server.requests if seen.target == FILE]
        assert [seen.method for seen in downloads] == (["GET"] if sizes else ["HEAD", "GET"])
        assert downloads[-1].headers["range"] == f"bytes={offset}-{len(LINES) - 1}"
        assert await backend.tail(JOB, "f", bytes=most) == tail
        assert server.accepted == 2  # that without credentials, and one that served everything


@BOTH
async def test_an_empty_file_is_there(opened: Open, sizes: bool) -> None:
    async with opened(FakeCE({"job": {b"f": b""}}, sizes=sizes)) as (backend, _):
        tail = await backend.tail(JOB, "f")
        assert tail == FileTail(name="f", data=b"", offset=0, size=0)
        assert tail.text == ""


@BOTH
async def test_names_are_bytes(opened: Open, sizes: bool) -> None:
    names = [b"\xc3\xa9", b"\xff", b"a b", b"new\nline", b"a?b;c#%2f", b"-x"]
    tree: Tree = {b"d \xfe": {name: name for name in names}, b"f": b"x"}
    async with opened(FakeCE({"job": tree}, sizes=sizes)) as (backend, _):
        for name in names:
            tail = await backend.tail(JOB, os.fsdecode(b"d \xfe/" + name))
            assert (tail.data, tail.reason) == (name, None)
            assert tail.name is not None
            assert tail.name.isprintable()
            assert FileTail.model_validate_json(tail.model_dump_json()) == tail


async def test_text_is_for_people(opened: Open) -> None:
    content = "xé".encode() + b"\xff\n"
    async with opened(FakeCE({"job": {b"f": content}})) as (backend, _):
        tail = await backend.tail(JOB, "f", 3)
        assert tail.data == content[-3:]
        assert tail.text == "\\xa9\\xff\n"


async def test_stdout_by_default(opened: Open) -> None:
    """From the handle if it names one, else from the CE."""
    ce = FakeCE({"job": {b"stdout": b"documented", b"l": {b"out": b"handled"}}})
    async with opened(ce) as (backend, server):
        id_ = JobID(f"{server.endpoint}/arex/rest/1.0/jobs/job")
        handle = JobHandle(id=id_, copy_index=0, name="n", stdout="./l//out", stderr="err")
        assert (await backend.tail(handle)).data == b"handled"
        assert not ce.asked[f"{JOBS}?action=info"]
        found = handle.model_copy(update={"stdout": None, "stderr": None})
        for job in (id_, JOB, found):  # a handle without any is from `find`, which knows none
            tail = await backend.tail(job)
            assert (tail.name, tail.data) == ("stdout", b"documented")
        none = handle.model_copy(update={"stdout": None})
        assert await backend.tail(none) == FileTail(reason="the job discards its standard output")


async def test_stdout_of_a_job_without_a_document(opened: Open) -> None:
    ce = FakeCE({"job": {b"o": b"1"}})
    blank = {"id": "job", "status-code": "200", "reason": "OK", "info_document": {}}
    ce.lies["?action=info"] = raw(answer(body=json.dumps({"job": [blank]}).encode()))
    description = b"<A><Application><Output>%b</Output></Application></A>"
    async with opened(ce) as (backend, _):
        ce.lies["diagnose/description"] = raw(answer(body=description % b"o"))
        assert (await backend.tail(JOB)).data == b"1"
        ce.lies["diagnose/description"] = raw(answer(body=description % b"../o"))
        tail = await backend.tail(JOB)
        assert (tail.name, tail.reason) == (
            "../o",
            "a name that leads out of the session directory",
        )
        ce.lies["diagnose/description"] = raw(answer(404))
        assert (await backend.tail(JOB)).reason == "the CE does not tell which file is stdout"


# what is not


async def test_an_unknown_job(opened: Open) -> None:
    async with opened(FakeCE({"job": {}})) as (backend, _):
        for name in (None, "f", "d/f"):
            tail = await backend.tail(JobID("nosuch"), name)
            assert "knows no such job" in (tail.reason or "")
            assert (tail.name, tail.data, tail.size) == (name, b"", None)


@BOTH
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("link", "no regular one"),
        ("d", "it is a directory"),
        ("d/e", "it is a directory"),
        ("linkdir/passwd", "linkdir is no directory, or a link to one"),
        ("d/linkdir/passwd", "d/linkdir is no directory"),
        ("f/x", "f is no directory"),
        ("nosuch", "no such file (yet)"),
        ("", "an empty name"),
        ("/etc/passwd", "an empty name"),
        ("d/", "an empty name"),
        ("d//g", "an empty name"),
        ("../f", "stands for another directory"),
        ("d/../f", "stands for another directory"),
        ("./f", "stands for another directory"),
        ("a\0b", "a NUL"),
        ("\ud800", "stands for no bytes"),
        ("x" * 256, "a name of 256 bytes"),
        ("/".join(["d"] * 40), "limits.max_depth"),
        ("/".join(["x" * 200] * 30), "a path of"),
        ("%" * 255 + "/" + "f" * 10, "is no directory"),
    ],
)
async def test_only_what_is_listed_is_asked_for(
    opened: Open, sizes: bool, name: str, reason: str
) -> None:
    ce = FakeCE({"job": {b"f": b"x", b"d": {b"g": b"y", b"e": {}}}}, sizes=sizes)
    for hidden in ("link", "linkdir", "linkdir/passwd"):
        ce.lies[hidden] = raw(answer(body=b"root:x:0:0"))
    async with opened(ce) as (backend, server):
        tail = await backend.tail(JOB, name)
        assert reason in (tail.reason or "")
        assert (tail.data, tail.size) == (b"", None)
        assert tail.name is not None
        assert tail.name.isprintable()
        assert len(tail.name) <= 300
        listed = {f"{JOBS}/job/session/{path}" for path in ("", "d", "d/e")}
        assert {seen.target for seen in server.requests} <= {"/arex/rest", *listed}


async def test_a_path_longer_than_arex_reads(opened: Open) -> None:
    deep: Tree = {b"f": b"x"}
    for _ in range(7):
        deep = {b"%" * 200: deep}
    async with opened(FakeCE({"job": deep})) as (backend, _):
        tail = await backend.tail(JOB, "/".join(["%" * 200] * 7 + ["f"]))
        assert tail.reason == "its path is longer than A-REX reads"


@BOTH
async def test_a_file_that_the_ce_cannot_read(opened: Open, sizes: bool) -> None:
    ce = FakeCE({"job": {b"f": b"xyz", b"d": {b"f": b"x"}}}, sizes=sizes)
    ce.lies["session/f"] = raw(answer(404, reason="Not found"))
    ce.lies["session/d"] = raw(answer(404, reason="Not found"))
    async with opened(ce) as (backend, _):
        assert "HTTP 404" in ((await backend.tail(JOB, "f")).reason or "")
        assert "cannot read d (HTTP 404)" in ((await backend.tail(JOB, "d/f")).reason or "")


async def test_a_directory_of_too_many_entries(opened: Open) -> None:
    ce = FakeCE({"job": {}})
    names = [f"n{number}" for number in range(20_000)]
    ce.lies["job/session/"] = raw(answer(body=json.dumps({"file": names, "dir": []}).encode()))
    async with opened(ce, limits={"max_files": 10}) as (backend, _):
        assert "far more than 10 entries" in ((await backend.tail(JOB, "f")).reason or "")


@pytest.mark.parametrize("most", [0, -1, 2**20 + 1])
async def test_how_much_may_be_asked(opened: Open, most: int) -> None:
    ce = FakeCE({"job": {b"f": b"x"}})
    async with opened(ce, limits={"max_answer_bytes": 2**20}) as (backend, server):
        with pytest.raises(ConfigurationError, match="bytes"):
            await backend.tail(JOB, "f", most)
        assert not server.requests
        assert (await backend.tail(JOB, "f", 2**20)).data == b"x"


async def test_ids_of_other_ces_are_refused(opened: Open) -> None:
    async with opened(FakeCE()) as (backend, server):
        with pytest.raises(ConfigurationError, match="another CE"):
            await backend.tail(JobID("https://other.example.org:443/arex/rest/1.0/jobs/a"), "f")
        assert not server.requests


# what changes meanwhile


@BOTH
async def test_a_file_that_grows(opened: Open, sizes: bool) -> None:
    """What is told is its end as it was when it was looked at."""
    ce = FakeCE({"job": {b"f": LINES}}, sizes=sizes)

    async def grow(_peer: Peer, _seen: Seen) -> bool:
        ce.jobs["job"][b"f"] = LINES + b"more\n" * 10_000
        return False

    ce.lies["session/f"] = of_file(grow)
    async with opened(ce) as (backend, _):
        for most in (10, 10**6):
            ce.jobs["job"][b"f"] = LINES
            tail = await backend.tail(JOB, "f", most)
            assert tail.data == LINES[-most:]
            assert tail.size == len(LINES)
        assert (await backend.tail(JOB, "f", 5)).data == b"more\n"


@BOTH
@pytest.mark.parametrize("left", [0, 1, 3, 500, len(LINES) - 5])
async def test_a_file_that_shrinks(opened: Open, sizes: bool, left: int) -> None:
    ce = FakeCE({"job": {b"f": LINES}}, sizes=sizes)

    async def shrink(_peer: Peer, _seen: Seen) -> bool:
        ce.jobs["job"][b"f"] = LINES[:left]
        return False

    ce.lies["session/f"] = of_file(shrink)
    async with opened(ce) as (backend, _):
        tail = await backend.tail(JOB, "f", 10)
        assert tail.data == LINES[:left][-10:]
        assert (tail.size, tail.reason) == (left, None)


@BOTH
async def test_a_file_that_shrinks_all_the_time(opened: Open, sizes: bool) -> None:
    ce = FakeCE({"job": {b"f": LINES}}, sizes=sizes)

    async def halve(_peer: Peer, _seen: Seen) -> bool:
        content = ce.jobs["job"][b"f"]
        assert isinstance(content, bytes)
        ce.jobs["job"][b"f"] = content[: len(content) // 2]
        return False

    ce.lies["session/f"] = of_file(halve)
    async with opened(ce) as (backend, _):
        with trio.fail_after(10):
            tail = await backend.tail(JOB, "f", 10)
        assert tail.reason == "it is shorter each time it is looked at"
        ce.jobs["job"][b"f"] = LINES
        tail = await backend.tail(JOB, "f", len(LINES))  # of which there is something each time
        assert tail.size is not None
        assert tail.data == LINES[: tail.size]


@BOTH
async def test_a_file_that_goes(opened: Open, sizes: bool) -> None:
    ce = FakeCE({"job": {b"f": LINES}}, sizes=sizes)

    async def remove(_peer: Peer, _seen: Seen) -> bool:
        ce.jobs["job"].pop(b"f", None)
        return False

    ce.lies["session/f"] = of_file(remove)
    async with opened(ce) as (backend, _):
        assert "it is gone" in ((await backend.tail(JOB, "f")).reason or "")
        assert "no such file" in ((await backend.tail(JOB, "f")).reason or "")


# lies


async def test_a_range_that_is_ignored(opened: Open) -> None:
    ce = FakeCE({"job": {b"f": LINES}})
    ce.lies["session/f"], asked = ranges(ce, answer(body=LINES))
    async with opened(ce) as (backend, _):
        tail = await backend.tail(JOB, "f", 9)
        assert tail == FileTail(
            name="f", data=b"line 999\n", offset=len(LINES) - 9, size=len(LINES)
        )
        assert asked == [f"bytes={len(LINES) - 9}-{len(LINES) - 1}"]


async def test_a_range_that_is_ignored_of_five_gigabytes(opened: Open) -> None:
    """Neither read nor kept."""
    ce = FakeCE({"job": {b"f": LINES}})
    sent = 0

    async def pour(peer: Peer) -> None:
        nonlocal sent
        while True:
            await peer.send(b"x" * 65536)
            sent += 65536

    ce.lies["session/f"] = of_file(
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5368709120\r\n\r\n", then=pour)
    )
    async with opened(ce) as (backend, _):
        with trio.fail_after(20), pytest.raises(ProtocolError, match="ignores ranges"):
            await backend.tail(JOB, "f", 100)
    assert sent < 8 * 2**20  # what is on the wire when the connection is closed


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 8790-8889/8890\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["200", "206"],
)
async def test_a_body_without_end(opened: Open, head: bytes) -> None:
    ce = FakeCE({"job": {b"f": LINES}})

    async def pour(peer: Peer) -> None:
        while True:
            await peer.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    ce.lies["session/f"] = of_file(raw(head, then=pour))
    async with opened(ce) as (backend, _):
        tracemalloc.start()
        try:
            with trio.fail_after(30), pytest.raises(ProtocolError):
                await backend.tail(JOB, "f", 100)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize(
    "answered",
    [
        answer(206, b"x" * 10),
        answer(206, b"x" * 10, Content_Range="bytes 0-9/8890"),
        answer(206, b"x" * 9, Content_Range="bytes 8880-8888/8890"),
        answer(206, b"x" * 11, Content_Range="bytes 8880-8890/8891"),
        answer(206, b"x" * 9, Content_Range="bytes 8880-8889/8890"),
        answer(206, b"x" * 11, Content_Range="bytes 8880-8889/8890"),
        answer(206, b"x" * 10, Content_Range="bytes 8880-8889/7"),
        answer(206, b"x" * 10, Content_Range="bytes */8890"),
        answer(204),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it",
    ],
)
async def test_no_sense(opened: Open, answered: bytes) -> None:
    assert len(LINES) == 8890
    ce = FakeCE({"job": {b"f": LINES}})
    ce.lies["session/f"] = of_file(raw(answered))
    async with opened(ce) as (backend, _):
        with trio.fail_after(10), pytest.raises(ProtocolError) as caught:
            await backend.tail(JOB, "f", 10)
        assert caught.value.operation == "session.get"
        assert caught.value.ce == backend.config.endpoint


@pytest.mark.parametrize(
    "answered", [answer(204), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
async def test_a_size_that_is_not_told(opened: Open, answered: bytes) -> None:
    ce = FakeCE({"job": {b"f": LINES}})
    ce.lies["session/f"] = raw(answered)
    async with opened(ce) as (backend, _):
        with trio.fail_after(10), pytest.raises(ProtocolError):
            await backend.tail(JOB, "f")


@BOTH
async def test_a_listing_that_is_none(opened: Open, sizes: bool) -> None:
    ce = FakeCE({"job": {}}, sizes=sizes)
    ce.lies["job/session/"] = raw(answer(body=b"<html>"))
    async with opened(ce) as (backend, _):
        with pytest.raises(ProtocolError, match="not JSON"):
            await backend.tail(JOB, "f")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_silence(opened: Open, method: str) -> None:
    """As of a FIFO that has taken the place of a listed file."""
    ce = FakeCE({"job": {b"f": LINES}})

    async def hang(peer: Peer, seen: Seen) -> bool:
        if seen.method == method:
            await peer.until_gone()
            raise trio.EndOfChannel
        return False

    ce.lies["session/f"] = hang
    settings: dict[str, Any] = {"limits": {"stall_timeout": 0.05}}
    async with opened(ce, **settings) as (backend, server):
        with trio.fail_after(10), pytest.raises(TransportError, match=r"nothing for 0\.05 s"):
            await backend.tail(JOB, "f")
        assert sum(seen.method == method for seen in server.requests if seen.target == FILE) == 3


async def test_a_drip_ends_with_the_transfer_timeout(opened: Open) -> None:
    ce = FakeCE({"job": {b"f": LINES}})

    async def drip(peer: Peer) -> None:
        while True:
            await peer.send(b"x")
            await trio.sleep(0.01)

    head = b"HTTP/1.1 206 P\r\nContent-Range: bytes 4794-8889/8890\r\nContent-Length: 4096\r\n\r\n"
    ce.lies["session/f"] = of_file(raw(head, then=drip))
    async with opened(ce, limits={"transfer_timeout": 0.3}) as (backend, _):
        with trio.fail_after(10), pytest.raises(TransportError, match="transfer_timeout"):
            await backend.tail(JOB, "f")


@BOTH
async def test_a_connection_that_breaks_is_tried_again(opened: Open, sizes: bool) -> None:
    ce = FakeCE({"job": {b"f": LINES}}, sizes=sizes)
    seen = Seen("GET", "", {"range": "bytes=8880-8889"})
    broken = raw(file(LINES, seen)[:-4])
    async with opened(ce) as (backend, _):
        ce.lies["session/f"] = of_file(once(broken))
        assert (await backend.tail(JOB, "f", 10)).data == LINES[-10:]
        ce.lies["session/f"] = of_file(broken)
        asked = ce.asked[FILE]
        with pytest.raises(TransportError, match="in the middle of the answer"):
            await backend.tail(JOB, "f", 10)
        assert ce.asked[FILE] - asked == (3 if sizes else 6)


async def test_credentials_that_are_refused(opened: Open) -> None:
    ce = FakeCE({"job": {b"f": LINES}})
    ce.lies["session/f"] = of_file(raw(answer(500, reason="User can't be assigned configuration")))
    async with opened(ce) as (backend, _):
        with pytest.raises(AuthenticationError):
            await backend.tail(JOB, "f")


@pytest.mark.parametrize("number", range(1, 6))
async def test_cancelled_at_any_request(opened: Open, number: int) -> None:
    """Nothing is left (the fixture looks), and the next call works."""
    ce = FakeCE({"job": {b"d": {b"f": LINES}}})
    scope = trio.CancelScope()

    async def cut(_peer: Peer, _seen: Seen) -> bool:
        if sum(ce.asked.values()) == number:
            scope.cancel()
        return False

    ce.lies[""] = cut
    async with opened(ce) as (backend, _):
        with scope:
            await backend.tail(JOB, "d/f")
        assert scope.cancelled_caught
        assert sum(ce.asked.values()) == number
        assert (await backend.tail(JOB, "d/f", 9)).data == b"line 999\n"


async def test_cancelled_in_the_middle_of_a_body(opened: Open) -> None:
    ce = FakeCE({"job": {b"f": LINES}})
    scope = trio.CancelScope()

    async def cut(peer: Peer) -> None:
        scope.cancel()
        await peer.until_gone()

    head = b"HTTP/1.1 206 P\r\nContent-Range: bytes 4794-8889/8890\r\nContent-Length: 4096\r\n\r\nx"
    ce.lies["session/f"] = of_file(once(raw(head, then=cut)))
    async with opened(ce) as (backend, _):
        with scope:
            await backend.tail(JOB, "f")
        assert scope.cancelled_caught
        assert (await backend.tail(JOB, "f", 9)).data == b"line 999\n"

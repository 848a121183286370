"""fetch_output against a CE that lies, stalls and breaks off, as no real one can be made to."""

from __future__ import annotations

import json
import os
import tempfile
import tracemalloc
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arcbackend import (
    ARCBackend,
    AuthenticationError,
    ConfigurationError,
    JobHandle,
    JobID,
    JobOutput,
    ProtocolError,
    TransportError,
)
from tests.wire.fake_ce import JOBS, LOG, FakeCE, Tree, file, once, raw
from tests.wire.helpers import Open, Serve, assert_at_rest, reasons, tree
from tests.wire.http import Seen, answer
from tests.wire.server import Peer

pytestmark = pytest.mark.usefixtures("however_bodies_arrive")

BIG = bytes(range(256)) * 8192  # 2 MiB: several pieces


async def fetch(backend: ARCBackend, dest: Path, *jobs: str) -> list[JobOutput]:
    return list((await backend.fetch_output([JobID(job) for job in jobs], dest)).values())


async def only(backend: ARCBackend, dest: Path) -> JobOutput:
    (output,) = await fetch(backend, dest, "job")
    return output


@pytest.mark.parametrize("sizes", [False, True], ids=["JSON", "XML"])
async def test_everything_arrives(opened: Open, tmp_path: Path, sizes: bool) -> None:
    left: Tree = {b"stdout": b"o", b"stderr": b"", b"d": {b"f": BIG, b"e": {}}, b"a b": b"x"}
    ce = FakeCE({"job": left}, sizes=sizes)
    async with opened(ce) as (backend, _):
        first = await only(backend, tmp_path)
        assert (first.complete, first.reason) == (True, None)
        folder = tmp_path / "job"
        assert first.directory == folder
        assert (first.stdout, first.stderr) == (folder / "stdout", folder / "stderr")
        assert first.log == folder / "ce.log"
        assert first.files == (folder / "a b", folder / "d" / "f")
        assert first.size == len(BIG) + 2 + len(LOG)
        expected = {"stdout": b"o", "stderr": b"", "d/f": BIG, "a b": b"x", "ce.log": LOG}
        assert tree(folder) == expected
        assert ce.asked[f"{JOBS}/job/session/stderr"] == (0 if sizes else 1)  # empty, as listed
        assert await only(backend, tmp_path) == first
        assert tree(folder) == expected
        assert JobOutput.model_validate_json(first.model_dump_json()) == first


async def test_each_job_has_its_entry(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"a": {b"stdout": b"o"}, "b": {}, "c": {b"f": b"1"}}, {"c": "FINISHING"})
    async with opened(ce) as (backend, server):
        ids = [JobID(name) for name in ("b", "nosuch", "a", "c", "a")]
        outputs = await backend.fetch_output(ids, tmp_path)
        prefix = f"{server.endpoint}/arex/rest/1.0/jobs/"
        assert [id_.removeprefix(prefix) for id_ in outputs] == ["b", "nosuch", "a", "c"]
        b, nosuch, a, c = outputs.values()
        assert (a.complete, b.complete) == (True, True)
        assert (b.stdout, b.files, b.log) == (None, (), tmp_path / "b" / "ce.log")
        assert nosuch == JobOutput(reason=nosuch.reason)
        assert "knows no such job" in (nosuch.reason or "")
        assert not (tmp_path / "nosuch").exists()
        assert c.files == (tmp_path / "c" / "f",)
        assert c.complete is False
        assert c.reason == "the job was not over: its output may be incomplete"
        assert await backend.fetch_output([], tmp_path / "never") == {}
        assert not (tmp_path / "never").exists()


async def test_one_or_many_cost_few_requests(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({f"j{number}": {b"stdout": b"o"} for number in range(20)}, {"j3": "FINISHING"})
    async with opened(ce) as (backend, _):
        one, running = await fetch(backend, tmp_path, "j1", "j3")
        assert (one.complete, running.complete) == (True, False)
        assert not [target for target in ce.asked if "?state=" in target]
        ce.asked.clear()
        outputs = await fetch(backend, tmp_path, *ce.jobs)
        assert [output.complete for output in outputs] == [number != 3 for number in range(20)]
        assert sum(count for target, count in ce.asked.items() if "?state=" in target) == 1
        assert not [target for target in ce.asked if "diagnose/status" in target]


@pytest.mark.parametrize(
    ("stdout", "stderr", "files"),
    [
        ("l/out", "ce.log", ["ce.1.log", "stdout"]),
        ("./l//out", "l/out", ["ce.1.log", "ce.log", "stdout"]),
        ("ce.1.log", None, ["ce.log", "l/out", "stdout"]),
        ("missing", "l/out", ["ce.1.log", "ce.log", "stdout"]),
    ],
)
async def test_streams_are_never_files(
    opened: Open, tmp_path: Path, stdout: str, stderr: str | None, files: list[str]
) -> None:
    """Whatever they are called; what only looks like one is the payload's."""
    left: Tree = {b"stdout": b"1", b"ce.log": b"2", b"ce.1.log": b"3", b"l": {b"out": b"4"}}
    async with opened(FakeCE({"job": left})) as (backend, server):
        id_ = JobID(f"{server.endpoint}/arex/rest/1.0/jobs/job")
        handle = JobHandle(id=id_, copy_index=0, name="n", stdout=stdout, stderr=stderr)
        (output,) = (await backend.fetch_output([handle], tmp_path)).values()
        folder = tmp_path / "job"
        assert output.complete
        assert output.stdout == (
            None if stdout == "missing" else folder / stdout.replace("//", "/")
        )
        assert output.stderr == (folder / stderr if stderr else None)
        assert output.log == folder / "ce.2.log"
        assert output.log.read_bytes() == LOG
        assert output.files == tuple(folder / name for name in files)


async def test_a_bare_id_before_the_information_provider_ran(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"job": {b"o": b"1", b"stdout": b"2"}})
    blank = {"id": "job", "status-code": "200", "reason": "OK", "info_document": {}}
    ce.lies["?action=info"] = raw(answer(body=json.dumps({"job": [blank]}).encode()))
    description = b"<A><Application><Output>o</Output></Application></A>"
    ce.lies["diagnose/description"] = raw(answer(body=description))
    async with opened(ce) as (backend, _):
        output = await only(backend, tmp_path)
        assert output.complete
        assert (output.stdout, output.stderr) == (tmp_path / "job" / "o", None)
        assert output.files == (tmp_path / "job" / "stdout",)
        ce.lies["diagnose/description"] = raw(answer(404))
        output = await only(backend, tmp_path)
        assert len(output.files) == 2
        assert "does not tell which" in (output.reason or "")


async def test_hostile_listings(opened: Open, tmp_path: Path) -> None:
    bad = ["../../x", "..", ".", "", "/etc/passwd", "a/b", "nul\0", "x" * 256, "€", "\ud800"]
    good = ["twice", "both", "ok", "new\nline", "..foo", "\xff"]
    document = {"file": [*bad, "twice", *good], "dir": ["../up", "..", "both", "empty"]}
    content: Tree = {b"empty": {}}
    content |= {name.encode("latin-1"): b"c" for name in good}
    ce = FakeCE({"job": content})
    ce.lies["job/session/"] = raw(answer(body=json.dumps(document).encode()))
    async with opened(ce) as (backend, _):
        output = await only(backend, tmp_path / "dest")
        folder = tmp_path / "dest" / "job"
        assert tree(folder) == dict.fromkeys(good, b"c") | {"ce.log": LOG}
        names = sorted(name.encode("latin-1") for name in good)
        assert output.files == tuple(folder / os.fsdecode(name) for name in names)
        assert os.listdir(tmp_path) == ["dest"]
        assert os.listdir(tmp_path / "dest") == ["job"]
        shown = {"nul\0": "nul\\x00", "\ud800": "\\ud800"}
        assert set(reasons(output)) == {*(shown.get(name, name) for name in bad), "../up"}
        assert not output.complete
        assert output.model_dump_json()
        assert not any(".." in target for target in ce.asked if "..foo" not in target)


async def test_links_planted_before_and_meanwhile(opened: Open, tmp_path: Path) -> None:
    outside, dest = tmp_path / "outside", tmp_path / "dest"
    outside.mkdir()
    (outside / "f").write_bytes(b"untouched")
    ce = FakeCE({name: {b"d": {b"f": b"evil"}, b"f": b"evil"} for name in ("one", "two", "three")})

    async def plant(_peer: Peer, _seen: Seen) -> bool:
        (dest / "two").mkdir(exist_ok=True)
        (dest / "two" / "d").symlink_to(outside)
        return False

    ce.lies["two/session/d/f"] = once(plant)
    (dest / "three").mkdir(parents=True)
    (dest / "three" / "f").symlink_to(outside / "f")
    (dest / "one").symlink_to(outside)
    async with opened(ce) as (backend, _):
        one, two, three = await fetch(backend, dest, "one", "two", "three")
        assert one.directory is None
        assert len(one.refused) == 3
        assert all("no directory" in reason for reason in reasons(one).values())
        assert (two.files, list(reasons(two))) == ((dest / "two" / "f",), ["d/f"])
        assert three.complete
        assert (dest / "three" / "f").read_bytes() == b"evil"
        assert tree(outside) == {"f": b"untouched"}


@pytest.mark.parametrize("sizes", [False, True], ids=["JSON", "XML"])
async def test_limits_are_told_before_the_download(
    opened: Open, tmp_path: Path, sizes: bool
) -> None:
    ce = FakeCE({"job": {b"big": bytes(5000), b"fits": bytes(900), b"stdout": b"out"}}, sizes=sizes)
    sent = 0

    async def endless(peer: Peer, _seen: Seen) -> bool:
        nonlocal sent
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n")
        while True:
            await peer.send(bytes(65536))
            sent += 65536

    ce.lies["/big"] = endless
    async with opened(ce, limits={"max_file_bytes": 1000}) as (backend, _):
        output = await only(backend, tmp_path)
        assert list(reasons(output)) == ["big"]
        assert "limits.max_file_bytes = 1000" in reasons(output)["big"]
        assert output.files == (tmp_path / "job" / "fits",)
        assert output.stdout is not None
        assert sent < 20_000_000  # what the buffers took
        assert ce.asked[f"{JOBS}/job/session/big"] == (0 if sizes else 1)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_file_bytes": 3_000_000}, "limits.max_file_bytes = 3000000"),
        ({"max_total_bytes": 3_000_000}, "limits.max_total_bytes = 3000000 is reached for the job"),
    ],
)
async def test_limits_are_enforced_midway(
    opened: Open, tmp_path: Path, limits: dict[str, int], told: str
) -> None:
    """Nobody announced anything: an endless body in chunks."""
    ce = FakeCE({"job": {b"endless": b"", b"small": b"s"}, "other": {b"small": b"s"}})

    async def chunks(peer: Peer, _seen: Seen) -> bool:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"10000\r\n" + bytes(65536) + b"\r\n")

    ce.lies["/endless"] = chunks
    async with opened(ce, limits=limits) as (backend, _):
        output, other = await fetch(backend, tmp_path, "job", "other")
        assert list(reasons(output)) == ["endless"]
        assert told in reasons(output)["endless"]
        assert output.files == (tmp_path / "job" / "small",)
        assert other.complete
        assert sorted(tree(tmp_path / "job")) == ["ce.log", "small"]


async def test_the_total_of_the_call(opened: Open, tmp_path: Path) -> None:
    jobs: dict[str, Tree] = {
        f"j{number}": {b"f%d" % index: bytes(300) for index in range(2)} for number in range(4)
    }
    limits = {"max_total_bytes": 1500}
    async with opened(FakeCE(jobs), limits=limits, concurrency=1) as (backend, _):
        outputs = await fetch(backend, tmp_path, *jobs)
        assert 1200 < sum(output.size for output in outputs) <= 1500
        assert sum(len(content) for content in tree(tmp_path).values()) <= 1500
        whys = {why for output in outputs for why in reasons(output).values()}
        assert whys
        assert all("limits.max_total_bytes = 1500 for the call" in why for why in whys)


async def test_too_many_and_too_deep(opened: Open, tmp_path: Path) -> None:
    deep: Tree = {b"f": b"x"}
    for _ in range(5):
        deep = {b"d": deep}
    many: Tree = {b"%d" % index: b"x" for index in range(50)}
    many[b"stdout"] = b"o"
    ce = FakeCE({"deep": deep, "many": many})
    async with opened(ce, limits={"max_files": 10, "max_depth": 3}) as (backend, _):
        deeper, more = await fetch(backend, tmp_path, "deep", "many")
        assert reasons(deeper) == {"d/d/d/d/d": "deeper than limits.max_depth = 3 directories"}
        assert reasons(more) == {".": "41 of its entries: limits.max_files = 10"}
        assert more.stdout is not None  # taken first
        assert len(more.files) == 9


async def test_an_endless_tree(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"job": {}})

    async def deeper(peer: Peer, _seen: Seen) -> bool:
        await peer.send(answer(body=b'{"file":[],"dir":["a","b","c"]}'))
        return True

    ce.lies = dict.fromkeys(("session/", "/a", "/b", "/c"), deeper)
    async with opened(ce, limits={"max_files": 200}) as (backend, _):
        output = await only(backend, tmp_path)
        assert not output.complete
        assert ce.asked.total() < 500


# transfers that break


async def interrupted(peer: Peer, seen: Seen) -> bool:
    """Half of what is asked for, then the end."""
    head, _, body = file(BIG, seen).partition(b"\r\n\r\n")
    await peer.send(head + b"\r\n\r\n" + body[: len(body) // 2])
    raise trio.EndOfChannel


async def test_a_broken_transfer_goes_on_where_it_stopped(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"job": {b"big": BIG}})
    ranges: list[str | None] = []

    async def lie(peer: Peer, seen: Seen) -> bool:
        ranges.append(seen.headers.get("range"))
        return len(ranges) <= 2 and await interrupted(peer, seen)

    ce.lies["/big"] = lie
    async with opened(ce) as (backend, _):
        output = await only(backend, tmp_path)
        assert output.complete
        assert tree(tmp_path / "job")["big"] == BIG
        assert ranges[0] is None
        first, second = (int((value or "")[6:-1]) for value in ranges[1:])
        assert 0 < first < second < len(BIG)


async def test_each_attempt_brings_a_transfer_on(opened: Open, tmp_path: Path) -> None:
    """Though each breaks before as much has come as is written at once."""
    ce = FakeCE({"job": {b"big": BIG}})

    async def little(peer: Peer, seen: Seen) -> bool:
        head, _, body = file(BIG, seen).partition(b"\r\n\r\n")
        await peer.send(head + b"\r\n\r\n" + body[:300_000])
        raise trio.EndOfChannel

    ce.lies["/big"] = little
    retries = {"attempts": 8, "backoff": 0.001, "backoff_max": 0.01}
    async with opened(ce, retries=retries) as (backend, _):
        output = await only(backend, tmp_path)
        assert output.complete
        assert tree(tmp_path / "job")["big"] == BIG
        assert ce.asked[f"{JOBS}/job/session/big"] == 7


@pytest.mark.parametrize(
    "how", ["whole", "416", "another size", "another beginning", "in pieces", "running"]
)
async def test_a_transfer_that_cannot_go_on_starts_again(
    opened: Open, tmp_path: Path, how: str
) -> None:
    ce = FakeCE({"job": {b"big": BIG}}, {"job": "FINISHING"} if how == "running" else {})
    ranges: list[str | None] = []

    async def lie(peer: Peer, seen: Seen) -> bool:
        ranges.append(seen.headers.get("range"))
        if len(ranges) == 1:
            return await interrupted(peer, seen)
        if len(ranges) > 2 or how == "running":
            return False
        start, size = int(seen.headers["range"][6:-1]), len(BIG)
        rest = BIG[start:]
        span = {"another size": f"{start}-{size}/{size + 1}", "another beginning": f"0-9/{size}"}
        if how == "whole":
            await peer.send(answer(body=BIG))
        elif how == "416":
            await peer.send(answer(416, reason="No", Content_Range="bytes */*"))
        elif how in span:
            await peer.send(answer(206, rest, Content_Range=f"bytes {span[how]}"))
        else:
            await peer.send(answer(206, rest, Content_Type="multipart/byteranges"))
        return True

    ce.lies["/big"] = lie
    async with opened(ce) as (backend, _):
        output = await only(backend, tmp_path)
        assert tree(tmp_path / "job")["big"] == BIG
        assert output.size == len(BIG) + len(LOG)
        assert output.complete is (how != "running")
        assert [value is None for value in ranges] == {
            "whole": [True, False],
            "running": [True, True],
        }.get(how, [True, False, True])


async def test_more_than_the_missing_part(opened: Open, tmp_path: Path) -> None:
    """A lie that is found out, and costs no more than the attempts that there are."""
    ce = FakeCE({"job": {b"big": BIG}})

    async def lie(peer: Peer, seen: Seen) -> bool:
        if "range" not in seen.headers:
            return await interrupted(peer, seen)
        start, size = int(seen.headers["range"][6:-1]), len(BIG)
        span = f"bytes {start}-{size - 1}/{size}"
        await peer.send(answer(206, BIG[start:] + bytes(700_000), Content_Range=span))
        return True

    ce.lies["/big"] = lie
    async with opened(ce) as (backend, _):
        output = await only(backend, tmp_path)
        assert f"{len(BIG) + 700_000} bytes came where {len(BIG)}" in reasons(output)["big"]
        assert set(tree(tmp_path / "job")) == {"ce.log"}


async def test_tried_a_bounded_number_of_times(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"job": {b"big": BIG, b"ok": b"1"}})
    ce.lies["/big"] = interrupted
    async with opened(ce) as (backend, _):
        output = await only(backend, tmp_path)
        assert ce.asked[f"{JOBS}/job/session/big"] == 3
        assert "middle of the answer" in reasons(output)["big"]
        assert sorted(tree(tmp_path / "job")) == ["ce.log", "ok"]
        assert output.size == 1 + len(LOG)


@pytest.mark.parametrize("when", ["at once", "after the head", "midway", "drip"])
async def test_a_stalled_transfer(opened: Open, tmp_path: Path, when: str) -> None:
    """Like the GET of a FIFO, which A-REX lets hang for ever."""
    ce = FakeCE({"job": {b"fifo": b"", b"ok": b"1"}})
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    pieces = {"at once": [], "midway": [head, bytes(9999)]}.get(when, [head])

    async def hang(peer: Peer) -> None:
        while when == "drip":
            await peer.send(b"x")
            await trio.sleep(0.05)
        await peer.until_gone()

    ce.lies["/fifo"] = raw(*pieces, then=hang)
    limits = {"stall_timeout": 0.4, "transfer_timeout": 3.0}
    async with opened(ce, limits=limits) as (backend, _):
        with trio.fail_after(20):
            output = await only(backend, tmp_path)
        said = "transfer_timeout = 3 s" if when == "drip" else "sent nothing for 0.4 s"
        assert said in reasons(output)["fifo"]
        assert output.files == (tmp_path / "job" / "ok",)
        assert sorted(tree(tmp_path / "job")) == ["ce.log", "ok"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (answer(302, reason="Found", Location="https://elsewhere/"), "HTTP 302"),
        (answer(500, reason="Broken"), "HTTP 500 Broken"),
        (answer(206, b"x", Content_Range="bytes 5-5/6"), "HTTP 206"),
        (answer(204, reason="No Content"), "HTTP 204"),
        (b"HTTP/1.1 200 OK\r\n\r\nno end", "neither a length nor chunks"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "not HTTP"),
        (b"gibberish\r\n\r\n", "not HTTP"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_answers_that_are_not_taken(
    opened: Open, tmp_path: Path, data: bytes, said: str
) -> None:
    ce = FakeCE({"job": {b"f": b"1", b"ok": b"1"}})
    ce.lies["/f"] = raw(data)
    async with opened(ce) as (backend, _):
        output = await only(backend, tmp_path)
        assert said in reasons(output)["f"]
        assert output.files == (tmp_path / "job" / "ok",)


async def test_a_length_that_lies(opened: Open, tmp_path: Path) -> None:
    """Too long: the rest never comes. Too short: what follows is no answer to anything."""
    ce = FakeCE({"job": {b"long": b"", b"short": b"", b"ok": b"1"}})
    ce.lies["/long"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    after = answer(body=b"evil")
    ce.lies["/short"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef" + after)
    async with opened(ce, concurrency=1) as (backend, _):
        output = await only(backend, tmp_path)
        assert list(reasons(output)) == ["long"]
        assert tree(tmp_path / "job") == {"short": b"abc", "ok": b"1", "ce.log": LOG}


async def test_a_job_of_which_nothing_arrives_is_given_up(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"job": {b"f%d" % index: b"1" for index in range(100)}, "ok": {b"f": b"1"}})
    ce.lies = {f"job/session/f{index}": raw() for index in range(100)}
    async with opened(ce) as (backend, _):
        output, ok = await fetch(backend, tmp_path, "job", "ok")
        assert ok.complete
        whys = list(reasons(output).values())
        assert len(whys) >= 100
        assert sum("not asked for after 4 others failed" in why for why in whys) > 80
        assert ce.asked.total() < 60


# the whole


async def test_the_ce_vanishes(opened: Open, tmp_path: Path) -> None:
    """For all jobs, it is an exception; after the first, per job."""
    ce = FakeCE({f"j{number}": {b"f": b"1"} for number in range(30)})
    ce.lies = {f"j{number}/session/": raw() for number in range(1, 30)}
    async with opened(ce, concurrency=1) as (backend, _):
        first, *rest = await fetch(backend, tmp_path, *ce.jobs)
        assert not first.refused or "the CE is gone" in first.refused[0].reason
        assert all("could not be listed" in (output.reason or "") for output in rest)
        assert "the CE is gone" in (rest[-1].reason or "")
        ce.lies["j0/session/"] = raw()
        with pytest.raises(TransportError, match="closed without an answer"):
            await fetch(backend, tmp_path, *ce.jobs)


@pytest.mark.parametrize("target", ["diagnose/status", "session/", "/f"])
async def test_credentials_are_never_per_job(opened: Open, tmp_path: Path, target: str) -> None:
    ce = FakeCE({"job": {b"f": b"1"}})

    async def refused(peer: Peer, seen: Seen) -> bool:
        if target not in seen.target:
            return False
        await peer.send(answer(500, reason="User can't be assigned configuration"))
        return True

    ce.lies[""] = refused
    async with opened(ce) as (backend, _):
        with pytest.raises(AuthenticationError):
            await only(backend, tmp_path)


async def test_a_listing_that_is_none_is_that_jobs(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"bad": {}, "good": {b"f": b"1"}, "sub": {b"d": {b"f": b"1"}, b"f": b"1"}})
    ce.lies["bad/session/"] = ce.lies["sub/session/d"] = raw(answer(body=b"<html>"))
    async with opened(ce) as (backend, _):
        bad, good, sub = await fetch(backend, tmp_path, "bad", "good", "sub")
        assert "could not be listed: the listing is not JSON" in (bad.reason or "")
        assert good.complete
        assert reasons(sub) == {"d": "the listing is not JSON"}
        assert len(sub.files) == 1
        ce.lies[""] = raw(answer(body=b"<html>"))
        with pytest.raises(ProtocolError):
            await fetch(backend, tmp_path, "good")


async def test_a_destination_that_is_none(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with opened(FakeCE({"job": {}})) as (backend, _):
        for dest in (tmp_path / "file", tmp_path / "file" / "d", Path("nul\0")):
            with pytest.raises(ConfigurationError, match=r"fetch_output on .*: dest: "):
                await only(backend, dest)


async def test_a_disk_that_is_full(opened: Open, tmp_path: Path) -> None:
    about = os.statvfs(tmp_path)
    limits = {"keep_free_bytes": 2 * about.f_bavail * about.f_frsize}
    async with opened(FakeCE({"job": {b"f": b"1"}}), limits=limits) as (backend, _):
        output = await only(backend, tmp_path)
        assert set(reasons(output)) == {"f", "the CE's log"}
        assert all("limits.keep_free_bytes" in why for why in reasons(output).values())
        assert tree(tmp_path) == {}


async def test_a_name_longer_than_the_ce_reads(opened: Open, tmp_path: Path) -> None:
    left: Tree = {b"f": b"1"}
    for _ in range(6):
        left = {b"%" * 250: left}
    ce = FakeCE({"job": left})
    async with opened(ce) as (backend, _):
        output = await only(backend, tmp_path)
        (member,) = output.refused
        assert member.reason == "its path is longer than A-REX reads"
        assert max(map(len, ce.asked)) < 4096


# side by side


async def test_a_large_job_does_not_starve_small_ones(opened: Open, tmp_path: Path) -> None:
    jobs: dict[str, Tree] = {"large": {b"f%d" % index: b"x" for index in range(1000)}}
    jobs |= {f"small{number}": {b"f": b"x"} for number in range(100)}
    ce = FakeCE(jobs)
    async with opened(ce, concurrency=4) as (backend, _):
        outputs = await fetch(backend, tmp_path, *jobs)
        assert all(output.complete for output in outputs)
        assert ce.busiest <= 4
        last_small = max(place for place, target in enumerate(ce.order) if "/small" in target)
        large_before = sum("/large/" in target for target in ce.order[:last_small])
        assert large_before < 150  # its share, not all of its thousand


class Stepper(trio.abc.Instrument):
    """Cancels at the n-th step that any task of a download makes."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope, self._left = scope, step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= "run_all" in task.name
        if self._left == 0:
            self._scope.cancel()


@pytest.mark.parametrize("step", range(1, 160, 5))
async def test_cancelled_anywhere(opened: Open, tmp_path: Path, step: int) -> None:
    ce = FakeCE({"job": {b"big": BIG, b"d": {b"f": b"1"}, b"stdout": b"o"}})
    cut: list[bool] = []
    async with opened(ce, concurrency=1) as (backend, _):
        with trio.CancelScope() as scope:
            stepper = Stepper(scope, step)
            trio.lowlevel.add_instrument(stepper)
            try:
                await only(backend, tmp_path)
            finally:
                trio.lowlevel.remove_instrument(stepper)
        cut.append(scope.cancelled_caught)
        left = tree(tmp_path)
        assert not [name for name in left if ".arcbackend" in name]
        whole = {"job/big": BIG, "job/d/f": b"1", "job/stdout": b"o", "job/ce.log": LOG}
        assert left == {name: whole[name] for name in left}
        assert_at_rest(backend._session._transport)
        assert (await only(backend, tmp_path)).complete
    assert cut[0] or step > 60


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
async def test_cancelled_in_the_middle_of_many(opened: Open, tmp_path: Path, delay: float) -> None:
    ce = FakeCE({f"j{number}": {b"big": BIG, b"f": b"1"} for number in range(20)})
    async with opened(ce) as (backend, _):
        with trio.move_on_after(delay):
            await fetch(backend, tmp_path, *ce.jobs)
        assert not [name for name in tree(tmp_path) if ".arcbackend" in name]
        assert set(map(len, tree(tmp_path).values())) <= {len(BIG), 1, len(LOG)}
        assert_at_rest(backend._session._transport)
        assert all(output.complete for output in await fetch(backend, tmp_path, *ce.jobs))


async def test_contents_are_not_in_memory(opened: Open, tmp_path: Path) -> None:
    size = 60_000_000
    ce = FakeCE({"job": {b"big": b""}})

    async def lie(peer: Peer, _seen: Seen) -> bool:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            await peer.send(bytes(100_000))
        return True

    ce.lies["/big"] = lie
    async with opened(ce) as (backend, _):
        tracemalloc.start()
        try:
            output = await only(backend, tmp_path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert output.complete
        assert output.size == size + len(LOG)
        assert peak < 20_000_000


async def test_a_listing_is_asked_again_in_json(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"job": {b"a\x01": b"1"}}, sizes=True)
    async with opened(ce) as (backend, _):
        output = await only(backend, tmp_path)
        assert output.files == (tmp_path / "job" / "a\x01",)
        assert ce.asked[f"{JOBS}/job/session/"] == 2


# whatever it names


NAME_PARTS = [
    b"..",
    b".",
    b"/",
    b"\0",
    b"%2e",
    b"%2f",
    b"a",
    b"A",
    b"\n",
    b"\xff",
    b"?",
    b";",
    b"#",
]
NAMES = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.lists(st.sampled_from(NAME_PARTS), min_size=1, max_size=4).map(b"".join),
    st.text(min_size=1, max_size=20).map(lambda text: text.encode("utf-8", "replace")),
)
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(NAMES, st.binary(max_size=20), max_size=6),
    lambda inner: st.dictionaries(NAMES, st.binary(max_size=20) | inner, max_size=4),
    max_leaves=12,
)


def expected(left: Tree, above: str = "") -> tuple[dict[str, bytes], int]:
    """The files that can be written, and how many entries cannot."""
    files: dict[str, bytes] = {}
    bad = 0
    for name, content in left.items():
        if name in (b".", b"..") or b"/" in name or b"\0" in name:
            bad += 1
        elif isinstance(content, dict):
            below, worse = expected(content, f"{above}{name.decode('latin-1')}/")
            files |= below
            bad += worse
        else:
            files[above + name.decode("latin-1")] = content
    return files, bad


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(left=TREES, sizes=st.booleans())
async def test_any_names_whatever(opened: Open, tmp_path: Path, left: Tree, sizes: bool) -> None:
    """Each name that is one arrives byte for byte; of each other it is told; nothing is outside."""
    ce = FakeCE({"job": left}, sizes=sizes)
    files, bad = expected(left)
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        async with opened(ce) as (backend, _):
            output = await only(backend, Path(folder) / "dest")
        log = output.log.name if output.log is not None else ""
        found = tree(Path(folder))
        assert found.pop(f"dest/job/{log}") == LOG
        assert found == {f"dest/job/{name}": content for name, content in files.items()}
        assert len(output.refused) == bad
        assert output.complete is (bad == 0)
        assert JobOutput.model_validate_json(output.model_dump_json()).refused == output.refused
    paths = [target.split("/session/")[1] for target in ce.asked if "/session/" in target]
    assert not [path for path in paths if {".", ".."} & set(path.split("/"))]


# redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(
    opened: Open, serve: Serve, tmp_path: Path, status: int
) -> None:
    """Nor does the token go anywhere but to the CE: the other server is one that we would trust."""
    ce = FakeCE({"job": {b"f": b"1", b"d": {b"g": b"2"}, b"ok": b"3"}, "other": {b"f": b"4"}})
    async with serve(ce.script) as elsewhere, opened(ce) as (backend, server):
        for end, to in {
            "job/session/f": f"{elsewhere.endpoint}/stolen",
            "job/session/d": "/arex/rest/1.1/jobs/other/session/",
            "job/diagnose/errors": f"//localhost:{elsewhere.port}/stolen",
        }.items():
            ce.lies[end] = raw(answer(status, reason="Moved", Location=to))
        output = await only(backend, tmp_path)
        assert set(reasons(output)) == {"f", "d", "the CE's log"}
        assert all(f"HTTP {status}" in why for why in reasons(output).values())
        assert tree(tmp_path) == {"job/ok": b"3"}
        assert elsewhere.accepted == 0
        assert not [target for target in ce.asked if "other" in target or "stolen" in target]
        assert {seen.authorization for seen in server.requests} <= {"Bearer t", None}
        ce.lies["job/session/"] = raw(answer(status, reason="Moved", Location="/arex/rest"))
        output = await only(backend, tmp_path / "second")
        assert f"HTTP {status}" in (output.reason or "")
        ce.lies["diagnose/status"] = ce.lies["job/session/"]
        with pytest.raises(ProtocolError, match=f"HTTP {status}"):
            await only(backend, tmp_path)
        assert elsewhere.accepted == 0

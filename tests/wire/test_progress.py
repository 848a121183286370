"""What fetch_output tells while it goes on: each thing once, counts that add up, and no lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from arcbackend import ARCBackend, FetchProgress, JobID, JobOutput
from tests.wire.fake_ce import LOG, FakeCE, Tree, file, raw
from tests.wire.helpers import Open, assert_at_rest, reasons, tree
from tests.wire.http import Seen, answer
from tests.wire.server import Peer

pytestmark = pytest.mark.usefixtures("however_bodies_arrive")

BIG = bytes(range(256)) * 8192  # 2 MiB
JOBS: dict[str, Tree] = {
    "a": {b"stdout": b"out", b"d": {b"f": b"12345", b"e": {}}, b"\xff\n": b"x"},
    "b": {},
    "c": {b"f%d" % index: bytes(index) for index in range(20)},
}


class Ear:
    """A listener that checks every value against the one before."""

    def __init__(self) -> None:
        self.heard: list[FetchProgress] = []

    def __call__(self, now: FetchProgress) -> None:
        assert (now.job is None) == (now.what == "bytes")
        assert (now.name is None) == (now.what not in ("fetched", "refused"))
        assert (now.reason is None) == (now.what != "refused")
        assert (now.output is None) == (now.what != "done")
        assert now.name is None or now.name.isprintable()
        assert now.jobs_done <= now.jobs_total
        assert now.files_done + now.files_refused <= now.files_known
        assert now.bytes_done >= 0
        assert now.bytes_known is None or now.bytes_done <= now.bytes_known
        if self.heard:
            last = self.heard[-1]
            for count in ("jobs_done", "files_done", "files_refused"):
                gone_on = getattr(now, count) - getattr(last, count)
                told = {"done": "jobs_done", "fetched": "files_done", "refused": "files_refused"}
                assert gone_on == (1 if told.get(now.what) == count else 0)
            assert now.jobs_total == last.jobs_total
        self.heard.append(now)

    def of(self, what: str) -> list[FetchProgress]:
        return [now for now in self.heard if now.what == what]

    def agrees_with(self, outputs: dict[JobID, JobOutput]) -> None:
        """What was told is what was returned."""
        assert [now.job for now in self.of("done")] != []
        assert {now.job: now.output for now in self.of("done")} == outputs
        assert len(self.of("done")) == len(outputs)
        fetched = Counter(now.job for now in self.of("fetched"))
        for job, output in outputs.items():
            streams = {output.stdout, output.stderr, output.log} - {None}
            assert fetched[job] == len(output.files) + len(streams)
            told = [(now.name, now.reason) for now in self.of("refused") if now.job == job]
            assert sorted(told) == [(member.name, member.reason) for member in output.refused]
        last = self.heard[-1]
        assert last.what == "done"
        assert last.jobs_done == last.jobs_total == len(outputs)
        assert last.files_known == last.files_done + last.files_refused
        assert last.files_done == fetched.total()
        assert last.bytes_done == last.bytes_known == sum(map(size, outputs.values()))


def size(output: JobOutput) -> int:
    return output.size


async def fetched(
    backend: ARCBackend, dest: Path, tell: Callable[[FetchProgress], None], *jobs: str
) -> dict[JobID, JobOutput]:
    ids = [JobID(job) for job in jobs]
    return dict(await backend.fetch_output(ids, dest, progress=tell))


@pytest.mark.parametrize("sizes", [False, True], ids=["JSON", "XML"])
async def test_everything_is_told_once(opened: Open, tmp_path: Path, sizes: bool) -> None:
    ear = Ear()
    async with opened(FakeCE(JOBS, sizes=sizes)) as (backend, server):
        outputs = await fetched(backend, tmp_path, ear, "a", "b", "nosuch", "c", "a")
        ear.agrees_with(outputs)
        prefix = f"{server.endpoint}/arex/rest/1.0/jobs/"
        assert {now.job for now in ear.of("listed")} == {prefix + job for job in "abc"}
        told = {now.name for now in ear.of("fetched") if now.job == prefix + "a"}
        assert told == {"stdout", "d/f", "\\xff\\n", "the CE's log"}
        assert all(job in outputs for job in {now.job for now in ear.heard if now.job})
        # Sizes are known as soon as they are listed, where the listing has them.
        (listed,) = [now for now in ear.of("listed") if now.job == prefix + "c"]
        if sizes:
            assert listed.bytes_known is None or listed.bytes_known >= sum(range(20))
        else:
            assert listed.bytes_known is None
        again = Ear()
        assert await fetched(backend, tmp_path, again, "a", "b", "nosuch", "c") == outputs
        assert await fetched(backend, tmp_path, again) == {}


async def test_what_is_not_fetched_is_told(opened: Open, tmp_path: Path) -> None:
    many: Tree = {b"f%d" % index: b"1" for index in range(50)}
    ce = FakeCE(
        {
            "large": {b"big": bytes(5000), b"small": b"1", b"closed": b"1"},
            "lost": many,
            "unlisted": {},
            "unlogged": {b"f": b"1"},
            "nested": {b"d": {b"closed": {}}, b"f": b"1"},
        },
        sizes=True,
    )
    ce.lies = {
        "large/session/closed": raw(answer(404)),
        "unlisted/session/": raw(answer(body=b"<html>")),
        "unlogged/diagnose/errors": raw(answer(404)),
        "nested/session/d/closed": raw(answer(404)),
        **{f"lost/session/f{index}": raw() for index in range(50)},
    }
    ear = Ear()
    async with opened(ce, limits={"max_file_bytes": 4000}) as (backend, _):
        outputs = await fetched(backend, tmp_path, ear, *ce.jobs)
        ear.agrees_with(outputs)
        large, lost, unlisted, unlogged, nested = outputs.values()
        assert set(reasons(large)) == {"big", "closed"}
        assert len(lost.refused) >= 50
        assert unlisted.reason is not None
        assert (unlogged.complete, unlogged.log) == (True, None)
        assert set(reasons(nested)) == {"d/closed"}


async def test_of_countless_refusals_only_so_many_are_told(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"job": {}})
    names = ",".join(f'"a/{index}"' for index in range(12_000)).encode()
    ce.lies["session/"] = raw(answer(body=b'{"file":[' + names + b'],"dir":[]}'))
    heard: list[FetchProgress] = []
    async with opened(ce) as (backend, _):
        (output,) = (await fetched(backend, tmp_path, heard.append, "job")).values()
        assert sum(now.what == "refused" for now in heard) == 10_000 == len(output.refused) - 1
        assert heard[-1].files_refused == 12_000
        assert heard[-1].files_known == 12_000 + 1  # and the log


async def test_a_file_under_way_is_told_of_and_taken_back_if_lost(
    opened: Open, tmp_path: Path
) -> None:
    """Of a job that is not over, a transfer that breaks begins again from nothing."""
    ce = FakeCE({"job": {b"big": BIG}}, {"job": "FINISHING"}, sizes=True)
    half, lost = trio.Event(), trio.Event()
    tries = 0
    ear = Ear()

    def listen(now: FetchProgress) -> None:
        ear(now)
        if now.what == "bytes" and now.bytes_done >= len(BIG) // 2:
            half.set()
        elif now.what == "bytes" and half.is_set():
            lost.set()

    async def lie(peer: Peer, seen: Seen) -> bool:
        nonlocal tries
        tries += 1
        if tries == 2:
            await lost.wait()  # told before anything new has come, or this hangs
            return False
        head, _, body = file(BIG, seen).partition(b"\r\n\r\n")
        await peer.send(head + b"\r\n\r\n" + body[: len(body) // 2 + 1])
        await half.wait()  # told, or this hangs
        raise trio.EndOfChannel

    ce.lies["/big"] = lie
    async with opened(ce) as (backend, _):
        with trio.fail_after(20):
            outputs = await fetched(backend, tmp_path, listen, "job")
        ear.agrees_with(outputs)
        assert tree(tmp_path)["job/big"] == BIG
        assert tries == 2
        assert max(now.bytes_done for now in ear.heard) == len(BIG) + len(LOG)


async def test_a_transfer_that_goes_on_keeps_what_is_on_disk(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"job": {b"big": BIG}}, sizes=True)
    on_disk = 512 * 1024  # at least: it is written in pieces
    tries = 0
    ear = Ear()

    def listen(now: FetchProgress) -> None:
        ear(now)
        assert tries < 2 or now.bytes_done >= on_disk

    async def lie(peer: Peer, seen: Seen) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            head, _, body = file(BIG, seen).partition(b"\r\n\r\n")
            await peer.send(head + b"\r\n\r\n" + body[: len(body) - 1000])
            raise trio.EndOfChannel
        # Until what is left of the first try is told: all that had come.
        while not on_disk <= ear.heard[-1].bytes_done < len(BIG):
            await trio.sleep(0.01)
        return False

    ce.lies["/big"] = lie
    async with opened(ce) as (backend, _):
        with trio.fail_after(20):
            outputs = await fetched(backend, tmp_path, listen, "job")
        ear.agrees_with(outputs)
        assert tree(tmp_path)["job/big"] == BIG
        assert tries == 2


async def test_no_byte_is_told_of_before_it_has_come(opened: Open, tmp_path: Path) -> None:
    ce = FakeCE({"job": {b"big": BIG}}, sizes=True)
    come, told = len(LOG), trio.Event()
    ear = Ear()

    def listen(now: FetchProgress) -> None:
        ear(now)
        assert now.bytes_done <= come
        if now.bytes_done > 600_000:
            told.set()

    async def lie(peer: Peer, seen: Seen) -> bool:
        nonlocal come
        head, _, body = file(BIG, seen).partition(b"\r\n\r\n")
        come += 700_000
        await peer.send(head + b"\r\n\r\n" + body[:700_000])
        await told.wait()  # also: no later than that, or this hangs
        come += len(body) - 700_000
        await peer.send(body[700_000:])
        return True

    ce.lies["/big"] = lie
    async with opened(ce) as (backend, _):
        with trio.fail_after(20):
            ear.agrees_with(await fetched(backend, tmp_path, listen, "job"))


class Broken(Exception):
    """What a listener raises."""


@pytest.mark.parametrize("what", ["listed", "fetched", "refused", "done", "bytes"])
@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_listener_that_raises_ends_the_call_and_leaves_nothing(
    opened: Open, tmp_path: Path, what: str, concurrency: int
) -> None:
    jobs: dict[str, Tree] = {
        f"j{number}": {b"big": BIG, b"f": b"1", b"d": {b"g": b"2"}} for number in range(10)
    }
    ce = FakeCE(jobs, sizes=True)
    ce.lies["/f"] = raw(answer(404))
    if what == "bytes":

        async def endless(peer: Peer, _seen: Seen) -> bool:
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await peer.send(b"10\r\n" + bytes(16) + b"\r\n")
                await trio.sleep(0.001)

        ce.lies["/big"] = endless
    heard: list[str] = []

    def listen(now: FetchProgress) -> None:
        assert Broken not in map(type, heard)
        heard.append(now.what)
        if now.what == what:
            raise Broken(what)

    async with opened(ce, concurrency=concurrency) as (backend, _):
        with trio.fail_after(20), pytest.raises(Broken) as caught:
            await fetched(backend, tmp_path, listen, *jobs)
        assert str(caught.value) == what
        assert heard.count(what) == 1  # and it is told nothing more
        assert heard[-1] == what
        assert_at_rest(backend._session._transport)
        left = tree(tmp_path)
        assert not [name for name in left if ".arcbackend" in name]
        assert set(left.values()) <= {BIG, b"2", LOG}


@pytest.mark.parametrize("step", range(1, 160, 8))
async def test_done_is_told_of_what_is_done_only(opened: Open, tmp_path: Path, step: int) -> None:
    """Cancelled anywhere: the last file of a job that did not come is no job done."""
    ce = FakeCE({"a": {b"big": BIG}, "b": {b"stdout": b"o"}})
    async with opened(ce, concurrency=1) as (backend, _):
        told: list[JobOutput] = []
        left = step

        class Stepper(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                nonlocal left
                left -= "run_all" in task.name or "_land" in task.name
                if left == 0:
                    scope.cancel()

        def listen(now: FetchProgress) -> None:
            if now.output is not None:
                told.append(now.output)

        with trio.CancelScope() as scope:
            stepper = Stepper()
            trio.lowlevel.add_instrument(stepper)
            try:
                await fetched(backend, tmp_path, listen, "a", "b")
            finally:
                trio.lowlevel.remove_instrument(stepper)
        assert scope.cancelled_caught or step > 60
        for output in told:
            assert output.complete
            assert output.log is not None
            assert output.log.read_bytes() == LOG
            assert all(path.read_bytes() == BIG for path in output.files)
            assert output.size == len(LOG) + (len(BIG) if output.files else 1)

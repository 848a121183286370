"""A simulator without a socket: the library, time that does not pass, and what a network can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from arcbackend import (
    ARCBackend,
    AuthenticationError,
    BearerToken,
    ConfigurationError,
    CredentialSet,
    FileRef,
    JobEvent,
    JobID,
    JobStatus,
    StaticCredentials,
    SubmissionSpec,
    TransportError,
)
from arcbackend.simulator import (
    Cut,
    Fault,
    FixedTime,
    Latency,
    LognormalTime,
    Pace,
    Plan,
    Simulator,
    Stall,
    Status,
)
from tests.simulator.clients import JOBS, Client, adl, asking, said
from tests.wire.helpers import descriptors

NOSUCH = JobID("nosuch")
SLEEP = SubmissionSpec(executable="/bin/sleep", arguments=("3600",))


async def test_an_hour_in_no_time(autojump_clock: MockClock) -> None:
    async with Simulator() as ce, ce.backend() as backend:
        submission = await backend.submit(SLEEP, count=3)
        ids = [handle.id for handle in submission.handles]
        seen: list[set[JobStatus]] = []
        for _ in range(75):
            now = set((await backend.status(ids)).values())
            if not seen or seen[-1] != now:
                seen.append(now)
            await trio.sleep(60)
        assert seen == [{JobStatus.WAITING}, {JobStatus.RUNNING}, {JobStatus.DONE}]
        assert all(outcome.ok for outcome in (await backend.purge(ids)).values())
        await trio.sleep(60)
        assert set((await backend.status(ids)).values()) == {JobStatus.UNKNOWN}


async def test_a_poller_sees_a_life(autojump_clock: MockClock) -> None:
    async with Simulator() as ce, ce.backend() as backend, backend.poller() as poller:
        events = poller.events()
        submission = await backend.submit(SLEEP)
        poller.track(submission.handles)
        seen = []
        with trio.fail_after(5000):
            async for event in events:
                assert isinstance(event, JobEvent)
                seen.append(event.status_after)
                if event.status_after is JobStatus.DONE:
                    break
        assert JobStatus.RUNNING in seen


async def course(seed: int) -> list[str]:
    """What a client sees of a CE where things go wrong by chance."""
    faults = (
        Fault(effect=Status(status=503, reason="Busy"), probability=0.1),
        Fault(effect=Cut(), probability=0.1, operation="jobs.status"),
        Fault(effect=Latency(time=LognormalTime(median=0.5)), probability=0.5),
    )
    seen = []
    async with asking(seed=seed, epoch=1e9, faults=faults) as client:
        started = trio.current_time()
        for _ in range(40):
            for method, target in (("POST", f"{JOBS}?action=new"), ("GET", JOBS)):
                try:
                    answer = await client.ask(method, target, adl() if method == "POST" else b"")
                    seen.append(f"{said(answer)} {answer.text}")
                except httpx.RemoteProtocolError as error:
                    seen.append(repr(error))
            seen.append(f"{trio.current_time() - started:.6f}")
            await trio.sleep(1)
    return seen


async def test_one_seed_is_one_course(autojump_clock: MockClock) -> None:
    first = await course(7)
    assert await course(7) == first
    assert await course(8) != first


async def test_a_script_tells_what_jobs_do(autojump_clock: MockClock) -> None:
    def script(description: Any, copy: int) -> Plan:
        return Plan(run_seconds=10, exit_code=copy % 2, stdout=f"copy {copy}\n".encode())

    async with Simulator(script=script) as ce:
        client = Client(ce, ce.token())
        async with client.http:
            jobs = await client.new(query="&instances=2")
            await trio.sleep(100)
            assert [await client.live(job) for job in jobs] == ["FINISHED", "FAILED"]
            out = await client.get(f"{JOBS}/{jobs[1]}/session/out")
            assert out.text == "copy 1\n"


async def test_files_go_up_and_down(tmp_path: Path) -> None:
    content = bytes(range(256)) * 3000
    (tmp_path / "input").write_bytes(content)
    spec = SubmissionSpec(
        executable="/bin/true", inputs=(FileRef(name="input", source=tmp_path / "input"),)
    )
    quick = Pace(accept=0, prepare=0, submit=0, notice=0, finish=0, schedule=0)
    async with Simulator(pace=quick) as ce, ce.backend(limits={"keep_free_bytes": 0}) as backend:
        submission = await backend.submit(spec)
        (handle,) = submission.handles
        with trio.fail_after(30):
            while (await backend.status([handle.id]))[handle.id] is not JobStatus.DONE:
                await trio.sleep(0.05)
        outputs = await backend.fetch_output([handle.id], tmp_path / "out")
        assert outputs[handle.id].refused == ()


async def test_large_bodies_stream(tmp_path: Path) -> None:
    size = 20 * 2**20
    async with asking() as client:
        (job,) = await client.new(adl(inputs=["never"]))
        target = f"{JOBS}/{job}/session/large"

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield bytes(2**20)

        put = await client.http.put(
            "/",
            content=pieces(),
            headers={"Authorization": f"Bearer {client.token}"},
            extensions={"target": target.encode()},
        )
        assert said(put) == "200 OK"
        got, most = 0, 0
        async with client.http.stream(
            "GET",
            "/",
            headers={"Authorization": f"Bearer {client.token}"},
            extensions={"target": target.encode()},
        ) as answer:
            async for piece in answer.aiter_raw():
                got += len(piece)
                most = max(most, len(piece))
        assert got == size
        assert most <= 256 * 1024


async def test_what_a_body_raises_is_raised() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ZeroDivisionError

    async with asking() as client:
        with pytest.raises(ZeroDivisionError):
            await client.http.post("/arex/rest", content=broken())
        assert said(await client.get("/arex/rest")) == "200 OK"


async def test_an_answer_before_the_end_of_the_request() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield bytes(2**16)

    async with asking() as client:
        answer = await client.http.post("/elsewhere", content=endless())
        assert said(answer) == "404 Not Found"
        assert read < 10


async def test_connections_are_kept_while_they_are_good(autojump_clock: MockClock) -> None:
    async with asking() as client:
        network = client.ce._network
        assert network is not None
        for _ in range(3):
            await client.get("/arex/rest")
        assert network._opened == 1
        await trio.sleep(100)
        await client.get("/arex/rest")
        assert network._opened == 2, "A-REX closes what is idle for a minute"
        async with client.http.stream("GET", "/arex/rest"):
            await client.get("/arex/rest")
        assert network._opened == 3, "one was busy"
        client.ce.restart()
        await client.get("/arex/rest")
        assert network._opened == 4


async def test_a_bad_token_spoils_its_connection_only() -> None:
    async with Simulator() as ce:
        bad = CredentialSet(token=BearerToken(value="bad"))
        async with ce.backend(bad) as backend:
            with pytest.raises(AuthenticationError):
                await backend.status([NOSUCH])
        async with ce.backend() as backend:
            assert await backend.status([NOSUCH])


async def test_a_client_that_leaves_does_not_undo_its_request(autojump_clock: MockClock) -> None:
    slow = Fault(effect=Latency(time=FixedTime(seconds=10)), operation="jobs.new")
    async with asking(faults=(slow,)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(f"{JOBS}?action=new", adl(), timeout=5)
        with trio.move_on_after(5) as scope:
            await client.post(f"{JOBS}?action=new", adl())
        assert scope.cancelled_caught
        await trio.sleep(20)
        assert sum(client.ce.world.counts().values()) == 2


@pytest.mark.parametrize(
    ("effect", "why"),
    [
        (Cut(), "closed without an answer"),
        (Cut(when="answer", after_bytes=3), "closed in the middle of the answer"),
        (Stall(), "read timeout"),
        (Stall(after_bytes=3), "read timeout"),
    ],
)
async def test_the_library_maps_what_fails(
    effect: Any, why: str, autojump_clock: MockClock
) -> None:
    broken = Fault(effect=effect, operation="jobs.*")
    async with Simulator(faults=(broken,)) as ce, ce.backend() as backend:
        with pytest.raises(TransportError, match=why):
            await backend.status([NOSUCH])


async def test_the_library_tries_again(autojump_clock: MockClock) -> None:
    once = Fault(effect=Cut(), operation="jobs.*", count=1)
    async with Simulator(faults=(once,)) as ce, ce.backend() as backend:
        assert await backend.status([NOSUCH])
        assert [rule["done"] for rule in ce.faults.told()] == [1]


async def test_it_is_there_only_as_long_as_it_runs() -> None:
    async with Simulator() as ce, ce.backend() as backend:
        await backend.status([NOSUCH])
        with pytest.raises(ConfigurationError, match="already"):
            async with Simulator():
                pass
        async with Simulator(name="other") as other, other.backend() as more:
            await more.status([NOSUCH])
        kept = ARCBackend(ce.config(retries={"attempts": 1}), StaticCredentials(ce.credentials()))
        async with kept:
            await kept.status([NOSUCH])
            await backend.aclose()
            ce._network.close()  # type: ignore[union-attr]
            with pytest.raises(TransportError, match="connection refused"):
                await kept.status([NOSUCH])
    async with Simulator() as again:
        assert again.endpoint == ce.endpoint


async def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigurationError, match="slots"):
        Simulator(slots=0)
    with pytest.raises(ConfigurationError, match="nosuch"):
        Simulator(nosuch=1)


async def test_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = descriptors()
    tasks = trio.lowlevel.current_statistics().tasks_living
    stalls = (Fault(effect=Stall(after_bytes=1), operation="info"),)
    async with Simulator(faults=stalls, name="leaving") as ce, trio.open_nursery() as nursery:
        client = Client(ce, ce.token())
        async with client.http:
            await client.new(adl(inputs=["never"]))
            started = trio.Event()

            async def hang() -> None:
                async with client.http.stream("GET", "/arex/rest/1.1/info") as answer:
                    started.set()
                    async for _ in answer.aiter_raw():
                        pass

            nursery.start_soon(hang)
            await started.wait()
            nursery.cancel_scope.cancel()
    assert descriptors() == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240


async def test_what_hangs_ends_with_the_simulator() -> None:
    hung: list[BaseException] = []

    async def ask(client: Client) -> None:
        try:
            await client.get("/arex/rest")
        except httpx.HTTPError as error:
            hung.append(error)

    async with trio.open_nursery() as nursery:
        async with Simulator(faults=(Fault(effect=Stall()),)) as ce:
            client = Client(ce, None)
            nursery.start_soon(ask, client)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(10):
            while not hung:
                await trio.sleep(0.01)
    assert isinstance(hung[0], httpx.RemoteProtocolError)
    await client.http.aclose()


async def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking() as client:
        monkeypatch.setattr(client.ce.world, "jobs_of", lambda _owner: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await client.get(JOBS)

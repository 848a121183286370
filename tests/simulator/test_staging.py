"""What a simulated CE really fetches and stores, for jobs that are really executed."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from arcbackend.simulator import staging
from arcbackend.simulator.descriptions import Input, Output
from arcbackend.simulator.jobs import Job, Plan, Submission
from arcbackend.simulator.session_directory import SessionDirectory
from arcbackend.simulator.staging import HttpStager
from arcbackend.simulator.traps import Traps
from tests.simulator.laboratory import described
from tests.web import served

FETCHING = "Failed in data staging: Failed checking source replica {}: Failed to obtain "
FETCHING += "information about file: {}\n"
STORING = "Failed in data staging: Failed to prepare destination {}: {}\n"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    with served(tmp_path / "web") as url:
        yield url


class Mover:
    """A stager whose answers can be waited for."""

    def __init__(self, session: SessionDirectory, start_soon: Callable[..., None]) -> None:
        self._stager = HttpStager(start_soon, lambda _: session)

    async def fetch(self, url: str, name: str = "in") -> str | None:
        return await self._told(self._stager.fetch, job(inputs=(Input(name, url),)))

    async def store(self, url: str, name: str = "out") -> str | None:
        return await self._told(self._stager.store, job(outputs=(Output(name, url),)))

    async def _told(
        self, move: Callable[[Job, Callable[[str | None], None]], None], one: Job
    ) -> str | None:
        send, receive = trio.open_memory_channel[str | None](1)
        move(one, send.send_nowait)
        with trio.fail_after(30):
            return await receive.receive()


def job(**asked: Any) -> Job:
    return Job("abc", Submission("me", described(**asked), "main", 0.0), Plan())


@pytest.fixture
def session(tmp_path: Path) -> SessionDirectory:
    made = SessionDirectory(tmp_path / "session", Traps("7.2.0", "slurm"))
    made.make()
    return made


@asynccontextmanager
async def moving(session: SessionDirectory) -> AsyncIterator[Mover]:
    async with trio.open_nursery() as nursery:
        yield Mover(session, nursery.start_soon)
        nursery.cancel_scope.cancel()


async def test_both_ways(session: SessionDirectory, web: str, tmp_path: Path) -> None:
    big = bytes(range(256)) * 4000
    (tmp_path / "web" / "far").write_bytes(big)
    async with moving(session) as mover:
        assert await mover.fetch(f"{web}/far", "d/in") is None
        assert (session.root / "d" / "in").read_bytes() == big
        assert await mover.store(f"{web}/back", "d/in") is None
        assert (tmp_path / "web" / "back").read_bytes() == big


async def test_what_is_not_there(session: SessionDirectory, web: str) -> None:
    """At once, and in the words of A-REX (tests/pure/recorded/jobs-*.json)."""
    async with moving(session) as mover:
        url = f"{web}/nosuch?signature=x"
        missing = "No such file or directory"
        said = f"{missing}: File not found"
        assert await mover.fetch(url) == FETCHING.format(url, said)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gsiftp://h/x"])
async def test_what_is_no_web_address_is_not_looked_at(session: SessionDirectory, url: str) -> None:
    session.write("out", b"x")
    async with moving(session) as mover:
        assert await mover.fetch(url) == FETCHING.format(url, "Could not handle endpoint")
        assert await mover.store(url) == STORING.format(url, "Could not handle endpoint")
        assert not (session.root / "in").exists()


async def test_a_server_that_is_away_is_tried_ten_times(
    session: SessionDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def refused(_: object) -> None:
        tries.append(1)
        raise OSError(errno.ECONNREFUSED, "")

    monkeypatch.setattr(staging, "_opened", refused)
    monkeypatch.setattr(staging, "_FIRST_PAUSE", 0.0)
    async with moving(session) as mover:
        url = "http://127.0.0.1:1/x"
        assert await mover.fetch(url) == FETCHING.format(url, "Connection refused")
    assert len(tries) == 10


async def test_a_job_that_is_killed_meanwhile_is_left_alone(
    session: SessionDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(inputs=(Input("in", "http://127.0.0.1:1/x"),))
    tries: list[int] = []
    told: list[str | None] = []

    def refused(_: object) -> None:
        tries.append(1)
        one.turn += 1
        raise OSError(errno.ECONNREFUSED, "")

    monkeypatch.setattr(staging, "_opened", refused)
    monkeypatch.setattr(staging, "_FIRST_PAUSE", 0.0)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:  # which ends when its tasks do
            HttpStager(nursery.start_soon, lambda _: session).fetch(one, told.append)
    assert (len(tries), told) == (1, [])

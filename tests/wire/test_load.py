"""counts over a real socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from arcbackend import (
    ARCBackend,
    CredentialRequirements,
    CredentialSet,
    LoadReporter,
    ProtocolError,
    TransportError,
)
from tests.wire.fake_ce import FakeCE, raw
from tests.wire.helpers import Open, Serve
from tests.wire.http import answer
from tests.wire.server import Peer

SHARE = {"Name": "main", "RunningJobs": "3", "WaitingJobs": "4", "PreLRMSWaitingJobs": "5"}
DOCUMENT = json.dumps(
    {"Domains": {"AdminDomain": {"Services": {"ComputingService": {"ComputingShare": SHARE}}}}}
).encode()
RECORDED = Path(__file__).parents[1] / "pure" / "recorded"


class Locked:
    """A provider that has nothing to give."""

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        raise AssertionError(requirements)

    async def __aenter__(self) -> Locked:
        return self

    async def __aexit__(self, *_: object) -> None: ...


async def test_no_credentials_are_asked_for_or_sent(serve: Serve, ca_file: Path) -> None:
    ce = FakeCE(information=DOCUMENT)
    async with serve(ce.script) as server:
        config = {"endpoint": server.endpoint, "ca_file": ca_file, "queue": "main"}
        async with ARCBackend(config, Locked()) as backend:
            assert isinstance(backend, LoadReporter)
            counts = await backend.counts()
            assert (counts.running, counts.waiting, counts.queue) == (3, 9, "main")
        assert [seen.target for seen in server.requests] == ["/arex/rest", "/arex/rest/1.1/info"]
        assert [seen.authorization for seen in server.requests] == [None, None]


async def test_each_call_asks_again(opened: Open) -> None:
    ce = FakeCE(information=DOCUMENT)
    async with opened(ce) as (backend, _):
        assert (await backend.counts()).running == 3
        ce.information = (RECORDED / "info-arc-slurm-7.2.0.json").read_bytes()
        assert (await backend.counts()).ce_running == 2


async def test_a_document_that_is_too_long(opened: Open) -> None:
    ce = FakeCE(information=DOCUMENT + b" " * 10_000)
    async with opened(ce, limits={"max_answer_bytes": 5000}) as (backend, _):
        with pytest.raises(ProtocolError, match="longer than 5000 bytes"):
            await backend.counts()


async def test_silence(opened: Open) -> None:
    ce = FakeCE(information=DOCUMENT)
    ce.lies["/info"] = raw(then=Peer.until_gone)
    async with opened(ce, timeouts={"read": 0.05}) as (backend, _):
        with trio.fail_after(10), pytest.raises(TransportError, match="read timeout"):
            await backend.counts()
        ce.lies["/info"] = raw(answer(503))
        with pytest.raises(TransportError, match="503"):
            await backend.counts()

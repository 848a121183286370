"""The verb counts: what real CEs published, and what they should not."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend import ConfigurationError, JobCounts, ProtocolError, ShareCounts
from arcbackend.load import read_counts
from arcbackend.protocol.load import Share, parse_shares
from arcbackend.protocol.messages import Operation, Response
from tests.pure.fake_session import FakeSession, answering, away, raising
from tests.pure.replies import BUILDER, CE

FOLDER = Path(__file__).parent / "recorded"
STACKS = ["arc-slurm-7.0.0", "arc-slurm-7.2.0", "arc-condor-7.0.0"]
MADE = "2026-11-25T12:00:00Z"
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def recorded(stack: str) -> bytes:
    return (FOLDER / f"info-{stack}.json").read_bytes()


def document(*shares: dict[str, Any], **more: Any) -> dict[str, Any]:
    service = {"Name": "ce", "ComputingShare": list(shares), **more}
    return {"Domains": {"AdminDomain": [{"Services": {"ComputingService": [service]}}]}}


def share(name: str, *, vo: str | None = None, **numbers: Any) -> dict[str, Any]:
    """A share as A-REX writes it."""
    keys = {
        "running": "RunningJobs",
        "waiting": "WaitingJobs",
        "local_running": "LocalRunningJobs",
        "local_waiting": "LocalWaitingJobs",
        "preparing": "PreLRMSWaitingJobs",
    }
    found: dict[str, Any] = {
        "Name": name if vo is None else f"{name}_{vo}",
        "MappingQueue": name,
        **{keys[key]: str(value) for key, value in numbers.items()},
        "_attributes": {"CreationTime": MADE},
    }
    if vo is not None:
        found["MappingPolicy"] = [{"Scheme": "basic", "Rule": [f"vo:{vo}"]}]
    return found


def parse(found: Any) -> tuple[Share, ...]:
    body = found if isinstance(found, bytes) else json.dumps(found).encode()
    return parse_shares(Response(200, "OK", body=body), CE)


async def counts(found: Any, queue: str | None = None) -> JobCounts:
    ce = FakeSession()
    body = found if isinstance(found, bytes) else json.dumps(found).encode()
    ce.hooks[Operation.INFO] = answering(Response(200, "OK", body=body))
    return await read_counts(ce, queue)


def numbers(of: JobCounts | ShareCounts) -> tuple[int | None, ...]:
    return of.running, of.waiting, of.ce_running, of.ce_waiting


def test_the_request_needs_no_credentials() -> None:
    request = BUILDER.service_info()
    assert (request.method, request.target) == ("GET", "/arex/rest/1.1/info")
    assert request.scope is None
    assert request.headers["Accept"] == "application/json"


# what real CEs published (tests/integration/record_load.py): one job beside the CE runs on 2 CPUs,
# two of the CE's run on 3 each, two wait in the batch system, one on the CE


@pytest.mark.parametrize("stack", ["arc-slurm-7.0.0", "arc-slurm-7.2.0"])
async def test_a_recorded_queue_with_vos(stack: str) -> None:
    found = await counts(recorded(stack), "main")
    assert numbers(found) == (3, 3, 2, 3)
    assert found.queue == "main"
    assert [(one.name, one.vo, *numbers(one)) for one in found.shares] == [
        ("main", None, 3, 3, 2, 3),
        ("main_atlas", "atlas", 2, 3, 2, 3),
        ("main_cms", "cms", 0, 0, 0, 0),
    ]


@pytest.mark.parametrize("stack", ["arc-slurm-7.0.0", "arc-slurm-7.2.0"])
async def test_a_recorded_ce_with_two_queues(stack: str) -> None:
    found = await counts(recorded(stack))
    assert numbers(found) == (3, 3, 2, 3)
    assert found.queue is None
    assert [one.name for one in found.shares] == ["main", "main_atlas", "main_cms", "other"]
    assert numbers(await counts(recorded(stack), "other")) == (0, 0, 0, 0)


async def test_a_recorded_single_share() -> None:
    """HTCondor's numbers of a whole queue are of CPUs: 2 and twice 3 of them are in use."""
    document = json.loads(recorded("arc-condor-7.0.0"))
    service = document["Domains"]["AdminDomain"]["Services"]["ComputingService"]
    assert isinstance(service["ComputingShare"], dict)
    for queue in ("condor", None):
        found = await counts(document, queue)
        assert numbers(found) == (8, 3, 2, 3)
        (one,) = found.shares
        assert (one.name, one.queue, one.vo) == ("condor", "condor", None)


@pytest.mark.parametrize("stack", STACKS)
async def test_how_old_recorded_numbers_are(stack: str) -> None:
    before = datetime.now(UTC)
    found = await counts(recorded(stack))
    assert found.as_of is not None
    assert found.seen_at is not None
    assert found.as_of.utcoffset() == timedelta(0)
    assert f"{found.as_of:%Y-%m-%dT%H:%M:%SZ}".encode() in recorded(stack)
    assert before <= found.seen_at <= datetime.now(UTC)
    assert found.age == (found.seen_at - found.as_of).total_seconds()
    assert JobCounts.model_validate_json(found.model_dump_json()) == found


# what else may be published


async def test_jobs_of_vos_are_not_counted_twice() -> None:
    shares = [
        share("a", running=5, local_running=1, waiting=7, local_waiting=2, preparing=1),
        share("a", vo="x", running=3, local_running=0, waiting=4, local_waiting=0, preparing=1),
        share("a", vo="y", running=1, local_running=0, waiting=1, local_waiting=0, preparing=0),
        share("b", running=10, local_running=10, waiting=20, local_waiting=20, preparing=100),
    ]
    for order in (shares, shares[::-1]):
        found = await counts(document(*order))
        assert numbers(found) == (15, 128, 4, 106)
        assert numbers(await counts(document(*order), "a")) == (5, 8, 4, 6)
        assert [one.vo for one in found.shares] == [None, "x", "y", None]


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        ({"running": 1, "waiting": 2}, (1, 2, None, None)),
        ({"running": 1}, (1, None, None, None)),
        ({"waiting": 2, "preparing": 3}, (None, 5, None, None)),
        ({"running": 1, "preparing": 3}, (1, None, None, None)),
        ({"running": 1, "local_running": 2, "waiting": 0, "local_waiting": 0}, (1, 0, None, 0)),
        ({"running": "", "waiting": "0"}, (None, 0, None, None)),
    ],
)
async def test_what_is_absent_stays_absent(
    published: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    found = await counts(document(share("a", **published)), "a")
    assert numbers(found) == expected
    (one,) = found.shares
    assert numbers(one) == expected


async def test_a_sum_is_of_all_queues_or_none() -> None:
    both = document(share("a", running=1, waiting=1), share("b", running=1))
    assert numbers(await counts(both)) == (2, None, None, None)


async def test_a_queue_that_only_vos_tell_of_has_no_numbers() -> None:
    some = document(share("a", running=1, waiting=2), share("b", vo="x", running=3, waiting=4))
    with pytest.raises(ProtocolError, match="no numbers of jobs for b"):
        await counts(some, "b")
    with pytest.raises(ProtocolError, match="no numbers of jobs for its queues"):
        await counts(some)
    assert numbers(await counts(some, "a"))[:2] == (1, 2)


async def test_an_unknown_queue_is_told_with_those_there_are() -> None:
    many = document(*(share(f"q{number:02}", running=1) for number in range(30)))
    with pytest.raises(ConfigurationError, match=r"none named Q; it has q00, .*, q19, …") as caught:
        await counts(many, "Q")
    assert caught.value.ce == CE
    assert "q20" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"it has a$"):
        await counts(document(share("a", running=1), share("a", vo="x", running=1)), "b")


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b" \n",
        {},
        {"Domains": ""},
        {"Domains": {"AdminDomain": {"Services": ""}}},
        document(),
        document(ComputingShare=""),
    ],
)
async def test_nothing_published_yet(found: Any) -> None:
    """A-REX answers 200 and nothing before its information provider has run."""
    assert parse(found) == ()
    for queue in (None, "main"):
        with pytest.raises(ProtocolError, match="publishes no queues"):
            await counts(found, queue)


async def test_several_services_and_shares_rendered_bare() -> None:
    first, second = share("a", running=1, waiting=0), share("b", running=2, waiting=0)
    bare = {
        "Domains": {
            "AdminDomain": [
                {"Services": {"ComputingService": {"ComputingShare": first}}},
                {"Services": {"ComputingService": [{"ComputingShare": [second]}, {}]}},
            ]
        }
    }
    assert numbers(await counts(bare))[:2] == (3, 0)


@pytest.mark.parametrize(
    ("attributes", "as_of"),
    [
        ({"CreationTime": MADE}, NOON),
        ({"CreationTime": "2026-11-25T14:00:00+02:00"}, NOON),
        ({"CreationTime": "2026-11-25T12:00:00"}, NOON),
        ({"CreationTime": "0001-01-01T00:00:00+10:00"}, None),
        ({"CreationTime": "lately"}, None),
        ({}, None),
        ("", None),
    ],
)
async def test_when_the_ce_counted(attributes: Any, as_of: datetime | None) -> None:
    one = {**share("a", running=1), "_attributes": attributes}
    found = await counts(document(one))
    assert found.as_of == as_of
    assert (found.age is None) == (as_of is None)
    if as_of is not None:
        later = {**share("b", running=1), "_attributes": {"CreationTime": "2026-11-25T13:00:00Z"}}
        assert (await counts(document(later, one))).as_of == as_of


def test_age_by_two_clocks() -> None:
    assert JobCounts(as_of=NOON, seen_at=NOON + timedelta(seconds=30)).age == 30
    assert JobCounts(as_of=NOON, seen_at=NOON - timedelta(seconds=2)).age == -2
    assert JobCounts(running=1, waiting=2).age is None


# lies


@pytest.mark.parametrize(
    "found",
    [
        b"<html>",
        b"[]",
        b"7",
        b'"text"',
        b"[" * 100_000,
        {"Domains": 1},
        {"Domains": [{}, {}]},
        {"Domains": {"AdminDomain": ["x"]}},
        {"Domains": {"AdminDomain": {"Services": [1]}}},
        document("x"),  # type: ignore[arg-type]
        document({"RunningJobs": "1"}),
        document({"Name": 7}),
        document({"Name": "", "MappingQueue": ""}),
        document(share("a", running="many")),
        document(share("a", running=-1)),
        document(share("a", running="1" * 19)),
        document({**share("a"), "RunningJobs": 1.5}),
        document({**share("a"), "RunningJobs": True}),
        document({**share("a"), "RunningJobs": 10**30}),
        document({**share("a"), "RunningJobs": ["1", "2"]}),
        document(share("a", running=1), share("a", running=2)),
        document(share("a", vo="x", running=1), share("a", vo="x", running=2)),
        document({**share("a", running=1), "MappingPolicy": "x"}),
    ],
)
async def test_no_sense(found: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        await counts(found)
    assert (caught.value.ce, caught.value.operation) == (CE, "info")


async def test_hostile_names_are_cleaned() -> None:
    name = "a\x1b[31m\n" + "x" * 10_000
    one = {"Name": name, "RunningJobs": "1", "MappingPolicy": {"Rule": [f"vo:{name}"] * 1000}}
    found = await counts(document(one, share("b", running=1, waiting=1)), "b")
    assert numbers(found)[:2] == (1, 1)
    with pytest.raises(ConfigurationError) as caught:
        await counts(document(one), "b")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    (parsed,) = parse(document(one))
    assert len(parsed.vo or "") < 2000


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "Domains", "AdminDomain", "Services", "ComputingService", "ComputingShare",
                "Name", "MappingQueue", "RunningJobs", "MappingPolicy", "Rule", "_attributes",
            ]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(_json)
def test_whatever_comes(found: Any) -> None:
    with suppress(ProtocolError):
        parse(found)


@given(st.binary(max_size=100))
def test_whatever_bytes_come(body: bytes) -> None:
    with suppress(ProtocolError):
        parse(body)


async def test_failures_of_the_whole_come_out() -> None:
    ce = FakeSession()
    error = away()
    ce.hooks[Operation.INFO] = raising(lambda: error)
    with pytest.raises(type(error)) as caught:
        await read_counts(ce, None)
    assert caught.value is error
    ce.hooks[Operation.INFO] = answering(Response(404, "Not Found"))
    with pytest.raises(ProtocolError, match="404"):
        await read_counts(ce, None)

"""The verb status against a CE in memory: the truth out of two sources."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from arcbackend import AuthenticationError, JobStatus, TransportError
from arcbackend.listing import LiveListing
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.states import LIVE_LATE_STATES, STATUS, TERMINAL, later
from arcbackend.status import StatusReader
from tests.pure.fake_session import (
    KILLED_RECORD,
    FakeSession,
    answering,
    away,
    raising,
    reader_of,
    refs,
)
from tests.pure.replies import NO_SCOPE, job, reply

FAILED_RECORD = b"2026-01-01 LRMS error: (1) payload failed\n"
BEFORE_THE_END = [state for state in STATUS if state not in (*TERMINAL, "WIPED", "None")]


@pytest.fixture
def ce() -> FakeSession:
    return FakeSession()


@pytest.fixture
def reader(ce: FakeSession) -> StatusReader:
    return _reader(ce)


def _reader(ce: FakeSession, batch: int = 10_000) -> StatusReader:
    return reader_of(ce, LiveListing(ce, "auto", 5.0), batch)


async def _one(reader: StatusReader) -> JobStatus:
    (status,) = (await reader.statuses(refs("a"))).values()
    return status


# Documents and listing.


@pytest.mark.parametrize("documented", [state for state in STATUS if state != "None"])
async def test_what_the_listing_does_not_name_is_as_documented(
    ce: FakeSession, reader: StatusReader, documented: str
) -> None:
    ce.documented["a"] = documented
    assert await _one(reader) is STATUS[documented]


@pytest.mark.parametrize("documented", BEFORE_THE_END)
@pytest.mark.parametrize("live", LIVE_LATE_STATES)
async def test_the_later_of_two_states_holds(
    autojump_clock: MockClock,
    ce: FakeSession,
    reader: StatusReader,
    documented: str,
    live: str,
) -> None:
    ce.documented["a"], ce.live["a"] = documented, live
    ce.records["a"] = FAILED_RECORD
    assert await _one(reader) is STATUS[later(documented, live)]


@pytest.mark.parametrize(
    ("documented", "live", "status"),
    [
        # A document is up to a minute old, the listing is not.
        ("ACCEPTED", "FINISHED", JobStatus.DONE),
        ("RUNNING", "FINISHED", JobStatus.DONE),
        ("HELD", "EXECUTED", JobStatus.RUNNING),
        ("QUEUING", "KILLING", JobStatus.RUNNING),
        ("FINISHED", "WIPED", JobStatus.UNKNOWN),
        # A listing asked a moment before the document was.
        ("FINISHED", "FINISHING", JobStatus.DONE),
        ("KILLED", "KILLING", JobStatus.ABORTED),
        ("FAILED", "EXECUTED", JobStatus.FAILED),
        ("WIPED", "FINISHED", JobStatus.UNKNOWN),
        # The listing calls killed jobs failed.
        ("KILLED", "FAILED", JobStatus.ABORTED),
        ("FAILED", "FAILED", JobStatus.FAILED),
        ("FINISHED", "FAILED", JobStatus.DONE),
    ],
)
async def test_two_sources(
    ce: FakeSession, reader: StatusReader, documented: str, live: str, status: JobStatus
) -> None:
    ce.documented["a"], ce.live["a"] = documented, live
    ce.records["a"] = FAILED_RECORD
    assert await _one(reader) is status
    # A FAILED without a document of its own is computed as the listing's, and looked into as that.
    assert ce.count(Operation.DIAGNOSE) == (1 if documented == "FAILED" else 0)


async def test_a_killed_job_that_the_documents_call_failed(
    ce: FakeSession, reader: StatusReader
) -> None:
    """7.0.0 does so until the information provider has seen the job."""
    ce.documented["a"] = ce.live["a"] = "FAILED"
    ce.records["a"] = KILLED_RECORD
    assert await _one(reader) is JobStatus.ABORTED


@pytest.mark.parametrize("live", [None, *LIVE_LATE_STATES])
async def test_what_the_documents_do_not_know_is_unknown(
    ce: FakeSession, reader: StatusReader, live: str | None
) -> None:
    if live is not None:
        ce.live["a"] = live
    assert await _one(reader) is JobStatus.UNKNOWN
    assert ce.count(Operation.DIAGNOSE) == 0


@pytest.mark.parametrize(
    ("live", "status"),
    [
        (None, JobStatus.UNKNOWN),
        ("FINISHED", JobStatus.DONE),
        ("EXECUTED", JobStatus.RUNNING),
        ("KILLING", JobStatus.RUNNING),
    ],
)
async def test_a_document_that_cannot_be_read_leaves_the_listing(
    ce: FakeSession, reader: StatusReader, live: str | None, status: JobStatus
) -> None:
    ce.hooks[Operation.JOBS_STATUS] = answering(
        reply({"job": [job("a", "500"), job("b", state="RUNNING")]})
    )
    if live is not None:
        ce.live["a"] = live
    assert list((await reader.statuses(refs("a", "b"))).values()) == [status, JobStatus.RUNNING]


async def test_a_killed_job_whose_document_cannot_be_read(
    ce: FakeSession, reader: StatusReader
) -> None:
    ce.hooks[Operation.JOBS_STATUS] = answering(reply({"job": [job("a", "500")]}))
    ce.live["a"], ce.records["a"] = "FAILED", KILLED_RECORD
    assert await _one(reader) is JobStatus.ABORTED


async def test_a_state_without_a_name_is_not_a_state(ce: FakeSession, reader: StatusReader) -> None:
    ce.hooks[Operation.JOBS_STATUS] = answering(reply({"job": [job("a")]}))
    ce.live["a"] = "FINISHED"
    assert await _one(reader) is JobStatus.DONE


# Killed or failed.


@pytest.mark.parametrize(
    ("record", "status"),
    [
        (KILLED_RECORD, JobStatus.ABORTED),
        (b"x\nJob was canceled while waiting in DTR queue\n", JobStatus.ABORTED),
        (FAILED_RECORD, JobStatus.FAILED),
    ],
)
async def test_the_record_tells_killed_from_failed(
    ce: FakeSession, reader: StatusReader, record: bytes, status: JobStatus
) -> None:
    ce.documented["a"], ce.live["a"], ce.records["a"] = "RUNNING", "FAILED", record
    assert await _one(reader) is status
    assert ce.count(Operation.DIAGNOSE) == 1


@pytest.mark.parametrize("at_first", [b"", b" \n", None])
async def test_a_record_that_is_written_a_moment_later(
    autojump_clock: MockClock, ce: FakeSession, reader: StatusReader, at_first: bytes | None
) -> None:
    async def diagnose(_request: Request) -> None:
        if ce.count(Operation.DIAGNOSE) > 1:
            ce.records["a"] = KILLED_RECORD
        elif at_first is not None:
            ce.records["a"] = at_first

    ce.hooks[Operation.DIAGNOSE] = diagnose
    ce.documented["a"], ce.live["a"] = "RUNNING", "FAILED"
    assert await _one(reader) is JobStatus.ABORTED
    assert ce.count(Operation.DIAGNOSE) == 2


@pytest.mark.parametrize(
    "failure",
    [Response(404, "Not Found"), Response(200, "OK"), Response(500, "Internal Server Error")],
    ids=repr,
)
async def test_no_record_is_as_listed_and_looked_into_again(
    autojump_clock: MockClock, ce: FakeSession, reader: StatusReader, failure: Response
) -> None:
    ce.documented |= {"a": "RUNNING", "b": "RUNNING", "c": "RUNNING"}
    ce.live |= {"a": "FAILED", "b": "FAILED"}
    ce.records["b"] = KILLED_RECORD

    async def diagnose(request: Request) -> Response | None:
        return failure if "/a/" in request.target else None

    ce.hooks[Operation.DIAGNOSE] = diagnose
    began = trio.current_time()
    assert list((await reader.statuses(refs("a", "b", "c"))).values()) == [
        JobStatus.FAILED,
        JobStatus.ABORTED,
        JobStatus.RUNNING,
    ]
    assert trio.current_time() - began < 2
    ce.hooks.clear()
    ce.records["a"] = KILLED_RECORD
    assert await _one(reader) is JobStatus.ABORTED  # nothing false was remembered


async def test_an_end_found_out_is_not_asked_again(ce: FakeSession, reader: StatusReader) -> None:
    ce.documented |= {"a": "RUNNING", "b": "RUNNING"}
    ce.live |= {"a": "FAILED", "b": "FAILED"}
    ce.records |= {"a": KILLED_RECORD, "b": FAILED_RECORD}
    for _ in range(3):
        assert list((await reader.statuses(refs("a", "b"))).values()) == [
            JobStatus.ABORTED,
            JobStatus.FAILED,
        ]
    assert ce.count(Operation.DIAGNOSE) == 2


async def test_only_so_many_ends_are_remembered(
    ce: FakeSession, reader: StatusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcbackend.ends._REMEMBERED", 3)
    for local in "abcde":
        ce.documented[local], ce.live[local] = "RUNNING", "FAILED"
        ce.records[local] = KILLED_RECORD
        await reader.statuses(refs(local))
    assert ce.count(Operation.DIAGNOSE) == 5
    await reader.statuses(refs("c", "d", "e"))
    assert ce.count(Operation.DIAGNOSE) == 5  # the last three are known
    assert await _one(reader) is JobStatus.ABORTED
    assert ce.count(Operation.DIAGNOSE) == 6  # the first is asked again


# What fails the call, and what does not.


@pytest.mark.parametrize("operation", [Operation.JOBS_STATUS, Operation.DIAGNOSE])
async def test_a_ce_away_is_raised_bare(
    ce: FakeSession, reader: StatusReader, operation: Operation
) -> None:
    for local in "abc":
        ce.documented[local], ce.live[local] = "RUNNING", "FAILED"
    ce.hooks[operation] = raising(away)
    with pytest.raises(TransportError):
        await reader.statuses(refs("a", "b", "c"))


@pytest.mark.parametrize(
    "operation", [Operation.JOBS_STATUS, Operation.JOBS_LIST, Operation.DIAGNOSE]
)
async def test_refused_credentials_are_raised_bare(
    ce: FakeSession, reader: StatusReader, operation: Operation
) -> None:
    for local in "abc":
        ce.documented[local], ce.live[local] = "RUNNING", "FAILED"
    ce.hooks[operation] = answering(NO_SCOPE)
    with pytest.raises(AuthenticationError):
        await reader.statuses(refs("a", "b", "c"))


async def test_a_listing_that_fails_leaves_the_documents(
    ce: FakeSession, reader: StatusReader
) -> None:
    ce.documented["a"] = "RUNNING"
    ce.hooks[Operation.JOBS_LIST] = raising(away)
    assert await _one(reader) is JobStatus.RUNNING


async def test_a_state_unheard_of_is_unknown_and_logged_once(
    ce: FakeSession, reader: StatusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcbackend.status._unheard_of", set())
    ce.documented |= {"a": "LEVITATING", "b": "LEVITATING", "c": "RUNNING"}
    with capture_logs() as logs:
        for _ in range(2):
            assert list((await reader.statuses(refs("a", "b", "c"))).values()) == [
                JobStatus.UNKNOWN,
                JobStatus.UNKNOWN,
                JobStatus.RUNNING,
            ]
    assert [log["state"] for log in logs if log["event"] == "state.unheard_of"] == ["LEVITATING"]


async def test_a_late_live_state_is_stronger_than_one_unheard_of(
    ce: FakeSession, reader: StatusReader
) -> None:
    ce.documented["a"], ce.live["a"] = "LEVITATING", "FINISHED"
    assert await _one(reader) is JobStatus.DONE


# Many jobs.


async def test_no_ids_ask_nothing(ce: FakeSession, reader: StatusReader) -> None:
    assert await reader.statuses([]) == {}
    assert ce.calls == []


@pytest.mark.parametrize("direction", [sorted, lambda ids: sorted(ids, reverse=True)])
async def test_the_result_is_complete_and_in_the_order_asked(
    ce: FakeSession, direction: Callable[[list[str]], list[str]]
) -> None:
    ids = [f"j{number:04d}" for number in range(1000)]
    # Of four kinds: documented, listed, killed and unknown.
    ce.documented |= dict.fromkeys(ids[:900], "RUNNING")
    ce.live |= dict.fromkeys(ids[300:600], "FINISHED") | dict.fromkeys(ids[600:650], "FAILED")
    ce.records |= dict.fromkeys(ids[600:650], KILLED_RECORD)
    asked = refs(*direction(ids))
    statuses = await _reader(ce, batch=70).statuses(asked)
    assert list(statuses) == [ref.id for ref in asked]
    expected = (
        dict.fromkeys(ids[:300] + ids[650:900], JobStatus.RUNNING)
        | dict.fromkeys(ids[300:600], JobStatus.DONE)
        | dict.fromkeys(ids[600:650], JobStatus.ABORTED)
        | dict.fromkeys(ids[900:], JobStatus.UNKNOWN)
    )
    assert statuses == {ref.id: expected[ref.local] for ref in asked}


@pytest.mark.parametrize(("count", "most"), [(10_000, 2), (100_000, 11)])
async def test_requests_for_many_jobs(
    ce: FakeSession, reader: StatusReader, count: int, most: int
) -> None:
    ids = [f"{number:054d}" for number in range(count)]  # as long as A-REX's
    ce.documented |= dict.fromkeys(ids, "RUNNING")
    ce.live[ids[-1]] = "FINISHED"
    statuses = list((await reader.statuses(refs(*ids))).values())
    assert statuses == [JobStatus.RUNNING] * (count - 1) + [JobStatus.DONE]
    assert len(ce.calls) <= most
    assert ce.count(Operation.JOBS_LIST) == 1

"""The verb diagnostics against a CE in memory, which says what real ones said."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from arcbackend import (
    AuthenticationError,
    Diagnostics,
    JobStatus,
    ProtocolError,
    TransportError,
)
from arcbackend.diagnosis import Diagnoser
from arcbackend.jobids import JobRef
from arcbackend.listing import LiveListing
from arcbackend.protocol.activity import activity_of
from arcbackend.protocol.messages import Operation, Request, Response
from tests.pure.fake_session import (
    FakeSession,
    Hook,
    answering,
    away,
    for_each,
    items_of,
    raising,
    refs,
)
from tests.pure.recorded_jobs import EVERY, JOBS, Recorded
from tests.pure.replies import NO_SCOPE, job, reply

DIAGNOSE, INFO, LIST = Operation.DIAGNOSE, Operation.JOBS_INFO, Operation.JOBS_LIST
SLURM = JOBS["arc-slurm-7.0.0"]
DESCRIPTION = b"<ActivityDescription/>"


@pytest.fixture
def ce() -> FakeSession:
    return FakeSession()


def put(ce: FakeSession, local: str, recorded: Recorded, *, published: bool = True) -> None:
    """Put a job on the CE as it was; or as it was before the information provider saw its end."""
    ce.jobs[local] = "name"
    document = dict(activity_of(recorded.document).fields)
    if not published:
        for field in ("Error", "ExitCode", "UsedTotalWallTime", "ExecutionNode"):
            document.pop(field, None)
        document["State"] = ["nordugrid:INLRMS:R", "arcrest:RUNNING"]
    ce.documents[local] = document
    ce.items |= {(local, item): text.encode() for item, text in recorded.items.items()}
    ce.items[local, "description"] = DESCRIPTION


def ask(ce: FakeSession) -> Diagnoser:
    return Diagnoser(ce, LiveListing(ce, "auto", 5.0), items_of(ce), workers=3)


async def diagnose(ce: FakeSession, *ids: str) -> list[Diagnostics]:
    return list((await ask(ce).diagnose(refs(*ids))).values())


def items_asked(ce: FakeSession) -> list[str]:
    calls = [call.request for call in ce.calls if call.request.operation is DIAGNOSE]
    return sorted({request.target.rpartition("/")[2] for request in calls})


# --- one job --------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", EVERY, ids=lambda job: f"{job.stack}: {job.case}")
async def test_one_job(ce: FakeSession, recorded: Recorded) -> None:
    put(ce, "a", recorded)
    (told,) = await diagnose(ce, "a")
    case = recorded.case
    failed, killed = "failed" in recorded.items, case.startswith("killed")
    running = {"running": JobStatus.RUNNING, "waiting": JobStatus.WAITING}
    ended = JobStatus.ABORTED if killed else JobStatus.FAILED if failed else JobStatus.DONE
    assert told.status is running.get(case, ended)
    assert (told.failure_reason is not None) == failed
    assert told.killed_by_request is (None if case in running else killed)
    assert told.record == (recorded.items["failed"].strip("\n") if failed else None) or (
        "hunter2" in recorded.items["failed"] and "hunter2" not in (told.record or "")
    )
    assert told.log is not None
    assert told.log.endswith(recorded.items["errors"].rstrip("\n")[-60:])
    assert told.log_size == len(recorded.items["errors"])
    assert told.description == DESCRIPTION.decode()
    assert told.reason is None
    assert told.exit_code == activity_exit_code(recorded)
    assert ce.counted()[DIAGNOSE] == (3 if case in running else 2)
    assert ce.counted().total() <= 4


def activity_exit_code(recorded: Recorded) -> int | None:
    text = activity_of(recorded.document).text("ExitCode")
    return None if text is None else int(text)


@pytest.mark.parametrize("case", ["exit 3", "killed running", "ok", "no input", "over time"])
async def test_right_after_the_end_of_one_job(ce: FakeSession, case: str) -> None:
    """Its document is of before the end; what decides is live."""
    put(ce, "a", SLURM[case])
    (published,) = await diagnose(ce, "a")
    put(ce, "a", SLURM[case], published=False)
    ce.calls.clear()
    assert await diagnose(ce, "a") == [published]
    assert items_asked(ce) == ["description", "diag", "errors", "failed", "status"]
    assert ce.counted().total() == 6


@pytest.mark.parametrize(
    ("status", "record", "expected"),
    [
        (b"CANCELING", b"Job is canceled by external request\n", ("KILLING", True)),
        (b"CANCELING", b"LRMS error: (3) Job failed\n", ("KILLING", None)),
        (b"FINISHING", b"", ("FINISHING", None)),
        (b"PENDING:INLRMS", b"", ("RUNNING", None)),
    ],
)
async def test_a_job_that_is_about_to_end(
    ce: FakeSession, status: bytes, record: bytes, expected: tuple[str, bool | None]
) -> None:
    put(ce, "a", SLURM["running"])
    ce.items |= {("a", "status"): status, ("a", "failed"): record}
    (told,) = await diagnose(ce, "a")
    assert (told.arc_state, told.killed_by_request) == expected
    assert told.status is JobStatus.RUNNING
    assert told.failure_reason is None


async def test_an_end_without_a_record(autojump_clock: MockClock, ce: FakeSession) -> None:
    put(ce, "a", SLURM["exit 3"])
    del ce.documents["a"]["Error"], ce.items["a", "failed"], ce.documents["a"]["ExitCode"]
    (told,) = await diagnose(ce, "a")
    assert told.failure_reason == "the CE says that it failed, and has no record of why"
    assert told.record is None


async def test_a_record_that_is_published_in_part(ce: FakeSession) -> None:
    put(ce, "a", SLURM["killed running"])
    noise = "Failed in data staging: " + "x" * 1000
    ce.documents["a"] |= {"Error": noise, "State": "arcrest:FAILED"}
    ce.items["a", "failed"] = f"{noise}\nJob is canceled by external request\n".encode()
    (told,) = await diagnose(ce, "a")
    assert (told.arc_state, told.status) == ("KILLED", JobStatus.ABORTED)
    assert told.failure_reason == "killed by request (ARC client)"


async def test_a_log_of_megabytes(ce: FakeSession) -> None:
    put(ce, "a", SLURM["exit 3"])
    ce.items["a", "errors"] = b"".join(b"line %d\n" % number for number in range(400_000))
    (told,) = await diagnose(ce, "a")
    assert told.log_size == len(ce.items["a", "errors"])
    assert told.log is not None
    assert 60_000 < len(told.log) <= 65_536
    first, *_, last = told.log.split("\n")
    assert first.startswith("line ")
    assert last == "line 399999"


async def test_texts_are_bounded_and_clean(ce: FakeSession) -> None:
    put(ce, "a", SLURM["exit 3"])
    ce.documents["a"]["Error"] = "Internal error"
    huge = b"https://h/x?sig=hunter2 \x1b[31m" * 10_000
    for item in ("failed", "errors", "description", "diag"):
        ce.items["a", item] = huge
    ce.documents["a"].pop("Error")
    (told,) = await diagnose(ce, "a")
    assert "hunter2" not in told.model_dump_json()
    assert "\x1b" not in (told.log or "") + (told.record or "") + (told.failure_reason or "")
    assert len(told.log or "") <= 65_536
    assert len(told.record or "") <= 4096
    assert len(told.description or "") <= 16_384
    assert len(told.failure_reason or "") <= 400


# --- many jobs ------------------------------------------------------------------------------


async def test_a_thousand_that_ended_well_are_read_in_bulk(ce: FakeSession) -> None:
    ids = [f"j{number}" for number in range(1000)]
    for local in ids:
        put(ce, local, SLURM["ok"])
    told = await diagnose(ce, *ids)
    assert {one.status for one in told} == {JobStatus.DONE}
    assert {one.exit_code for one in told} == {0}
    assert {(one.log, one.description, one.reason) for one in told} == {(None, None, None)}
    assert ce.counted() == {INFO: 2}


async def test_of_many_only_what_is_open_is_looked_into(ce: FakeSession) -> None:
    cases = [case for case in SLURM if case not in ("running", "waiting")]
    for case in cases:
        put(ce, case.replace(" ", "-"), SLURM[case])
    many = await ask(ce).diagnose(refs(*(case.replace(" ", "-") for case in cases)))
    assert ce.counted()[INFO] == 1
    assert items_asked(ce) == ["errors"]
    logged = {id_.rpartition("/")[2] for id_, told in many.items() if told.log is not None}
    assert logged == {
        "SIGKILL",
        "no-executable",
        "cancelled-running",
        "cancelled-waiting",
        "not-submitted",
        "over-memory",
    }
    for id_, told in many.items():
        (alone,) = (await ask(ce).diagnose([JobRef(id_, id_.rpartition("/")[2])])).values()
        assert told.failure_reason == alone.failure_reason
        fields = {"arc_state", "exit_code", "killed_by_request", "record", "reason", "status"}
        assert told.model_dump(include=fields) == alone.model_dump(include=fields)


async def test_of_many_that_are_not_over_the_listing_tells(ce: FakeSession) -> None:
    ids = [f"j{number}" for number in range(20)]
    for local in ids:
        put(ce, local, SLURM["running"])
    put(ce, "j0", SLURM["exit 3"], published=False)
    put(ce, "j1", SLURM["killed running"], published=False)
    ce.live = {"j0": "FAILED", "j1": "FAILED", "j2": "FINISHING"}
    told = await diagnose(ce, *ids)
    states = ["FAILED", "KILLED", "FINISHING", *["RUNNING"] * 17]
    assert [one.arc_state for one in told] == states
    assert [one.failure_reason for one in told[:3]] == [
        "exit code 3",
        "killed by request (ARC client)",
        None,
    ]
    assert told[0].exit_code == 3
    assert ce.counted() == {INFO: 1, LIST: 1, DIAGNOSE: 4}
    assert items_asked(ce) == ["diag", "failed"]


async def test_no_job_takes_no_request(ce: FakeSession) -> None:
    assert await diagnose(ce) == []
    assert ce.calls == []


# --- what goes wrong ------------------------------------------------------------------------


async def test_unknown_jobs_have_a_reason_and_keep_their_place(ce: FakeSession) -> None:
    put(ce, "b", SLURM["exit 3"])
    told = await ask(ce).diagnose(refs("c", "b", "a", "b"))
    assert [id_.rpartition("/")[2] for id_ in told] == ["c", "b", "a"]
    unknown = Diagnostics(
        reason="the CE knows no such job: it never did, or it was purged or has expired"
    )
    assert [one == unknown for one in told.values()] == [True, False, True]


async def test_a_job_that_the_ce_refuses_to_tell_of(ce: FakeSession) -> None:
    put(ce, "a", SLURM["exit 3"])
    put(ce, "b", SLURM["exit 3"])
    ce.hooks[INFO] = for_each("500", only=["a"])
    first, second = await diagnose(ce, "a", "b")
    assert first == Diagnostics(reason="the CE refused: no")
    assert second.reason is None


def broken(local: str, item: str, response: Response | Exception) -> Hook:
    async def hook(request: Request) -> Response | None:
        if not request.target.endswith(f"/{local}/diagnose/{item}"):
            return None
        if isinstance(response, Exception):
            raise response
        return response

    return hook


@pytest.mark.parametrize("failure", [away(), Response(500, "broken")], ids=["gone", "500"])
async def test_what_fails_for_one_job_is_its_reason(
    ce: FakeSession, failure: Response | Exception
) -> None:
    put(ce, "a", SLURM["exit 3"])
    put(ce, "b", SLURM["exit 3"])
    ce.hooks[DIAGNOSE] = broken("a", "errors", failure)
    first, second = await diagnose(ce, "a", "b")
    assert (first.failure_reason, first.exit_code) == ("exit code 3", 3)
    assert first.reason
    assert first.log is None
    assert second.reason is None
    assert second.log is not None


async def test_a_ce_that_is_gone_for_every_job_is_an_exception(ce: FakeSession) -> None:
    for local in ("a", "b"):
        put(ce, local, SLURM["exit 3"])
    ce.hooks[DIAGNOSE] = raising(away)
    with pytest.raises(TransportError, match="read timeout"):
        await diagnose(ce, "a", "b")
    ce.hooks[INFO] = raising(away)
    with pytest.raises(TransportError, match="read timeout"):
        await diagnose(ce, "a")


async def test_a_ce_that_goes_is_not_asked_for_every_job(ce: FakeSession) -> None:
    ids = [f"j{number}" for number in range(100)]
    for local in ids:
        put(ce, local, SLURM["cancelled running"])
    put(ce, "done", SLURM["ok"])
    ce.hooks[DIAGNOSE] = raising(away)
    told = await diagnose(ce, "done", *ids)
    assert told[0].reason is None
    assert all(one.reason and "read timeout" in one.reason for one in told[1:])
    assert {one.failure_reason for one in told[1:]} >= {
        "killed in the batch system (Slurm: Job was cancelled)"
    }
    assert ce.count(DIAGNOSE) < 10


@pytest.mark.parametrize("operation", [INFO, DIAGNOSE])
async def test_refused_credentials_are_never_per_job(ce: FakeSession, operation: Operation) -> None:
    for local in ("a", "b"):
        put(ce, local, SLURM["exit 3"])
    ce.hooks[operation] = answering(NO_SCOPE)
    with pytest.raises(AuthenticationError):
        await diagnose(ce, "a", "b")


async def test_a_broken_answer_for_the_whole(ce: FakeSession) -> None:
    ce.hooks[INFO] = answering(Response(201, "Created", body=b"<html>"))
    with pytest.raises(ProtocolError):
        await diagnose(ce, "a")


@pytest.mark.parametrize("document", ["", [], {"ComputingActivity": "x"}, {"x": 1}])
async def test_a_document_that_is_none(ce: FakeSession, document: object) -> None:
    ce.hooks[INFO] = answering(reply({"job": [job("a", info_document=document)]}))
    ce.items["a", "status"] = b"INLRMS"
    (told,) = await diagnose(ce, "a")
    assert told.status is JobStatus.UNKNOWN

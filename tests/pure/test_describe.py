"""The verb describe against a CE in memory, which says what real ones said."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from arcbackend import AuthenticationError, JobDetails, TransportError
from arcbackend.describe import Describer
from arcbackend.protocol.activity import activity_of
from arcbackend.protocol.messages import Operation, Response
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
from tests.pure.replies import NO_SCOPE
from tests.pure.test_records import GNU_TIME

DIAGNOSE, INFO = Operation.DIAGNOSE, Operation.JOBS_INFO
SLURM = JOBS["arc-slurm-7.0.0"]
# What is asked of few jobs only.
OF_FEW = {"batch_system", "batch_id", "peak_memory_mb"}


@pytest.fixture
def ce() -> FakeSession:
    return FakeSession()


def put(ce: FakeSession, local: str, recorded: Recorded) -> None:
    ce.jobs[local] = "name"
    ce.documents[local] = dict(activity_of(recorded.document).fields)
    ce.items |= {(local, item): text.encode() for item, text in recorded.items.items()}


async def describe(ce: FakeSession, *ids: str) -> list[JobDetails]:
    return list((await Describer(ce, items_of(ce)).describe(refs(*ids))).values())


async def test_one_job(ce: FakeSession) -> None:
    put(ce, "a", SLURM["exit 3"])
    (told,) = await describe(ce, "a")
    document = activity_of(SLURM["exit 3"].document)
    ended = datetime.fromisoformat(document.text("ComputingManagerEndTime") or "")
    assert (told.exit_code, told.arc_state, told.queue, told.slots) == (3, "FAILED", "main", 1)
    assert (told.batch_system, told.nodes) == ("SLURM", ("localhost",))
    assert (told.batch_id or "").isdigit()
    assert told.errors == ("LRMS error: (3) Job failed",)
    assert told.ended_at == ended
    assert told.ended_at.tzinfo is UTC
    assert told.started_at is not None
    assert told.submitted_at is not None
    assert told.submitted_at <= told.started_at <= told.ended_at
    assert told.wall_time_s == (told.ended_at - told.started_at).total_seconds()
    assert (told.cpu_time_s, told.memory_mb, told.completed_at) == (None, None, None)
    assert told.reason is None
    assert ce.counted() == {INFO: 1, DIAGNOSE: 2}


@pytest.mark.parametrize("recorded", EVERY, ids=lambda job: f"{job.stack}: {job.case}")
async def test_few_and_many_agree(ce: FakeSession, recorded: Recorded) -> None:
    ids = [f"j{number}" for number in range(20)]
    for local in ids:
        put(ce, local, recorded)
    many = await describe(ce, *ids)
    assert ce.counted() == {INFO: 1}
    assert len({one.model_dump_json() for one in many}) == 1
    (alone,) = await describe(ce, "j7")
    assert alone.model_dump(exclude=OF_FEW) == many[7].model_dump(exclude=OF_FEW)


async def test_right_after_the_end_of_one_job(ce: FakeSession) -> None:
    put(ce, "a", SLURM["exit 3"])
    put(ce, "b", SLURM["running"])
    ce.items["b", "diag"] = ce.items["a", "diag"]
    ended, running = await describe(ce, "a", "b")
    assert running.arc_state == "RUNNING"  # as documented
    for field in ("exit_code", "nodes", "started_at", "ended_at", "wall_time_s"):
        assert getattr(running, field) == getattr(ended, field)


async def test_what_gnu_time_measured(ce: FakeSession) -> None:
    put(ce, "a", SLURM["exit 3"])
    ce.documents["a"] |= {"UsedTotalCPUTime": "0", "UsedMainMemory": "0"}
    ce.items["a", "diag"] = GNU_TIME
    (told,) = await describe(ce, "a")
    assert told.cpu_time_s == pytest.approx(0.78)
    assert (told.memory_mb, told.peak_memory_mb) == (None, 193)


async def test_it_survives_json(ce: FakeSession) -> None:
    put(ce, "a", SLURM["ok"])
    (told,) = await describe(ce, "a")
    assert JobDetails.model_validate_json(told.model_dump_json()) == told


async def test_no_job_takes_no_request(ce: FakeSession) -> None:
    assert await describe(ce) == []
    assert ce.calls == []


async def test_unknown_and_refused_jobs_have_a_reason(ce: FakeSession) -> None:
    put(ce, "a", SLURM["exit 3"])
    unknown, known = await describe(ce, "c", "a")
    assert unknown == JobDetails(
        reason="the CE knows no such job: it never did, or it was purged or has expired"
    )
    assert known.reason is None
    assert ce.count(DIAGNOSE) == 2
    ce.hooks[INFO] = for_each("500", only=["a"])
    (refused,) = await describe(ce, "a")
    assert refused == JobDetails(reason="the CE refused: no")


@pytest.mark.parametrize("hook", [raising(away), answering(Response(500, "broken"))])
async def test_without_the_records_there_is_the_document(ce: FakeSession, hook: Hook) -> None:
    put(ce, "a", SLURM["exit 3"])
    ce.hooks[DIAGNOSE] = hook
    (told,) = await describe(ce, "a")
    assert told.exit_code == 3
    assert told.batch_id is None
    assert told.reason


async def test_failures_of_the_whole(ce: FakeSession) -> None:
    put(ce, "a", SLURM["exit 3"])
    ce.hooks[DIAGNOSE] = answering(NO_SCOPE)
    with pytest.raises(AuthenticationError):
        await describe(ce, "a")
    ce.hooks[INFO] = raising(away)
    with pytest.raises(TransportError):
        await describe(ce, "a")

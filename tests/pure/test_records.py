"""The CE's records of a job, typed: what real ones say, and what hostile ones cannot do."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend.moments import utc
from arcbackend.protocol.activity import activity_of
from arcbackend.protocol.records import (
    BATCH_STATES,
    Facts,
    facts_of_diag,
    facts_of_document,
    facts_of_local,
    pairs,
)
from tests.pure.recorded_jobs import EVERY, JOBS, STACKS, Recorded

ALL = pytest.mark.parametrize("stack", STACKS)
# As GNU time on the nodes adds to it, on 7.2.0 (docs/explanation/diagnostics.md).
GNU_TIME = b"""runtimeenvironments=
Processors=1
Command exited with non-zero status 4
CPUUsage=39%
MaxResidentMemory=197200kB
AverageUnsharedMemory=0kB
usedscratch=10
walltime=2

nodename=localhost
WallTime=2s
Processors=1
UserTime=0.29s
KernelTime=0.49s
AverageTotalMemory=0kB
AverageResidentMemory=0kB
LRMSStartTime=20261125130925Z
LRMSEndTime=20261125130927Z
exitcode=4
"""


def activity(**fields: Any) -> dict[str, Any]:
    return {"ComputingActivity": fields}


# --- real ones ------------------------------------------------------------------------------


@ALL
def test_a_job_that_ended_well(stack: str) -> None:
    job = JOBS[stack]["ok"]
    facts = facts_of_document(job.document)
    assert facts.state == "FINISHED"
    assert (facts.exit_code, facts.slots, facts.errors, facts.failed_in) == (0, 2, (), None)
    assert (facts.name or "").startswith("arcbackend-")
    assert facts.queue == ("condor" if "condor" in stack else "main")
    (node,) = facts.nodes
    assert "localhost" in node
    times = [utc(time) for time in (facts.submitted, facts.started, facts.ended, facts.completed)]
    known = [time for time in times if time is not None]
    assert known == sorted(known)
    assert len(known) == 4
    expires = utc(facts.expires)
    assert expires is not None
    assert (expires - known[-1]).days == 7
    assert facts.as_of
    # Published twice as long as it was, for two slots.
    assert facts.wall_time_s == facts_of_diag(job.item("diag")).wall_time_s
    assert facts.wall_time_s is not None
    assert facts.wall_time_s < 5


@ALL
def test_the_document_and_what_it_is_made_of_agree(stack: str) -> None:
    for case, job in JOBS[stack].items():
        facts, diag = facts_of_document(job.document), facts_of_diag(job.item("diag"))
        local = facts_of_local(job.item("local"))
        assert facts.submitted is not None, case
        assert utc(facts.submitted) == utc(local.submitted)
        assert utc(facts.expires) == utc(local.expires)
        assert facts.queue == local.queue
        assert local.batch_system == ("condor" if "condor" in stack else "SLURM")
        if facts.state not in BATCH_STATES:
            assert facts.exit_code == diag.exit_code, case
            assert utc(facts.started) == utc(diag.started)
            assert utc(facts.ended) == utc(diag.ended)
            assert facts.wall_time_s == diag.wall_time_s
            assert facts.nodes == diag.nodes
            assert facts.failed_in == local.failed_in


@ALL
def test_the_batch_system_s_id_is_published_as_long_as_the_job_is_there(stack: str) -> None:
    for case, job in JOBS[stack].items():
        published = facts_of_document(job.document).batch_id
        recorded = facts_of_local(job.item("local")).batch_id
        assert published == (recorded if case in ("running", "waiting") else None)
    assert facts_of_local(JOBS[stack]["ok"].item("local")).batch_id


@ALL
def test_the_memory_of_a_job_in_the_batch_system_is_not_believed(stack: str) -> None:
    running = JOBS[stack]["running"]
    assert activity_of(running.document).text("UsedMainMemory")
    assert facts_of_document(running.document).memory_mb is None
    if "condor" in stack:
        assert (facts_of_document(JOBS[stack]["over memory"].document).memory_mb or 0) > 50


@ALL
def test_where_jobs_failed(stack: str) -> None:
    failed_in = {
        case: facts_of_document(job.document).failed_in for case, job in JOBS[stack].items()
    }
    assert failed_in["no input"] == "PREPARING"
    assert failed_in["exit 3"] == failed_in["killed running"] == "INLRMS"
    assert failed_in["no output"] == "FINISHING"
    assert failed_in["running"] is failed_in["killed at once"] is None


def test_gnu_time() -> None:
    facts = facts_of_diag(GNU_TIME)
    assert facts.cpu_time_s == pytest.approx(0.78)
    assert (facts.memory_mb, facts.peak_memory_mb, facts.exit_code) == (None, 193, 4)
    assert utc(facts.ended) == datetime(2026, 11, 25, 13, 9, 27, tzinfo=UTC)


def test_before_the_information_provider_ran() -> None:
    document = {
        "OtherInfo": "SubmittedVia=org.ogf.glue.emies.activitycreation",
        "State": ["arcrest:ACCEPTING", "emiesattr:client-stagein-possible"],
        "_attributes": {"CreationTime": "2026-11-25T12:49:34+00:00", "Validity": "60"},
    }
    facts = facts_of_document({"ComputingActivity": document})
    assert facts == Facts(state="ACCEPTING", as_of="2026-11-25T12:49:34+00:00")
    assert facts_of_diag(b"") == facts_of_local(b"") == Facts()


# --- odd ones -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "facts"),
    [
        (activity(ExitCode="3"), Facts(exit_code=3)),
        (activity(ExitCode=["3"]), Facts(exit_code=3)),
        ([activity(ExitCode="-1")], Facts(exit_code=-1)),
        (activity(ExitCode="3 "), Facts()),
        (activity(ExitCode="٣"), Facts()),
        (activity(ExitCode=3), Facts()),
        (activity(ExitCode="9" * 100), Facts()),
        (activity(UsedTotalWallTime="6", RequestedSlots="3"), Facts(slots=3, wall_time_s=2)),
        (activity(UsedTotalWallTime="6"), Facts()),
        (activity(UsedTotalWallTime="6", RequestedSlots="0"), Facts(slots=0)),
        (activity(UsedTotalWallTime="-6", RequestedSlots="1"), Facts(slots=1)),
        (activity(UsedTotalWallTime="inf", RequestedSlots="1"), Facts(slots=1)),
        (activity(UsedMainMemory="0"), Facts()),
        (activity(UsedMainMemory="7"), Facts(memory_mb=7)),
        (activity(UsedMainMemory="7", State="arcrest:RUNNING"), Facts(state="RUNNING")),
        (activity(ExecutionNode=["a", "b", "a", ""]), Facts(nodes=("a", "b"))),
        (activity(SubmissionTime="yesterday"), Facts()),
        (activity(SubmissionTime="2026-11-25T12:49:34"), Facts(submitted="2026-11-25T12:49:34")),
        (activity(Error=["a\nb", "\x1b[31m"]), Facts(errors=("a", "b", "[31m"))),
        (activity(State=["nordugrid:FAILED::PREPARING"]), Facts(failed_in="PREPARING")),
        (activity(State="arcrest:"), Facts()),
        (activity(_attributes="x"), Facts()),
        (activity(_attributes={"CreationTime": 1}), Facts()),
        ({"ComputingActivity": [{"ExitCode": "3"}]}, Facts(exit_code=3)),
        ({"ComputingActivity": []}, Facts()),
        ("", Facts()),
        (None, Facts()),
        ([], Facts()),
    ],
)
def test_documents(document: Any, facts: Facts) -> None:
    assert facts_of_document(document) == facts


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (b"exitcode=1\nexitcode=2\n", Facts(exit_code=2)),
        (b"exitcode=1=2\n exitcode=3\n", Facts()),
        (b"nodename=a\nnodename=b\nnodename=a\n", Facts(nodes=("a", "b"))),
        (b"UserTime=1.5s\n", Facts()),  # half of it is no answer
        (b"UserTime=1.5s\nKernelTime=2s\n", Facts(cpu_time_s=3.5)),
        (b"AverageTotalMemory=1kB\n", Facts(memory_mb=1)),
        (b"maxresidentmemory=2048kB\n", Facts(peak_memory_mb=2)),
        (b"WallTime=\nLRMSEndTime=2026\n=\n==\n\xff=\xff\n", Facts()),
    ],
)
def test_diags(text: bytes, facts: Facts) -> None:
    assert facts_of_diag(text) == facts


def test_what_an_argument_pretends_is_not_the_job_manager_s() -> None:
    """A-REX writes a job's arguments after its batch system's id."""
    assert facts_of_local(b"lrms=SLURM\nlocalid=7\nargs=x\nlocalid=8\n").batch_id == "7"


def test_newer_facts_win_where_there_are_any() -> None:
    old = Facts(state="RUNNING", exit_code=1, nodes=("a",), wall_time_s=5)
    assert old.updated(Facts(exit_code=0, wall_time_s=0)) == Facts(
        state="RUNNING", exit_code=0, nodes=("a",), wall_time_s=0
    )


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-25T12:49:34Z", datetime(2026, 11, 25, 12, 49, 34, tzinfo=UTC)),
        ("2026-11-25T12:49:34", datetime(2026, 11, 25, 12, 49, 34, tzinfo=UTC)),
        ("2026-11-25T12:49:34+02:00", datetime(2026, 11, 25, 10, 49, 34, tzinfo=UTC)),
        ("20261125124934Z", datetime(2026, 11, 25, 12, 49, 34, tzinfo=UTC)),
        ("2026-13-25T12:49:34Z", None),
        ("20261325124934Z", None),
        ("0001-01-01T00:00:00+23:00", None),
        ("", None),
        (None, None),
    ],
)
def test_times(text: str | None, time: datetime | None) -> None:
    assert utc(text) == time


# --- hostile ones ---------------------------------------------------------------------------

KEYS = st.sampled_from(
    ["ComputingActivity", "State", "Error", "ExitCode", "ExecutionNode", "SubmissionTime"]
) | st.sampled_from(
    ["UsedTotalWallTime", "RequestedSlots", "UsedMainMemory", "_attributes", "CreationTime"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


def _is_tame(facts: Facts) -> None:
    for field in fields(facts):
        value = getattr(facts, field.name)
        texts = value if isinstance(value, tuple) else (value,)
        assert all(t.isprintable() and len(t) <= 1024 for t in texts if isinstance(t, str))


@given(JSON)
def test_any_document_is_read(document: Any) -> None:
    _is_tame(facts_of_document(document))


@given(st.binary(max_size=300) | st.sampled_from(EVERY).map(lambda job: job.item("diag")))
def test_any_bytes_are_a_diag_or_a_local(text: bytes) -> None:
    _is_tame(facts_of_diag(text))
    _is_tame(facts_of_local(text))


@given(st.sampled_from(EVERY), st.data())
def test_real_documents_with_a_field_gone_wrong(job: Recorded, data: st.DataObject) -> None:
    document = dict(activity_of(job.document).fields)
    document[data.draw(st.sampled_from(sorted(document)))] = data.draw(JSON)
    _is_tame(facts_of_document({"ComputingActivity": document}))


def test_hostile_records_take_no_time() -> None:
    began = process_time()
    for unit in (b"=", b"a=\n", b"nodename=", b"nodename=x\n", b"\xff", b"exitcode=1 "):
        text = unit * (2_000_000 // len(unit))
        assert pairs(text).keys() <= {"", "a", "nodename", "exitcode"}
        _is_tame(facts_of_diag(text))
    huge = "x\n" * 2_000_000
    document = activity(Error=[huge] * 50, Name=huge, ExecutionNode=[huge] * 50, State=[huge] * 50)
    _is_tame(facts_of_document(document))
    assert process_time() - began < 30

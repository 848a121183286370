"""A simulated job that ends badly is told of in the same words as a real one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from arcbackend.protocol.diagnosis import distil
from arcbackend.protocol.records import facts_of_diag, facts_of_document, facts_of_local
from arcbackend.simulator.activities import Site
from arcbackend.simulator.descriptions import Input, Output
from arcbackend.simulator.jobs import BatchState, InnerState, Job, Plan
from arcbackend.simulator.records import Records
from arcbackend.simulator.traps import Lrms
from tests.pure.test_diagnosis import REASONS
from tests.simulator.laboratory import Laboratory, described

LOCAL = "0123456789ab"


def ran(code: int) -> Callable[[Laboratory], Job]:
    return lambda lab: lab.make(Plan(run_seconds=5.0, exit_code=code))


def no_output(lab: Laboratory) -> Job:
    lab.lacks = "result"
    return lab.make(description=described(outputs=(Output("result", "http://127.0.0.1:1/up"),)))


def no_input(lab: Laboratory) -> Job:
    source = "http://127.0.0.1:1/no/such/file?signature=hunter2"
    return lab.make(Plan(fail_in=InnerState.PREPARING), described(inputs=[Input("data", source)]))


def killed(*, when: InnerState | BatchState | None) -> Callable[[Laboratory], Job]:
    def act(lab: Laboratory) -> Job:
        if when is BatchState.QUEUED:
            lab.batch.close()
        job = lab.make(Plan(run_seconds=None))
        if when is not None:
            lab.until(job, when)
        lab.manager.kill(job)
        return job

    return act


def cancelled(when: BatchState) -> Callable[[Laboratory], Job]:
    def act(lab: Laboratory) -> Job:
        if when is BatchState.QUEUED:
            lab.batch.close()
        job = lab.make(Plan(run_seconds=None))
        lab.until(job, when)
        lab.batch.cancel(job.local)
        return job

    return act


def over_time(lab: Laboratory) -> Job:
    job = lab.make(Plan(run_seconds=None), described(wall_time_s=20))
    lab.until(job, BatchState.RUNNING)
    lab.after(17.0)
    lab.batch.end_time(job.local)
    return job


def over_memory(lab: Laboratory) -> Job:
    return lab.make(Plan(memory=300_000_000, run_seconds=60.0), described(memory_mb=50))


def lost_node(lab: Laboratory) -> Job:
    job = lab.running()
    lab.batch.fail_node()
    return job


def not_submitted(lab: Laboratory) -> Job:
    return lab.make(Plan(fail_in=InnerState.SUBMIT))


CASES: dict[str, Callable[[Laboratory], Job]] = {
    "exit 3": ran(3),
    "SIGKILL": ran(137),
    "not executable": ran(126),
    "no output": no_output,
    "no input": no_input,
    "killed at once": killed(when=None),
    "killed waiting": killed(when=BatchState.QUEUED),
    "killed running": killed(when=BatchState.RUNNING),
    "cancelled running": cancelled(BatchState.RUNNING),
    "cancelled waiting": cancelled(BatchState.QUEUED),
    "over time": over_time,
    "over memory": over_memory,
    "lost node": lost_node,
    "not submitted": not_submitted,
}
# What was not brought about behind a real HTCondor.
ONLY_SLURM = {"lost node", "not submitted"}
BATCHES: list[tuple[str, Lrms]] = [
    *((case, "slurm") for case in CASES),
    *((case, "condor") for case in CASES if case not in ONLY_SLURM),
]


def ended(case: str, lrms: Lrms, version: str) -> tuple[Laboratory, Job]:
    lab = Laboratory(lrms=lrms, arc_version=version)
    job = CASES[case](lab)
    lab.until(job, InnerState.FINISHED)
    lab.manager.publish()
    return lab, job


@pytest.mark.parametrize("version", ["7.0.0", "7.2.0"])
@pytest.mark.parametrize(("case", "lrms"), BATCHES)
def test_the_reason_is_that_of_a_real_job(case: str, lrms: Lrms, version: str) -> None:
    lab, job = ended(case, lrms, version)
    records = Records(
        Site("https://localhost:1", "localhost", lrms, 604_800.0), lab.settings.arc_version
    )
    document = records.activity(
        job, live=lab.live(job), published=job.published, as_of=job.published_at or 0.0
    )
    facts = facts_of_document(document)
    for item, read in (("diag", facts_of_diag), ("local", facts_of_local)):
        facts = facts.updated(read(records.item(job, item) or b""))
    record, log = (records.item(job, item) or b"" for item in ("failed", "errors"))
    # The simulator's times and ids.
    expected = REASONS[case][lrms == "condor" and len(REASONS[case]) > 1].replace("2026", "2001")
    found = distil(record.decode().replace(job.local, LOCAL), facts, log.decode())
    assert re.fullmatch(expected, found.text), found.text
    assert facts.state == ("KILLED" if case.startswith("killed") else "FAILED")
    assert facts.failed_in == (None if case == "killed at once" else job.failed_in)


def test_one_that_did_well_has_no_reason() -> None:
    lab = Laboratory()
    job = lab.make()
    lab.until(job, InnerState.FINISHED)
    records = Records(Site("https://localhost:1", "localhost", "slurm", 604_800.0), "7.2.0")
    assert records.item(job, "failed") is None

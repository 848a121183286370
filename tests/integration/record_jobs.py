"""Record what running CEs say of jobs that ended in every way, for the tests of diagnosis.

python -m tests.integration.record_jobs arc-slurm 7.2.0

Beside the cases of `endings`: a refused submission, a lost node, and a job over its memory, for
which Slurm is told to watch that. The stack is spoilt by it: stop it afterwards.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import trio

from arcbackend import ARCBackend, JobHandle, JobStatus
from arcbackend.protocol.requests import RequestBuilder
from tests.integration.batch import Slurm
from tests.integration.ce import Instance, RealCE
from tests.integration.endings import EATS_MEMORY, SLEEP, SMALL, all_ways, made, shell
from tests.integration.jobs import killed, local, over, until
from tests.integration.record_replies import FOLDER

ITEMS = ("failed", "diag", "local", "status", "errors")
# The log's end: before it is the script that ARC made of the job.
LOG = 3000
BUILDER = RequestBuilder("1.1")


async def spoilt(ce: RealCE, backend: ARCBackend) -> dict[str, JobHandle]:
    """What Slurm does only when it is told to."""
    assert isinstance(ce.batch, Slurm)
    jobs = {"lost node": await made(backend, SLEEP)}
    other = SMALL.model_copy(update={"queue": "other"})
    with ce.batch.inactive("other"):
        jobs["not submitted"] = await made(backend, shell("true", other))
        await until(backend, [jobs["lost node"]], JobStatus.RUNNING, ce)
        ce.batch.fail_node()
        await over(backend, list(jobs.values()))
    watch = "JobAcctGatherType=jobacct_gather/linux\\nJobAcctGatherFrequency=task=1\\n"
    watch += "JobAcctGatherParams=OverMemoryKill"
    ce.run("sed", "-i", f"s,^JobAcctGatherType=.*,{watch},", "/etc/slurm/slurm.conf")
    for daemon in ("slurmd", "slurmctld"):
        ce.kill_daemon(daemon, "TERM")
    for daemon in ("slurmctld", "slurmd"):
        ce.restart_daemon(daemon)
    jobs["over memory"] = await made(backend, shell(EATS_MEMORY))
    return jobs


async def recorded(backend: ARCBackend, job: JobHandle) -> dict[str, Any]:
    told = await backend._session.call(BUILDER.info([local(job)]))
    (answer,) = json.loads(told.body)["job"]
    record: dict[str, Any] = {"document": answer["info_document"]}
    for item in ITEMS:
        response = await backend._session.call(BUILDER.diagnose(local(job), item))
        text = response.body.decode() if response.status == 200 else None
        record[item] = text[-LOG:] if text is not None and item == "errors" else text
    return record


async def main(stack: str, version: str) -> None:
    ce = RealCE.running(Instance(stack, version, "token"))
    assert ce is not None, "start it first"
    async with ce.backend() as backend:
        jobs = await all_ways(ce, backend)
        await over(backend, list(jobs.ended.values()))
        await trio.to_thread.run_sync(ce.publish)
        records = {
            case: await recorded(backend, job)
            for case, job in {
                **jobs.ended,
                "running": jobs.running,
                "waiting": jobs.waiting,
            }.items()
        }
        await killed(backend, jobs.every)
        if stack == "arc-slurm":
            more = await spoilt(ce, backend)
            await over(backend, list(more.values()))
            await trio.to_thread.run_sync(ce.publish)
            records |= {case: await recorded(backend, job) for case, job in more.items()}
    path = FOLDER / f"jobs-{stack}-{version}.json"
    path.write_text(json.dumps(records, indent=1) + "\n")
    print(f"{len(records)} jobs of ARC {ce.arc_version}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])

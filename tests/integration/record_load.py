"""Record what running CEs publish of their load, for tests/pure/test_load.py.

python -m tests.integration.record_load arc-slurm 7.2.0

Of Slurm with shares of VOs: all jobs then are of the VO atlas, which a token cannot tell.
"""

from __future__ import annotations

import sys

import trio

from arcbackend import FileRef, Resources, SubmissionSpec
from arcbackend.protocol.description import activity
from arcbackend.protocol.requests import RequestBuilder
from tests.integration.ce import Instance, RealCE
from tests.integration.jobs import SLEEP, killed
from tests.integration.record_replies import FOLDER

# Of the 8 CPUs that there are, 2 are taken by the job beside these: two of them run.
LARGE = SLEEP.model_copy(update={"resources": Resources(cpus=3, memory_mb=30)})
UNFED = SubmissionSpec(executable="/bin/true", inputs=(FileRef(name="data", source="/dev/null"),))


def advertise(ce: RealCE, *vos: str) -> None:
    """Publish a share for each VO; jobs are of the first."""
    lines = [f"advertisedvo = {vo}" for vo in vos] + [f"forcedefaultvoms = /{vos[0]}/prod"]
    added = "\\n".join(line.replace("/", "\\/") for line in lines)
    ce.run("sed", "-i", f"s/^\\[queue:{ce.queue}\\]/&\\n{added}/", "/etc/arc.conf")
    ce.kill_daemon("arex", "TERM")
    ce.restart_daemon("arex")
    ce.kill_daemon("arex-ws", "KILL")
    ce.restart_daemon("arex-ws")


async def main(stack: str, version: str) -> None:
    ce = RealCE.running(Instance(stack, version, "token"))
    assert ce is not None, "start it first"
    if stack == "arc-slurm":
        advertise(ce, "atlas", "cms")
    builder = RequestBuilder("1.1")
    async with ce.backend() as backend:
        with ce.batch.foreign(cpus=2):
            unfed = activity(UNFED, name="unfed", queue=ce.queue, environment={})
            await backend._session.call(builder.new_jobs(unfed, language="adl", copies=1))
            handles = (await backend.submit(LARGE, 4)).handles
            with trio.fail_after(120):
                while (await backend.counts()).ce_running != 2:
                    await trio.to_thread.run_sync(ce.publish)
            response = await backend._session.call(builder.service_info())
            await killed(backend, handles)
    path = FOLDER / f"info-{stack}-{version}.json"
    path.write_bytes(response.body + b"\n")
    print(f"{len(response.body)} bytes of ARC {ce.arc_version}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])

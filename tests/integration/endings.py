"""Jobs that end, or do not, in each way that can be brought about on a CE."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from arcbackend import (
    ARCBackend,
    FileRef,
    JobHandle,
    JobStatus,
    OutputMember,
    OutputSpec,
    Resources,
    SubmissionSpec,
)
from tests.integration.ce import CE, RealCE, eventually
from tests.integration.jobs import local, until

SMALL = Resources(memory_mb=50)
# All that our CEs have: it waits as long as any other job runs.
WAITS = Resources(cpus=8, memory_mb=50)
EATS_MEMORY = "x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo ${#x}; sleep 20"
WALL_LIMIT = 20


def shell(script: str, resources: Resources = SMALL) -> SubmissionSpec:
    return SubmissionSpec(executable="/bin/sh", arguments=("-c", script), resources=resources)


SLEEP = shell("echo begun; sleep 600")
UPLOAD = OutputSpec(members=(OutputMember(pattern="result", destination="http://127.0.0.1:1/up"),))
ENDED: dict[str, SubmissionSpec] = {
    "ok": shell("echo hello; sleep 1", Resources(memory_mb=50, cpus=2)),
    "exit 3": shell("exit 3"),
    "SIGKILL": shell("kill -9 $$"),
    "no executable": SubmissionSpec(executable="/no/such/program", resources=SMALL),
    "not executable": SubmissionSpec(executable="/etc/passwd", resources=SMALL),
    "no output": shell("true").model_copy(update={"outputs": UPLOAD}),
    "killed running": SLEEP,
    "cancelled running": SLEEP,
    "over time": shell("sleep 600", Resources(memory_mb=50, wall_time_s=WALL_LIMIT)),
}
"""Case → a job that comes to this end, by itself or by our doing, in the batch system."""

WAIT_IN_THE_QUEUE = ("killed waiting", "cancelled waiting")


@dataclass(frozen=True)
class Jobs:
    """What `all_ways` made.

    Attributes:
        ended: case → a job that is over, or about to be.
        running: one that runs for ten minutes.
        waiting: one that waits in the batch system as long as that runs.
    """

    ended: dict[str, JobHandle]
    running: JobHandle
    waiting: JobHandle

    @property
    def every(self) -> list[JobHandle]:
        return [*self.ended.values(), self.running, self.waiting]


async def all_ways(ce: CE, backend: ARCBackend) -> Jobs:
    """Make jobs, and end those that do not end by themselves."""
    slurm = ce.instance.lrms == "slurm"
    specs = dict(ENDED)
    if not slurm and isinstance(ce, RealCE):  # the simulator does not limit real processes' memory
        specs["over memory"] = shell(EATS_MEMORY)
    with nothing_there() as url:
        specs["no input"] = SubmissionSpec(
            executable="/bin/true",
            inputs=(FileRef(name="data", source=f"{url}/no/such/file?signature=hunter2"),),
            resources=SMALL,
        )
        jobs = {name: await made(backend, spec) for name, spec in specs.items()}
        jobs["killed at once"] = await made(backend, SLEEP)
        await backend.kill([jobs["killed at once"]])
        running = await made(backend, SLEEP)
        told = [jobs[case] for case in ("killed running", "cancelled running", "over time")]
        await until(backend, [*told, running], JobStatus.RUNNING, ce)
    await backend.kill([jobs["killed running"]])
    await trio.to_thread.run_sync(ce.batch.cancel, local(jobs["cancelled running"]))
    await trio.to_thread.run_sync(ce.batch.end_time, local(jobs["over time"]))
    waiting = await made(backend, shell("true", WAITS))
    jobs |= {name: await made(backend, shell("true", WAITS)) for name in WAIT_IN_THE_QUEUE}
    known = {local(waiting), *(local(jobs[name]) for name in WAIT_IN_THE_QUEUE)}
    await eventually(lambda: known <= ce.batch.jobs().keys(), every=0.3)
    await trio.to_thread.run_sync(ce.batch.cancel, local(jobs["cancelled waiting"]))
    await backend.kill([jobs["killed waiting"]])
    return Jobs(jobs, running, waiting)


async def made(backend: ARCBackend, spec: SubmissionSpec) -> JobHandle:
    (handle,) = (await backend.submit(spec)).handles
    return handle


@contextmanager
def nothing_there() -> Iterator[str]:
    """A web server that has nothing."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_error(404)

        do_HEAD = do_PROPFIND = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

"""ADL against xRSL for many descriptions in one request, on the real CE, in one run.

    python tests/benchmarks/description_language.py 7.2.0

Prints the server's time for 200 descriptions in either language, in pairs, and what one faulty
description among three does to the others. The CE must be running (``make stack-start``).
"""

from __future__ import annotations

import statistics
import sys

import trio

from arcbackend import SubmissionSpec
from arcbackend.backend import ARCBackend
from arcbackend.protocol.description import activities, activity
from arcbackend.protocol.messages import Operation, Request, Scope
from arcbackend.protocol.responses import NewJobs, parse_new_jobs
from tests.integration.ce import Instance, RealCE

JOBS = 200
PAIRS = 5
SPEC = SubmissionSpec(executable="/bin/true")


def xrsl(name: str, extra: str = "") -> str:
    return (
        f'(&(executable="/bin/true")(jobname="{name}")(stdout="stdout")(stderr="stderr")'
        f'(count=1)(countpernode=1)(queue="main"){extra})'
    )


def adl(name: str) -> bytes:
    return activity(SPEC, name=name, queue="main", environment={})


def request(body: bytes) -> Request:
    return Request(
        Operation.JOBS_NEW,
        "POST",
        "/arex/rest/1.1/jobs?action=new",
        Scope.CREATE,
        idempotent=False,
        headers={"Accept": "application/json", "Content-Type": "application/octet-stream"},
        body=body,
    )


async def post(backend: ARCBackend, body: bytes, jobs: int) -> tuple[float, NewJobs]:
    began = trio.current_time()
    response = await backend._session.call(request(body))
    took = trio.current_time() - began
    return took, parse_new_jobs(response, jobs, backend.config.endpoint)


async def remove(backend: ARCBackend, made: NewJobs) -> None:
    builder = await backend._session.builder()
    ids = [job.local for job in made.jobs if job.local]
    if ids:
        await backend._session.call(builder.kill(ids))
        await backend._session.call(builder.clean(ids))


async def main(version: str) -> None:
    ce = RealCE.running(Instance("arc-slurm", version, "token"))
    assert ce is not None, "start it first: make stack-start"
    many_adl = activities([adl(f"a{n}") for n in range(JOBS)])
    many_xrsl = ("+" + "".join(xrsl(f"x{n}") for n in range(JOBS))).encode()
    async with ce.backend() as backend:
        times: dict[str, list[float]] = {"adl": [], "xrsl": []}
        with ce.partition_down():
            for _ in range(PAIRS):
                for language, body in (("adl", many_adl), ("xrsl", many_xrsl)):
                    took, made = await post(backend, body, JOBS)
                    assert all(job.local for job in made.jobs), made.jobs[:3]
                    times[language].append(took)
                    await remove(backend, made)
        medians = {language: statistics.median(values) for language, values in times.items()}
        print(f"ARC {ce.arc_version}, {JOBS} descriptions in one request, medians of {PAIRS}:")
        print(f"  adl {medians['adl']:.3f} s, xrsl {medians['xrsl']:.3f} s, ", end="")
        print(f"ratio {medians['adl'] / medians['xrsl']:.2f}")
        broken_adl = adl("b").replace(b"<NumberOfSlots>1", b"<NumberOfSlots>many")
        three = activities([adl("a"), broken_adl, adl("c")])
        broken_xrsl = xrsl("b").replace("(count=1)", "(count=many)")
        lines = ("+" + xrsl("a") + broken_xrsl + xrsl("c")).encode()
        for language, body in (("adl", three), ("xrsl", lines)):
            try:
                _, made = await post(backend, body, 3)
            except Exception as error:
                print(f"  {language}, one of three faulty: {type(error).__name__}: {error}")
            else:
                verdicts = [job.failure or "created" for job in made.jobs]
                print(f"  {language}, one of three faulty: {verdicts}")
                await remove(backend, made)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])

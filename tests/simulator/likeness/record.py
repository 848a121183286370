"""Record what a running CE answers.

python -m tests.simulator.likeness.record arc-slurm 7.0.0 token
"""

from __future__ import annotations

import sys
import time

import trio

from tests.integration.ce import Instance, RealCE
from tests.simulator.likeness import recording
from tests.simulator.likeness.endpoint import Endpoint
from tests.simulator.likeness.sequences import COURSES


async def main(stack: str, version: str, config: str, only: str = "") -> None:
    ce = RealCE.running(Instance(stack, version, config))
    assert ce is not None, "start it first"
    begin = time.monotonic()
    seen = await recording.observe(Endpoint(ce), only)
    print(sum(map(len, seen.values())), "answers,", round(time.monotonic() - begin, 1), "s")
    for course in COURSES:
        told = seen.get(recording.COURSES_ARE_IN, {}).get(course.name, {"live": [course.ends]})
        assert told["live"][-1:] == [course.ends], f"{course.name}: {told}"
    name = ce.instance.id
    recording.write(name, (recording.read(name) if only else {}) | seen)


if __name__ == "__main__":
    trio.run(lambda: main(*sys.argv[1:]))

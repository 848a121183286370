"""Record what a running CE makes of job descriptions, for tests/simulator/test_descriptions.py.

python -m tests.integration.record_descriptions 7.2.0
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

from arcbackend import ARCBackend
from arcbackend.protocol.requests import RequestBuilder
from tests.integration.ce import Instance, RealCE
from tests.simulator.description_bodies import BODIES

FOLDER = Path(__file__).parents[1] / "simulator" / "recorded"


async def recorded(backend: ARCBackend, body: bytes, token: str) -> dict[str, Any]:
    request = RequestBuilder("1.1").new_jobs(body, language="adl", copies=1)
    transport = backend._session._transport
    answer = await transport.send(request, authorization=f"Bearer {token}")
    jobs = json.loads(answer.body)["job"] if answer.body else []
    return {
        "status": answer.status,
        "reason": answer.reason,
        "refused": [None if "id" in job else job["reason"] for job in jobs],
    }


async def main(version: str) -> None:
    ce = RealCE.running(Instance("arc-slurm", version, "token"))
    assert ce is not None, "start it first"
    async with ce.backend() as backend:
        token = ce.token()
        answers = {name: await recorded(backend, body, token) for name, body in BODIES.items()}
    path = FOLDER / f"descriptions-{version}.json"
    path.write_text(json.dumps(answers, indent=1) + "\n")
    print(f"{len(answers)} answers of ARC {ce.arc_version}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1])

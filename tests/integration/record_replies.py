"""Record what a running CE really answers, for tests/pure/test_recorded.py.

python -m tests.integration.record_replies 7.2.0
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import trio

from arcbackend import SubmissionSpec
from arcbackend.backend import ARCBackend
from arcbackend.protocol import requests
from arcbackend.protocol.description import activities, activity
from arcbackend.protocol.messages import Request
from arcbackend.protocol.requests import RequestBuilder, RestVersion
from arcbackend.states import LIVE_LATE_STATES
from tests.integration.ce import Instance, RealCE

FOLDER = Path(__file__).parents[1] / "pure" / "recorded"
SPEC = SubmissionSpec(executable="/bin/true")


async def replies(ce: RealCE, rest: RestVersion) -> list[dict[str, object]]:
    builder = RequestBuilder(rest)
    recorded: list[dict[str, object]] = []
    good = activity(SPEC, name="recorded", queue="main", environment={})
    bad = good.replace(b"<NumberOfSlots>1", b"<NumberOfSlots>many")

    async def record(name: str, backend: ARCBackend, request: Request, token: str = "") -> str:
        transport = backend._session._transport
        response = await transport.send(request, authorization=token or None)
        recorded.append(
            {
                "name": name,
                "rest": rest,
                "operation": request.operation.value,
                "ids": [item["id"] for item in json.loads(request.body)["job"]]
                if request.body and request.body.startswith(b'{"job"')
                else [],
                "status": response.status,
                "reason": response.reason,
                "body": response.body.decode(),
            }
        )
        return response.body.decode()

    subject = f"recorder-{uuid.uuid4().hex}"
    all_scopes = f"Bearer {ce.token(subject=subject)}"
    one_scope = f"Bearer {ce.token(subject=subject, scopes=['compute.read'])}"
    async with ce.backend() as backend:
        await record("versions", backend, requests.versions())
        await record("no credentials", backend, builder.list_jobs())
        await record("empty list", backend, builder.list_jobs(LIVE_LATE_STATES), all_scopes)
        new = builder.new_jobs(good, language="adl", copies=1)
        await record("missing scope", backend, new, one_scope)
        made = json.loads(await record("one job", backend, new, all_scopes))["job"]
        one = (made if isinstance(made, dict) else made[0])["id"]
        three = builder.new_jobs(activities([good, bad, good]), language="adl", copies=3)
        await record("three jobs, one faulty", backend, three, all_scopes)
        garbage = builder.new_jobs(b"garbage", language="adl", copies=1)
        await record("garbage", backend, garbage, all_scopes)
        await record("list", backend, builder.list_jobs(), all_scopes)
        await record("status", backend, builder.status([one, "nosuchjob"]), all_scopes)
        await record("status of one", backend, builder.status([one]), all_scopes)
        await record("info", backend, builder.info([one, "nosuchjob"]), all_scopes)
        await record("kill", backend, builder.kill([one, "nosuchjob"]), all_scopes)
        await record("clean", backend, builder.clean([one, "nosuchjob"]), all_scopes)
    return recorded


async def main(version: str) -> None:
    ce = RealCE.running(Instance("arc-slurm", version, "token"))
    assert ce is not None, "start it first: make stack-start"
    recorded = [reply for rest in ("1.0", "1.1") for reply in await replies(ce, rest)]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{version}.json").write_text(json.dumps(recorded, indent=1) + "\n")
    print(f"{len(recorded)} replies of ARC {ce.arc_version}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1])

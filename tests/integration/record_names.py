"""Record how a running CE lists odd names, for tests/simulator/test_session_directory.py.

python -m tests.integration.record_names 7.2.0
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import trio

from arcbackend import ARCBackend, FileRef, SubmissionSpec
from arcbackend.protocol.description import activity
from arcbackend.protocol.messages import Request
from arcbackend.protocol.requests import RequestBuilder
from tests.integration.ce import Instance, RealCE

FOLDER = Path(__file__).parents[1] / "simulator" / "recorded"
# It waits for its input, and stands still.
UNFED = SubmissionSpec(executable="/bin/true", inputs=(FileRef(name="data", source="/dev/null"),))
NAMES: list[str | bytes] = [
    *(bytes((97, byte, 98)) for byte in range(1, 256) if byte != ord("/")),
    *("é", "€", "\N{GRINNING FACE}", "\ufffe", "\x85"),
    *(b"\xed\xa0\x80", b"\xc3", b"\xe2\x82", b"\xc0\x80", b"\xff\xfe", b"a\xc3\xa9\xff"),
    *(b"\x01\xff", b"\xff\x01", b" ", b"  before", b"behind  ", b"\n", b"a&lt;b", b"<x>", b"]]>"),
]
PLANT = 'chdir shift; for (@ARGV) { mkdir $_; open F, ">", "$_/" . pack("H*", $_); print F "x" }'


def in_hex() -> Iterable[str]:
    return ((name.encode() if isinstance(name, str) else name).hex() for name in NAMES)


async def listings(backend: ARCBackend, job: str, folder: str) -> list[str]:
    """In JSON and in XML; a character for each byte."""
    builder = RequestBuilder("1.1")
    asked: tuple[Request, ...] = (
        builder.list_directory(job, folder.encode()),
        builder.list_directory(job, folder.encode(), sizes=True),
    )
    return [(await backend._session.call(request)).body.decode("latin-1") for request in asked]


async def main(version: str) -> None:
    ce = RealCE.running(Instance("arc-slurm", version, "token"))
    assert ce is not None, "start it first"
    builder = RequestBuilder("1.1")
    async with ce.backend() as backend:
        description = activity(UNFED, name="names", queue=ce.queue, environment={})
        new = builder.new_jobs(description, language="adl", copies=1)
        (job,) = json.loads((await backend._session.call(new)).body)["job"]
        ce.run("perl", "-e", PLANT, f"{ce.session_directory}/{job['id']}", *in_hex())
        recorded = {name: await listings(backend, job["id"], name) for name in in_hex()}
        await backend._session.call(builder.kill([job["id"]]))
    path = FOLDER / f"names-{version}.json"
    path.write_text(json.dumps(recorded, indent=1) + "\n")
    print(f"{len(recorded)} names of ARC {ce.arc_version}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1])

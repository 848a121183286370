"""`fetch_output` against the server's own limit: curl and bare GETs on the same files, in one run.

    python -m tests.benchmarks.outputs 7.2.0 [--rounds 5] [--only small large jobs] [--dest /tmp]

On a running CE (``make stack-start``), three jobs are submitted, and a hundred, and then fetched in
turn, round by round, by each of:

- ``arcbackend``: `ARCBackend.fetch_output` with the default settings, from a new process, with
  everything it asks for: versions, whether the jobs are over, listings, files, the CE's logs;
- ``curl -Z``: one process with so many connections; ``curl``: so many processes with one each. Both
  keep their connections;
- ``bare``: so many threads, each of which sends a GET and reads the answer on a connection of its
  own that acknowledges at once, and parses next to nothing (curl waits 40 ms for each small file:
  docs/explanation/transport.md). ``bare + listings`` also asks for the directories, without which
  no client knows the names.

All write what they get into files. The fastest of each kind is the limit. Times are wall clock,
medians over the rounds, with TLS handshakes, and of arcbackend without the start of Python. CPU is
user and system time of the clients. Growth is the client's peak memory above what it had before the
fetch, also of a tenth of the work: what is flat does not grow with it.

Files go to memory (/dev/shm) where there is such a thing, since many file systems are slow for a
while where files have just been removed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio

from arcbackend import (
    ARCBackend,
    ARCConfig,
    BearerToken,
    JobHandle,
    JobStatus,
    OutputSpec,
    Resources,
    StaticCredentials,
    SubmissionSpec,
)
from tests.integration.ce import Instance, RealCE
from tests.integration.jobs import local, over

JOBS = "/arex/rest/1.1/jobs"
SMALL_BYTES, LARGE_BYTES = 10 * 1024, 100_000_000
SMALL, LARGE, MANY = 1000, 10, 100
MEMORY = Path("/dev/shm")
CURL_CPU = 3.0


@dataclass(frozen=True)
class Cost:
    """What one fetch cost: seconds, seconds of CPU, bytes of memory."""

    seconds: float
    cpu: float
    growth: int = 0


@dataclass(frozen=True)
class Work:
    """What is to be fetched.

    Attributes:
        title: for people.
        handles: the jobs.
        tenth: jobs that left a tenth of it.
        files: the addresses of all files, and of the CE's logs where those are not next to nothing.
        listings: the addresses of the directories.
        least: the share of the limit's throughput that is to be reached.
    """

    title: str
    handles: Sequence[JobHandle]
    tenth: Sequence[JobHandle]
    files: Sequence[str]
    listings: Sequence[str]
    least: float


def shell(script: str) -> SubmissionSpec:
    return SubmissionSpec(
        executable="/bin/sh",
        arguments=("-c", script),
        outputs=OutputSpec(include_unlisted=True),
        resources=Resources(memory_mb=10),
    )


def leaves(count: int, size: int) -> SubmissionSpec:
    return shell(f"mkdir d; for i in $(seq {count}); do head -c {size} /dev/urandom >d/$i; done")


def session(handle: JobHandle, *names: str) -> list[str]:
    return [f"{JOBS}/{local(handle)}/session/{name}" for name in names]


async def submitted(ce: RealCE) -> tuple[dict[str, Work], list[JobHandle]]:
    """Let jobs leave what is to be fetched."""
    async with ce.backend() as backend:

        async def one(spec: SubmissionSpec) -> JobHandle:
            return (await backend.submit(spec)).handles[0]

        small = [await one(leaves(count, SMALL_BYTES)) for count in (SMALL, SMALL // 10)]
        large = [await one(leaves(LARGE, size)) for size in (LARGE_BYTES, LARGE_BYTES // 10)]
        script = f"echo out; echo err >&2; head -c {SMALL_BYTES} /dev/urandom >data"
        many = list((await backend.submit(shell(script), count=MANY)).handles)
        handles = [*small, *large, *many]
        states = await over(backend, handles, within=1200)
        assert set(states.values()) == {JobStatus.DONE}, states
    works = {
        "small": Work(
            f"{SMALL} x {SMALL_BYTES // 1024} KiB of one job",
            small[:1],
            small[1:],
            session(small[0], *(f"d/{number + 1}" for number in range(SMALL))),
            session(small[0], "", "d"),
            0.8,
        ),
        "large": Work(
            f"{LARGE} x {LARGE_BYTES // 10**6} MB of one job",
            large[:1],
            large[1:],
            session(large[0], *(f"d/{number + 1}" for number in range(LARGE))),
            session(large[0], "", "d"),
            0.9,
        ),
        "jobs": Work(
            f"{MANY} jobs: stdout, stderr, {SMALL_BYTES // 1024} KiB and the CE's log of each",
            many,
            many[: MANY // 10],
            [
                address
                for handle in many
                for address in (
                    *session(handle, "stdout", "stderr", "data"),
                    f"{JOBS}/{local(handle)}/diagnose/errors",
                )
            ],
            [address for handle in many for address in session(handle, "")],
            1 / 1.3,
        ),
    }
    return works, handles


# Those that are compared


class Peers:
    """Fetches in other processes; each gets its secrets by a pipe or from a file of mode 0600.

    Args:
        ce: the CE.
        connections: of arcbackend.
    """

    def __init__(self, ce: RealCE, connections: int) -> None:
        self._endpoint, self._ca_file = ce.endpoint, ce.ca_file
        self._token = ce.token()
        self._connections = connections

    def arcbackend(self, handles: Sequence[JobHandle], dest: Path) -> Cost:
        ids = [handle.model_dump(mode="json") for handle in handles]
        return self._call("fetch", dest, handles=ids, connections=self._connections)

    def bare(self, addresses: Sequence[str], threads: int, dest: Path) -> Cost:
        return self._call("bare", dest, addresses=list(addresses), threads=threads)

    def _call(self, role: str, dest: Path, **task: Any) -> Cost:
        task |= {"endpoint": self._endpoint, "ca_file": str(self._ca_file)}
        task |= {"token": self._token, "dest": str(dest)}
        command = [sys.executable, "-m", "tests.benchmarks.outputs", role]
        done = subprocess.run(
            command, input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=True
        )
        return Cost(**json.loads(done.stdout))

    def curl(self, addresses: Sequence[str], processes: int, connections: int, dest: Path) -> Cost:
        shares = [addresses[start::processes] for start in range(processes)]
        configs = []
        for number, share in enumerate(shares):
            path = dest / f"config-{number}"
            path.touch(0o600)
            path.write_text(self._config(share, connections, dest / str(number)))
            configs.append(path)
        before, began = children(), time.perf_counter()
        running = [subprocess.Popen(["curl", "--config", str(path)]) for path in configs]
        assert [process.wait() for process in running] == [0] * processes
        return Cost(time.perf_counter() - began, children() - before)

    def _config(self, addresses: Sequence[str], connections: int, dest: Path) -> str:
        lines = ["silent", "no-progress-meter", "fail", f'cacert = "{self._ca_file}"']
        lines.append(f'header = "Authorization: Bearer {self._token}"')
        if connections > 1:
            lines += ["parallel", f"parallel-max = {connections}"]
        for number, address in enumerate(addresses):
            lines.append(f'url = "{self._endpoint}{address}"')
            lines.append(f'output = "{dest}-{number}"')
        return "\n".join(lines)


def children() -> float:
    """Seconds of CPU of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def fetch(task: dict[str, Any]) -> Cost:
    """In a process of its own: what a host program does."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    handles = [JobHandle.model_validate(handle) for handle in task["handles"]]
    config = ARCConfig.from_dict(
        {
            "endpoint": task["endpoint"],
            "ca_file": task["ca_file"],
            "concurrency": task["connections"],
            "limits": {"keep_free_bytes": 0},
        }
    )

    async def run() -> None:
        credentials = StaticCredentials(BearerToken(value=task["token"]))
        async with ARCBackend(config, credentials) as backend:
            outputs = await backend.fetch_output(handles, task["dest"])
        assert all(output.complete for output in outputs.values()), outputs

    Path("/proc/self/clear_refs").write_text("5")  # begin to look for the peak
    resident, cpu, began = memory("VmRSS"), time.process_time(), time.perf_counter()
    trio.run(run)
    seconds = time.perf_counter() - began
    return Cost(seconds, time.process_time() - cpu, memory("VmHWM") - resident)


def memory(field: str) -> int:
    """Bytes, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def bare(task: dict[str, Any]) -> Cost:
    """In a process of its own: GETs, and nothing that is not needed for them."""
    context = ssl.create_default_context(cafile=task["ca_file"])
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    server = urlsplit(task["endpoint"])
    assert server.hostname is not None
    head = f"Host: {server.netloc}\r\nAuthorization: Bearer {task['token']}\r\n\r\n"
    waiting = list(enumerate(task["addresses"]))[::-1]
    lengths: list[int] = []

    def work() -> None:
        raw = socket.create_connection((server.hostname, server.port))
        connection = context.wrap_socket(raw, server_hostname=server.hostname)
        view = memoryview(bytearray(256 * 1024))

        def more(filled: int) -> int:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            count = connection.recv_into(view[filled:])
            assert count
            return count

        while waiting:
            number, address = waiting.pop()
            connection.sendall(f"GET {address} HTTP/1.1\r\n{head}".encode())
            filled = 0
            while (end := bytes(view[:filled]).find(b"\r\n\r\n")) < 0:
                filled += more(filled)
            fields = bytes(view[:end]).lower()
            assert b" 200 " in fields[:20], fields
            length = int(fields.partition(b"content-length:")[2].partition(b"\r\n")[0])
            lengths.append(length)
            with open(f"{task['dest']}/{number}", "wb", buffering=0) as file:
                length -= file.write(view[end + 4 : filled])
                while length:
                    length -= file.write(view[: more(0)])
        connection.close()

    cpu, began = time.process_time(), time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(task["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lengths) == len(task["addresses"])
    return Cost(time.perf_counter() - began, time.process_time() - cpu)


# The measurement


def contenders(work: Work, peers: Peers, connections: int) -> dict[str, Callable[[Path], Cost]]:
    found: dict[str, Callable[[Path], Cost]] = {}
    found["arcbackend"] = partial(peers.arcbackend, work.handles)
    large = len(work.files) <= LARGE
    for number in (2, connections) if large else (connections,):
        found[f"curl -Z, {number} connections"] = partial(peers.curl, work.files, 1, number)
        found[f"curl, {number} processes"] = partial(peers.curl, work.files, number, 1)
    for threads in () if large else (max(connections // 2, 1), connections):
        found[f"bare, {threads} threads"] = partial(peers.bare, work.files, threads)
        both = [*work.listings, *work.files]
        found[f"bare + listings, {threads} threads"] = partial(peers.bare, both, threads)
    return found


def measure(contender: Callable[[Path], Cost], below: Path) -> Cost:
    dest = Path(tempfile.mkdtemp(dir=below))
    try:
        return contender(dest)
    finally:
        shutil.rmtree(dest)


def compare(work: Work, peers: Peers, connections: int, rounds: int, below: Path) -> None:
    print(f"\n{work.title}, medians of {rounds}:")
    costs: dict[str, list[Cost]] = {}
    for number in range(rounds + 1):
        for name, contender in contenders(work, peers, connections).items():
            cost = measure(contender, below)
            if number:  # the first warms the file system's caches
                costs.setdefault(name, []).append(cost)
    seconds = {name: statistics.median(one.seconds for one in all_) for name, all_ in costs.items()}
    cpu = {name: statistics.median(one.cpu for one in all_) for name, all_ in costs.items()}
    for name in costs:
        print(f"  {name:<32} {seconds[name]:7.3f} s, CPU {cpu[name]:6.3f} s")
    ours = seconds.pop("arcbackend")
    for what, limits in (
        ("the fastest curl", [name for name in seconds if name.startswith("curl")]),
        ("bare GETs", [name for name in seconds if name.startswith("bare,")]),
        ("bare GETs and listings", [name for name in seconds if name.startswith("bare +")]),
    ):
        if limits:
            best = min(limits, key=seconds.__getitem__)
            share = seconds[best] / ours
            told(
                f"throughput / {what} ({best})", share, share >= work.least, f">= {work.least:.2f}"
            )
            if what == "the fastest curl":
                ratio = cpu["arcbackend"] / cpu[best]
                told(f"CPU / {what}'s", ratio, ratio <= CURL_CPU, f"<= {CURL_CPU:g}")
    growths = [
        measure(partial(peers.arcbackend, handles), below).growth / 2**20
        for handles in (work.tenth, work.handles)
    ]
    print(f"  growth of memory: {growths[1]:.1f} MiB; of a tenth of it: {growths[0]:.1f} MiB")


def told(what: str, value: float, met: bool, target: str) -> None:
    print(f"  {what:<72} {value:6.2f} (target: {target}) {'ok' if met else 'MISSED'}")


async def purge(ce: RealCE, handles: Sequence[JobHandle]) -> None:
    async with ce.backend() as backend:
        await backend.purge(handles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", help="of the running CE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--connections", type=int, default=ARCConfig.model_fields["concurrency"].default
    )
    parser.add_argument("--only", nargs="+", choices=["small", "large", "jobs"])
    parser.add_argument("--dest", type=Path, default=MEMORY if MEMORY.is_dir() else None)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    ce = RealCE.running(Instance("arc-slurm", given.version, "token"))
    assert ce is not None, "start it first: make stack-start"
    peers = Peers(ce, given.connections)
    works, handles = trio.run(submitted, ce)
    print(f"ARC {ce.arc_version}, {given.connections} connections, {os.cpu_count()} cores")
    for name, work in works.items():
        if given.only is None or name in given.only:
            compare(work, peers, given.connections, given.rounds, given.dest)
    trio.run(purge, ce, handles)


if __name__ == "__main__":
    roles = {"fetch": fetch, "bare": bare}
    if sys.argv[1:] and sys.argv[1] in roles:
        print(json.dumps(vars(roles[sys.argv[1]](json.load(sys.stdin)))))
    else:
        main()

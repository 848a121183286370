"""How fast the simulator answers, so that it is not what a benchmark measures.

    python -m tests.benchmarks.simulator [--jobs 100000] [--ids 1000] [--seconds 5]

Each number stands beside that of an application that gives a constant answer of the same size, on
the same server: what is above that is ours. The client is a process of its own, of the standard
library alone; CPU is the server's.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys
import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

import trio

from arcbackend.simulator import Simulator
from arcbackend.simulator.connection import App, Receive, Send
from arcbackend.simulator.server import Server
from arcbackend.simulator.traps import Traps

TRUE = (
    b'<ActivityDescription xmlns="http://www.eu-emi.eu/es/2010/12/adl"><Application><Executable>'
    b"<Path>/bin/true</Path></Executable></Application></ActivityDescription>"
)


def constant(body: bytes) -> App:
    """An application that reads a request and answers this."""

    async def app(_scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        fields = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    return app


def hammer(endpoint: str, ca_file: str, request: bytes, seconds: float) -> tuple[int, int]:
    """Ask the same again and again on one connection; how often, and how long the answer is."""
    where = urlsplit(endpoint)
    context = ssl.create_default_context(cafile=ca_file)
    done, length = 0, 0
    end = time.monotonic() + seconds
    with (
        socket.create_connection((where.hostname, where.port)) as raw,
        context.wrap_socket(raw, server_hostname=where.hostname) as stream,
        stream.makefile("rb", buffering=1 << 18) as file,
    ):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.monotonic() < end:
            stream.sendall(request)
            status = file.readline()
            assert b" 20" in status, status
            while (line := file.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert len(file.read(length)) == length
            done += 1
    return done, length


async def measured(
    name: str, where: tuple[str, str], request: bytes, seconds: float, ids: int
) -> tuple[float, int]:
    """Have a client ask; tells the server's CPU for one, in seconds, and the answer's length."""
    command = [sys.executable, "-m", __spec__.name, "client", *where, str(seconds)]
    began, cpu = time.perf_counter(), time.process_time()
    run = await trio.run_process(command, stdin=request, capture_stdout=True)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    done, length = json.loads(run.stdout)
    print(
        f"{name:<28} {done / seconds:8.0f} requests/s {done * ids / seconds:10.0f} ids/s"
        f" {1000 * cpu / done:8.3f} ms CPU each, {cpu / took:4.0%} of a core"
    )
    return cpu / done, length


async def main(jobs: int, ids: int, seconds: float) -> None:
    """Make jobs, and ask for them."""
    began = time.perf_counter()
    async with Simulator.serving(publish_every=86_400.0, slots=jobs) as ce:
        print(f"start {time.perf_counter() - began:.3f} s")
        endpoint, ca_file = ce.endpoint, str(ce.ca_file)

        def request(method: str, target: str, body: bytes = b"") -> bytes:
            lines = (
                f"{method} {target} HTTP/1.1",
                f"Host: {urlsplit(endpoint).netloc}",
                "Accept: application/json",
                "Content-Type: application/json",
                f"Authorization: Bearer {ce.token()}",
                f"Content-Length: {len(body)}",
            )
            return "\r\n".join((*lines, "", "")).encode() + body

        new = {"count": jobs, "tell": True, "description": TRUE.decode()}
        began = time.perf_counter()
        made = await trio.run_process(
            [sys.executable, "-m", __spec__.name, "once", endpoint, ca_file],
            stdin=request("POST", "/simulator/jobs", json.dumps(new).encode()),
            capture_stdout=True,
        )
        locals_ = json.loads(made.stdout)["ids"]
        print(f"{jobs} jobs made in {time.perf_counter() - began:.2f} s, {memory():.0f} MiB")
        began = time.process_time()
        while ce.world.counts().get("FINISHED", 0) < jobs:
            await trio.sleep(1)
        print(f"all over after {time.process_time() - began:.2f} s of CPU, {memory():.0f} MiB")
        ce.publish()
        asked = json.dumps({"job": [{"id": local} for local in locals_[:ids]]}).encode()
        cases = (
            ("status", request("POST", "/arex/rest/1.1/jobs?action=status", asked), ids),
            ("live list, none", request("GET", "/arex/rest/1.1/jobs?state=HELD"), jobs),
            ("version", request("GET", "/arex/rest"), 0),
        )
        for name, sent, count in cases:
            ours, length = await measured(name, (endpoint, ca_file), sent, seconds, count)
            context = ce._authority.server_context(Traps("7.2.0", "slurm"))
            async with Server.listening(constant(b"x" * length), context) as bare:
                there = (f"https://localhost:{bare.port}", ca_file)
                beside = f"  constant of {length} bytes"
                theirs, _ = await measured(beside, there, sent, seconds, count)
            print(f"  {ours / theirs:.2f} times as much")


def memory() -> float:
    """Resident memory, in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def once(endpoint: str, ca_file: str, request: bytes) -> bytes:
    """Ask once."""
    where = urlsplit(endpoint)
    context = ssl.create_default_context(cafile=ca_file)
    with (
        socket.create_connection((where.hostname, where.port)) as raw,
        context.wrap_socket(raw, server_hostname=where.hostname) as stream,
        stream.makefile("rb") as file,
    ):
        stream.sendall(request)
        length = 0
        while (line := file.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return file.read(length)


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        _, _, to, ca, patience = sys.argv
        print(json.dumps(hammer(to, ca, sys.stdin.buffer.read(), float(patience))))
    elif sys.argv[1:2] == ["once"]:
        sys.stdout.buffer.write(once(sys.argv[2], sys.argv[3], sys.stdin.buffer.read()))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--jobs", type=int, default=100_000)
        parser.add_argument("--ids", type=int, default=1_000)
        parser.add_argument("--seconds", type=float, default=5.0)
        options = parser.parse_args()
        trio.run(main, options.jobs, options.ids, options.seconds)

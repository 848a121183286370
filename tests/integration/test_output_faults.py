"""Outputs fetched from the real CE over a network that breaks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import trio

from arcbackend import FetchProgress, JobHandle, JobID, OutputSpec, Resources, SubmissionSpec
from tests.integration.ce import CE
from tests.integration.jobs import local, over
from tests.integration.proxied import behind_proxy
from tests.wire.proxy import FaultyProxy

pytestmark = [pytest.mark.slurm, pytest.mark.once]

SIZE = 24_000_000  # with which most of the body goes past h11, also after two cuts
SCRIPT = f"head -c {SIZE} /dev/urandom > big; sha256sum big; echo small > small"
SPEC = SubmissionSpec(
    executable="/bin/sh",
    arguments=("-c", SCRIPT),
    outputs=OutputSpec(include_unlisted=True),
    resources=Resources(memory_mb=10),
)


def ranges(proxy: FaultyProxy) -> list[int | None]:
    """Where each request for the big file begins; None: it asks for all of it."""
    asked = [seen.headers.get("range") for seen in proxy.seen if seen.target.endswith("/big")]
    proxy.seen.clear()
    return [None if value is None else int(value[len("bytes=") : -1]) for value in asked]


async def test_a_transfer_survives_what_the_network_does(ce: CE, tmp_path: Path) -> None:
    settings = {
        "retries": {"backoff": 0.05},
        "limits": {"stall_timeout": 1, "transfer_timeout": 30},
    }
    credentials = ce.credentials()
    async with behind_proxy(ce, credentials, tmp_path, **settings) as (backend, proxy):
        (handle,) = (await backend.submit(SPEC)).handles
        await over(backend, [handle])
        big = f"GET /arex/rest/1.1/jobs/{local(handle)}/session/big"
        heard: list[FetchProgress] = []

        async def fetch(dest: Path, job: JobHandle = handle) -> str:
            """Fetch it all; the sum that the node made of the big file, which is also ours."""
            proxy.seen.clear()
            heard.clear()
            with trio.fail_after(60):
                outputs = await backend.fetch_output([job], dest, progress=heard.append)
            output = outputs[job.id]
            assert (output.complete, output.reason) == (True, None)
            assert output.stdout is not None
            data = (dest / local(job) / "big").read_bytes()
            assert len(data) == SIZE
            ours = hashlib.sha256(data).hexdigest()
            assert output.stdout.read_text().split()[0] == ours
            assert not [name for name in os.listdir(dest / local(job)) if ".part" in name]
            last = heard[-1]
            assert (last.what, last.output) == ("done", output)
            assert last.bytes_done == last.bytes_known == output.size
            assert max(now.bytes_done for now in heard) == output.size
            return ours

        first = await fetch(tmp_path / "whole")
        assert ranges(proxy) == [None]

        proxy.cut_answer(big, after=3_000_000, times=2)
        assert await fetch(tmp_path / "cut") == first
        whole, second, third = ranges(proxy)
        assert whole is None
        assert second is not None
        assert third is not None
        assert 0 < second < third < SIZE  # it went on where it had stopped

        proxy.stall_answer(big, after=3_000_000)
        assert await fetch(tmp_path / "stalled") == first
        whole, second = ranges(proxy)
        assert whole is None
        assert second is not None
        assert 0 < second < SIZE

        # Slower than the stall timeout as a whole, but it goes on: nothing is asked for again.
        proxy.drip_answer(big, size=50_000, every=0.01)
        assert await fetch(tmp_path / "dripping") == first
        assert ranges(proxy) == [None]

        # Every connection at once, in the middle of many transfers.
        dest = tmp_path / "all"
        async with trio.open_nursery() as nursery:
            proxy.drip_answer(big, size=50_000, every=0.01)
            nursery.start_soon(fetch, dest)
            while not list(dest.glob("*/.arcbackend-*.part")):
                await trio.sleep(0.01)
            proxy.cut()
        whole, second = ranges(proxy)
        assert whole is None
        assert second is not None
        assert 0 < second < SIZE
    # What drips for ever is given up, and the rest arrives.
    limits = {"transfer_timeout": 2}
    async with behind_proxy(ce, credentials, tmp_path, limits=limits) as (backend, proxy):
        proxy.drip_answer(big, size=100, every=0.05, times=10)
        with trio.fail_after(30):
            outputs = await backend.fetch_output([JobID(local(handle))], tmp_path / "for ever")
        (output,) = outputs.values()
        (refused,) = output.refused
        assert refused.name == "big"
        assert "limits.transfer_timeout = 2 s" in refused.reason
        folder = tmp_path / "for ever" / local(handle)
        assert sorted(os.listdir(folder)) == ["ce.log", "small", "stderr", "stdout"]
        await backend.purge([JobID(local(handle))])

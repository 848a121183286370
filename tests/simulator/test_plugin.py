"""The fixture ``arc_ce``, in tests of every style."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import urllib.request

import httpx
import pytest
import trio

from arcbackend import ConfigurationError, JobStatus, SubmissionSpec
from arcbackend.simulator.threaded import ThreadedSimulator, simulator_in_thread

JSON = {"Accept": "application/json"}
QUICK = {"accept": 0, "prepare": 0, "submit": 0, "notice": 0, "finish": 0, "schedule": 0}


@pytest.mark.arc_ce(pace=QUICK)
async def test_under_trio(arc_ce: ThreadedSimulator) -> None:
    async with arc_ce.backend() as backend:
        handles = (await backend.submit(SubmissionSpec(executable="/bin/true"), 3)).handles
        with trio.fail_after(60):
            while set((await backend.status(handles)).values()) != {JobStatus.DONE}:
                await trio.sleep(0.05)


def test_without_an_event_loop(arc_ce: ThreadedSimulator) -> None:
    context = ssl.create_default_context(cafile=arc_ce.ca_file)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    asked = urllib.request.Request(f"{arc_ce.endpoint}/arex/rest", headers=JSON)
    with opener.open(asked, timeout=30) as answer:
        assert json.load(answer) == {"version": ["1.0", "1.1"]}


@pytest.mark.arc_ce(rest_versions=("1.0",))
def test_under_asyncio(arc_ce: ThreadedSimulator) -> None:
    async def ask() -> httpx.Response:
        context = ssl.create_default_context(cafile=arc_ce.ca_file)
        bearer = {**JSON, "Authorization": f"Bearer {arc_ce.token()}"}
        async with httpx.AsyncClient(verify=context, headers=bearer, trust_env=False) as client:
            return await client.get(f"{arc_ce.endpoint}/arex/rest/1.0/jobs")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()) == (200, {"job": []})


def test_from_a_program(arc_ce: ThreadedSimulator) -> None:
    program = (
        "import json, ssl, sys, urllib.request as u\n"
        "context = ssl.create_default_context(cafile=sys.argv[2])\n"
        "opener = u.build_opener(u.HTTPSHandler(context=context))\n"
        "asked = u.Request(sys.argv[1] + '/arex/rest', headers={'Accept': 'application/json'})\n"
        "print(json.load(opener.open(asked, timeout=30)))\n"
    )
    command = [sys.executable, "-c", program, arc_ce.endpoint, str(arc_ce.ca_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "{'version': ['1.0', '1.1']}\n"


def test_each_test_has_one_of_its_own(arc_ce: ThreadedSimulator) -> None:
    with simulator_in_thread() as other:
        assert other.endpoint != arc_ce.endpoint
    assert str(arc_ce.settings.lrms) == "slurm"


def test_a_wrong_setting_is_told_where_it_is_started() -> None:
    with pytest.raises(ConfigurationError, match="lrms"), simulator_in_thread(lrms="pbs"):
        pass


def test_a_port_that_is_taken_is_told(arc_ce: ThreadedSimulator) -> None:
    port = int(arc_ce.endpoint.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"), simulator_in_thread(port):
        pass

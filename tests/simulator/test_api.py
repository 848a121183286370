"""The REST interface: what A-REX says to what was recorded (likeness tests); here is the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from arcbackend import CopyVars, JobStatus, OpOutcome, SubmissionSpec
from arcbackend.simulator import Pace, Simulator
from tests.simulator.clients import DELEGATIONS, JOBS, Client, adl, asking, ids, said

RECORDED = Path(__file__).parents[1] / "pure" / "recorded"
INFO = "/arex/rest/1.1/info"


def shape(value: Any) -> Any:
    """Keys, and what can be known beforehand."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return value if value in ("OK", "Created", "404", "None", "Job not found") else type(value)


@pytest.mark.parametrize("version", ["7.0.0", "7.2.0"])
@pytest.mark.parametrize("rest", ["1.0", "1.1"])
async def test_as_recorded(version: str, rest: str, autojump_clock: MockClock) -> None:
    recorded = json.loads((RECORDED / f"{version}.json").read_text())
    replies = {reply["name"]: reply for reply in recorded if reply["rest"] == rest}
    jobs = JOBS.replace("1.1", rest)
    settings: dict[str, Any] = {"arc_version": version, "token_scopes": "wlcg"}
    async with Simulator(**settings) as ce:
        client = Client(ce, ce.token())
        async with client.http:

            def check(name: str, answer: httpx.Response) -> None:
                reply = replies[name]
                assert said(answer) == f"{reply['status']} {reply['reason']}"
                if reply["body"].startswith("{"):
                    assert shape(answer.json()) == shape(json.loads(reply["body"]))
                else:
                    assert answer.text == reply["body"]

            stranger = Client(ce, None)
            check("no credentials", await stranger.get(jobs))
            reader = Client(ce, ce.token(scopes=["compute.read"]))
            new = f"{jobs}?action=new"
            check("missing scope", await reader.post(new, adl()))
            check("versions", await client.get("/arex/rest"))
            check("empty list", await client.get(f"{jobs}?state=FINISHED"))
            made = await client.post(new, adl(inputs=["never"]))
            check("one job", made)
            (job,) = made.json()["job"]
            check("garbage", await client.post(new, "garbage"))
            check("status of one", await client.post(f"{jobs}?action=status", ids(job["id"])))
            for action in ("status", "kill", "clean"):
                asked = ids(job["id"], "nosuchjob")
                check(action, await client.post(f"{jobs}?action={action}", asked))
            for each in (stranger, reader):
                await each.http.aclose()


async def test_the_whole_life_by_the_library(autojump_clock: MockClock) -> None:
    async with Simulator(slots=2) as ce, ce.backend() as backend:
        spec = SubmissionSpec(executable="/bin/sleep", arguments=("100",))
        submission = await backend.submit(
            spec, copies=[CopyVars(environment={"N": str(number)}) for number in range(4)]
        )
        handles = submission.handles
        assert len(handles) == 4
        await trio.sleep(70)
        counts = await backend.counts()
        assert (counts.running, counts.waiting) == (2, 2)
        killed, *others = [handle.id for handle in handles]
        assert (await backend.kill([killed]))[killed] == OpOutcome(ok=True)
        await trio.sleep(400)
        statuses = await backend.status([killed, *others])
        assert list(statuses.values()) == [JobStatus.ABORTED, *[JobStatus.DONE] * 3]
        told = (await backend.diagnostics([killed]))[killed]
        assert told is not None
        assert all((await backend.purge([killed, *others])).values())


async def test_lists_by_state(autojump_clock: MockClock) -> None:
    async with asking() as client:
        (waits,) = await client.new(adl(inputs=["never"]))
        (done,) = await client.new()
        await trio.sleep(60)

        async def listed(query: str) -> list[dict[str, str]]:
            answer = await client.get(f"{JOBS}?{query}")
            found: list[dict[str, str]] = answer.json()["job"]
            return sorted(found, key=str)

        assert await listed("state=PREPARING") == [{"id": waits, "state": "PREPARING"}]
        assert await listed("state=FINISHED,FAILED") == [{"id": done, "state": "FINISHED"}]
        assert len(await listed("state=PREPARING%2CFINISHED")) == 2
        assert await listed("state=NOSUCH") == []
        assert sorted(each["id"] for each in await listed("")) == sorted([waits, done])


@pytest.mark.parametrize(
    ("accept", "kind", "body"),
    [
        ("application/json", "application/json", '{"version":["1.0","1.1"]}'),
        (
            "text/xml",
            "application/xml",
            "<versions>\n  <version>1.0</version>\n  <version>1.1</version>\n</versions>",
        ),
        (
            "text/html",
            "text/html",
            '<HTML><HEAD>versions</HEAD><BODY><table border="1"><tr><td>version</td><td>1.0</td>'
            "</tr><tr><td>version</td><td>1.1</td></tr></table></BODY></HTML>",
        ),
        ("image/png, text/xml;q=0.1", "application/xml", None),
        ("application/json;q=0.1,text/xml", "application/json", None),
        ("*/*", None, None),
        ("Application/JSON", None, None),
    ],
)
async def test_renderings(accept: str, kind: str | None, body: str | None) -> None:
    async with asking(who=None) as client:
        answer = await client.get("/arex/rest", accept=accept)
        assert answer.headers.get("content-type") == kind
        if body is not None:
            assert answer.text == body
        head = await client.ask("HEAD", "/arex/rest", accept=accept)
        assert head.headers["content-length"] == str(len(answer.content))
        assert head.content == b""


async def test_only_the_versions_that_are_offered() -> None:
    async with asking(rest_versions=("1.0",)) as client:
        assert (await client.get("/arex/rest")).json() == {"version": ["1.0"]}
        refused = await client.get(JOBS)
        assert said(refused) == "404 Version Not Supported"
        assert said(await client.get(JOBS.replace("1.1", "1.0"))) == "200 OK"


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("&instances=3", 3),
        ("&instances=3&instances_min=3", 3),
        ("&instances=2x", 2),
        ("&instances=", 1),
        ("&instances=1&instances_min=0", 1),
        ("&instances=0", "500 Wrong number of instances specified"),
        ("&instances=many", "500 Wrong number of instances specified"),
        ("&instances=2&instances_min=3", "500 Wrong number of instances specified"),
        ("&instances_min=2", "500 Wrong number of instances specified"),
        ("&instances=2&instances_min=0", "403 Can't create requested number of job instances"),
    ],
)
async def test_instances(query: str, answer: int | str) -> None:
    async with asking() as client:
        got = await client.post(f"{JOBS}?action=new{query}", adl(), kind="application/xml")
        assert (len(got.json()["job"]) if got.status_code == 201 else said(got)) == answer


async def test_rest_1_0_ignores_instances() -> None:
    async with asking() as client:
        old = JOBS.replace("1.1", "1.0")
        got = await client.post(f"{old}?action=new&instances=3", adl())
        assert len(got.json()["job"]) == 1


async def test_instances_beyond_any_memory_close_the_connection() -> None:
    async with asking() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(f"{JOBS}?action=new&instances=99999999999999999999", adl())
        assert client.ce.world.counts() == {}


async def test_several_descriptions_and_instances_do_not_go_together() -> None:
    xml = b"<!-- x -->\n<ActivityDescriptions>%b</ActivityDescriptions>" % adl()
    async with asking() as client:
        for body in (xml, b'+(&(executable="/bin/true"))(&(executable="/bin/true"))'):
            got = await client.post(f"{JOBS}?action=new&instances=2", body)
            assert said(got) == (
                "403 No multiple descriptions and multiple instances simultaneously"
            )


async def test_a_full_ce() -> None:
    async with asking(max_jobs=2) as client:
        target = f"{JOBS}?action=new"
        assert len(await client.new(query="&instances=2")) == 2
        assert said(await client.post(target, adl())) == "500 No more jobs allowed"
    async with asking(max_jobs=2) as client:
        got = await client.post(f"{target}&instances=5&instances_min=3", adl())
        assert said(got) == "403 Number of requested instances exceeds allowed limit"


async def test_a_session_directory(autojump_clock: MockClock) -> None:
    async with asking() as client:
        (job,) = await client.new(adl(inputs=["a", "sub/b"]))
        session = f"{JOBS}/{job}/session"
        assert said(await client.put(f"{session}/sub/b", "content")) == "200 OK"
        assert (await client.get(session)).json() == {"file": [], "dir": ["sub"]}
        assert (await client.get(f"{session}/sub/", accept="text/xml")).text == (
            '<list>\n  <file size="7">b</file>\n</list>'
        )
        found = await client.ask("PROPFIND", f"{session}/sub", headers=[("Depth", "1")])
        assert found.text.count("<d:response>") == 2
        assert "<d:getcontentlength>7</d:getcontentlength>" in found.text
        part = await client.get(f"{session}/sub/b", headers=[("Range", "bytes=2-3")])
        assert (said(part), part.text) == ("206 Partial content", "nt")
        assert said(await client.get(f"{session}/../x")) == "404 Wrong path"
        await trio.sleep(10)
        assert await client.live(job) == "PREPARING"
        assert said(await client.put(f"{session}/a", "")) == "200 OK"
        await trio.sleep(10)
        assert await client.live(job) == "FINISHED"
        assert said(await client.ask("DELETE", f"{session}/sub")) == "202 Accepted"
        assert said(await client.ask("DELETE", f"{session}/sub")) == "500 Failed to delete"
        assert said(await client.ask("MKCOL", f"{session}/x")) == "501 Not Implemented"


async def test_a_part_of_a_file_is_put_where_it_belongs() -> None:
    async with asking() as client:
        (job,) = await client.new(adl(inputs=["never"]))
        target = f"{JOBS}/{job}/session/file"
        for content, where in (("zz", "bytes 4-5/6"), ("aa", "bytes 0-1/6")):
            await client.put(target, content, headers=[("Content-Range", where)])
        assert (await client.get(target)).content == b"aa\0\0zz"


async def test_a_file_that_shrinks_meanwhile_ends_the_connection() -> None:
    async with asking() as client:
        (job,) = await client.new(adl(inputs=["never"]))
        target = f"{JOBS}/{job}/session/file"
        await client.put(target, bytes(2**20))
        found = client.ce.world.find(client.ce.owner(), job)
        assert found is not None
        path = client.ce.world.session(found).root / "file"

        async def read() -> None:
            async with client.http.stream(
                "GET",
                "/",
                headers={"Authorization": f"Bearer {client.token}"},
                extensions={"target": target.encode()},
            ) as answer:
                async for _ in answer.aiter_raw():
                    os.truncate(path, 0)

        with pytest.raises(httpx.RemoteProtocolError):
            await read()


async def test_records() -> None:
    async with asking() as client:
        (job,) = await client.new(adl(inputs=["never"]))
        items = f"{JOBS}/{job}/diagnose"
        described = await client.get(f"{items}/description")
        assert said(described) == "200 OK"
        assert described.headers["content-type"] == "text/plain"
        assert "/bin/true" in described.text
        assert said(await client.get(f"{items}/failed")) == "404 Not found"
        for nosuch in ("proxy", "", "status/x", "STATUS"):
            got = await client.get(f"{items}/{nosuch}")
            assert said(got) == "404 Diagnostic item not found"
        assert said(await client.post(f"{items}/status")) == "501 Not Implemented"


async def test_information(autojump_clock: MockClock) -> None:
    async with asking(who=None, publish_every=30.0) as client:
        client.ce.publish()
        document = (await client.get(INFO)).json()
        assert set(document) >= {"Domains"}
        xml = await client.get(INFO, accept="text/xml")
        assert xml.headers["content-type"] == "application/xml"
        assert said(await client.get(f"{INFO}?schema=glue3")) == "501 Schema not implemented"
        assert said(await client.get(f"{INFO}/x")) == "404 Not Found"
        assert said(await client.post(INFO)) == "501 Not Implemented"


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/", "404 Not Found"),
        ("/arex", "200 OK"),
        ("/arex/nosuch", "404 Not Found"),
        ("/arex/rest/2.0/jobs", "404 Version Not Supported"),
        ("/arex/rest/1.1", "404 Not Found"),
        ("/arex/rest/1.1/nosuch", "404 Functionality Not Supported"),
        ("/arex/rest/1.1//jobs//", "200 OK"),
        ("/arex/%72est/1.1/%6aobs", "200 OK"),
        (f"{JOBS}/nosuch", "404 Missing job sub-resource"),
        (f"{JOBS}/nosuch/nosuch", "404 Wrong job sub-resource requested"),
        (f"{JOBS}%3fstate=FAILED", "404 Functionality Not Supported"),
        (f"{DELEGATIONS}/a/b", "404 Not Found"),
    ],
)
async def test_paths(target: str, answer: str) -> None:
    async with asking() as client:
        assert said(await client.get(target)) == answer


async def test_a_million_jobs_are_made_at_once_and_asked_for() -> None:
    count = 20_000  # (the benchmark has the million)
    async with asking() as client:
        answer = await client.post("/simulator/jobs", json.dumps({"count": count, "tell": True}))
        assert answer.status_code == 201
        made = answer.json()["ids"]
        assert len(set(made)) == count
        assert answer.json()["owner"] == client.ce.owner()
        told = await client.act("status", *made[:1000])
        assert [each["id"] for each in told] == made[:1000]
        assert {each["status-code"] for each in told} == {"200"}


async def test_speed_is_not_lost_unseen() -> None:
    """No timing: the quick way writes what the slow way would."""
    async with asking() as client:
        jobs = await client.new(query="&instances=3")
        asked = [*jobs, "nosuch", 'odd"\n\\ é', "<x>"]
        quick = await client.act("status", *asked)
        slow = await client.post(f"{JOBS}?action=status", ids(*asked), accept="text/xml")
        assert [each["id"] for each in quick[:3]] == jobs
        assert slow.text.count("<job>") == len(asked)
        assert slow.text.count("<state>") == sum("state" in each for each in quick)


async def test_the_simulators_own_interface(autojump_clock: MockClock) -> None:
    quick = Pace(accept=0, prepare=0, submit=0, schedule=0)
    async with asking(pace=quick, slots=4) as client:

        async def ask(method: str, target: str, body: Any = None) -> Any:
            answer = await client.ask(
                method, f"/simulator{target}", b"" if body is None else json.dumps(body)
            )
            assert answer.is_success, answer.text
            return answer.json() if answer.content else None

        assert (await ask("GET", "/"))["slots"] == 4
        (job,) = await client.new(adl("/bin/sleep", SIMULATOR_RUN_SECONDS="1000"))
        await trio.sleep(5)
        assert await ask("GET", "/jobs") == {"RUNNING": 1}
        await ask("POST", f"/jobs/{job}/suspend")
        await ask("POST", "/publish")
        assert await client.states(job) == ["OTHER"]
        await ask("POST", f"/jobs/{job}/resume")
        assert (await client.post(f"/simulator/jobs/{job}/resume")).status_code == 409
        assert (await client.post(f"/simulator/jobs/{job}/nosuch")).status_code == 404
        await ask("POST", f"/jobs/{job}/cancel")
        await ask("POST", "/batch/close")
        (kept,) = await client.new()
        await trio.sleep(30)
        assert client.ce.batch.jobs()[kept]["JobState"] == "PENDING"
        await ask("POST", "/batch/open")
        await ask("POST", "/batch/foreign", {"cpus": 2})
        await trio.sleep(5)
        await ask("GET", "/jobs")
        assert client.ce.batch.load().foreign_cpus == 2
        await ask("DELETE", "/batch/foreign")
        assert client.ce.batch.load().foreign_cpus == 0
        await ask("POST", "/batch/clear")
        number = (await ask("POST", "/faults", {"effect": {"kind": "status"}}))["number"]
        assert (await client.get(JOBS)).status_code == 500
        assert [each["done"] for each in await ask("GET", "/faults")] == [1]
        await ask("DELETE", f"/faults/{number}")
        assert (await client.ask("DELETE", f"/simulator/faults/{number}")).status_code == 404
        await ask("DELETE", "/faults")
        before = (await ask("GET", "/time"))["now"]
        assert (await ask("POST", "/time", {"skew": 500}))["now"] == pytest.approx(before + 500)
        client.token = (await ask("POST", "/token", {"subject": "Bob"}))["token"]
        assert (await ask("POST", "/proxy", {"user": "Bob"}))["proxy"].count("BEGIN CERT") == 2
        assert (await ask("GET", "/jwks"))["keys"]
        assert {row["trap"] for row in await ask("GET", "/traps") if not row["on"]}
        await ask("POST", "/restart", {"keep": False})
        assert await ask("GET", "/jobs") == {}


@pytest.mark.parametrize(
    ("target", "body", "why"),
    [
        ("/jobs", "garbage", "no JSON"),
        ("/jobs", "[]", "no JSON object"),
        ("/jobs", '{"count":0}', "count"),
        ("/jobs", '{"nosuch":1}', "nosuch"),
        ("/jobs", '{"description":"garbage"}', "description: Payload is not recognized"),
        ("/faults", '{"effect":{"kind":"nosuch"}}', "effect"),
        ("/time", "{}", "skew"),
    ],
)
async def test_wrong_arguments_are_told(target: str, body: str, why: str) -> None:
    async with asking() as client:
        answer = await client.post(f"/simulator{target}", body)
        assert answer.status_code == 400
        assert why in answer.json()["error"]


async def test_without_an_interface_of_its_own() -> None:
    async with asking(control=False) as client:
        assert said(await client.get("/simulator/jobs")) == "404 Not Found"

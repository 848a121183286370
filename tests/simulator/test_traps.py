"""Each trap is shown, switched on and switched off, as a client sees it.

Each function below shows one: it gets a client of a simulator that has the trap, or has not.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import jwt
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from arcbackend.simulator import TRAPS, Simulator, Trap
from arcbackend.simulator.jobs import Job
from arcbackend.simulator.traps import TrapRow, Traps
from tests.simulator.clients import DELEGATIONS, JOBS, XMLNS, Client, adl, ids, said

Show: TypeAlias = Callable[[Client, bool], Awaitable[None]]


@dataclass
class Shown:
    """How a trap is shown, and to what CE."""

    show: Show
    settings: dict[str, Any] = field(default_factory=dict)


SHOWN: dict[Trap, Shown] = {}
ROWS = {row.trap: row for row in TRAPS}


def shows(trap: Trap, **settings: Any) -> Callable[[Show], Show]:
    def decorate(show: Show) -> Show:
        assert trap not in SHOWN
        SHOWN[trap] = Shown(show, settings)
        return show

    return decorate


def test_each_trap_is_in_the_table_once_and_is_shown() -> None:
    assert [row.trap for row in TRAPS] == list(dict.fromkeys(row.trap for row in TRAPS))
    assert set(ROWS) == set(Trap) == set(SHOWN)


@pytest.mark.parametrize("row", TRAPS, ids=lambda row: row.trap.value)
def test_rows_are_whole(row: TrapRow) -> None:
    assert row.fact.endswith(".")
    assert row.instead.endswith(".")
    assert row.source
    for version in ("7.0.0", "7.2.0"):
        for lrms in ("slurm", "condor"):
            on = version in row.versions and lrms in row.batch_systems
            assert (row.trap in Traps(version, lrms)) is on
            assert row.trap not in Traps(version, lrms, {row.trap})


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("trap", Trap, ids=lambda trap: trap.value)
async def test_traps(trap: Trap, on: bool, autojump_clock: MockClock) -> None:
    row, shown = ROWS[trap], SHOWN[trap]
    settings = {
        "arc_version": row.versions[-1],
        "lrms": row.batch_systems[0],
        "without_traps": set() if on else {trap},
        **shown.settings,
    }
    async with Simulator(**settings) as ce:
        client = Client(ce, ce.token())
        async with client.http:
            await shown.show(client, on)


def waits(client: Client) -> Awaitable[list[str]]:
    """A job that waits for an input that does not come."""
    return client.new(adl(inputs=["never"]))


def sleeps(seconds: int, cpus: int = 1) -> bytes:
    """A job that runs for so long."""
    return (
        f"<ActivityDescription {XMLNS}><Application><Executable><Path>/bin/sleep</Path>"
        f"<Argument>{seconds}</Argument></Executable></Application><Resources><SlotRequirement>"
        f"<NumberOfSlots>{cpus}</NumberOfSlots></SlotRequirement></Resources>"
        "</ActivityDescription>"
    ).encode()


async def until(client: Client, job: str, *states: str) -> None:
    """Let time go by until the live list says one of these of a job."""
    with trio.fail_after(1000):
        while await client.live(job) not in states:
            await trio.sleep(0.1)


def the(client: Client, job: str) -> Job:
    found = client.ce.world.find(client.ce.owner(), job)
    assert found is not None
    return found


@shows(Trap.UNAUTHENTICATED_IS_500)
async def _(client: Client, on: bool) -> None:
    client.token = None
    answer = await client.get(JOBS)
    assert said(answer) == (
        "500 User can't be assigned configuration" if on else "401 Unauthorized"
    )
    assert answer.content == b""


@shows(Trap.STICKY_IDENTITY)
async def _(client: Client, on: bool) -> None:
    (job,) = await waits(client)
    await trio.sleep(10)
    client.token = client.ce.token("other")
    listed = (await client.get(JOBS)).json()["job"]
    assert listed == ([{"id": job}] if on else [])


@shows(Trap.SPOILT_CONNECTION)
async def _(client: Client, on: bool) -> None:
    good, client.token = client.token, None
    await client.get("/arex/rest")
    client.token = good
    assert (await client.get(JOBS)).status_code == (500 if on else 200)


@shows(Trap.SCOPE_STRING_IS_ONE, token_scopes="wlcg")
async def _(client: Client, on: bool) -> None:
    authority = client.ce._authority
    claims = dict(authority.claims(client.ce.token()) or {})
    claims["scope"] = "compute.read compute.create"
    client.token = jwt.encode(claims, authority._token_key, "ES256")
    assert (await client.get(JOBS)).status_code == (403 if on else 200)
    claims["scope"] = claims["scope"].split()
    client.token = jwt.encode(claims, authority._token_key, "ES256")
    assert (await client.get(JOBS)).status_code == 200


@shows(Trap.CERTIFICATE_OUTRANKS_TOKEN)
async def _(client: Client, on: bool) -> None:
    ce = client.ce
    both = Client(ce, ce.token("Bob"), ce.proxy("Ann"))
    async with both.http:
        (job,) = await both.new()
    owner = ce.subject("Ann") if on else ce.owner("Bob")
    assert ce.world.find(owner, job)


@shows(Trap.TLS_1_2_ONLY)
async def _(client: Client, on: bool) -> None:
    traps = client.ce.world.traps
    theirs = ssl.create_default_context(cafile=client.ce.ca_file)
    theirs.minimum_version = ssl.TLSVersion.TLSv1_3
    one, other = memory_stream_pair()
    ours = client.ce._authority.server_context(traps)
    server = trio.SSLStream(one, ours, server_side=True)
    peer = trio.SSLStream(other, theirs, server_hostname="localhost")
    refused = []

    async def shake(stream: trio.SSLStream[Any]) -> None:
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            refused.append(stream)
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake, server)
        nursery.start_soon(shake, peer)
    assert bool(refused) is on


@shows(Trap.ONE_CURVE_ONLY)
async def _(client: Client, on: bool) -> None:
    common = Client(client.ce, None, client.ce.proxy(key="ec", bits=256))
    async with common.http:
        if on:
            with pytest.raises(httpx.ConnectError, match="ILLEGAL_PARAMETER"):
                await common.get(JOBS)
        else:
            assert said(await common.get(JOBS)) == "200 OK"


@shows(Trap.STALE_STATUS)
async def _(client: Client, on: bool) -> None:
    (job,) = await client.new(sleeps(10))
    await until(client, job, "RUNNING")
    client.ce.publish()
    stale = (await client.states(job))[0]
    await until(client, job, "FINISHED")
    assert await client.states(job) == [stale if on else "FINISHED"]
    assert stale != "FINISHED"
    client.ce.publish()
    assert await client.states(job) == ["FINISHED"]


@shows(Trap.KILLED_IS_FAILED_LIVE)
async def _(client: Client, on: bool) -> None:
    (job,) = await waits(client)
    await until(client, job, "PREPARING")
    await client.act("kill", job)
    await until(client, job, "FAILED" if on else "KILLED")
    client.ce.publish()
    assert await client.states(job) == ["KILLED"]


@shows(Trap.KILLED_IS_FAILED_UNPUBLISHED, publish_every=86_400.0)
async def _(client: Client, on: bool) -> None:
    (job,) = await waits(client)
    await client.act("kill", job)
    await until(client, job, "FAILED", "KILLED")
    assert await client.states(job) == ["FAILED" if on else "KILLED"]
    client.ce.publish()
    assert await client.states(job) == ["KILLED"]


@shows(Trap.LATE_FAILURE_RECORD)
async def _(client: Client, on: bool) -> None:
    jobs = [(await waits(client))[0] for _ in range(5)]
    await until(client, jobs[-1], "PREPARING")
    await client.act("kill", *jobs)
    first: dict[str, bytes] = {}
    with trio.fail_after(100):
        while len(first) < len(jobs):
            for job in jobs:
                if job not in first and await client.live(job) in ("FAILED", "KILLED"):
                    first[job] = (await client.get(f"{JOBS}/{job}/diagnose/failed")).content
            await trio.sleep(0.01)
    assert any(not record for record in first.values()) is on
    await trio.sleep(60)
    for job in jobs:
        record = await client.get(f"{JOBS}/{job}/diagnose/failed")
        assert b"canceled by external request" in record.content


@shows(Trap.WIPED_WHILE_ACCEPTED)
async def _(client: Client, on: bool) -> None:
    (job,) = await waits(client)
    seen = set()
    for _ in range(100):
        seen.add(await client.live(job))
        await trio.sleep(0.01)
    assert ("WIPED" in seen) is on
    assert await client.live(job) == "PREPARING"


@shows(Trap.LISTED_LATE)
async def _(client: Client, on: bool) -> None:
    (job,) = await waits(client)
    listed = [each["id"] for each in (await client.get(JOBS)).json()["job"]]
    assert (job not in listed) is on
    await trio.sleep(10)
    assert (await client.get(JOBS)).json()["job"] == [{"id": job}]


async def _held(client: Client, how: str) -> str:
    """The published state of a job that the batch system has stopped."""
    (job,) = await client.new(sleeps(100))
    await until(client, job, "RUNNING")
    await trio.sleep(5)
    getattr(client.ce.batch, how)(job)
    client.ce.publish()
    return (await client.states(job))[0]


@shows(Trap.SUSPENDED_IS_OTHER)
async def _(client: Client, on: bool) -> None:
    assert await _held(client, "suspend") == ("OTHER" if on else "HELD")


@shows(Trap.HELD_IS_OTHER)
async def _(client: Client, on: bool) -> None:
    assert await _held(client, "hold") == ("OTHER" if on else "HELD")
    assert await _held(client, "suspend") == "HELD"


@shows(Trap.HELD_ONCE_STARTED_IS_REMOVED)
async def _(client: Client, on: bool) -> None:
    await _held(client, "hold")
    ((job, _),) = client.ce.batch.jobs().items()
    client.ce.batch.release(job)
    await until(client, job, "FAILED" if on else "FINISHED")
    record = await client.get(f"{JOBS}/{job}/diagnose/failed")
    assert (b"PeriodicRemove" in record.content) is on


@shows(Trap.ENDED_IS_OTHER, pace={"notice": 30.0})
async def _(client: Client, on: bool) -> None:
    (job,) = await client.new(sleeps(1))
    await until(client, job, "RUNNING")
    await trio.sleep(10)
    client.ce.publish()
    assert await client.states(job) == ["OTHER" if on else "EXITINGLRMS"]


@shows(Trap.IDS_NEED_EXACT_TYPE)
async def _(client: Client, on: bool) -> None:
    told = await client.act("status", "nosuch", kind="application/json; charset=utf-8")
    assert [each["id"] for each in told] == ([] if on else ["nosuch"])
    other = await client.post(f"{JOBS}?action=status", ids("nosuch"), kind="text/plain")
    assert said(other) == ("201 Created" if on else "415 Unsupported Media Type")


@shows(Trap.IDS_CUT_AT_1_MIB)
async def _(client: Client, on: bool) -> None:
    many = [f"{number:0400}" for number in range(3000)]
    told = await client.act("status", *many)
    assert (len(told) < len(many)) is on
    assert [each["id"] for each in told][:2000] == many[:2000]


@shows(Trap.GARBAGE_IDS_ARE_201)
async def _(client: Client, on: bool) -> None:
    answer = await client.post(f"{JOBS}?action=status", "garbage")
    assert said(answer) == ("201 Created" if on else "400 Bad Request")


@shows(Trap.CLEAN_OF_ACTIVE_IS_202)
async def _(client: Client, on: bool) -> None:
    (job,) = await client.new(sleeps(30))
    await until(client, job, "RUNNING")
    (told,) = await client.act("clean", job)
    assert told["status-code"] == ("202" if on else "505")
    assert await client.live(job) == "RUNNING"
    await trio.sleep(100)
    assert (await client.live(job) in (None, "WIPED")) is on


@shows(Trap.KILL_OF_FINISHED_IS_202)
async def _(client: Client, on: bool) -> None:
    (job,) = await client.new()
    await until(client, job, "FINISHED")
    (told,) = await client.act("kill", job)
    assert told["status-code"] == ("202" if on else "505")
    await trio.sleep(100)
    assert await client.live(job) == "FINISHED"


@shows(Trap.FEWER_INSTANCES_SILENTLY, max_jobs=2)
async def _(client: Client, on: bool) -> None:
    target = f"{JOBS}?action=new&instances=3&instances_min=1"
    jobs = (await client.post(target, adl(), kind="application/xml")).json()["job"]
    assert [job["status-code"] for job in jobs] == ["201", "201"] + ([] if on else ["500"])


@shows(Trap.LOG_NOT_IN_SESSION)
async def _(client: Client, on: bool) -> None:
    logged = adl(inputs=["never"]).replace(
        b"</Application>", b"<LoggingDirectory>log</LoggingDirectory></Application>"
    )
    (job,) = await client.new(logged)
    await until(client, job, "PREPARING")
    listed = (await client.get(f"{JOBS}/{job}/session/")).json()
    assert ("log" not in listed["dir"]) is on
    answer = await client.get(f"{JOBS}/{job}/session/log/errors")
    assert (answer.status_code == 404) is on
    assert said(await client.get(f"{JOBS}/{job}/diagnose/errors")) == "200 OK"


@shows(Trap.NO_PROXY_NO_HTTPS)
async def _(client: Client, on: bool) -> None:
    fetched = adl().replace(
        b"<DataStaging>",
        b"<DataStaging><InputFile><Name>x</Name><Source><URI>https://host.invalid/x</URI></Source>"
        b"</InputFile>",
    )
    (job,) = await client.new(fetched)
    await until(client, job, "FAILED", "FINISHED")
    assert await client.live(job) == ("FAILED" if on else "FINISHED")


@shows(Trap.UNKNOWN_DELEGATION_ACCEPTED)
async def _(client: Client, on: bool) -> None:
    target = f"{JOBS}?action=new&delegation_id=nosuch"
    (job,) = (await client.post(target, adl(), kind="application/xml")).json()["job"]
    assert job["status-code"] == ("201" if on else "500")


async def _token_delegated(client: Client) -> str:
    token = [("X-Token-Delegation", "secret")]
    answer = await client.post(f"{DELEGATIONS}?action=new&type=jwt", headers=token)
    return answer.headers["location"]


@shows(Trap.RENEW_MAKES_DELEGATION)
async def _(client: Client, on: bool) -> None:
    answer = await client.post(f"{DELEGATIONS}/nosuch?action=renew")
    assert answer.status_code == (201 if on else 404)
    assert bool((await client.get(DELEGATIONS)).json()["delegation"]) is on


@shows(Trap.RENEW_DESTROYS_TOKEN)
async def _(client: Client, on: bool) -> None:
    where = await _token_delegated(client)
    assert (await client.post(f"{where}?action=renew")).status_code == (201 if on else 409)
    kept = await client.post(f"{where}?action=get")
    assert kept.content == (b"\n" if on else b"secret")


@shows(Trap.CHAIN_NOT_LOOKED_AT)
async def _(client: Client, on: bool) -> None:
    where = (await client.post(f"{DELEGATIONS}?action=new")).headers["location"]
    answer = await client.put(where, client.ce.proxy(foreign_ca=True))
    assert said(answer) == ("200 OK" if on else "500 Failed accepting delegation")


@shows(Trap.USED_DELEGATION_STAYS)
async def _(client: Client, on: bool) -> None:
    where = await _token_delegated(client)
    (job,) = await client.new(query=f"&delegation_id={where.rsplit('/', 1)[1]}")
    await until(client, job, "FINISHED")
    answer = await client.post(f"{where}?action=delete")
    assert said(answer) == ("500 Failed deleting delegation" if on else "202 Accepted")
    await client.act("clean", job)
    await trio.sleep(10)
    again = await client.post(f"{where}?action=delete")
    assert said(again) == ("202 Accepted" if on else "404 No such delegation")


async def _listing(client: Client, name: str, content: bytes = b"x") -> tuple[str, str]:
    """A job's session directory with a file in it, and the listing in JSON."""
    (job,) = await waits(client)
    session = client.ce.world.session(the(client, job))
    session.write(name, content)
    return f"{JOBS}/{job}/session", (await client.get(f"{JOBS}/{job}/session/")).text


@shows(Trap.NAMES_ARE_BYTES)
async def _(client: Client, on: bool) -> None:
    _, listing = await _listing(client, "é")
    assert ("\\u00C3\\u00A9" if on else "é") in listing


@shows(Trap.CONTROL_CHARACTERS_LOST)
async def _(client: Client, on: bool) -> None:
    where, listing = await _listing(client, "a\x01")
    assert ("a\\u00EF\\u00BF\\u00BD" if on else "a\\u0001") in listing
    assert (await client.get(f"{where}/a%01")).content == b"x"


@shows(Trap.XML_NOT_WELL_FORMED, arc_version="7.0.0")
async def _(client: Client, on: bool) -> None:
    where, _ = await _listing(client, "a\x01")
    listing = await client.get(f"{where}/", accept="text/xml")
    assert (b'<file size="1">a\x01</file>' in listing.content) is on


@shows(Trap.LINKS_FOLLOWED_UNLISTED)
async def _(client: Client, on: bool) -> None:
    where, _ = await _listing(client, "file")
    root = client.ce.world.session(the(client, where.split("/")[-2])).root
    os.symlink("/etc/passwd", root / "link")
    assert "link" not in (await client.get(f"{where}/")).text
    assert (await client.get(f"{where}/link")).status_code == (200 if on else 404)


@shows(Trap.FIFO_HANGS)
async def _(client: Client, on: bool) -> None:
    where, _ = await _listing(client, "file")
    root = client.ce.world.session(the(client, where.split("/")[-2])).root
    os.mkfifo(root / "fifo")
    for method in ("GET", "HEAD"):
        if on:
            with pytest.raises(httpx.ReadTimeout):
                await client.ask(method, f"{where}/fifo", timeout=1000)
        else:
            assert said(await client.ask(method, f"{where}/fifo")) == "404 Not found"


@shows(Trap.UNREADABLE_IS_LISTED)
async def _(client: Client, on: bool) -> None:
    where, _ = await _listing(client, "file")
    root = client.ce.world.session(the(client, where.split("/")[-2])).root
    os.chmod(root / "file", 0)
    listed = (await client.get(f"{where}/")).json()["file"]
    assert ("file" in listed) is on
    assert said(await client.get(f"{where}/file")) == "404 Not found"


@shows(Trap.UNKNOWN_JOB_IS_404_OK)
async def _(client: Client, on: bool) -> None:
    for target in ("session/", "session/x", "diagnose/errors"):
        answer = await client.get(f"{JOBS}/nosuch/{target}")
        assert said(answer) == ("404 OK" if on else "404 Not Found")


@shows(Trap.LONG_REQUEST_LINE_CLOSES)
async def _(client: Client, on: bool) -> None:
    if on:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{JOBS}?x={'y' * 6000}")
    else:
        assert said(await client.get(f"{JOBS}?x={'y' * 6000}")) == "414 URI Too Long"


@shows(Trap.LONG_FIELD_ENDS_HEAD)
async def _(client: Client, on: bool) -> None:
    # The token comes behind it.
    answer = await client.get(JOBS, headers=[("X-Long", "y" * 6000)])
    unseen, refused = (
        "500 User can't be assigned configuration",
        "431 Request Header Fields Too Large",
    )
    assert said(answer) == (unseen if on else refused)


@shows(Trap.EMPTY_FILE_IS_CHUNKED)
async def _(client: Client, on: bool) -> None:
    where, _ = await _listing(client, "empty", b"")
    answer = await client.get(f"{where}/empty")
    assert answer.headers.get("content-length") == (None if on else "0")
    assert (await client.ask("HEAD", f"{where}/empty")).headers["content-length"] == "0"


async def _range(client: Client, wanted: str) -> tuple[int, str, str | None]:
    where, _ = await _listing(client, "six", b"abcdef")
    answer = await client.get(f"{where}/six", headers=[("Range", wanted)])
    return answer.status_code, answer.text, answer.headers.get("content-range")


@shows(Trap.WHOLE_RANGE_IS_200)
async def _(client: Client, on: bool) -> None:
    whole = (200, "abcdef", None) if on else (206, "abcdef", "bytes 0-5/6")
    assert await _range(client, "bytes=0-99") == whole
    assert await _range(client, "bytes=1-2") == (206, "bc", "bytes 1-2/6")


@shows(Trap.SUFFIX_RANGE_IGNORED)
async def _(client: Client, on: bool) -> None:
    end = (200, "abcdef", None) if on else (206, "ef", "bytes 4-5/6")
    assert await _range(client, "bytes=-2") == end


@shows(Trap.PUT_DOES_NOT_TRUNCATE)
async def _(client: Client, on: bool) -> None:
    where, _ = await _listing(client, "six", b"abcdef")
    assert said(await client.put(f"{where}/six", "xyz")) == "200 OK"
    assert (await client.get(f"{where}/six")).text == ("xyzdef" if on else "xyz")


@shows(Trap.QUERY_CUT_BEFORE_UNESCAPING)
async def _(client: Client, on: bool) -> None:
    answer = await client.get(f"{JOBS};state=FINISHED")
    assert said(answer) == ("200 OK" if on else "404 Functionality Not Supported")


def _shares(information: httpx.Response) -> Any:
    (domain,) = _listed(information.json()["Domains"]["AdminDomain"])
    (service,) = _listed(domain["Services"]["ComputingService"])
    return service["ComputingShare"]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@shows(Trap.SINGLES_ARE_BARE)
async def _(client: Client, on: bool) -> None:
    client.ce.publish()
    shares = _shares(await client.get("/arex/rest/1.1/info"))
    assert isinstance(shares, dict) is on


@shows(Trap.INFO_NEEDS_NO_CREDENTIALS)
async def _(client: Client, on: bool) -> None:
    client.token = "garbage"
    assert (await client.get("/arex/rest/1.1/info")).status_code == (200 if on else 500)


@shows(Trap.CONDOR_COUNTS_CPUS)
async def _(client: Client, on: bool) -> None:
    (job,) = await client.new(sleeps(1000, cpus=2))
    await until(client, job, "RUNNING")
    await trio.sleep(60)
    client.ce.publish()
    (share,) = _listed(_shares(await client.get("/arex/rest/1.1/info")))
    assert share["RunningJobs"] == ("2" if on else "1")

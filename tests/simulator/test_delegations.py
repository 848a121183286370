"""Delegations: real keys and requests, and A-REX's ways with them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from arcbackend.simulator import Trap
from arcbackend.simulator.authority import Authority
from arcbackend.simulator.delegations import Delegations
from arcbackend.simulator.traps import Traps
from arcbackend.x509 import Proxy, read_chain, sign_request
from tests.simulator.clients import DELEGATIONS, Client, adl, asking, said

NOW = datetime.now(UTC)


def signed(client: Client, request: bytes, **odd: object) -> bytes:
    proxy = Proxy.from_pem(client.ce.proxy("Ann", **odd))  # type: ignore[arg-type]
    return sign_request(request, proxy, NOW, lifetime=timedelta(hours=1))


async def made(client: Client) -> tuple[str, bytes]:
    """A delegation that no chain was sent for, and its request."""
    answer = await client.post(f"{DELEGATIONS}?action=new")
    assert said(answer) == "201 Created"
    assert answer.headers["content-type"] == "application/x-pem-file"
    where = answer.headers["location"]
    assert re.fullmatch(DELEGATIONS + "/[0-9a-f]{12}", where)
    return where, answer.content


async def listed(client: Client, query: str = "") -> list[tuple[str, str]]:
    answer = await client.get(f"{DELEGATIONS}{query}")
    return [(each["id"], each["type"]) for each in answer.json()["delegation"]]


async def test_a_request_is_signed_and_stored() -> None:
    async with asking() as client:
        where, request = await made(client)
        asked = x509.load_pem_x509_csr(request)
        assert asked.is_signature_valid
        assert not list(asked.subject)
        empty = await client.post(f"{where}?action=get")
        assert (said(empty), empty.content) == ("200 OK", b"\n")
        chain = signed(client, request)
        stored = await client.put(where, chain, kind=None)
        assert (said(stored), stored.content) == ("200 OK", b"")
        answer = await client.post(f"{where}?action=get")
        assert b"PRIVATE" not in answer.content
        found, sent = read_chain(answer.content), read_chain(chain)
        assert found is not None
        assert sent is not None
        assert found.certificates == sent.certificates


async def test_lists() -> None:
    async with asking() as client:
        assert await listed(client) == []
        first, _ = await made(client)
        second, _ = await made(client)
        token = await client.post(
            f"{DELEGATIONS}?action=new&type=jwt", headers=[("X-Token-Delegation", "secret")]
        )
        third = token.headers["location"]
        every = [
            (where.rsplit("/", 1)[1], kind)
            for where, kind in ((first, "x509"), (second, "x509"), (third, "jwt"))
        ]
        assert await listed(client) == every
        assert await listed(client, "?type=jwt") == every[2:]
        assert await listed(client, "?type=x509") == every[:2]
        assert await listed(client, "?type=nosuch") == []
        xml = await client.get(f"{DELEGATIONS}?type=jwt", accept="text/xml")
        assert xml.text == (
            "<delegations>\n  <delegation>\n"
            f"    <id>{every[2][0]}</id>\n    <type>jwt</type>\n  </delegation>\n</delegations>"
        )


async def test_rest_1_0_knows_no_types() -> None:
    async with asking() as client:
        old = DELEGATIONS.replace("1.1", "1.0")
        answer = await client.post(
            f"{old}?action=new&type=jwt", headers=[("X-Token-Delegation", "secret")]
        )
        assert b"CERTIFICATE REQUEST" in answer.content
        assert len((await client.get(f"{old}?type=jwt")).json()["delegation"]) == 1


async def test_a_token_is_kept_and_told() -> None:
    async with asking() as client:
        answer = await client.post(
            f"{DELEGATIONS}?action=new&type=jwt", headers=[("X-Token-Delegation", "secret")]
        )
        assert (said(answer), answer.content) == ("201 Created", b"")
        told = await client.post(f"{answer.headers['location']}?action=get")
        assert told.content == b"secret"
        missing = await client.post(f"{DELEGATIONS}?action=new&type=jwt")
        assert said(missing) == "501 Missing X-Token-Delegation header in delegation request"
        unknown = await client.post(f"{DELEGATIONS}?action=new&type=nosuch")
        assert said(unknown) == "501 Unknown delegation type specified"


async def test_renewal_keeps_the_key_and_the_chain_until_the_new_one_comes() -> None:
    async with asking() as client:
        where, request = await made(client)
        old = signed(client, request)
        await client.put(where, old)
        again = await client.post(f"{where}?action=renew")
        assert said(again) == "201 Created"
        assert "location" not in again.headers
        one, other = (x509.load_pem_x509_csr(each) for each in (request, again.content))
        assert one.public_key() == other.public_key()
        kept = read_chain((await client.post(f"{where}?action=get")).content)
        assert kept == read_chain(old)


async def test_renewal_of_an_unknown_one_makes_it() -> None:
    async with asking() as client:
        answer = await client.post(f"{DELEGATIONS}/mine?action=renew")
        assert said(answer) == "201 Created"
        assert await listed(client) == [("mine", "x509")]
        assert said(await client.put(f"{DELEGATIONS}/mine", signed(client, answer.content))) == (
            "200 OK"
        )
    async with asking(without_traps={Trap.RENEW_MAKES_DELEGATION}) as client:
        answer = await client.post(f"{DELEGATIONS}/mine?action=renew")
        assert answer.status_code == 404


async def test_renewal_of_a_token_destroys_it() -> None:
    token = [("X-Token-Delegation", "secret")]
    async with asking() as client:
        where = (await client.post(f"{DELEGATIONS}?action=new&type=jwt", headers=token)).headers[
            "location"
        ]
        assert said(await client.post(f"{where}?action=renew")) == "201 Created"
        assert (await client.post(f"{where}?action=get")).content == b"\n"
        assert [kind for _, kind in await listed(client)] == ["jwt"]
    async with asking(without_traps={Trap.RENEW_DESTROYS_TOKEN}) as client:
        where = (await client.post(f"{DELEGATIONS}?action=new&type=jwt", headers=token)).headers[
            "location"
        ]
        assert (await client.post(f"{where}?action=renew")).status_code == 409
        assert (await client.post(f"{where}?action=get")).content == b"secret"


@pytest.mark.parametrize("body", [b"garbage", b"-----BEGIN CERTIFICATE-----\nx\n-----END C"])
async def test_what_holds_no_certificate_is_refused(body: bytes) -> None:
    async with asking() as client:
        where, _ = await made(client)
        assert said(await client.put(where, body)) == "500 Failed accepting delegation"
        assert said(await client.put(where, b"")) == "500 Missing payload"
        nosuch = await client.put(f"{DELEGATIONS}/nosuch", client.ce.proxy())
        assert said(nosuch) == "500 Failed accepting delegation"


async def test_a_chain_is_not_looked_at() -> None:
    async with asking() as client:
        where, _ = await made(client)
        assert said(await client.put(where, client.ce.proxy(foreign_ca=True))) == "200 OK"
    async with asking(without_traps={Trap.CHAIN_NOT_LOOKED_AT}) as client:
        where, request = await made(client)
        refused = await client.put(where, client.ce.proxy())
        assert said(refused) == "500 Failed accepting delegation"
        assert said(await client.put(where, signed(client, request))) == "200 OK"


async def test_one_that_a_job_uses_stays() -> None:
    async with asking() as client:
        where, request = await made(client)
        await client.put(where, signed(client, request))
        id_ = where.rsplit("/", 1)[1]
        (job,) = await client.new(adl(inputs=["never"]), f"&delegation_id={id_}")
        told = await client.act("delegations", job, "nosuch")
        assert told[0]["delegation_id"] == id_
        assert said(await client.post(f"{where}?action=delete")) == "500 Failed deleting delegation"
        other, _ = await made(client)
        assert said(await client.post(f"{other}?action=delete")) == "202 Accepted"
        assert said(await client.post(f"{other}?action=delete")) == "404 No such delegation"


async def test_delegations_are_their_owners() -> None:
    async with asking() as client:
        where, _ = await made(client)
        other = Client(client.ce, client.ce.token("other"))
        async with other.http:
            assert await listed(other) == []
            assert said(await other.post(f"{where}?action=get")) == "404 No delegation found"
            assert said(await other.post(f"{where}?action=delete")) == "404 No such delegation"


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("compute.read", {"list", "get"}),
        ("compute.create", {"new", "renew", "put"}),
        ("compute.cancel", {"delete"}),
        ("compute.modify", set()),
    ],
)
async def test_scopes(scope: str, allowed: set[str]) -> None:
    async with asking(scopes=[scope], token_scopes="wlcg") as client:
        answers = {
            "list": await client.get(DELEGATIONS),
            "new": await client.post(f"{DELEGATIONS}?action=new"),
            "get": await client.post(f"{DELEGATIONS}/nosuch?action=get"),
            "put": await client.put(f"{DELEGATIONS}/nosuch", b"x"),
            "delete": await client.post(f"{DELEGATIONS}/nosuch?action=delete"),
            "renew": await client.post(f"{DELEGATIONS}/nosuch?action=renew"),
        }
        refused = "403 Operation is not allowed"
        assert {name for name, each in answers.items() if said(each) != refused} == allowed


async def test_what_is_not_there() -> None:
    async with asking() as client:
        where, _ = await made(client)
        for method in ("GET", "HEAD", "DELETE", "PATCH"):
            assert said(await client.ask(method, where)) == "501 Not Implemented"
        for target in (DELEGATIONS, where, f"{where}?action=nosuch"):
            assert said(await client.post(target)) == "501 Action not implemented"
        assert said(await client.put(DELEGATIONS, b"x")) == "501 Not Implemented"
        assert said(await client.post(f"{where}/more?action=get")) == "404 Not Found"


def test_what_a_job_gets() -> None:
    delegations = Delegations(Traps("7.2.0", "slurm"), 0)
    id_, request = delegations.new("me")
    assert delegations.of("me")[id_].proxy() is None
    user = Proxy.from_pem(Authority("ce", "7.2.0", time.time).proxy("Ann"))
    chain = sign_request(request, user, NOW, lifetime=timedelta(hours=1))
    assert delegations.put("me", id_, chain)
    pem = delegations.of("me")[id_].proxy()
    assert pem is not None
    assert Proxy.from_pem(pem).public_pem() == chain
    token = delegations.new_token("me", b"token")
    assert delegations.of("me")[token].proxy() is None


def test_the_same_seed_makes_the_same_ids() -> None:
    traps = Traps("7.2.0", "slurm")
    one, other, third = (Delegations(traps, seed) for seed in (1, 1, 2))
    assert [one.new("a")[0], one.new("b")[0]] == [other.new("a")[0], other.new("b")[0]]
    assert third.new("a")[0] != Delegations(traps, 1).new("a")[0]


async def test_an_unknown_one_is_accepted_for_a_job() -> None:
    async with asking() as client:
        assert await client.new(query="&delegation_id=nosuch")
    async with asking(without_traps={Trap.UNKNOWN_DELEGATION_ACCEPTED}) as client:
        answer = await client.post(
            "/arex/rest/1.1/jobs?action=new&delegation_id=nosuch", adl(), kind="application/xml"
        )
        (job,) = answer.json()["job"]
        assert job["status-code"] == "500"

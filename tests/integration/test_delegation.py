"""Delegations on a real CE, request by request: what it asks for, stores, renews and lets go."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import trio

from arcbackend import ARCBackend, AuthenticationError, ProtocolError
from arcbackend.protocol.delegation import (
    Delegating,
    Listed,
    converse,
    delegate_token,
    parse_deleted,
    parse_list,
    parse_stored,
    stored_chains,
)
from arcbackend.protocol.messages import Request
from arcbackend.protocol.requests import RequestBuilder, RestVersion
from arcbackend.x509 import Proxy, read_chain, sign_request
from tests.integration.ce import CE, RealCE

USER = "delegating"
INSIDE = "/stack/credentials"
REST = pytest.mark.parametrize("rest", ["1.0", "1.1"])
# For each delegation: what OpenSSL says to the chain, and whether A-REX's key is the chain's.
VERIFY = """
for id in "$@"; do
    file=/var/spool/arc/jobstatus/delegations/$(echo "$id" | sed 's|...|&/|g; s|/$||')
    openssl verify -allow_proxy_certs -CAfile /stack/credentials/ca.pem -untrusted $file $file |
        sed 's|.*: ||'
    openssl x509 -in $file -noout -pubkey >/tmp/one.pub
    openssl pkey -in $file -pubout | cmp - /tmp/one.pub && echo same key
done
"""


def _signing(proxy: Proxy, comment: str | None = None) -> Callable[[bytes], bytes]:
    def sign(request: bytes) -> bytes:
        return sign_request(request, proxy, datetime.now(UTC), comment=comment)

    return sign


def _of_arcproxy(ce: RealCE, signer: bytes) -> bytes:
    """A proxy that arcproxy has made of another one."""
    shared = ce.ca_file.parent  # INSIDE, as seen from here
    below = shared / "signer.pem"
    below.touch(0o600)
    below.write_bytes(signer)
    credential = f"{INSIDE}/{below.name}"
    options = ("-C", credential, "-K", credential, "-P", f"{INSIDE}/made.pem")
    ce.run("arcproxy", *options, "-c", "validityPeriod=3600")
    return (shared / "made.pem").read_bytes()


@pytest.fixture(scope="module")
def proxies(ce: CE) -> dict[str, Proxy]:
    """Proxies of one user, of all kinds there are, by their names."""
    limited = ce.proxy(USER, key="ec", limited=True, depth=2)
    return {
        name: Proxy.from_pem(pem)
        for name, pem in {
            "certificate": ce.proxy(USER, depth=0),
            "RSA": ce.proxy(USER),
            "limited, elliptic": limited,
            "two may follow": ce.proxy(USER, depth=2, path_length=2),
            **({"of arcproxy": _of_arcproxy(ce, limited)} if isinstance(ce, RealCE) else {}),
        }.items()
    }


async def _forget(backend: ARCBackend, builder: RequestBuilder) -> None:
    """Delete every delegation of the user's that no job needs."""
    call = backend._session.call
    for listed in parse_list(await call(builder.list_delegations()), backend._session.endpoint):
        await call(builder.delete_delegation(listed.id))


@REST
async def test_proxies_of_every_kind_are_delegated_and_renewed(
    ce: CE, proxies: dict[str, Proxy], rest: RestVersion
) -> None:
    """OpenSSL and ARC itself read them right, inside the CE."""
    builder = RequestBuilder(rest)
    async with ce.backend(ce.credentials(USER)) as backend:
        call, here = backend._session.call, ce.endpoint
        await _forget(backend, builder)
        made: dict[str, str] = {}
        for name, proxy in proxies.items():
            made[name] = await converse(
                Delegating(builder, _signing(proxy, name), here).steps(), call
            )
        chains = await converse(stored_chains(builder, here), call)
        assert list(chains) == list(reversed(made.values()))  # A-REX lists the oldest first
        for name, proxy in proxies.items():
            chain = read_chain(chains[made[name]])
            assert chain is not None
            assert chain.certificates[1:] == proxy.certificates  # the whole, VOMS and all
            assert chain.comment == name
            assert chain.expiry == proxy.expiry
            assert chain.identity == proxy.identity == ce.subject(USER)
            assert (
                chain.is_limited
                is proxy.is_limited
                is (name in ("limited, elliptic", "of arcproxy"))
            )
            assert chain.path_length == (1 if name == "two may follow" else None)
        if isinstance(ce, RealCE):
            verdicts = ce.run("bash", "-c", VERIFY, "verify", *made.values()).split("\n")
            assert verdicts == [*["OK", "same key"] * len(made), ""]

        # Renewed: with the same key, and here by another proxy.
        one, other = made["RSA"], proxies["limited, elliptic"]
        before = read_chain(chains[one])
        await converse(Delegating(builder, _signing(other), here, one).steps(), call)
        stored = parse_stored(await call(builder.get_delegation(one)))
        after = read_chain(stored or b"")
        assert before is not None
        assert after is not None
        assert after.certificates[1:] == other.certificates
        assert after.certificates[0].public_key() == before.certificates[0].public_key()
        if isinstance(ce, RealCE):
            assert ce.run("bash", "-c", VERIFY, "verify", one) == "OK\nsame key\n"

        await _forget(backend, builder)
        assert parse_list(await call(builder.list_delegations()), here) == ()
        for request in (builder.get_delegation(one), builder.delete_delegation(one)):
            assert (await call(request)).status == 404
        # One that is lost is made anew by its renewal, under its id.
        again = Delegating(builder, _signing(other), here, one)
        assert await converse(again.steps(), call) == one
        await _forget(backend, builder)


@REST
async def test_a_failure_in_the_middle(
    ce: CE, proxies: dict[str, Proxy], rest: RestVersion
) -> None:
    """Nothing is stored, and the next try goes on with what the CE has made."""
    builder = RequestBuilder(rest)
    signing = iter([lambda request: b"garbage", _signing(proxies["RSA"])])

    def sign(request: bytes) -> bytes:
        return next(signing)(request)

    async with ce.backend(ce.credentials(USER)) as backend:
        call, here = backend._session.call, ce.endpoint
        await _forget(backend, builder)
        exchange = Delegating(builder, sign, here)
        with pytest.raises(ProtocolError, match="Failed accepting delegation") as caught:
            await converse(exchange.steps(), call)
        assert caught.value.operation == "delegations.put"
        assert exchange.id is not None
        assert parse_list(await call(builder.list_delegations()), here) == (Listed(exchange.id),)
        assert parse_stored(await call(builder.get_delegation(exchange.id))) is None
        assert await converse(exchange.steps(), call) == exchange.id
        assert list(await converse(stored_chains(builder, here), call)) == [exchange.id]
        await _forget(backend, builder)


async def test_tokens(ce: CE) -> None:
    """A-REX gives a token back to who asks, and a renewal destroys it."""
    builder = RequestBuilder("1.1")
    token = ce.token(USER, audience="storage") if "token" in ce.auth else "header.payload.signature"
    async with ce.backend(ce.credentials(USER)) as backend:
        call, here = backend._session.call, ce.endpoint
        await _forget(backend, builder)
        made = await converse(delegate_token(builder, token, here), call)
        assert parse_list(await call(builder.list_delegations()), here) == (Listed(made, "jwt"),)
        assert await converse(stored_chains(builder, here), call) == {}
        assert parse_stored(await call(builder.get_delegation(made))) == token.encode()
        await call(builder.renew_delegation(made))
        assert parse_stored(await call(builder.get_delegation(made))) is None
        await _forget(backend, builder)


@pytest.mark.token
async def test_each_request_needs_its_scope_and_no_other(ce: CE, proxies: dict[str, Proxy]) -> None:
    builder = RequestBuilder("1.1")
    made = "nosuchone"
    requests: list[Request] = [
        builder.list_delegations(),
        builder.new_delegation(),
        builder.renew_delegation(made),
        builder.put_delegation(made, proxies["certificate"].public_pem()),
        builder.new_token_delegation("header.payload.signature"),
        builder.get_delegation(made),
        builder.delete_delegation(made),
    ]
    for scope in ("compute.read", "compute.create", "compute.modify", "compute.cancel"):
        credentials = ce.credentials(USER, token=ce.token(USER, scopes=[scope]))
        async with ce.backend(credentials) as backend:
            for request in requests:
                if request.scope == scope:
                    await backend._session.call(request)
                    continue
                with pytest.raises(AuthenticationError) as caught:
                    await backend._session.call(request)
                assert (caught.value.scope, caught.value.missing_scope) == (request.scope, True)
    async with ce.backend(ce.credentials(USER)) as backend:
        await _forget(backend, builder)


@pytest.mark.slurm
async def test_a_delegation_that_a_job_needs_is_kept(ce: CE, proxies: dict[str, Proxy]) -> None:
    """Until the job is removed: so whether it is needed still is the CE's to say."""
    builder = RequestBuilder("1.1")
    sign = _signing(proxies["RSA"])
    async with ce.backend(ce.credentials(USER)) as backend:
        call, here = backend._session.call, ce.endpoint
        await _forget(backend, builder)
        made = await converse(Delegating(builder, sign, here).steps(), call)
        description = b'&(executable="/bin/true")(memory=50)'
        new = builder.new_jobs(description, language="xrsl", copies=1, delegation=made)
        (job,) = json.loads((await call(new)).body)["job"]

        async def deleted() -> bool:
            return parse_deleted(await call(builder.delete_delegation(made)))

        assert not await deleted()
        with trio.fail_after(120):
            finished = builder.list_jobs(["FINISHED", "FAILED"])
            while job["id"].encode() not in (await call(finished)).body:
                await trio.sleep(0.5)
            assert not await deleted()
            await call(builder.clean([job["id"]]))
            while not await deleted():
                await trio.sleep(0.5)
        assert await converse(stored_chains(builder, here), call) == {}

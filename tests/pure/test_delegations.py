"""Delegations are made once, found again, renewed in time, and removed when nobody needs them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import trio
from cryptography import x509
from trio.testing import MockClock

from arcbackend import (
    AuthenticationError,
    ConfigurationError,
    DelegationFailing,
    DelegationRenewed,
    Poller,
    ProtocolError,
    Subscription,
    TransportError,
)
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.x509 import read_chain
from tests.pure.certificates import (
    HOUR,
    LIMITED,
    NOW,
    certificates_pem,
    name,
    proxy,
    proxy_cert_info,
    user,
)
from tests.pure.delegating import REQUEST, DelegatingCE, Provider, delegations_of, operations
from tests.pure.fake_session import answering, away, once, raising
from tests.pure.polling import ids, poller_on, put

MADE = Operation.DELEGATIONS_NEW
PUT = Operation.DELEGATIONS_PUT
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def provider() -> Provider:
    return Provider()


@pytest.fixture
async def ce(provider: Provider) -> DelegatingCE:
    return DelegatingCE(provider)


def _end(ce: DelegatingCE, delegation: str) -> timedelta:
    """How long the CE's proxy lasts from now on."""
    chain = read_chain(ce.stored[delegation] or b"")
    assert chain is not None
    return chain.expiry - ce.provider.now


async def _both(first: Any, second: Any) -> list[str]:
    made: list[str] = []

    async def one(which: Any) -> None:
        made.append(await which.for_jobs())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, first)
        nursery.start_soon(one, second)
    return made


async def test_one_for_all_submissions(autojump_clock: MockClock, ce: DelegatingCE) -> None:
    delegations = delegations_of(ce)
    made = {await delegations.for_jobs() for _ in range(3)}
    assert made == {"d0"}
    assert operations(ce) == [Operation.DELEGATIONS_LIST, MADE, PUT]
    assert await _both(delegations, delegations) == ["d0", "d0"]
    assert _end(ce, "d0") == 12 * HOUR


async def test_two_at_once_make_one(autojump_clock: MockClock, ce: DelegatingCE) -> None:
    delegations = delegations_of(ce)
    assert await _both(delegations, delegations) == ["d0", "d0"]
    assert ce.count(MADE) == 1


async def test_nothing_is_delegated_unless_it_is_configured(
    autojump_clock: MockClock, ce: DelegatingCE
) -> None:
    delegations = delegations_of(ce, auth="token")
    assert await delegations.for_jobs() is None
    assert not delegations.renewable
    assert ce.calls == []


# Found again.


async def test_found_again_after_a_restart(autojump_clock: MockClock, ce: DelegatingCE) -> None:
    await delegations_of(ce).for_jobs()
    assert await delegations_of(ce).for_jobs() == "d0"
    assert ce.count(MADE) == 1


async def test_dead_and_malformed_ones_are_passed_over(
    autojump_clock: MockClock, ce: DelegatingCE
) -> None:
    ce.stored = {"dead": None, "garbage": b"garbage", "token": b"x.y.z"}
    ce.tokens = {"token"}
    other = proxy(valid=(NOW - HOUR, NOW + 20 * HOUR))
    ce.stored["foreign"] = b"".join(certificates_pem(other.chain))
    made = await delegations_of(ce).for_jobs()
    assert made not in {"dead", "garbage", "token", "foreign"}
    assert _end(ce, str(made)) == 12 * HOUR


async def test_another_identity_s_are_not_taken(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    """With a token, people share the CE's identity; their proxies are their own."""
    await delegations_of(ce).for_jobs()
    provider.parent = user(subject=name((x509.NameOID.COMMON_NAME, "Bob")))
    provider.renew()
    assert await delegations_of(ce).for_jobs() == "d1"


@pytest.mark.parametrize(
    "how", [{"voms": b"\x04\x0a/vo/Role=b"}, {"info": proxy_cert_info(LIMITED)}]
)
async def test_nor_another_role_s(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider, how: dict[str, Any]
) -> None:
    await delegations_of(ce).for_jobs()
    provider.renew(**how)
    delegations = delegations_of(ce)
    assert await delegations.for_jobs() == "d1"
    provider.renew(**how)
    assert await delegations_of(ce).for_jobs() == "d1"


async def test_a_backend_whose_identity_changes(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    delegations = delegations_of(ce)
    await delegations.for_jobs()
    provider.parent = user(subject=name((x509.NameOID.COMMON_NAME, "Bob")))
    provider.renew()
    provider.pass_by(12 * HOUR - timedelta(seconds=30))  # the provider is asked again
    provider.renew()
    assert await delegations.for_jobs() == "d1"


# Renewed.


async def test_renewed_before_a_submission(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    delegations = delegations_of(ce)
    await delegations.for_jobs()
    provider.pass_by(5 * HOUR)
    provider.renew()
    await delegations.for_jobs()
    assert ce.count(PUT) == 1  # seven hours are left
    provider.pass_by(2 * HOUR)
    assert await delegations.for_jobs() == "d0"
    assert ce.count(PUT) == 2
    assert _end(ce, "d0") == 10 * HOUR


async def test_not_renewed_for_nothing(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    delegations = delegations_of(ce)
    await delegations.for_jobs()
    provider.pass_by(8 * HOUR)
    assert await delegations.for_jobs() == "d0"
    assert await delegations.maintain() == []
    assert ce.count(PUT) == 1
    provider.pass_by(3 * HOUR)  # an hour is left
    with pytest.raises(AuthenticationError, match="no proxy that lasts longer: renew the proxy"):
        await delegations.maintain()
    assert await delegations.for_jobs() == "d0"


async def test_an_expired_one_is_renewed_for_the_jobs_that_have_it(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    await delegations_of(ce).for_jobs()
    provider.pass_by(50 * HOUR)
    provider.renew()
    assert await delegations_of(ce).for_jobs() == "d0"
    assert ce.count(MADE) == 1
    assert _end(ce, "d0") == 12 * HOUR


async def test_what_the_ce_cannot_renew_is_made_anew(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    delegations = delegations_of(ce)
    await delegations.for_jobs()
    provider.pass_by(13 * HOUR)
    provider.renew()
    ce.hooks[Operation.DELEGATIONS_RENEW] = answering(Response(500, "Failed generating"))
    assert await delegations.for_jobs() == "d1"


async def test_a_valid_one_is_good_enough_while_it_cannot_be_renewed(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    delegations = delegations_of(ce)
    await delegations.for_jobs()
    provider.pass_by(8 * HOUR)
    provider.renew()
    ce.hooks[Operation.DELEGATIONS_RENEW] = raising(away)
    assert await delegations.for_jobs() == "d0"
    with pytest.raises(TransportError):
        await delegations.maintain()
    del ce.hooks[Operation.DELEGATIONS_RENEW]
    renewed = await delegations.maintain()
    assert [(each.id, each.expires_at - provider.now) for each in renewed] == [("d0", 12 * HOUR)]


async def test_without_a_valid_proxy_there_is_none(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    provider.lifetime = -MINUTE
    with pytest.raises(AuthenticationError, match="expired"):
        await delegations_of(ce).for_jobs()
    assert await delegations_of(ce).maintain() == []


async def test_one_that_was_revoked(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    """It is made anew under its id: the jobs that use it know it by that."""
    delegations = delegations_of(ce)
    await delegations.for_jobs()
    ce.stored.clear()
    assert await delegations.for_jobs() == "d0"  # seen a moment ago
    assert ce.stored == {}
    await trio.sleep(11)
    assert await delegations.for_jobs() == "d0"
    assert _end(ce, "d0") == 12 * HOUR - timedelta(seconds=11)
    ce.stored.clear()
    assert [each.id for each in await delegations.maintain()] == ["d0"]


# Failures leave nothing behind.


@pytest.mark.parametrize("where", [Operation.DELEGATIONS_PUT, Operation.DELEGATIONS_NEW])
async def test_a_ce_that_fails_for_a_while_collects_none(
    autojump_clock: MockClock, ce: DelegatingCE, where: Operation
) -> None:
    delegations = delegations_of(ce)

    async def lost(request: Request) -> None:
        if where is Operation.DELEGATIONS_NEW:
            ce.answer(request)
        raise away()

    ce.hooks[where] = lost if where is Operation.DELEGATIONS_PUT else once(lost)
    for _ in range(3 if where is Operation.DELEGATIONS_PUT else 1):
        with pytest.raises(TransportError):
            await delegations.for_jobs()
    ce.hooks.clear()
    assert await delegations.for_jobs() == "d0"
    assert ce.count(MADE) == 1
    assert list(ce.stored) == ["d0"]


async def test_a_request_that_never_arrived_is_made_again(
    autojump_clock: MockClock, ce: DelegatingCE
) -> None:
    delegations = delegations_of(ce)
    ce.hooks[MADE] = once(raising(away))
    with pytest.raises(TransportError):
        await delegations.for_jobs()
    assert await delegations.for_jobs() == "d0"
    assert ce.count(MADE) == 2


async def test_cancelled_midway_it_is_gone_on_with(
    autojump_clock: MockClock, ce: DelegatingCE
) -> None:
    delegations = delegations_of(ce)

    async def slow(_request: Request) -> None:
        await trio.sleep(60)

    ce.hooks[PUT] = slow
    with trio.move_on_after(1):
        await delegations.for_jobs()
    del ce.hooks[PUT]
    assert await delegations.for_jobs() == "d0"
    assert ce.count(MADE) == 1


@pytest.mark.parametrize("body", [b"", b"garbage", REQUEST[:-80]])
async def test_a_request_that_is_none(
    autojump_clock: MockClock, ce: DelegatingCE, body: bytes
) -> None:
    location = {"location": "/arex/rest/1.1/delegations/d0"}
    ce.hooks[MADE] = answering(Response(201, "Created", location, body))
    with pytest.raises(ProtocolError, match="certificate request") as caught:
        await delegations_of(ce).for_jobs()
    assert caught.value.ce == ce.endpoint
    assert caught.value.operation == "delegations.new"


async def test_a_proxy_that_is_none(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    provider.renew()
    assert provider._held is not None
    pem = provider._held.pem.get_secret_value().partition(b"-----BEGIN PRIVATE")[0]
    provider._held = provider._held.model_copy(update={"pem": type(provider._held.pem)(pem)})
    with pytest.raises(ConfigurationError, match="no private key") as caught:
        await delegations_of(ce).for_jobs()
    assert caught.value.ce == ce.endpoint


# Orphans.


async def _several(ce: DelegatingCE, provider: Provider, count: int) -> None:
    """So many delegations of ours, each lasting longer than those before."""
    for _ in range(count):
        kept = dict(ce.stored)
        ce.stored.clear()
        await delegations_of(ce).for_jobs()
        (chain,) = ce.stored.values()
        ce.stored = {**kept, f"d{len(kept)}": chain}
        provider.pass_by(MINUTE)
        provider.renew()


async def test_orphans_are_removed(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    await _several(ce, provider, 3)
    assert list(ce.stored) == ["d0", "d1", "d2"]
    ce.needed = {"d1"}
    ce.stored["other"] = b"not ours"
    delegations = delegations_of(ce)
    assert await delegations.maintain() == []
    assert list(ce.stored) == ["d1", "d2", "other"]
    ce.needed.clear()
    await delegations.maintain()
    assert list(ce.stored) == ["d2", "other"]


async def test_one_that_jobs_still_need_is_renewed_too(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    await _several(ce, provider, 2)
    ce.needed = {"d0"}
    provider.pass_by(10 * HOUR)
    provider.renew()
    renewed = await delegations_of(ce).maintain()
    assert {each.id for each in renewed} == {"d0", "d1"}
    assert _end(ce, "d0") == _end(ce, "d1") == 12 * HOUR


# A token.


async def test_a_token_is_delegated_once(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    settings = {"token": True, "token_scopes": ["storage.read:/"]}
    delegations = delegations_of(ce, auth="token", delegation=settings)
    assert await delegations.for_jobs() == await delegations.for_jobs() == "d0"
    assert ce.stored == {"d0": b"token-number-0"}
    assert set(provider.asked) == {frozenset({"storage.read:/"})}
    provider.token = "token-number-1"
    provider.pass_by(13 * HOUR)
    provider.renew()
    assert await delegations.for_jobs() == "d1"
    assert ce.stored == {"d1": b"token-number-1"}


async def test_a_former_token_stays_while_jobs_need_it(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    delegations = delegations_of(ce, auth="token", delegation={"token": True})
    await delegations.for_jobs()
    ce.needed = {"d0"}
    provider.token = "token-number-1"
    provider.pass_by(13 * HOUR)
    provider.renew()
    assert await delegations.for_jobs() == "d1"
    assert set(ce.stored) == {"d0", "d1"}


async def test_a_token_s_needs_rest_1_1(autojump_clock: MockClock, provider: Provider) -> None:
    ce = DelegatingCE(provider, "1.0")
    delegations = delegations_of(ce, auth="token", delegation={"token": True})
    with pytest.raises(ConfigurationError, match=r"delegation\.token needs ARC REST 1\.1"):
        await delegations.for_jobs()


# When the next look is due.


@pytest.mark.parametrize(
    ("lifetime", "pause"),
    [
        (12 * HOUR, 300),
        (6 * HOUR + 2 * MINUTE, 120),
        (6 * HOUR, 300),
        (4 * MINUTE, 60),
        (timedelta(seconds=8), 5),
    ],
)
async def test_the_pause(
    autojump_clock: MockClock,
    ce: DelegatingCE,
    provider: Provider,
    lifetime: timedelta,
    pause: float,
) -> None:
    provider.lifetime = lifetime
    delegations = delegations_of(ce)
    assert delegations.pause() == 300
    await delegations.for_jobs()
    assert delegations.pause() == pytest.approx(pause)


# The poller.


class _Ear:
    """What a poller tells of the delegations."""

    def __init__(self) -> None:
        self.heard: list[DelegationRenewed | DelegationFailing] = []

    async def listen(self, events: Subscription) -> None:
        async for event in events:
            if isinstance(event, DelegationRenewed | DelegationFailing):
                self.heard.append(event)


@asynccontextmanager
async def _polled(ce: DelegatingCE, *jobs: str) -> AsyncIterator[tuple[Poller, _Ear]]:
    """A poller that follows jobs that run, of a process that submitted before."""
    await delegations_of(ce).for_jobs()
    ce.restart()
    put(ce, "RUNNING", *jobs)
    ear = _Ear()
    async with trio.open_nursery() as nursery, poller_on(ce, auth="proxy") as poller:
        nursery.start_soon(ear.listen, poller.events())
        poller.track(ids(ce, *jobs))
        yield poller, ear


async def test_a_poller_renews_when_nothing_is_submitted_any_more(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    provider.lifetime, provider.renews = 10 * MINUTE, True
    async with _polled(ce, "a") as (_, ear):
        shortest = []
        for _ in range(200):
            await trio.sleep(60)
            shortest.append(_end(ce, "d0"))
    assert min(shortest) > 5 * MINUTE
    assert all(isinstance(event, DelegationRenewed) for event in ear.heard)
    assert {event.delegation for event in ear.heard} == {"d0"}  # type: ignore[union-attr]
    assert 40 < len(ear.heard) < 120
    assert ce.count(MADE) == 1


async def test_a_provider_that_fails_is_an_event_and_asked_again(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    provider.lifetime = HOUR
    async with _polled(ce, "a") as (_, ear):
        await trio.sleep(1)
        provider.pass_by(20 * MINUTE)
        provider.failing, provider.renews = 2, True
        await trio.sleep(1000)
        assert ear.heard != []
        *failures, last = ear.heard
        assert all(isinstance(event, DelegationFailing) for event in failures)
        assert isinstance(last, DelegationRenewed)
        assert last.expires_at > provider.now
    assert [event.tries for event in failures] == [*range(1, len(failures) + 1)]  # type: ignore[union-attr]


async def test_a_poller_without_jobs_leaves_the_delegations_alone(
    autojump_clock: MockClock, ce: DelegatingCE, provider: Provider
) -> None:
    async with _polled(ce, "a") as (_, ear):
        await trio.sleep(400)
        before = ce.count(Operation.DELEGATIONS_GET)
        assert before > 0
        put(ce, "FINISHED", "a")
        await trio.sleep(3600)
        after = ce.count(Operation.DELEGATIONS_GET)
        await trio.sleep(36_000)
        assert ce.count(Operation.DELEGATIONS_GET) == after
    assert ear.heard == []

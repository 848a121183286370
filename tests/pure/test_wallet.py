"""The wallet: one refresh for all who ask, and no more than are needed. Time is the test's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import pytest
import structlog
import trio
from pydantic import SecretBytes, SecretStr

from arcbackend import (
    AuthenticationError,
    BearerToken,
    ConfigurationError,
    CredentialKind,
    CredentialProvider,
    CredentialRequirements,
    CredentialSet,
    X509Proxy,
)
from arcbackend.wallet import Wallet

CE = "https://ce.example.org:443"
READ = frozenset({"compute.read"})
CREATE = frozenset({"compute.create"})
TOKEN = frozenset({CredentialKind.TOKEN})
MARGIN = timedelta(seconds=60)
ASKERS = 20


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Provider:
    """Counts, waits at a gate if there is one, and answers as it is told."""

    def __init__(self, clock: Clock, lifetime: float | None = 3600) -> None:
        self.asked: list[CredentialRequirements] = []
        self.answer: Callable[[], CredentialSet] = self.fresh
        self.gate: trio.Event | None = None
        self._clock = clock
        self._lifetime = lifetime

    @property
    def calls(self) -> int:
        return len(self.asked)

    def fresh(self) -> CredentialSet:
        """A token that was not given before."""
        ends = (
            None if self._lifetime is None else self._clock.now + timedelta(seconds=self._lifetime)
        )
        return CredentialSet(
            token=BearerToken(value=SecretStr(f"token-{self.calls}"), expires_at=ends)
        )

    def always(self, credentials: CredentialSet) -> None:
        self.answer = lambda: credentials

    def failing(self, error: BaseException | None = None) -> None:
        def fail() -> CredentialSet:
            raise error or RuntimeError("hunter2 is the password of the token store")

        self.answer = fail

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        self.asked.append(requirements)
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        return self.answer()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(clock: Clock) -> Provider:
    return Provider(clock)


@pytest.fixture
def wallet(clock: Clock, provider: Provider) -> Wallet:
    return Wallet(provider, CE, TOKEN, MARGIN, clock)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


Outcome = CredentialSet | BaseException


async def _together(
    ask: Callable[[], Any], provider: Provider, askers: int = ASKERS
) -> list[Outcome]:
    """What each of many askers gets who all ask before the provider answers."""
    outcomes: list[Outcome] = []
    provider.gate = trio.Event()

    async def asker() -> None:
        try:
            outcomes.append(await ask())
        except Exception as error:
            outcomes.append(error)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(askers):
                nursery.start_soon(asker)
            await trio.testing.wait_all_tasks_blocked()
            provider.gate.set()
    provider.gate = None
    assert len(outcomes) == askers
    return outcomes


def test_the_test_provider_is_one(provider: Provider) -> None:
    assert isinstance(provider, CredentialProvider)


# asking


async def test_the_provider_is_told_what_is_needed(wallet: Wallet, provider: Provider) -> None:
    await wallet.get(READ)
    assert provider.asked == [CredentialRequirements(resource=CE, kinds=TOKEN, scopes=READ)]
    assert wallet.requirements() == CredentialRequirements(resource=CE, kinds=TOKEN)


async def test_the_audience_is_not_always_the_endpoint(clock: Clock, provider: Provider) -> None:
    wallet = Wallet(provider, CE, TOKEN, MARGIN, clock, resource="https://any")
    await wallet.get(READ)
    assert [asked.resource for asked in provider.asked] == ["https://any"]
    provider.failing()
    with pytest.raises(AuthenticationError) as caught:
        await wallet.get(CREATE)
    assert caught.value.ce == CE


async def test_nothing_is_asked_before_it_is_needed(wallet: Wallet, provider: Provider) -> None:
    wallet.requirements(READ)
    assert provider.calls == 0


async def test_what_is_held_is_not_asked_again(
    wallet: Wallet, provider: Provider, clock: Clock
) -> None:
    first = await wallet.get(READ)
    clock.forward(3000)
    assert await wallet.get(READ) is first
    assert provider.calls == 1


async def test_each_set_of_scopes_has_its_own(wallet: Wallet, provider: Provider) -> None:
    assert await wallet.get(READ) != await wallet.get(CREATE)
    assert [asked.scopes for asked in provider.asked] == [READ, CREATE]


async def test_credentials_without_an_end_are_kept(clock: Clock) -> None:
    provider = Provider(clock, lifetime=None)
    wallet = Wallet(provider, CE, TOKEN, MARGIN, clock)
    first = await wallet.get(READ)
    clock.forward(10**8)
    assert await wallet.get(READ) is first


@pytest.mark.parametrize(("left", "calls"), [(61, 1), (59, 2), (1, 2), (-1, 2)])
async def test_the_freshness_margin(
    wallet: Wallet, provider: Provider, clock: Clock, left: float, calls: int
) -> None:
    first = await wallet.get(READ)
    clock.forward(3600 - left)
    assert (await wallet.get(READ) is first) is (calls == 1)
    assert provider.calls == calls


# one refresh for all


async def test_concurrent_askers_share_one_refresh(wallet: Wallet, provider: Provider) -> None:
    found = await _together(lambda: wallet.get(READ), provider)
    assert provider.calls == 1
    assert all(one is found[0] and isinstance(one, CredentialSet) for one in found)


async def test_concurrent_askers_share_one_renewal(
    wallet: Wallet, provider: Provider, clock: Clock
) -> None:
    first = await wallet.get(READ)
    clock.forward(3590)
    found = await _together(lambda: wallet.get(READ), provider)
    assert provider.calls == 2
    assert first not in found


async def test_the_refresh_of_a_short_lived_set_is_shared_too(clock: Clock) -> None:
    """A provider whose tokens never outlive the margin is asked once by all who ask at once."""
    provider = Provider(clock, lifetime=30)
    wallet = Wallet(provider, CE, TOKEN, MARGIN, clock)
    found = await _together(lambda: wallet.get(READ), provider)
    assert provider.calls == 1
    assert all(isinstance(one, CredentialSet) for one in found)


async def test_a_renewal_that_brings_the_same_again_is_shared_too(
    wallet: Wallet, provider: Provider, clock: Clock
) -> None:
    """The consumer's renewal daemon is late: the file still holds the old token."""
    first = await wallet.get(READ)
    provider.always(first)
    clock.forward(3570)
    found = await _together(lambda: wallet.get(READ), provider)
    assert provider.calls == 2
    assert all(one is first for one in found)


# a refresh that fails


async def test_a_failed_refresh_is_lived_with_while_the_held_set_is_valid(
    wallet: Wallet, provider: Provider, clock: Clock
) -> None:
    first = await wallet.get(READ)
    clock.forward(3550)
    provider.failing()
    found = await _together(lambda: wallet.get(READ), provider)
    assert all(one is first for one in found)
    assert provider.calls == 2
    for _ in range(10):
        assert await wallet.get(READ) is first
    assert provider.calls == 2  # not hammered
    clock.forward(30)
    assert await wallet.get(READ) is first
    assert provider.calls == 3  # but tried again


async def test_a_provider_that_recovers_is_used(
    wallet: Wallet, provider: Provider, clock: Clock
) -> None:
    first = await wallet.get(READ)
    clock.forward(3550)
    provider.failing()
    await wallet.get(READ)
    provider.answer = provider.fresh
    clock.forward(30)
    second = await wallet.get(READ)
    assert second is not first
    assert await wallet.get(READ) is second


async def test_an_expired_set_is_not_lived_with(
    wallet: Wallet, provider: Provider, clock: Clock
) -> None:
    await wallet.get(READ)
    clock.forward(3599)
    provider.failing()
    await wallet.get(READ)
    clock.forward(2)  # expired, and within the pause after the failure
    with pytest.raises(AuthenticationError):
        await wallet.get(READ)


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), OSError("y"), ExceptionGroup("g", [ValueError()])]
)
async def test_a_failed_first_refresh_fails_all_with_one_call(
    wallet: Wallet, provider: Provider, error: Exception
) -> None:
    provider.failing(error)
    found = await _together(lambda: wallet.get(READ), provider)
    assert provider.calls == 1
    assert {type(one) for one in found} == {AuthenticationError}
    assert all(isinstance(one, AuthenticationError) and one.ce == CE for one in found)


async def test_each_failure_has_the_cause_that_its_text_speaks_of(
    wallet: Wallet, provider: Provider
) -> None:
    error = RuntimeError("x")
    provider.failing(error)
    found = await _together(lambda: wallet.get(READ), provider)
    assert [one.__cause__ for one in found if isinstance(one, Exception)] == [error] * ASKERS


async def test_the_providers_words_are_not_repeated(wallet: Wallet, provider: Provider) -> None:
    provider.failing()
    with pytest.raises(AuthenticationError) as caught:
        await wallet.get(READ)
    assert "hunter2" not in str(caught.value)
    assert "RuntimeError" in str(caught.value)


async def test_what_a_provider_says_by_our_errors_is_repeated(
    wallet: Wallet, provider: Provider
) -> None:
    provider.failing(ConfigurationError("/tmp/bt_u0 is not there"))
    with pytest.raises(AuthenticationError, match="/tmp/bt_u0 is not there"):
        await wallet.get(READ)


async def test_after_a_failure_the_next_asker_tries_again(
    wallet: Wallet, provider: Provider
) -> None:
    provider.failing()
    await _together(lambda: wallet.get(READ), provider)
    provider.answer = provider.fresh
    assert isinstance(await wallet.get(READ), CredentialSet)
    assert provider.calls == 2


async def test_a_failure_concerns_its_scopes_only(wallet: Wallet, provider: Provider) -> None:
    provider.failing()
    with pytest.raises(AuthenticationError):
        await wallet.get(READ)
    provider.answer = provider.fresh
    assert isinstance(await wallet.get(CREATE), CredentialSet)


# a set that the CE refused


async def test_a_refused_set_is_asked_anew(wallet: Wallet, provider: Provider) -> None:
    first = await wallet.get(READ)
    second = await wallet.get(READ, refused=first)
    assert second != first
    assert await wallet.get(READ) is second


async def test_who_was_refused_before_gets_what_came_since(
    wallet: Wallet, provider: Provider
) -> None:
    first = await wallet.get(READ)
    second = await wallet.get(READ, refused=first)
    assert await wallet.get(READ, refused=first) is second
    assert provider.calls == 2


async def test_many_refused_at_once_share_one_refresh(wallet: Wallet, provider: Provider) -> None:
    first = await wallet.get(READ)
    found = await _together(lambda: wallet.get(READ, refused=first), provider)
    assert provider.calls == 2
    assert all(one is found[0] and one is not first for one in found)


async def test_a_provider_with_nothing_else_gives_the_same_set(
    wallet: Wallet, provider: Provider
) -> None:
    first = await wallet.get(READ)
    provider.always(CredentialSet.model_validate(first.model_dump()))
    assert await wallet.get(READ, refused=first) is first


async def test_many_refused_at_once_with_nothing_else_to_have(
    wallet: Wallet, provider: Provider
) -> None:
    first = await wallet.get(READ)
    provider.always(first)
    found = await _together(lambda: wallet.get(READ, refused=first), provider)
    assert all(one is first for one in found)
    assert provider.calls == 2


async def test_a_refused_set_is_not_lived_with(wallet: Wallet, provider: Provider) -> None:
    first = await wallet.get(READ)
    provider.failing()
    found = await _together(lambda: wallet.get(READ, refused=first), provider)
    assert {type(one) for one in found} == {AuthenticationError}
    assert provider.calls == 2


# a provider that gives too little


async def test_a_valid_set_is_asked_anew_if_another_may_last_longer(
    wallet: Wallet, provider: Provider, clock: Clock
) -> None:
    first = await wallet.get(CREATE)
    clock.forward(10)
    renewed = await wallet.renewed(CREATE)
    assert renewed is not first
    assert provider.calls == 2
    assert await wallet.get(CREATE) is renewed
    provider.failing()
    with pytest.raises(AuthenticationError, match="the credential provider failed"):
        await wallet.renewed(CREATE)
    assert await wallet.get(CREATE) is renewed  # it goes on being good
    provider.answer = provider.fresh
    assert await wallet.renewed(CREATE) is not renewed


async def test_a_missing_kind_is_named(clock: Clock, provider: Provider) -> None:
    wallet = Wallet(provider, CE, frozenset(CredentialKind), MARGIN, clock)
    found = await _together(lambda: wallet.get(READ), provider)
    assert {type(one) for one in found} == {ConfigurationError}
    assert all("no proxy" in str(one) and "no token" not in str(one) for one in found)


async def test_a_refresh_that_lacks_a_kind_is_shared_too(clock: Clock, provider: Provider) -> None:
    wallet = Wallet(provider, CE, frozenset(CredentialKind), MARGIN, clock)
    await _together(lambda: wallet.get(READ), provider)
    assert provider.calls == 1


async def test_what_lacks_a_kind_does_not_replace_what_is_held(
    wallet: Wallet, provider: Provider, clock: Clock
) -> None:
    first = await wallet.get(READ)
    clock.forward(3550)
    provider.always(CredentialSet(proxy=X509Proxy(pem=SecretBytes(b"p"))))
    with pytest.raises(ConfigurationError):
        await wallet.get(READ)
    provider.answer = provider.fresh
    assert (await wallet.get(READ)).token != first.token


# cancellation


async def test_waiters_do_not_suffer_from_the_cancelled_one(
    wallet: Wallet, provider: Provider
) -> None:
    provider.gate = trio.Event()
    found: list[CredentialSet] = []

    async def waiter() -> None:
        found.append(await wallet.get(READ))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            refreshing = trio.CancelScope()

            async def refresher() -> None:
                with refreshing:
                    await wallet.get(READ)

            nursery.start_soon(refresher)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(ASKERS):
                nursery.start_soon(waiter)
            await trio.testing.wait_all_tasks_blocked()
            refreshing.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert refreshing.cancelled_caught
            provider.gate.set()
    assert len(found) == ASKERS
    assert all(one is found[0] for one in found)
    assert provider.calls == 2


async def test_a_cancelled_waiter_disturbs_nobody(wallet: Wallet, provider: Provider) -> None:
    provider.gate = trio.Event()
    found: list[CredentialSet] = []

    async def asker() -> None:
        found.append(await wallet.get(READ))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asker)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0) as scope:
                await wallet.get(READ)
            assert scope.cancelled_caught
            provider.gate.set()
    assert len(found) == 1
    assert provider.calls == 1


async def test_credentials_are_in_no_repr(wallet: Wallet, provider: Provider) -> None:
    await wallet.get(READ)
    assert "token-1" not in repr(vars(wallet))

"""The live listing: when it is asked, and when it is let alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from arcbackend import AuthenticationError, ProtocolError, TransportError
from arcbackend.listing import LiveListing
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.removal import Remover
from arcbackend.states import LIVE_LATE_STATES
from tests.pure.fake_session import (
    FakeSession,
    answering,
    away,
    once,
    raising,
    reader_of,
    refs,
    remover_of,
)
from tests.pure.replies import NO_SCOPE, reply

BUDGET = 5.0
LISTED = {"a": "FINISHED"}


@pytest.fixture
def ce() -> FakeSession:
    session = FakeSession()
    session.live |= LISTED
    return session


def _listing(ce: FakeSession, mode: Literal["auto", "always", "never"] = "auto") -> LiveListing:
    return LiveListing(ce, mode, BUDGET)


def _taking(ce: FakeSession, seconds: float) -> None:
    """The CE's listing takes so long, as the transport measures it."""

    async def slow(request: Request) -> Response:
        return replace(ce.answer(request), elapsed=seconds)

    ce.hooks[Operation.JOBS_LIST] = slow


def _asked(ce: FakeSession) -> int:
    return ce.count(Operation.JOBS_LIST)


async def test_it_asks_for_the_late_states_of_now(ce: FakeSession) -> None:
    assert await _listing(ce).late_states_if_affordable() == LISTED
    (call,) = ce.calls
    assert call.request.target.endswith(f"?state={','.join(LIVE_LATE_STATES)}")


async def test_what_was_not_asked_for_is_left_out(ce: FakeSession) -> None:
    ce.hooks[Operation.JOBS_LIST] = answering(
        reply({"job": [{"id": "a", "state": "RUNNING"}, {"id": "b"}, {"id": "c", "state": "FOO"}]})
    )
    assert await _listing(ce).late_states() == {}


@pytest.mark.parametrize("took", [0.0, BUDGET])
async def test_within_the_budget_it_does_not_rest(
    autojump_clock: MockClock, ce: FakeSession, took: float
) -> None:
    _taking(ce, took)
    listing = _listing(ce)
    for _ in range(3):
        assert await listing.late_states_if_affordable() == LISTED
    assert _asked(ce) == 3


async def test_auto_rests_after_a_slow_answer(autojump_clock: MockClock, ce: FakeSession) -> None:
    _taking(ce, 6.0)
    listing = _listing(ce)
    assert await listing.late_states_if_affordable() == LISTED  # slow, but true
    await trio.sleep(59)
    assert await listing.late_states_if_affordable() == {}
    assert _asked(ce) == 1
    await trio.sleep(2)
    assert await listing.late_states_if_affordable() == LISTED
    assert _asked(ce) == 2


async def test_waiting_for_a_connection_is_not_slowness(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    """Only what the CE took counts (`Response.elapsed`)."""

    async def wait(_request: Request) -> None:
        await trio.sleep(100)

    ce.hooks[Operation.JOBS_LIST] = wait
    listing = _listing(ce)
    for _ in range(2):
        assert await listing.late_states_if_affordable() == LISTED


async def test_auto_rests_after_a_failure(autojump_clock: MockClock, ce: FakeSession) -> None:
    ce.hooks[Operation.JOBS_LIST] = once(raising(away))
    listing = _listing(ce)
    assert await listing.late_states_if_affordable() == {}
    assert await listing.late_states_if_affordable() == {}
    assert _asked(ce) == 1
    await trio.sleep(10 * BUDGET + 1)
    assert await listing.late_states_if_affordable() == LISTED


async def test_auto_hides_no_refused_credentials(ce: FakeSession) -> None:
    ce.hooks[Operation.JOBS_LIST] = answering(NO_SCOPE)
    with pytest.raises(AuthenticationError):
        await _listing(ce).late_states_if_affordable()


async def test_always_raises(ce: FakeSession) -> None:
    ce.hooks[Operation.JOBS_LIST] = raising(away)
    with pytest.raises(TransportError):
        await _listing(ce, "always").late_states_if_affordable()


async def test_always_never_rests(autojump_clock: MockClock, ce: FakeSession) -> None:
    _taking(ce, 1000.0)
    listing = _listing(ce, "always")
    for _ in range(3):
        assert await listing.late_states_if_affordable() == LISTED
    ce.hooks[Operation.JOBS_LIST] = once(raising(away))
    with pytest.raises(TransportError):
        await listing.late_states_if_affordable()
    assert await listing.late_states_if_affordable() == LISTED


async def test_never_does_not_ask(ce: FakeSession) -> None:
    assert await _listing(ce, "never").late_states_if_affordable() == {}
    assert ce.calls == []


@pytest.mark.parametrize("mode", ["auto", "always", "never"])
async def test_kill_and_purge_always_ask(
    autojump_clock: MockClock, ce: FakeSession, mode: Literal["auto", "always", "never"]
) -> None:
    _taking(ce, 1000.0)
    listing = _listing(ce, mode)
    reader = reader_of(ce, listing)
    await listing.late_states_if_affordable()  # from here on, auto rests
    before = _asked(ce)
    await Remover(ce, listing, reader, 100).kill(refs("a"))
    assert _asked(ce) == before + 1
    await Remover(ce, listing, reader, 100).purge(refs("a"))
    assert _asked(ce) == before + 2


@pytest.mark.parametrize("mode", ["auto", "always", "never"])
async def test_kill_and_purge_send_nothing_blindly(
    ce: FakeSession, mode: Literal["auto", "always", "never"]
) -> None:
    ce.hooks[Operation.JOBS_LIST] = raising(away)
    listing = _listing(ce, mode)
    with pytest.raises(TransportError):
        await remover_of(ce, listing).kill(refs("a"))
    with pytest.raises(TransportError):
        await remover_of(ce, listing).purge(refs("a"))
    assert ce.counted() == {Operation.JOBS_LIST: 2}


async def test_a_listing_that_cannot_be_read_is_raised(ce: FakeSession) -> None:
    ce.hooks[Operation.JOBS_LIST] = answering(Response(200, "OK", body=b"<html>"))
    with pytest.raises(ProtocolError):
        await _listing(ce).late_states()

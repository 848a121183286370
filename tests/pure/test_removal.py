"""The verbs kill and purge: every line of docs/reference/outcomes.md."""

from __future__ import annotations

import pytest

from arcbackend import OpOutcome, ProtocolError
from arcbackend.jobids import JobRef, job_id
from arcbackend.listing import LiveListing
from arcbackend.protocol.messages import Operation, Response
from arcbackend.states import STATUS, TERMINAL
from tests.pure.fake_session import (
    KILLED_RECORD,
    FakeSession,
    answering,
    for_each,
    refs,
    remover_of,
)
from tests.pure.replies import CE, job, reply

OK = OpOutcome(ok=True)
UNKNOWN = OpOutcome(ok=False, reason="the CE knows no such job")
OVER = OpOutcome(ok=False, reason="the job is already over")
ALIVE = [s for s in STATUS if s not in (*TERMINAL, "KILLING", "WIPED", "None")]
LIVE_ALIVE = ("EXECUTED", "FINISHING")


@pytest.fixture
def ce() -> FakeSession:
    session = FakeSession()
    session.jobs["a"] = session.ever["a"] = "name"
    return session


async def _kill(ce: FakeSession, *asked: JobRef) -> dict[str, OpOutcome]:
    asked = asked or tuple(refs("a"))
    listing = LiveListing(ce, "auto", 5.0)
    outcomes = await remover_of(ce, listing).kill(asked)
    assert list(outcomes) == [ref.id for ref in asked]
    return {ref.local: outcomes[ref.id] for ref in asked}


async def _purge(ce: FakeSession, *asked: JobRef) -> dict[str, OpOutcome]:
    asked = asked or tuple(refs("a"))
    listing = LiveListing(ce, "auto", 5.0)
    outcomes = await remover_of(ce, listing).purge(asked)
    assert list(outcomes) == [ref.id for ref in asked]
    # Listed as expired, a job may be one whose files are just being moved: asked once more.
    assert ce.count(Operation.JOBS_LIST) == (2 if "WIPED" in ce.live.values() else 1)
    return {ref.local: outcomes[ref.id] for ref in asked}


def _state(ce: FakeSession, state: str) -> None:
    """The job is in this state, for as long as both sources could notice."""
    ce.documented["a"] = state
    if state in (*TERMINAL, *LIVE_ALIVE, "KILLING", "WIPED"):
        ce.live["a"] = state


# kill


@pytest.mark.parametrize("state", ALIVE)
async def test_kill_of_a_job_that_is_not_over(ce: FakeSession, state: str) -> None:
    _state(ce, state)
    assert await _kill(ce) == {"a": OK}
    assert ce.killed == {"a"}
    assert ce.cleaned == set()


async def test_kill_of_a_job_being_killed(ce: FakeSession) -> None:
    _state(ce, "KILLING")
    outcome = (await _kill(ce))["a"]
    assert outcome == OpOutcome(ok=True, reason="the job was being killed already")


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_kill_of_a_job_that_is_over(ce: FakeSession, state: str) -> None:
    _state(ce, state)
    assert await _kill(ce) == {"a": OVER}
    assert ce.count(Operation.JOBS_KILL) == 0


async def test_kill_of_an_unknown_job(ce: FakeSession) -> None:
    assert await _kill(ce, *refs("nope")) == {"nope": UNKNOWN}


async def test_kill_of_an_expired_job(ce: FakeSession) -> None:
    _state(ce, "WIPED")
    assert await _kill(ce) == {"a": UNKNOWN}


async def test_a_kill_that_the_ce_refuses(ce: FakeSession) -> None:
    _state(ce, "RUNNING")
    ce.hooks[Operation.JOBS_KILL] = for_each("505")
    assert await _kill(ce) == {"a": OpOutcome(ok=False, reason="the CE refused: no")}


# purge


@pytest.mark.parametrize("state", [*ALIVE, "KILLING"])
async def test_purge_of_a_job_that_is_not_over(ce: FakeSession, state: str) -> None:
    _state(ce, state)
    reason = f"the job is not over ({state}): kill it first, or wait"
    assert await _purge(ce) == {"a": OpOutcome(ok=False, reason=reason)}
    assert ce.count(Operation.JOBS_CLEAN) == 0


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_purge_of_a_job_that_is_over(ce: FakeSession, state: str) -> None:
    _state(ce, state)
    assert await _purge(ce) == {"a": OK}
    assert ce.cleaned == {"a"}
    assert ce.killed == set()


async def test_purge_of_a_job_that_ended_between_the_two_looks(ce: FakeSession) -> None:
    ce.documented["a"] = "FINISHED"
    assert await _purge(ce) == {"a": OK}
    assert ce.cleaned == {"a"}


async def test_purge_believes_the_listing_that_a_job_is_over(ce: FakeSession) -> None:
    ce.documented["a"], ce.live["a"], ce.records["a"] = "RUNNING", "FAILED", KILLED_RECORD
    assert await _purge(ce) == {"a": OK}
    assert ce.count(Operation.DIAGNOSE) == 0  # it does not matter how it ended


async def test_purge_of_an_unknown_job(ce: FakeSession) -> None:
    assert await _purge(ce, *refs("nope")) == {"nope": UNKNOWN}


@pytest.mark.parametrize("documented", ["WIPED", "FINISHED"])
async def test_purge_of_an_expired_job(ce: FakeSession, documented: str) -> None:
    ce.documented["a"], ce.live["a"] = documented, "WIPED"
    assert await _purge(ce) == {"a": UNKNOWN}
    assert ce.count(Operation.JOBS_CLEAN) == 0


async def test_purge_of_a_job_that_is_gone_in_that_moment(ce: FakeSession) -> None:
    ce.live["a"] = "FINISHED"
    ce.jobs.clear()
    assert await _purge(ce) == {"a": UNKNOWN}


async def test_a_clean_that_the_ce_refuses(ce: FakeSession) -> None:
    _state(ce, "FINISHED")
    ce.hooks[Operation.JOBS_CLEAN] = for_each("505")
    assert await _purge(ce) == {"a": OpOutcome(ok=False, reason="the CE refused: no")}


# both


async def test_a_refusal_without_a_reason_tells_the_code(ce: FakeSession) -> None:
    ce.hooks[Operation.JOBS_KILL] = answering(reply({"job": [{**job("a", "505"), "reason": ""}]}))
    assert "505" in str((await _kill(ce))["a"].reason)


@pytest.mark.parametrize("verb", [_kill, _purge], ids=["kill", "purge"])
async def test_mixed_jobs_each_have_their_outcome_in_the_order_asked(verb: object) -> None:
    ce = FakeSession()
    for local in ("run", "fin", "exp", "bad"):
        ce.jobs[local] = "name"
    ce.documented |= {"run": "RUNNING", "fin": "RUNNING", "exp": "FINISHED"}
    ce.live |= {"fin": "FINISHED", "exp": "WIPED"}
    asked = refs("nope", "run", "exp", "fin", "run", job_id(CE, "fin"))
    assert [ref.local for ref in asked] == ["nope", "run", "exp", "fin"]  # each once
    if verb is _kill:
        assert await _kill(ce, *asked) == {"nope": UNKNOWN, "run": OK, "exp": UNKNOWN, "fin": OVER}
        assert ce.asked(Operation.JOBS_KILL) == [["nope", "run"]]
    else:
        outcomes = await _purge(ce, *asked)
        assert [outcome.ok for outcome in outcomes.values()] == [False, False, False, True]
        assert outcomes["nope"] == outcomes["exp"] == UNKNOWN
        assert ce.asked(Operation.JOBS_CLEAN) == [["fin"]]


async def test_no_ids_ask_nothing(ce: FakeSession) -> None:
    listing = LiveListing(ce, "auto", 5.0)
    assert await remover_of(ce, listing).kill([]) == {}
    assert await remover_of(ce, listing).purge([]) == {}
    assert ce.calls == []


async def test_a_listing_that_cannot_be_read_stops_both(ce: FakeSession) -> None:
    ce.hooks[Operation.JOBS_LIST] = answering(Response(500, "Internal Server Error"))
    listing = LiveListing(ce, "auto", 5.0)
    with pytest.raises(ProtocolError):
        await remover_of(ce, listing).kill(refs("a"))
    with pytest.raises(ProtocolError):
        await remover_of(ce, listing).purge(refs("a"))
    assert set(ce.counted()) == {Operation.JOBS_LIST}

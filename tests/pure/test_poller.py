"""The poller on a CE in memory: what a real one cannot be made to show, over hours of no time."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from arcbackend import (
    AuthenticationError,
    CEBack,
    CEUnreachable,
    ConfigurationError,
    InterCEdeError,
    JobEvent,
    JobHandle,
    JobID,
    JobStatus,
    OpOutcome,
    Policy,
    Poller,
    PollerSnapshot,
    ProtocolError,
    SeenBy,
    TransportError,
)
from arcbackend.polling.poller import merge
from arcbackend.protocol.messages import Operation, Request
from tests.pure.fake_session import (
    KILLED_RECORD,
    FakeSession,
    away,
    for_each,
    ids_of,
    once,
    raising,
)
from tests.pure.polling import (
    Ear,
    Outage,
    asked,
    following,
    gaps,
    ids,
    names,
    poller_on,
    put,
    slowly,
    times,
)
from tests.pure.replies import CE

STATUS, LIST, KILL = Operation.JOBS_STATUS, Operation.JOBS_LIST, Operation.JOBS_KILL
CLEAN, DIAGNOSE = Operation.JOBS_CLEAN, Operation.DIAGNOSE
HOUR, DAY = 3600.0, 86400.0
FAILED_RECORD = b"2026-01-01 LRMS error: (1) payload failed\n"
# A timer wheel hands jobs out to the tick, a third of the shortest interval.
TICK = 5.0


def policy(**sections: dict[str, object]) -> Policy:
    return Policy.from_dict(sections)


@pytest.fixture
def ce() -> FakeSession:
    return FakeSession()


# how often it looks


async def test_young_jobs_are_looked_at_often_and_long_queued_ones_rarely(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "QUEUING", "a")
    async with following(ce, "a"):
        await trio.sleep(4 * HOUR)
    looks = times(ce, STATUS)
    young = gaps([at for at in looks if at < 120])
    assert all(15 * 0.9 <= gap <= 15 * 1.1 + TICK for gap in young)
    assert len(young) >= 5
    old = gaps([at for at in looks if at > 2 * HOUR])
    assert all(600 * 0.9 <= gap <= 600 * 1.1 + TICK for gap in old)
    assert 10 <= len(old) <= 14
    assert len(looks) < 70


async def test_a_new_state_makes_a_job_young_again(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "QUEUING", "a")
    async with following(ce, "a") as (_, ear):
        await trio.sleep(2 * HOUR)
        put(ce, "RUNNING", "a")
        await trio.sleep(700)
        assert ear.states("a") == ["queuing", "running"]
        seen = ear.when("a", "running")
        await trio.sleep(100)
    assert len([at for at in times(ce, STATUS) if seen < at < seen + 100]) >= 4


async def test_the_listing_has_its_own_cadence_with_jitter(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "QUEUING", "a")
    async with following(ce, "a"):
        await trio.sleep(HOUR)
    found = gaps(times(ce, LIST))
    assert all(9.0 <= gap <= 11.0 for gap in found)
    assert max(found) - min(found) > 1.0
    assert 330 <= len(found) <= 395


async def test_a_ce_that_takes_long_to_list_is_left_alone_for_longer(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "QUEUING", "a")
    ce.hooks[LIST] = slowly(20.0)
    async with following(ce, "a"):
        await trio.sleep(HOUR)
    assert all(20 + 90 <= gap <= 20 + 110 for gap in gaps(times(ce, LIST)))


async def test_thousands_of_jobs_take_few_requests_of_bounded_size(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(300)
    put(ce, "QUEUING", *jobs)
    async with following(ce, *jobs, batches={"ids": 50}):
        await trio.sleep(1)
        assert sorted(asked(ce, STATUS)) == jobs
        assert max(map(len, ce.asked(STATUS))) <= 50
        assert ce.count(STATUS) == 6
        await trio.sleep(2 * HOUR)
        ce.calls.clear()
        await trio.sleep(HOUR)
    often = Counter(asked(ce, STATUS))
    assert set(often) == set(jobs)
    assert all(5 <= times <= 7 for times in often.values())
    assert ce.count(STATUS) <= HOUR / TICK
    assert max(map(len, ce.asked(STATUS))) <= 50


async def test_one_poll_at_a_time_of_each_source(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a", "b")
    now: Counter[Operation] = Counter()

    async def alone(request: Request) -> None:
        now[request.operation] += 1
        assert now[request.operation] == 1
        await trio.sleep(40)
        now[request.operation] -= 1

    ce.hooks[STATUS] = ce.hooks[LIST] = alone
    async with following(ce, "a", "b") as (poller, _), trio.open_nursery() as nursery:
        for local in ("a", "b", "a"):
            nursery.start_soon(poller.purge, ids(ce, local))
        await trio.sleep(600)
    assert ce.count(STATUS) > 6
    assert ce.count(LIST) > 3


async def test_nothing_is_polled_without_jobs_to_follow(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a", "b")
    async with following(ce) as (poller, ear):
        await trio.sleep(DAY)
        assert ce.calls == []
        poller.track(ids(ce, "a", "b"))
        await trio.sleep(60)
        assert ear.states("a") == ear.states("b") == ["running"]
        put(ce, "FINISHED", "a", live=True)
        poller.untrack(ids(ce, "b", "never-tracked"))
        await trio.sleep(20)
        assert ear.states("a") == ["running", "finished"]
        ce.calls.clear()
        await trio.sleep(DAY)
        assert ce.calls == []
        assert poller.statuses() == {ids(ce, "a")[0]: JobStatus.DONE}


async def test_jobs_that_are_left_are_polled_on_when_others_are_purged(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(5)
    put(ce, "FINISHED", *jobs[:4])
    put(ce, "RUNNING", jobs[4])
    async with following(ce, *jobs) as (poller, ear):
        await trio.sleep(30)
        assert all(one.ok for one in (await poller.purge(ids(ce, *jobs[:4]))).values())
        put(ce, "FINISHED", jobs[4], live=True)
        await trio.sleep(12)
        assert ear.states(jobs[4]) == ["running", "finished"]
        assert list(poller.statuses()) == ids(ce, jobs[4])


# a CE that is away


async def test_a_ce_that_is_away_for_an_hour(autojump_clock: MockClock, ce: FakeSession) -> None:
    jobs = names(200)
    put(ce, "RUNNING", *jobs)
    outage = Outage(ce, away())
    async with following(ce, *jobs) as (poller, ear):
        await trio.sleep(300)
        outage.on, began = True, trio.current_time()
        await trio.sleep(60)
        put(ce, "FINISHED", jobs[0])
        put(ce, "FINISHED", jobs[1], live=True)
        await trio.sleep(HOUR - 60)
        outage.on, ended = False, trio.current_time()
        tried = {one: [at for at in times(ce, one) if began < at < ended] for one in (STATUS, LIST)}
        for tries in tried.values():
            pauses = gaps(tries)
            assert len(tries) <= 20
            # doubling, with jitter, to the longest
            assert all(later > 1.4 * pause for pause, later in pairwise(pauses[:4]))
            assert all(225 <= pause <= 300 + TICK for pause in pauses[6:])
        ce.calls.clear()
        await trio.sleep(320)
        assert ear.kinds() == ["ce-unreachable", "ce-back"]
        # They were all due; the 198 that run on are young, or due within a minute or two.
        assert ce.count(STATUS) <= 320 / TICK
        assert max(Counter(asked(ce, STATUS)).values()) <= 10
        assert ear.states(jobs[0]) == ear.states(jobs[1]) == ["running", "finished"]
        assert len(poller.statuses()) == 200
        assert len(ear.events) == 200 + 2 + 2
    unreachable = next(event for event in ear.events if isinstance(event, CEUnreachable))
    back = next(event for event in ear.events if isinstance(event, CEBack))
    assert back.away_since == unreachable.seen_at
    assert "read timeout" in unreachable.reason
    assert "TransportError" in unreachable.reason


async def test_the_return_is_told_before_what_has_changed_meanwhile(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    outage = Outage(ce, away())
    async with following(ce, "a", live_listing="never") as (_, ear):
        await trio.sleep(60)
        outage.on = True
        await trio.sleep(600)
        put(ce, "FINISHED", "a")
        outage.on = False
        await trio.sleep(400)
    assert [event.kind for event in ear.events] == ["job", "ce-unreachable", "ce-back", "job"]


async def test_when_one_source_is_back_the_other_is_asked_at_once(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    outage = Outage(ce, away())
    async with following(ce, "a"):
        outage.on = True
        await trio.sleep(HOUR)
        outage.on = False
        ce.calls.clear()
        await trio.sleep(320)
    (documents, *_), (listing, *_) = times(ce, STATUS), times(ce, LIST)
    assert abs(documents - listing) <= 2 * TICK


async def test_the_listing_alone_fails(autojump_clock: MockClock, ce: FakeSession) -> None:
    put(ce, "RUNNING", "a")
    outage = Outage(ce, away(), LIST)
    outage.on = True
    async with following(ce, "a") as (_, ear):
        await trio.sleep(60)
        put(ce, "FINISHED", "a")
        await trio.sleep(60)
        assert ear.states("a") == ["running", "finished"]
        assert ear.kinds() == ["ce-unreachable"]
        outage.on = False
        await trio.sleep(320)
        assert ear.kinds() == ["ce-unreachable", "ce-back"]
    assert isinstance(ear.events[0], CEUnreachable)
    assert ear.events[0].seen_by is SeenBy.LISTING


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("unknown user", ce=CE),
        ProtocolError("no JSON", ce=CE),
        TransportError("refused", ce=CE),
        ConfigurationError("no token", ce=CE),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("operation", [STATUS, LIST])
async def test_no_failure_of_a_poll_ends_the_poller(
    autojump_clock: MockClock, ce: FakeSession, error: InterCEdeError, operation: Operation
) -> None:
    put(ce, "RUNNING", "a")
    outage = Outage(ce, error, operation)
    outage.on = True
    async with following(ce, "a") as (_, ear):
        await trio.sleep(HOUR)
        outage.on = False
        await trio.sleep(320)
        assert ear.kinds() == ["ce-unreachable", "ce-back"]
        put(ce, "FINISHED", "a")
        await trio.sleep(700)
        assert ear.states("a") == ["running", "finished"]


async def test_a_failure_record_that_cannot_be_had_fails_the_poll_and_is_read_again(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a", "b")
    ce.records["a"] = FAILED_RECORD
    outage = Outage(ce, away(), DIAGNOSE)
    outage.on = True
    async with following(ce, "a", "b") as (_, ear):
        await trio.sleep(30)
        put(ce, "FAILED", "a", live=True)
        put(ce, "FINISHED", "b", live=True)
        await trio.sleep(12)
        assert ear.states("a") == ["running"]
        assert ear.states("b") == ["running", "finished"]
        outage.on = False
        await trio.sleep(60)
        assert ear.states("a") == ["running", "failed"]


@pytest.mark.parametrize("live_listing", ["auto", "never"])
async def test_the_return_is_told_though_nothing_is_left_to_ask(
    autojump_clock: MockClock, ce: FakeSession, live_listing: str
) -> None:
    """A consumer that submits nothing more to a CE that is away would never hear of it."""
    put(ce, "RUNNING", "a", "b")
    outage = Outage(ce, away())
    async with following(ce, "a", "b", live_listing=live_listing) as (poller, ear):
        await trio.sleep(60)
        outage.on = True
        await trio.sleep(60)
        poller.untrack(ids(ce, "a", "b"))
        await trio.sleep(HOUR)
        assert ear.kinds() == ["ce-unreachable"]
        ce.calls.clear()
        await trio.sleep(HOUR)
        assert max(ce.counted().values()) <= 17
        outage.on = False
        await trio.sleep(310)
        assert ear.kinds() == ["ce-unreachable", "ce-back"]
        ce.calls.clear()
        await trio.sleep(HOUR)
        assert ce.calls == []


async def test_the_return_is_told_when_the_listing_ends_what_the_documents_failed_to_tell(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    outage = Outage(ce, away(), STATUS)
    async with following(ce, "a") as (_, ear):
        await trio.sleep(60)
        outage.on = True
        await trio.sleep(60)
        put(ce, "FINISHED", "a", live=True)
        await trio.sleep(HOUR)
        assert ear.states("a") == ["running", "finished"]
        assert ear.kinds() == ["ce-unreachable"]
        outage.on = False
        await trio.sleep(310)
        assert ear.kinds() == ["ce-unreachable", "ce-back"]


async def test_a_batch_that_always_fails_does_not_keep_the_others_from_being_asked(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(30)
    put(ce, "RUNNING", *jobs)

    async def poisoned(request: Request) -> None:
        if jobs[0] in ids_of(request):
            raise ProtocolError("a job without a usable id", ce=CE)

    ce.hooks[STATUS] = poisoned
    async with following(ce, *jobs, batches={"ids": 10}) as (_, ear):
        await trio.sleep(120)
        seen = [local for local in jobs if ear.states(local) == ["running"]]
        assert len(seen) >= 20


# jobs that the CE does not know


@pytest.mark.parametrize(("looks", "after"), [(3, 60.0), (6, 10.0), (2, 300.0), (1, 0.0)])
async def test_an_unknown_job_is_lost_when_enough_looks_agree(
    autojump_clock: MockClock, ce: FakeSession, looks: int, after: float
) -> None:
    put(ce, "RUNNING", "a")
    rules = policy(lost={"looks": looks, "after": after})
    async with following(ce, "a", policy=rules) as (_, ear):
        await trio.sleep(21)
        del ce.documented["a"]
        gone = trio.current_time()
        await trio.sleep(600)
        seen = [at for at in times(ce, STATUS) if at > gone]
        lost = ear.when("a", "lost")
        assert lost - seen[0] >= after
        assert len([at for at in seen if at <= lost]) >= looks
        assert lost - gone <= max(after, looks * 22.0) + 45.0
        last = ear.of("a")[-1]
        assert last.outcome is not None
        assert last.outcome.reason is not None
        assert f"{len(seen)} looks in {lost - seen[0]:.0f} s" in last.outcome.reason
        assert last.status_after is JobStatus.UNKNOWN


@pytest.mark.parametrize("denial", ["None", "WIPED"])
async def test_a_denial_for_a_moment_is_harmless(
    autojump_clock: MockClock, ce: FakeSession, denial: str
) -> None:
    put(ce, "RUNNING", "a")
    async with following(ce, "a") as (_, ear):
        for _ in range(10):
            await trio.sleep(50)
            put(ce, denial, "a")
            put(ce, "WIPED", "a", live=True)
            await trio.sleep(50)
            put(ce, "RUNNING", "a")
            ce.live.clear()
        await trio.sleep(30)
        assert ear.states("a") == ["running"]


async def test_a_wiped_job_expires_by_its_documents(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "WIPED", "a")
    async with following(ce, "a") as (_, ear):
        await trio.sleep(200)
        assert ear.states("a") == ["expired"]


# jobs that failed


@pytest.mark.parametrize(("record", "end"), [(KILLED_RECORD, "killed"), (FAILED_RECORD, "failed")])
async def test_a_failed_after_a_kill_is_resolved_by_its_record(
    autojump_clock: MockClock, ce: FakeSession, record: bytes, end: str
) -> None:
    put(ce, "RUNNING", "a")
    async with following(ce, "a") as (poller, ear):
        await trio.sleep(30)
        assert await poller.kill(ids(ce, "a")) == {ids(ce, "a")[0]: OpOutcome(ok=True)}
        put(ce, "FAILED", "a", live=True)
        ce.records["a"] = record
        await trio.sleep(15)
        assert ear.states("a") == ["running", "killing", end]
        assert ear.of("a")[-1].seen_by is SeenBy.LISTING


async def test_a_failed_without_a_record_is_not_guessed_and_not_for_ever_unknown(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    async with following(ce, "a") as (poller, ear):
        await trio.sleep(2 * HOUR)
        put(ce, "FAILED", "a", live=True)
        failed = trio.current_time()
        await trio.sleep(60)
        assert ear.states("a") == ["running"]
        await trio.sleep(120)
        assert ear.states("a") == ["running", "failed"]
        assert 70 <= ear.when("a", "failed") - failed <= 150
        assert not poller._undecided


async def test_the_same_of_documents_alone_takes_no_longer(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    async with following(ce, "a", live_listing="never") as (_, ear):
        await trio.sleep(2 * HOUR + 1)
        put(ce, "FAILED", "a")
        ce.calls.clear()
        await trio.sleep(900)
        assert ear.states("a") == ["running", "failed"]
        assert 100 <= ear.when("a", "failed") - times(ce, STATUS)[0] <= 200


async def test_a_failed_without_a_record_is_told_by_its_document(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    async with following(ce, "a") as (poller, ear):
        await trio.sleep(20)
        put(ce, "FAILED", "a", live=True)
        await trio.sleep(15)
        put(ce, "KILLED", "a")
        await trio.sleep(30)
        assert ear.states("a") == ["running", "killed"]
        assert not poller._undecided


async def test_an_untracked_job_leaves_no_doubt_behind(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    ce.hooks[DIAGNOSE] = slowly(5.0)
    async with following(ce, "a") as (poller, _):
        await trio.sleep(15)
        put(ce, "FAILED", "a", live=True)
        await trio.sleep(12)
        assert ce.count(DIAGNOSE) > 0
        poller.untrack(ids(ce, "a"))
        await trio.sleep(60)
        assert not poller._undecided


async def test_thousands_that_fail_at_once_do_not_delay_the_news_of_others(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    bad, good = names(1500, "bad"), names(8, "good")
    put(ce, "RUNNING", *bad, *good)
    ce.records |= dict.fromkeys(bad, FAILED_RECORD)
    ce.hooks[DIAGNOSE] = slowly(3.0)
    async with following(ce, *bad, *good) as (_, ear):
        await trio.sleep(60)
        put(ce, "FAILED", *bad, live=True)
        for local in good:
            put(ce, "FINISHED", local, live=True)
            over = trio.current_time()
            await trio.sleep(35)
            assert ear.when(local, "finished") - over <= 35
        await trio.sleep(600)
        ends = Counter(event.dest for event in ear.events if isinstance(event, JobEvent))
        assert ends == {"running": 1508, "failed": 1500, "finished": 8}
    assert ce.count(DIAGNOSE) == len(bad)
    assert max(gaps(times(ce, LIST))) <= 35


# held jobs


KILL_HELD = policy(hold={"action": "kill", "grace": HOUR})


async def test_a_held_job_is_killed_after_its_grace_and_not_before(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "HELD", "a")
    async with following(ce, "a", policy=KILL_HELD) as (_, ear):
        await trio.sleep(2 * HOUR)
        assert ear.states("a")[:2] == ["held", "killing"]
        held, (killed, *_) = ear.when("a", "held"), times(ce, KILL)
        assert 0 <= killed - (held + HOUR) <= 1.0
        # Looked at once more, just before.
        assert any(killed - 1.0 <= at <= killed for at in times(ce, STATUS))
        event = ear.of("a")[1]
        assert (event.seen_by, event.outcome) == (SeenBy.POLICY, OpOutcome(ok=True))
        assert event.status_before is JobStatus.HELD


async def test_the_default_reports_held_jobs_and_kills_nothing(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "HELD", "a")
    async with following(ce, "a") as (_, ear):
        await trio.sleep(3 * HOUR)
        assert ear.states("a") == ["held"]
        assert ear.of("a")[0].status_after is JobStatus.HELD
    assert ce.count(KILL) == 0


async def test_a_job_released_in_time_is_left_alone(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "HELD", "a")
    async with following(ce, "a", policy=KILL_HELD) as (_, ear):
        for _ in range(2):
            await trio.sleep(HOUR - 200)
            put(ce, "RUNNING", "a")
            await trio.sleep(100)
            put(ce, "HELD", "a")
        await trio.sleep(HOUR - 200)
        put(ce, "RUNNING", "a")
        await trio.sleep(2 * HOUR)
        assert ear.states("a") == ["held", "running"] * 3
    assert ce.count(KILL) == 0


async def test_a_job_released_at_the_last_moment_is_left_alone(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "HELD", "a")
    async with following(ce, "a", policy=KILL_HELD) as (_, ear):
        await trio.sleep(60)
        await trio.sleep(ear.when("a", "held") + HOUR - trio.current_time() - 0.5)
        ce.documented["a"] = "RUNNING"  # nobody has looked since
        await trio.sleep(2 * HOUR)
        assert ear.states("a") == ["held", "running"]
    assert ce.count(KILL) == 0


async def test_not_more_than_so_many_kills_in_a_cycle(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(25)
    put(ce, "HELD", *jobs)
    rules = policy(
        hold={"action": "kill", "grace": 100.0, "max_kills": 10, "cycle": 600.0},
        kill={"repeat_after": None},
    )
    async with following(ce, *jobs, policy=rules) as (_, ear):
        await trio.sleep(HOUR)
    kills = [(at, len(part)) for at, part in zip(times(ce, KILL), ce.asked(KILL), strict=True)]
    assert [count for _, count in kills] == [10, 10, 5]
    assert all(600.0 <= gap <= 610.0 for gap in gaps([at for at, _ in kills]))
    assert all(ear.states(local) == ["held", "killing"] for local in jobs)


async def test_jobs_held_one_after_the_other_share_the_cycle(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(12)
    put(ce, "RUNNING", *jobs)
    rules = policy(
        hold={"action": "kill", "grace": 100.0, "max_kills": 4, "cycle": 600.0},
        kill={"repeat_after": None},
    )
    async with following(ce, *jobs, policy=rules) as (_, ear):
        for local in jobs:
            await trio.sleep(40)
            put(ce, "HELD", local)
        await trio.sleep(HOUR / 2)
        assert all(ear.states(local)[-1] == "killing" for local in jobs)
    kills = [at for at, part in zip(times(ce, KILL), ce.asked(KILL), strict=True) for _ in part]
    assert len(kills) == len(jobs)
    assert all(later - first >= 600.0 for first, later in zip(kills, kills[4:], strict=False))


async def test_those_released_meanwhile_are_not_killed_in_the_next_cycle(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(25)
    put(ce, "HELD", *jobs)
    rules = policy(hold={"action": "kill", "grace": 100.0, "max_kills": 10, "cycle": 600.0})
    async with following(ce, *jobs, policy=rules):
        await trio.sleep(300)
        assert ce.count(KILL) == 1
        put(ce, "RUNNING", *jobs)
        await trio.sleep(HOUR)
    assert set(asked(ce, KILL)) == set(ce.asked(KILL)[0])


async def test_ask_then_keep_then_ask_then_kill(autojump_clock: MockClock, ce: FakeSession) -> None:
    put(ce, "HELD", "a")
    (job,) = ids(ce, "a")
    rules = policy(hold={"action": "ask", "grace": HOUR})
    async with following(ce, "a", policy=rules) as (poller, ear):
        refused = OpOutcome(ok=False, reason="no decision about this job is awaited")
        await trio.sleep(60)
        assert await poller.keep([job]) == {job: refused}
        await trio.sleep(2 * HOUR)
        assert ear.states("a") == ["held", "awaiting"]
        assert 0 <= ear.when("a", "awaiting") - ear.when("a", "held") - HOUR <= 1
        assert await poller.keep([job]) == {job: OpOutcome(ok=True)}
        await trio.sleep(HOUR - 60)
        assert ear.states("a") == ["held", "awaiting", "held"]
        await trio.sleep(120)
        assert ear.states("a") == ["held", "awaiting", "held", "awaiting"]
        assert (await poller.kill([job]))[job].ok
        await wait_all_tasks_blocked()
        assert ear.states("a")[-1] == "killing"
        assert ce.count(KILL) == 1


async def test_a_job_about_which_is_asked_can_be_released(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "HELD", "a")
    rules = policy(hold={"action": "ask", "grace": HOUR})
    async with following(ce, "a", policy=rules) as (_, ear):
        await trio.sleep(2 * HOUR)
        put(ce, "RUNNING", "a")
        await trio.sleep(700)
        assert ear.states("a") == ["held", "awaiting", "running"]


@pytest.mark.parametrize(
    ("end", "states"),
    [
        ("KILLED", ["held", "killing", "killed", "purged"]),
        ("FINISHED", ["held", "killing", "finished"]),  # it ended by itself: its outputs count
    ],
)
async def test_kill_and_purge(
    autojump_clock: MockClock, ce: FakeSession, end: str, states: list[str]
) -> None:
    put(ce, "HELD", "a")
    rules = policy(hold={"action": "kill-and-purge", "grace": HOUR})
    async with following(ce, "a", policy=rules) as (poller, ear):
        await trio.sleep(HOUR + 60)
        put(ce, end, "a")
        await trio.sleep(60)
        assert ear.states("a") == states
        assert ce.cleaned == ({"a"} if "purged" in states else set())
        assert bool(poller.statuses()) is ("purged" not in states)


async def test_other_for_too_long_counts_as_held(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "OTHER", "a")
    put(ce, "OTHER", "b")
    async with following(ce, "a", "b", policy="patient-kill") as (_, ear):
        await trio.sleep(1700)
        put(ce, "RUNNING", "b")
        await trio.sleep(2 * HOUR)
        assert ear.states("a") == ["other", "held", "killing"]
        assert 0 <= ear.when("a", "held") - ear.when("a", "other") - 1800 <= 1
        assert 0 <= ear.when("a", "killing") - ear.when("a", "held") - 3600 <= 1
        assert ear.of("a")[1].status_after is JobStatus.HELD
        assert ear.states("b") == ["other", "running"]


async def test_another_policy_at_run_time(
    autojump_clock: MockClock, ce: FakeSession, tmp_path: Path
) -> None:
    put(ce, "HELD", "a")
    async with following(ce, "a", policy="report") as (poller, ear):
        await trio.sleep(2 * HOUR)
        poller.set_policy(policy(hold={"action": "kill", "grace": 3 * HOUR}))
        assert poller.policy.hold.action == "kill"
        await trio.sleep(0.9 * HOUR)
        poller.set_policy("report")
        await trio.sleep(HOUR)
        assert ce.count(KILL) == 0
        with pytest.raises(ConfigurationError):
            poller.set_policy(tmp_path / "none.toml")
        assert poller.policy == Policy.load("report")
        # The time in the state counts from when it began.
        poller.set_policy(KILL_HELD)
        await trio.sleep(1)
        assert ear.states("a") == ["held", "killing"]


async def test_a_policy_that_is_none_for_this_ce_changes_nothing(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    async with following(ce) as (poller, _):
        with pytest.raises(ConfigurationError):
            poller.set_policy(Policy(ce={CE: {"hold": {"grace": -1}}}))
        assert poller.policy == Policy.load("report")


async def test_a_policy_withdrawn_while_the_last_look_is_under_way_kills_nothing(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "HELD", "a")
    async with following(ce, "a", policy=KILL_HELD) as (poller, ear):
        await trio.sleep(60)
        ce.hooks[STATUS] = slowly(10.0)
        await trio.sleep(ear.when("a", "held") + HOUR + 5 - trio.current_time())
        poller.set_policy("report")
        await trio.sleep(HOUR)
        assert ear.states("a") == ["held"]
    assert ce.count(KILL) == 0


# kills that get lost


async def test_a_kill_that_the_ce_loses_is_repeated_and_not_for_ever(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    rules = policy(kill={"repeat_after": 300.0, "attempts": 4})
    async with following(ce, "a", policy=rules) as (poller, ear):
        await trio.sleep(30)
        await poller.kill(ids(ce, "a"))
        await trio.sleep(HOUR)
        kills = times(ce, KILL)
        assert len(kills) == 1 + 4
        assert all(300 <= gap <= 301 for gap in gaps(kills))
        repeats = [event for event in ear.of("a") if event.seen_by is SeenBy.POLICY]
        assert [(event.source, event.dest) for event in repeats] == [("killing", "killing")] * 4
        assert all(event.outcome == OpOutcome(ok=True) for event in repeats)


async def test_a_kill_that_is_heeded_is_not_repeated(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    async with following(ce, "a") as (poller, ear):
        await trio.sleep(30)
        await poller.kill(ids(ce, "a"))
        await trio.sleep(200)
        put(ce, "KILLED", "a")
        await trio.sleep(HOUR)
        assert ear.states("a") == ["running", "killing", "killed"]
    assert ce.count(KILL) == 1


@pytest.mark.parametrize("operations", [(), (KILL,), (LIST,)], ids=["all", "kill", "listing"])
async def test_a_kill_due_while_the_ce_is_away_is_done_later(
    autojump_clock: MockClock, ce: FakeSession, operations: tuple[Operation, ...]
) -> None:
    put(ce, "HELD", "a")
    put(ce, "RUNNING", "b")
    outage = Outage(ce, away(), *operations)
    async with following(ce, "a", "b", policy=KILL_HELD) as (poller, ear):
        await trio.sleep(HOUR - 100)
        await poller.kill(ids(ce, "b"))
        outage.on = True
        ce.calls.clear()
        await trio.sleep(HOUR)
        assert ear.states("a") == ["held"]
        # It is left in peace, as the polls leave it.
        assert all(
            often <= 80 for op, often in ce.counted().items() if op in (operations or [KILL])
        )
        outage.on = False
        ce.calls.clear()
        await trio.sleep(1200)
        assert ear.states("a") == ["held", "killing"]
        # The repeated kill of another, due in that time, is not forgotten for it.
        assert ["b"] in ce.asked(KILL)


async def test_the_grace_of_a_job_held_again_is_not_cut_short_by_an_earlier_kill_that_failed(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "HELD", "a")
    ce.hooks[KILL] = once(raising(away, after=300.0))
    async with following(ce, "a", policy=KILL_HELD) as (_, ear):
        await trio.sleep(60)
        await trio.sleep(ear.when("a", "held") + HOUR + 5 - trio.current_time())
        assert ce.count(KILL) == 1  # and its answer is awaited
        put(ce, "RUNNING", "a")
        await trio.sleep(100)
        put(ce, "HELD", "a")
        await trio.sleep(HOUR)
        assert ear.states("a") == ["held", "running", "held"]
        assert ce.count(KILL) == 1
        await trio.sleep(200)
        assert ear.states("a") == ["held", "running", "held", "killing"]


async def test_another_decision_is_not_delayed_by_a_kill_that_fails(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "HELD", "a")
    rules = policy(hold={"action": "kill", "grace": 100.0, "other_after": HOUR})
    put(ce, "OTHER", "b")
    ce.hooks[KILL] = raising(away)
    async with following(ce, "a", "b", policy=rules) as (_, ear):
        await trio.sleep(HOUR + 30)
        assert ear.states("b") == ["other", "held"]
        assert ear.when("b", "held") - ear.when("b", "other") <= HOUR + 1
    assert ce.count(KILL) <= 30


# verbs


async def test_outcomes_are_complete_and_in_the_order_asked(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "run", "other-run")
    put(ce, "FINISHED", "fin", "other-fin")
    async with following(ce, "run", "fin") as (poller, ear):
        await trio.sleep(30)
        wanted = ids(ce, "fin", "nope", "other-run", "run", "other-fin", "run")
        outcomes = await poller.kill(wanted)
        assert list(outcomes) == wanted[:5]
        over = OpOutcome(ok=False, reason="the job is already over")
        unknown = OpOutcome(ok=False, reason="the CE knows no such job")
        assert list(outcomes.values())[:2] == [over, unknown]
        assert [one.ok for one in outcomes.values()] == [False, False, True, True, True]
        assert sorted(ce.asked(KILL)[0]) == ["nope", "other-fin", "other-run", "run"]
        outcomes = await poller.purge(wanted)
        assert list(outcomes) == wanted[:5]
        assert [one.ok for one in outcomes.values()] == [True, False, False, False, True]
        keep = await poller.keep(wanted)
        assert list(keep) == wanted[:5]
        assert not any(one.ok for one in keep.values())
        assert await poller.kill([]) == await poller.purge([]) == await poller.keep([]) == {}
        # Of jobs that are not tracked there are no events.
        assert {event.id for event in ear.events if isinstance(event, JobEvent)} == {
            *ids(ce, "run", "fin")
        }


async def test_a_refused_verb_leaves_an_event(autojump_clock: MockClock, ce: FakeSession) -> None:
    put(ce, "FINISHED", "fin")
    put(ce, "RUNNING", "run")
    async with following(ce, "fin", "run") as (poller, ear):
        await trio.sleep(30)
        await poller.kill(ids(ce, "fin"))
        await poller.purge(ids(ce, "run"))
        ce.hooks[KILL] = for_each("505")
        await poller.kill(ids(ce, "run"))
        ce.hooks[CLEAN] = for_each("505")
        await poller.purge(ids(ce, "fin"))
        await poller.keep(ids(ce, "run"))
        await wait_all_tasks_blocked()
        told = [event for event in ear.events if isinstance(event, JobEvent) and event.outcome]
    assert [(event.seen_by, event.source, event.dest) for event in told] == [
        (SeenBy.KILL, "finished", "finished"),
        (SeenBy.PURGE, "running", "running"),
        (SeenBy.KILL, "running", "running"),
        (SeenBy.PURGE, "finished", "finished"),
        (SeenBy.KEEP, "running", "running"),
    ]
    reasons = [event.outcome.reason for event in told if event.outcome]
    assert reasons == [
        "the job is already over",
        "the job is not over (RUNNING): kill it first, or wait",
        "the CE refused: no",
        "the CE refused: no",
        "no decision about this job is awaited",
    ]


async def test_a_verb_that_fails_as_a_whole_raises_and_changes_nothing(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    async with following(ce, "a") as (poller, ear):
        await trio.sleep(30)
        ce.hooks[KILL] = raising(away)
        with pytest.raises(TransportError):
            await poller.kill(ids(ce, "a"))
        await trio.sleep(60)
        assert ear.states("a") == ["running"]


async def test_purge_of_active_jobs_kills_first_where_the_policy_says_so(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    (job,) = ids(ce, "a")
    rules = policy(purge={"active": "kill"})
    async with following(ce, "a", policy=rules) as (poller, ear):
        await trio.sleep(30)
        assert (await poller.purge([job]))[job].ok
        assert ce.asked(KILL) == [["a"]]
        assert ce.count(CLEAN) == 0
        await trio.sleep(60)
        put(ce, "KILLED", "a")
        await trio.sleep(30)
        assert ear.states("a") == ["running", "killing", "killed", "purged"]
        assert ce.asked(CLEAN) == [["a"]]
        assert poller.statuses() == {}


async def test_a_removal_that_is_left_to_be_done_waits_for_the_ce(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a", "b")
    rules = policy(purge={"active": "kill"})
    outage = Outage(ce, away(), CLEAN)
    async with following(ce, "a", "b", policy=rules) as (poller, ear):
        await trio.sleep(30)
        await poller.purge(ids(ce, "a", "b"))
        outage.on = True
        put(ce, "KILLED", "a", "b")
        await trio.sleep(HOUR)
        assert ear.states("a") == ["running", "killing", "killed"]
        assert ce.count(CLEAN) <= 20
        poller.untrack(ids(ce, "b"))  # then nothing is done of it any more
        outage.on = False
        ce.calls.clear()
        await trio.sleep(301)
        assert ear.states("a")[-1] == "purged"
        assert ce.asked(CLEAN) == [["a"]]


async def test_a_job_that_ends_while_its_kill_is_under_way_is_purged_all_the_same(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    (job,) = ids(ce, "a")
    rules = policy(purge={"active": "kill"})

    async def ends(_request: Request) -> None:
        put(ce, "FINISHED", "a", live=True)
        await trio.sleep(30)

    ce.hooks[KILL] = ends
    async with following(ce, "a", policy=rules) as (poller, ear):
        await trio.sleep(30)
        assert await poller.purge([job]) == {job: OpOutcome(ok=True)}
        await wait_all_tasks_blocked()
        assert ear.states("a") == ["running", "finished", "purged"]
        assert ce.cleaned == {"a"}  # purged is never said of a job that the CE was not asked about


async def test_a_job_that_ends_while_others_are_purged_is_purged_with_them(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    put(ce, "FINISHED", "b")

    async def ends(_request: Request) -> None:
        put(ce, "FINISHED", "a", live=True)
        await trio.sleep(30)

    ce.hooks[CLEAN] = ends
    async with following(ce, "a", "b") as (poller, _):
        await trio.sleep(30)
        assert all(one.ok for one in (await poller.purge(ids(ce, "a", "b"))).values())
        assert ce.cleaned == {"a", "b"}


@pytest.mark.parametrize("again", [False, True], ids=["untracked", "tracked again"])
async def test_a_job_untracked_while_a_verb_is_under_way(
    autojump_clock: MockClock, ce: FakeSession, again: bool
) -> None:
    put(ce, "RUNNING", "a")
    (job,) = ids(ce, "a")
    ce.hooks[KILL] = slowly(2.0)
    async with following(ce, "a") as (poller, ear):
        await trio.sleep(30)
        async with trio.open_nursery() as nursery:

            async def kill() -> None:
                assert (await poller.kill([job]))[job].ok

            nursery.start_soon(kill)
            await trio.sleep(1)
            poller.untrack([job])
            ear.heard.clear()
            if again:
                poller.track([job])
        await trio.sleep(10)
        assert ear.states("a") == (["killing"] if again else [])
        put(ce, "KILLED", "a")
        await trio.sleep(30)
        assert ear.states("a") == (["killing", "killed"] if again else [])
        numbers = [event.sequence for event in ear.events]
        assert numbers == sorted(numbers)
        ear.heard.clear()


async def test_a_job_tracked_while_it_is_purged_as_one_that_is_not(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "FINISHED", "a")
    (job,) = ids(ce, "a")
    ce.hooks[CLEAN] = slowly(2.0)
    async with following(ce) as (poller, ear), trio.open_nursery() as nursery:

        async def purge() -> None:
            assert await poller.purge([job]) == {job: OpOutcome(ok=True)}

        nursery.start_soon(purge)
        await trio.sleep(1)
        poller.track([job])
        await trio.sleep(10)
        assert [event.seen_by for event in ear.of("a")] == [SeenBy.DOCUMENTS]


async def test_a_job_tracked_again_while_what_is_left_of_it_is_removed(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    ce.hooks[CLEAN] = slowly(2.0)
    async with following(ce, "a", policy=policy(purge={"active": "kill"})) as (poller, ear):
        await trio.sleep(30)
        await poller.purge(ids(ce, "a"))
        put(ce, "KILLED", "a")
        while not ce.count(CLEAN):
            await trio.sleep(0.5)
        poller.untrack(ids(ce, "a"))
        poller.track(ids(ce, "a"))
        ear.heard.clear()
        await trio.sleep(60)
        assert [event.seen_by for event in ear.of("a")] == [SeenBy.DOCUMENTS]
        ear.heard.clear()


async def test_a_job_tracked_again_is_followed_again(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "QUEUING", "a")
    outage = Outage(ce, away())
    async with following(ce, "a") as (poller, ear):
        await trio.sleep(3 * HOUR)
        outage.on = True  # so that both records come due together
        await trio.sleep(400)
        poller.untrack(ids(ce, "a"))
        poller.track(ids(ce, "a"))
        ear.heard.clear()
        await trio.sleep(HOUR)
        outage.on = False
        await trio.sleep(400)
        assert ear.states("a") == ["queuing"]
        put(ce, "RUNNING", "a")
        await trio.sleep(400)
        assert ear.states("a") == ["queuing", "running"]
        ear.heard.clear()


async def test_a_kill_of_a_job_never_seen_looks_first(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "FINISHED", "a")
    (job,) = ids(ce, "a")
    async with following(ce, "a") as (poller, _):
        assert (await poller.kill([job]))[job].reason == "the job is already over"


async def test_outputs_of_a_job_that_is_not_over_are_not_fetched(
    autojump_clock: MockClock, ce: FakeSession, tmp_path: Path
) -> None:
    put(ce, "RUNNING", "a")
    (job,) = ids(ce, "a")
    async with following(ce, "a") as (poller, ear):
        await trio.sleep(30)
        output = (await poller.fetch_output([job], tmp_path))[job]
        assert output.directory is None
        assert "not over (RUNNING)" in str(output.reason)
        await wait_all_tasks_blocked()
        assert ear.of("a")[-1].seen_by is SeenBy.FETCH


@pytest.mark.parametrize("bad", ["no id!", "https://else.example.org/arex/a", "https://x"])
async def test_ids_that_are_none_are_refused_before_anything_happens(
    autojump_clock: MockClock, ce: FakeSession, bad: str
) -> None:
    put(ce, "RUNNING", "a")
    wanted = [*ids(ce, "a"), JobID(bad)]
    async with following(ce) as (poller, _):
        for verb in (poller.kill, poller.keep, poller.purge):
            with pytest.raises(ConfigurationError):
                await verb(wanted)
        with pytest.raises(ConfigurationError):
            poller.track(wanted)
        with pytest.raises(ConfigurationError):
            poller.untrack(wanted)
        assert poller.statuses() == {}
    assert ce.calls == []


async def test_a_single_id_is_no_list_of_ids(autojump_clock: MockClock, ce: FakeSession) -> None:
    handle = JobHandle(id=ids(ce, "abc")[0], copy_index=0, name="n")
    async with following(ce) as (poller, _):
        for single in ("abc", handle):
            with pytest.raises(ConfigurationError, match="sequence"):
                poller.track(single)  # type: ignore[arg-type]
        assert poller.statuses() == {}


# over a restart


async def test_a_snapshot_restored_goes_on_and_nothing_is_lost_or_told_twice(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(6)
    put(ce, "RUNNING", *jobs)
    put(ce, "FINISHED", jobs[0])
    async with following(ce, *jobs) as (poller, before):
        await trio.sleep(60)
        await poller.kill(ids(ce, jobs[1]))
        stored = poller.snapshot().model_dump_json()
        await wait_all_tasks_blocked()
    snapshot = PollerSnapshot.model_validate_json(stored)
    assert snapshot.sequence == len(before.events)
    put(ce, "KILLED", jobs[1])
    put(ce, "FINISHED", jobs[2])
    put(ce, "HELD", jobs[3])
    async with following(ce, snapshot=snapshot) as (poller, after):
        await trio.sleep(60)
        assert {local: after.states(local) for local in jobs} == {
            jobs[0]: [],
            jobs[1]: ["killed"],
            jobs[2]: ["finished"],
            jobs[3]: ["held"],
            jobs[4]: [],
            jobs[5]: [],
        }
        assert len(poller.statuses()) == 6
        for local in jobs:
            heard = [*before.of(local), *after.of(local)]
            assert all(one.dest == two.source for one, two in pairwise(heard))
        # Tracked and restored already: they go on as they are.
        poller.track(ids(ce, *jobs))
        poller.restore(snapshot)
        assert poller.snapshot().sequence == snapshot.sequence + len(after.events)
        ce.calls.clear()
        await trio.sleep(100)
        assert max(Counter(asked(ce, STATUS)).values()) <= 100 / 13 + 1


async def test_a_snapshot_carries_everything_over_json(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a")
    put(ce, "FINISHED", "b", live=True)
    handle = JobHandle(id=ids(ce, "a")[0], copy_index=0, name="n", stdout="out", stderr=None)
    async with following(ce, "b", policy=policy(purge={"active": "kill"})) as (poller, _):
        poller.track([handle])
        await trio.sleep(60)
        await poller.purge([handle])
        snapshot = poller.snapshot()
        rows = {row.id: row for row in snapshot.jobs}
        assert (rows["a"].state, rows["a"].documented, rows["a"].purge) == (
            "killing",
            "RUNNING",
            "any",
        )
        assert rows["a"].names == ("out", None)
        assert (rows["b"].state, rows["b"].listed) == ("finished", "FINISHED")
        assert PollerSnapshot.model_validate_json(snapshot.model_dump_json()) == snapshot
        assert PollerSnapshot.model_validate(snapshot.model_dump()) == snapshot
    async with following(ce, snapshot=snapshot) as (poller, ear):
        put(ce, "KILLED", "a")
        await trio.sleep(30)
        assert ear.states("a") == ["killed", "purged"]
        (row,) = poller.snapshot().jobs
        assert row._replace(since=0) == rows["b"]._replace(since=0)


async def test_the_time_of_the_restart_counts_for_the_policy(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "HELD", "a", "b")
    async with following(ce, "a", "b", policy=KILL_HELD) as (poller, _):
        await trio.sleep(60)
        snapshot = poller.snapshot()
    old = snapshot.model_copy(
        update={"jobs": tuple(row._replace(since=row.since - 3500.0) for row in snapshot.jobs[:1])}
    )
    first = snapshot.jobs[0].id
    async with following(ce, snapshot=old, policy=KILL_HELD) as (poller, ear):
        poller.restore(snapshot)
        await trio.sleep(120)
        assert ear.states(first) == ["killing"]
        assert ce.asked(KILL) == [[first]]


async def test_a_restart_is_no_new_cycle_of_kills(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(9)
    put(ce, "HELD", *jobs)
    rules = policy(
        hold={"action": "kill", "grace": 100.0, "max_kills": 3, "cycle": 600.0},
        kill={"repeat_after": None},
    )
    async with following(ce, *jobs, policy=rules) as (poller, _):
        await trio.sleep(150)
        snapshot = poller.snapshot()
    assert len(asked(ce, KILL)) == 3
    async with following(ce, snapshot=snapshot, policy=rules):
        await trio.sleep(400)
        assert len(asked(ce, KILL)) == 3
        await trio.sleep(300)
        assert len(asked(ce, KILL)) == 6


@pytest.mark.parametrize("left", [True, False], ids=["jobs", "no jobs"])
async def test_a_ce_that_was_away_before_the_restart_is_back_once(
    autojump_clock: MockClock, ce: FakeSession, left: bool
) -> None:
    put(ce, "RUNNING", "a")
    outage = Outage(ce, away())
    async with following(ce, "a") as (poller, before):
        await trio.sleep(30)
        outage.on = True
        await trio.sleep(60)
        if not left:
            poller.untrack(ids(ce, "a"))
        snapshot = poller.snapshot()
    outage.on = False
    assert before.kinds() == ["ce-unreachable"]
    async with following(ce, snapshot=snapshot) as (_, after):
        await trio.sleep(60)
        assert after.kinds() == ["ce-back"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ce": "https://other.example.org:443"}, "other.example.org"),
        ({"state": "levitating"}, "levitating"),
        ({"id": "../../etc"}, "etc"),
        ({"id": f"{CE}/arex/rest/1.0/jobs/a"}, "ids that are none"),
    ],
)
async def test_a_snapshot_that_does_not_fit_is_refused_as_a_whole(
    autojump_clock: MockClock, ce: FakeSession, change: dict[str, Any], message: str
) -> None:
    put(ce, "RUNNING", "a", "b")
    async with following(ce, "a", "b") as (poller, _):
        await trio.sleep(30)
        snapshot = poller.snapshot()
    if "ce" in change:
        snapshot = snapshot.model_copy(update=change)
    else:
        first, last = snapshot.jobs
        snapshot = snapshot.model_copy(update={"jobs": (first, last._replace(**change))})
    async with following(ce) as (poller, _):
        with pytest.raises(ConfigurationError, match=message):
            poller.restore(snapshot)
        assert poller.snapshot().jobs == ()


@pytest.mark.parametrize("field", [{"version": 2}, {"more": 1}, {"sequence": -1}])
async def test_a_snapshot_of_another_format_is_refused(
    ce: FakeSession, field: dict[str, int]
) -> None:
    async with following(ce) as (poller, _):
        document = poller.snapshot().model_dump()
    with pytest.raises(ValueError, match=next(iter(field))):
        PollerSnapshot.model_validate({**document, **field})


# its block


class Trouble(Exception):
    """Of the consumer's own."""


@pytest.mark.parametrize(
    "error",
    [
        Trouble("mine"),
        away(),
        StopAsyncIteration(),
        KeyboardInterrupt(),
        SystemExit(3),
        ExceptionGroup("two", [Trouble("mine"), ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_block_raises_comes_out_as_it_is(
    autojump_clock: MockClock, ce: FakeSession, error: BaseException
) -> None:
    put(ce, "RUNNING", "a")
    caught: BaseException | None = None
    try:
        async with poller_on(ce) as poller:
            poller.track(ids(ce, "a"))
            await trio.sleep(30)
            raise error
    except BaseException as raised:
        caught = raised
    assert caught is error


async def test_a_return_out_of_the_block_ends_it(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    async def consume() -> Poller:
        async with poller_on(ce) as poller:
            return poller

    assert (await consume()).statuses() == {}


async def test_the_streams_end_with_the_block(autojump_clock: MockClock, ce: FakeSession) -> None:
    put(ce, "RUNNING", "a")
    async with poller_on(ce) as poller:
        stream = poller.events()
        poller.track(ids(ce, "a"))
        await trio.sleep(30)
    assert [event.sequence async for event in stream] == [1]
    assert [event async for event in poller.events()] == []


async def test_a_poller_whose_block_has_ended(
    autojump_clock: MockClock, ce: FakeSession, tmp_path: Path
) -> None:
    put(ce, "RUNNING", "a")
    wanted = ids(ce, "a")
    async with poller_on(ce) as poller:
        poller.track(wanted)
        await trio.sleep(30)
    ce.calls.clear()
    # What it knows can still be had,
    snapshot = poller.snapshot()
    assert [row.state for row in snapshot.jobs] == ["running"]
    assert poller.statuses() == {wanted[0]: JobStatus.RUNNING}
    # but nothing would come of following, and nobody would hear of a verb.
    for verb in (poller.kill, poller.keep, poller.purge):
        with pytest.raises(ConfigurationError, match="ended"):
            await verb(wanted)
    with pytest.raises(ConfigurationError, match="ended"):
        await poller.fetch_output(wanted, tmp_path)
    with pytest.raises(ConfigurationError, match="ended"):
        poller.track(wanted)
    with pytest.raises(ConfigurationError, match="ended"):
        poller.restore(snapshot)
    assert ce.calls == []


@pytest.mark.parametrize("seed", range(30))
async def test_cancelled_at_any_moment_it_leaves_nothing_behind(
    autojump_clock: MockClock, ce: FakeSession, seed: int
) -> None:
    chance = random.Random(seed)
    jobs = names(40)
    put(ce, "RUNNING", *jobs)
    for operation in (STATUS, LIST, KILL, CLEAN, DIAGNOSE):
        ce.hooks[operation] = slowly(chance.uniform(0, 3))
    root = trio.lowlevel.current_root_task()
    assert root is not None
    nurseries = len(root.child_nurseries)
    rules = policy(hold={"action": "kill-and-purge", "grace": 20.0}, kill={"repeat_after": 20.0})
    ear = Ear()

    async def change() -> None:
        while True:
            await trio.sleep(chance.uniform(0, 4))
            put(ce, chance.choice(["HELD", "FINISHED", "FAILED", "RUNNING"]), chance.choice(jobs))

    async def ask(poller: Poller) -> None:
        while True:
            await trio.sleep(chance.uniform(0, 4))
            with trio.move_on_after(chance.uniform(0, 3)):
                verb = chance.choice([poller.kill, poller.purge, poller.keep])
                await verb(ids(ce, *chance.sample(jobs, 3)))

    with trio.move_on_after(chance.uniform(0, 120)) as scope:
        async with trio.open_nursery() as nursery, poller_on(ce, rules) as poller:
            nursery.start_soon(ear.listen, poller.events())
            nursery.start_soon(change)
            nursery.start_soon(ask, poller)
            poller.track(ids(ce, *jobs))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert len(root.child_nurseries) == nurseries
    made = len(ce.calls)
    await trio.sleep(HOUR)
    assert len(ce.calls) == made
    ear.check()


async def test_a_verb_cancelled_loses_no_event(autojump_clock: MockClock, ce: FakeSession) -> None:
    jobs = names(50)
    put(ce, "RUNNING", *jobs)
    async with poller_on(ce, polling={"patience": 30.0}) as poller:
        poller.track(ids(ce, *jobs))
        await trio.sleep(30)
        stream = poller.events(buffer=10)
        with trio.move_on_after(1.0) as scope:
            await poller.kill(ids(ce, *jobs))
        assert scope.cancelled_caught  # while it told of it
        heard = [await anext(stream) for _ in jobs]
        assert [event.kind for event in heard] == ["job"] * 50


async def test_an_unread_subscription_stalls_nobody(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(5000)
    put(ce, "RUNNING", *jobs)
    async with following(ce, policy="report") as (poller, ear):
        unread = poller.events(buffer=10)
        poller.track(ids(ce, *jobs))
        await trio.sleep(30)
        assert all(status is JobStatus.RUNNING for status in poller.statuses().values())
        assert len(ear.events) == 5000
        put(ce, "FINISHED", *jobs, live=True)
        await trio.sleep(15)
        assert len(ear.events) == 10_000
        assert ce.count(LIST) >= 4
    heard = [event async for event in unread]
    assert [event.sequence for event in heard] == [*range(1, 11), 10_000]
    assert heard[-1].kind == "events-missed"


async def test_a_buffer_for_nothing_is_refused(ce: FakeSession) -> None:
    async with poller_on(ce) as poller:
        with pytest.raises(ConfigurationError, match="room for one"):
            poller.events(buffer=0)


async def test_other_tasks_have_their_turn_while_many_are_observed(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    jobs = names(5000)
    put(ce, "RUNNING", *jobs)
    turns = 0
    async with poller_on(ce) as poller:
        poller.track(ids(ce, *jobs))

        async def count() -> None:
            nonlocal turns
            while not all(one is JobStatus.RUNNING for one in poller.statuses().values()):
                turns += any(one is JobStatus.RUNNING for one in poller.statuses().values())
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await trio.sleep(1)
    assert turns >= 5


async def test_without_a_listing_the_documents_tell_everything(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a", "b")
    put(ce, "FINISHED", "a", live=True)
    ce.records["b"] = KILLED_RECORD
    async with following(ce, "a", "b", live_listing="never") as (_, ear):
        await trio.sleep(60)
        assert ear.states("a") == ["running"]
        put(ce, "FINISHED", "a")
        put(ce, "FAILED", "b")
        await trio.sleep(40)
        assert ear.states("a") == ["running", "finished"]
        assert ear.states("b") == ["running", "killed"]
    assert ce.count(LIST) == 0


async def test_the_streams_of_several_ces_in_one(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    other = FakeSession()
    other.endpoint = "https://other.example.org:443"
    put(ce, "RUNNING", "a")
    put(other, "QUEUING", "a", "b")
    async with poller_on(other) as second:
        async with poller_on(ce) as first:
            stream = merge([first, second])
            first.track(ids(ce, "a"))
            second.track(ids(other, "a", "b"))
            await trio.sleep(30)
            put(ce, "FINISHED", "a", live=True)
            await trio.sleep(30)
        put(other, "RUNNING", "b")
        await trio.sleep(30)
    heard = [event async for event in stream]
    told = {
        which.endpoint: [event for event in heard if event.ce == which.endpoint]
        for which in (ce, other)
    }
    assert sum(map(len, told.values())) == len(heard) == 5
    for events in told.values():
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert {event.id for event in heard if isinstance(event, JobEvent)} == {
        *ids(ce, "a"),
        *ids(other, "a", "b"),
    }


async def test_observations_that_move_no_job_are_counted(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    put(ce, "RUNNING", "a", "b")
    put(ce, "FINISHED", "a", live=True)
    put(ce, "LEVITATING", "b")
    async with following(ce, "a", "b") as (poller, ear):
        await trio.sleep(30)
        assert ear.states("a")[-1] == "finished"
        assert ear.states("b") == []
        assert poller.ignored["unheard of"] >= 1
        assert set(poller.ignored) <= {"same", "stale", "final", "unheard of"}

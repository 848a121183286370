"""The poller on the real CE: what happens there is told, once, in order, and soon enough."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from arcbackend import (
    EVENT_ADAPTER,
    ARCBackend,
    CEBack,
    CEUnreachable,
    FetchProgress,
    JobEvent,
    JobHandle,
    JobStatus,
    OpOutcome,
    Policy,
    Poller,
    PollerEvent,
    PollerSnapshot,
    SeenBy,
    SubmissionSpec,
    merge,
)
from tests.integration.ce import CE, RealCE, eventually, in_files
from tests.integration.jobs import SLEEP, TRUE, gone, killed, local, over
from tests.integration.polled import Heard, ends, polled
from tests.integration.proxied import behind_proxy

EXAMPLES = Path(__file__).parents[2] / "examples"
# Quick, for tests.
FAST = {"listing": 1, "documents": 2, "backoff_max": 3}
# On one instance in full; elsewhere enough to see that it works there, too.
WHOLE_LIVES = {"arc-slurm-7.0.0-token": 500}
OVER = ("finished", "failed", "killed")


def sleeping(seconds: float) -> SubmissionSpec:
    """A job of so many seconds, which tells when its payload ended."""
    return SubmissionSpec(
        executable="/bin/sh", arguments=("-c", f"sleep {seconds}; date +%s.%N"), tag="poller"
    )


async def running(heard: Heard, jobs: Sequence[JobHandle], ce: CE) -> None:
    await heard.until(lambda: heard.are(jobs, "running"), publishing=ce)


async def removed(poller: Poller, backend: ARCBackend, jobs: Sequence[JobHandle]) -> None:
    """Nothing of the test is left on the CE."""
    poller.untrack(jobs)
    await killed(backend, jobs)
    await backend.purge(jobs)


def seconds(before: PollerEvent | None, after: PollerEvent | None) -> float:
    """The time between two events, which there must be."""
    assert before is not None
    assert after is not None
    return (after.seen_at - before.seen_at).total_seconds()


async def test_the_end_of_a_job_is_known_long_before_its_document_tells(ce: CE) -> None:
    """Four jobs with seconds between their ends: just after one, the CE may write its documents."""
    interval = 2.0
    polling = {"listing": interval, "documents": 5}
    documented: dict[str, float] = {}

    async def watch(stale: ARCBackend, handles: Sequence[JobHandle]) -> None:
        while len(documented) < len(handles):
            for id_, status in (await stale.status(handles)).items():
                if status.is_final:
                    documented.setdefault(id_, time.time())
            await trio.sleep(0.5)

    async with (
        ce.backend(polling=polling) as backend,
        ce.backend(live_listing="never") as stale,
        polled(backend) as (poller, heard),
    ):
        handles = [
            handle
            for n in range(4)
            for handle in (await backend.submit(sleeping(20 + 8 * n))).handles
        ]
        poller.track(handles)
        # From here on, the CE writes its documents when it likes. (The first may be over already.)
        await heard.until(lambda: heard.are(handles, "running", *OVER), publishing=ce)
        with trio.fail_after(180):
            await watch(stale, handles)
        await heard.until(lambda: heard.are(handles, "finished"), within=30)
        early = []
        print("seconds after the payload's end: at the CE, told by the poller, in the documents")
        for handle in handles:
            job = local(handle)
            said = ce.run("cat", f"{ce.session_directory}/{job}/stdout")
            on_ce = ce.finished_at(job)
            (event,) = [event for event in heard.of(handle) if event.dest == "finished"]
            told = event.seen_at.timestamp()
            times = (on_ce, told, documented[handle.id])
            print(job, *(f"{moment - float(said):6.2f}" for moment in times))
            print(f"  from its end on the CE to the event: {told - on_ce:.2f}")
            assert told - on_ce < interval + 15  # (interval + 2 on a machine at rest)
            early.append(told < documented[handle.id])
        # At most one of the four ended in the seconds before the CE wrote its documents anew.
        assert early.count(True) >= 3
        assert set(ends(heard.events).values()) == {"finished"}
        await removed(poller, backend, handles)


async def test_whole_lives(ce: CE) -> None:
    count = WHOLE_LIVES.get(ce.instance.id, 20)
    async with (
        ce.backend(polling={"listing": 2, "documents": 5}) as backend,
        polled(backend) as (poller, heard),
    ):
        began = time.monotonic()
        handles = (await backend.submit(TRUE, count=count)).handles
        poller.track(handles)
        await heard.until(lambda: heard.are(handles, *OVER), within=60 + 3 * count)
        took = time.monotonic() - began
        assert set(ends(heard.events).values()) == {"finished"}
        assert len(ends(heard.events)) == count
        assert set(poller.statuses().values()) == {JobStatus.DONE}
        steps = Counter(
            f"{event.source}->{event.dest}" for event in heard.events if isinstance(event, JobEvent)
        )
        print(f"{count} jobs in {took:.0f} s; {dict(steps)}; ignored: {dict(poller.ignored)}")
        outcomes = await poller.purge(handles)
        assert list(outcomes.values()) == [OpOutcome(ok=True)] * count
        await heard.until(lambda: heard.are(handles, "purged"))
        assert set(ends(heard.events).values()) == {"purged"}
        assert poller.statuses() == {}
        assert {heard.of(handle)[-1].seen_by for handle in handles} == {SeenBy.PURGE}


@pytest.mark.slurm
async def test_a_suspended_job_is_killed_after_its_grace_and_one_released_in_time_is_not(
    ce: CE,
) -> None:
    # A machine that has much else to do took 13 s to release the job, and 8 s to tell of it.
    hold = {"action": "kill", "other_after": 3, "grace": 35}
    policy = Policy.from_dict({"name": "other is held", "hold": hold})
    async with ce.backend(polling=FAST) as backend, polled(backend, policy) as (poller, heard):
        handles = (await backend.submit(SLEEP, count=2)).handles
        left, released = handles
        poller.track(handles)
        await running(heard, handles, ce)
        for handle in handles:
            await trio.to_thread.run_sync(ce.batch.suspend, local(handle))
        await heard.until(lambda: heard.are(handles, "other", "held"), publishing=ce)
        await heard.until(lambda: heard.are(handles, "held"))
        await trio.to_thread.run_sync(ce.batch.resume, local(released))
        await running(heard, [released], ce)
        await heard.until(lambda: heard.state(left) == "killed")

        other, held = heard.entered(left, "other"), heard.entered(left, "held")
        kill = heard.entered(left, "killing")
        assert [event.seen_by for event in (held, kill) if event] == [SeenBy.POLICY] * 2
        assert kill is not None
        assert kill.outcome == OpOutcome(ok=True)
        print(f"OTHER for {seconds(other, held):.3f} s, held for {seconds(held, kill):.3f} s")
        assert seconds(other, held) > 2.9
        assert seconds(held, kill) > 34.9
        # The other's grace would have been over by now, too.
        assert heard.state(released) == "running"
        assert (await backend.status([released]))[released.id] is JobStatus.RUNNING
        ends(heard.events, policy)
        await removed(poller, backend, handles)


async def held_and_other(
    ce: CE, backend: ARCBackend, poller: Poller, heard: Heard, count: int
) -> tuple[Sequence[JobHandle], Sequence[JobHandle]]:
    """Running jobs, some of which HTCondor suspends and some of which it holds."""
    handles = (await backend.submit(SLEEP, count=2 * count)).handles
    poller.track(handles)
    await running(heard, handles, ce)
    suspended, on_hold = handles[:count], handles[count:]
    for handle in suspended:
        await trio.to_thread.run_sync(ce.batch.suspend, local(handle))
    for handle in on_hold:
        await trio.to_thread.run_sync(ce.batch.hold, local(handle))
    return suspended, on_hold


@pytest.mark.condor
async def test_report_tells_of_held_jobs_and_does_nothing(ce: CE) -> None:
    async with ce.backend(polling=FAST) as backend, polled(backend) as (poller, heard):
        (suspended,), (on_hold,) = await held_and_other(ce, backend, poller, heard, 1)
        await heard.until(
            lambda: (heard.state(suspended), heard.state(on_hold)) == ("held", "other"),
            publishing=ce,
        )
        assert heard.of(suspended)[-1].status_after is JobStatus.HELD
        assert heard.of(on_hold)[-1].status_after is JobStatus.RUNNING
        told = len(heard.events)
        await trio.sleep(15)
        assert len(heard.events) == told
        await trio.to_thread.run_sync(ce.batch.resume, local(suspended))
        await running(heard, [suspended], ce)
        told_by = {event.seen_by for handle in (suspended, on_hold) for event in heard.of(handle)}
        assert told_by == {SeenBy.DOCUMENTS}
        ends(heard.events)
        await removed(poller, backend, [suspended, on_hold])


@pytest.mark.condor
async def test_patience_ends_after_the_grace_and_who_is_released_in_time_lives(ce: CE) -> None:
    """The policy that ships, with seconds for its hours."""
    shipped = Policy.load("patient-kill").model_dump()
    shipped["hold"] |= {"other_after": 5, "grace": 40}
    policy = Policy.from_dict(shipped)
    async with ce.backend(polling=FAST) as backend, polled(backend, policy) as (poller, heard):
        (suspended, released), on_hold = await held_and_other(ce, backend, poller, heard, 2)
        await heard.until(lambda: heard.are([suspended, released, *on_hold], "held"), publishing=ce)
        await trio.to_thread.run_sync(ce.batch.resume, local(released))
        await running(heard, [released], ce)
        await heard.until(lambda: heard.are([suspended, *on_hold], "killed"))

        held = heard.entered(suspended, "held")
        assert held is not None
        assert (held.source, held.arc_state, held.seen_by) == ("running", "HELD", "documents")
        for handle in on_hold:
            other, held = heard.entered(handle, "other"), heard.entered(handle, "held")
            assert held is not None
            assert (held.arc_state, held.seen_by) == ("OTHER", "policy")
            assert seconds(other, held) > 4.9
        for handle in (suspended, *on_hold):
            kill = heard.entered(handle, "killing")
            assert kill is not None
            assert (kill.seen_by, kill.outcome) == (SeenBy.POLICY, OpOutcome(ok=True))
            held = heard.entered(handle, "held")
            print(f"{held and held.arc_state}: held for {seconds(held, kill):.3f} s")
            assert seconds(held, kill) > 39.9
        # Its grace would have been over by now, too.
        assert heard.state(released) == "running"
        assert (await backend.status([released]))[released.id] is JobStatus.RUNNING
        ends(heard.events, policy)
        await removed(poller, backend, [suspended, released, *on_hold])


@pytest.mark.condor
async def test_a_job_held_before_its_start_and_released_in_time_lives(ce: CE) -> None:
    policy = Policy.from_dict(
        {"name": "other is held", "hold": {"action": "kill", "other_after": 2, "grace": 30}}
    )
    async with ce.backend(polling=FAST) as backend, polled(backend, policy) as (poller, heard):
        with ce.batch.closed():
            handles = (await backend.submit(sleeping(1))).handles
            poller.track(handles)
            await eventually(lambda: local(handles[0]) in ce.batch.jobs())
            await trio.to_thread.run_sync(ce.batch.hold, local(handles[0]))
            await heard.until(lambda: heard.are(handles, "held"), publishing=ce)
            await trio.to_thread.run_sync(ce.batch.release, local(handles[0]))
            await heard.until(lambda: heard.are(handles, "queuing"), publishing=ce)
            await trio.sleep(31)
        await heard.until(lambda: heard.are(handles, *OVER))
        assert set(ends(heard.events, policy).values()) == {"finished"}
        await removed(poller, backend, handles)


async def test_the_consumer_is_asked_about_a_held_job(ce: CE) -> None:
    hold = {"action": "ask", "other_after": 2, "grace": 3}
    policy = Policy.from_dict({"name": "ask", "hold": hold})
    async with ce.backend(polling=FAST) as backend, polled(backend, policy) as (poller, heard):
        (handle,) = handles = (await backend.submit(SLEEP)).handles
        poller.track(handles)
        await running(heard, handles, ce)
        assert await poller.keep(handles) == {
            handle.id: OpOutcome(ok=False, reason="no decision about this job is awaited")
        }
        await trio.to_thread.run_sync(ce.batch.suspend, local(handle))
        await heard.until(lambda: heard.are(handles, "awaiting"), publishing=ce)
        asked = heard.of(handle)[-1]
        assert (asked.seen_by, asked.status_after) == (SeenBy.POLICY, JobStatus.HELD)
        assert await poller.keep(handles) == {handle.id: OpOutcome(ok=True)}
        await heard.until(lambda: heard.are(handles, "held"))
        kept = heard.of(handle)[-1]
        assert (kept.seen_by, kept.outcome) == (SeenBy.KEEP, OpOutcome(ok=True))
        await heard.until(lambda: heard.are(handles, "awaiting"))  # its grace began anew
        assert seconds(kept, heard.of(handle)[-1]) > 2.9
        assert await poller.kill(handles) == {handle.id: OpOutcome(ok=True)}
        await heard.until(lambda: heard.are(handles, "killed"))
        ends(heard.events, policy)
        await removed(poller, backend, handles)


async def test_a_kill_is_a_kill_whoever_asks_for_it(ce: CE) -> None:
    """Never failed, though the live listing says so; and no purge of what is not over."""
    policy = Policy.from_dict({"name": "insistent", "kill": {"repeat_after": 20}})
    async with (
        ce.backend(polling=FAST) as backend,
        ce.backend() as another_client,
        polled(backend, policy) as (poller, heard),
    ):
        handles = (await backend.submit(SLEEP, count=2)).handles
        ours, theirs = handles
        poller.track(handles)
        await running(heard, handles, ce)

        (refused,) = (await poller.purge([ours])).values()
        assert refused.ok is False
        assert refused.reason == "the job is not over (RUNNING): kill it first, or wait"
        await heard.until(lambda: heard.of(ours)[-1].outcome == refused)
        assert heard.state(ours) == "running"

        assert await poller.kill([ours]) == {ours.id: OpOutcome(ok=True)}
        (again,) = (await poller.kill([ours])).values()
        while not (await another_client.status([theirs]))[theirs.id].is_final:
            await another_client.kill([theirs])  # the CE can lose a kill
            await trio.sleep(3)
        await heard.until(lambda: heard.are(handles, "killed"))

        kill = next(event for event in heard.of(ours) if event.dest == "killing")
        assert (kill.source, kill.seen_by) == ("running", SeenBy.KILL)
        assert kill.outcome == OpOutcome(ok=True)
        assert again in (
            OpOutcome(ok=True, reason="the job was being killed already"),
            OpOutcome(ok=False, reason="the job is already over"),
        )
        assert heard.of(ours)[-1].status_after is JobStatus.ABORTED
        assert {event.seen_by for event in heard.of(theirs)} <= {SeenBy.DOCUMENTS, SeenBy.LISTING}
        assert heard.of(theirs)[-1].status_after is JobStatus.ABORTED
        assert [outcome.ok for outcome in (await poller.purge(handles)).values()] == [True, True]
        await heard.until(lambda: heard.are(handles, "purged"))
        ends(heard.events, policy)


@pytest.mark.real
async def test_daemons_that_die_under_a_poller_lose_no_job(ce: RealCE) -> None:
    """First the one that answers, then the one that manages the jobs."""
    outages: list[PollerEvent] = []
    async with (
        ce.backend(polling=FAST, retries={"attempts": 2, "backoff": 0.1}) as backend,
        polled(backend) as (poller, heard),
    ):
        # A-REX itself can lose a job that it is just moving (docs/explanation/arc-rest.md), so none
        # leaves the batch system meanwhile.
        with ce.partition_down():
            handles = (await backend.submit(sleeping(1), count=12)).handles
            poller.track(handles)
            await heard.until(lambda: heard.are(handles, "queuing"), publishing=ce)
            await trio.to_thread.run_sync(ce.kill_daemon, "arex-ws")
            await heard.until(lambda: isinstance(heard.events[-1], CEUnreachable))
            before = len(heard.events)
            await trio.sleep(5)
            assert len(heard.events) == before  # told once
            await trio.to_thread.run_sync(ce.restart_daemon, "arex-ws")
            await heard.until(lambda: any(isinstance(event, CEBack) for event in heard.events))
            await trio.to_thread.run_sync(ce.kill_daemon, "arex")
            await trio.sleep(5)
            await trio.to_thread.run_sync(ce.restart_daemon, "arex")
        await heard.until(lambda: heard.are(handles, *OVER))
        assert set(ends(heard.events).values()) == {"finished"}
        outages = [event for event in heard.events if not isinstance(event, JobEvent)]
        assert [event.kind for event in outages] == ["ce-unreachable", "ce-back"]
        away, back = outages
        assert isinstance(back, CEBack)
        assert back.away_since == away.seen_at
        await removed(poller, backend, handles)


# Handles events as a consumer does that must not lose one: a snapshot is stored at the moment at
# which the events up to it have been dealt with.
CONSUMER = """
import json, os, sys, trio
from arcbackend import *
config, files, handles, events_file, snapshot_file = json.load(sys.stdin)
async def main():
    config_ = ARCConfig.from_dict(config)
    credentials = FileCredentials(**files)
    async with ARCBackend(config_, credentials) as backend, backend.poller() as poller:
        events, snapshot = poller.events(), None
        poller.track([JobHandle.model_validate(handle) for handle in handles])
        with open(events_file, "w") as file:
            async for event in events:
                print(event.model_dump_json(), file=file, flush=True)
                if snapshot is None:
                    snapshot = poller.snapshot()
                if event.sequence >= snapshot.sequence:
                    assert event.sequence == snapshot.sequence
                    with open(snapshot_file + ".new", "w") as new:
                        new.write(snapshot.model_dump_json())
                    os.replace(snapshot_file + ".new", snapshot_file)
                    snapshot = None
trio.run(main)
"""


async def test_a_consumer_that_is_killed_goes_on_from_its_snapshot(ce: CE, tmp_path: Path) -> None:
    """Nothing that happens before, meanwhile and after is lost or told twice."""
    events_file, snapshot_file = tmp_path / "events", tmp_path / "snapshot"
    credentials = ce.credentials()
    policy = Policy.from_dict({"name": "quick to lose", "lost": {"looks": 2, "after": 3}})

    def stored() -> PollerSnapshot | None:
        if not snapshot_file.exists():
            return None
        return PollerSnapshot.model_validate_json(snapshot_file.read_bytes())

    def known(state: str) -> int:
        snapshot = stored()
        return sum(job.state == state for job in snapshot.jobs) if snapshot else 0

    async with ce.backend(credentials, polling=FAST) as backend:
        early = (await backend.submit(TRUE, count=3)).handles
        short = (await backend.submit(sleeping(25), count=2)).handles
        lasting = (await backend.submit(SLEEP, count=3)).handles
        handles = [*early, *short, *lasting]
        given = [
            ce.config(polling=FAST).model_dump(mode="json", exclude_defaults=True),
            in_files(credentials, tmp_path),
            [handle.model_dump(mode="json") for handle in handles],
            str(events_file),
            str(snapshot_file),
        ]
        with subprocess.Popen(  # noqa: ASYNC220  (returns at once)
            [sys.executable, "-c", CONSUMER], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as consumer:
            assert consumer.stdin is not None
            consumer.stdin.write(json.dumps(given).encode())
            consumer.stdin.close()
            try:
                with trio.fail_after(90):
                    while known("running") < len(lasting) or known("finished") < 2:
                        await trio.to_thread.run_sync(ce.publish)
                        await trio.sleep(0.5)
            finally:
                consumer.kill()
        snapshot = stored()
        assert snapshot is not None

        # Meanwhile: two end, one is killed, and one is removed as if it had never been.
        killed_one, purged_one, runs_on = lasting
        await killed(backend, [killed_one, purged_one])
        assert (await backend.purge([purged_one]))[purged_one.id].ok
        await gone(backend, [purged_one])
        assert set((await over(backend, short)).values()) == {JobStatus.DONE}

        async with polled(backend, policy) as (poller, heard):
            poller.restore(snapshot)
            await heard.until(lambda: heard.are([*short, killed_one, purged_one], *OVER, "lost"))
            assert await poller.kill([runs_on]) == {runs_on.id: OpOutcome(ok=True)}
            await heard.until(lambda: heard.are([runs_on], "killed"))
        # What the first one heard behind its last snapshot was not stored with one: told again.
        lines = events_file.read_bytes().splitlines()
        first = [EVENT_ADAPTER.validate_json(line) for line in lines if line.endswith(b"}")]
        dealt_with = [event for event in first if event.sequence <= snapshot.sequence]
        print(f"{len(first)} events told to the first, {len(dealt_with)} up to its snapshot")
        assert [event.sequence for event in dealt_with] == list(range(1, snapshot.sequence + 1))
        states = ends([*dealt_with, *heard.events], policy)
        expected = dict.fromkeys((handle.id for handle in handles), "finished")
        expected |= {killed_one.id: "killed", purged_one.id: "lost", runs_on.id: "killed"}
        assert states == expected
        lost = heard.of(purged_one)[-1].outcome
        assert lost is not None
        assert "the CE knows no such job" in (lost.reason or "")
        await backend.purge([handle for handle in handles if handle != purged_one])


async def test_two_ces_in_one_stream(ce: CE, tmp_path: Path) -> None:
    """The second is the same at another address, whose line is cut.

    (Another instance that runs here is another test's.)
    """
    heard = Heard()
    async with (
        ce.backend(polling=FAST) as here,
        behind_proxy(ce, ce.credentials(), tmp_path, polling=FAST, retries={"attempts": 1}) as (
            there,
            proxy,
        ),
        here.poller() as one,
        there.poller() as two,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(heard.listen, merge([one, two]))
        jobs_here = (await here.submit(sleeping(1), count=5)).handles
        jobs_there = (await there.submit(sleeping(1), count=5)).handles
        one.track(jobs_here)
        two.track(jobs_there)
        await heard.until(lambda: all(heard.of(job) for job in jobs_there))
        proxy.cut()
        await proxy.refuse()
        await heard.until(lambda: heard.are(jobs_here, "finished"))
        await heard.until(lambda: any(event.kind == "ce-unreachable" for event in heard.events))
        await proxy.accept()
        await heard.until(lambda: heard.are(jobs_there, "finished"))
        await heard.until(lambda: any(event.kind == "ce-back" for event in heard.events))
        for backend, jobs in ((here, jobs_here), (there, jobs_there)):
            endpoint = backend.config.endpoint
            events = [event for event in heard.events if event.ce == endpoint]
            assert ends(events) == dict.fromkeys((job.id for job in jobs), "finished")
            outages = [event.kind for event in events if not isinstance(event, JobEvent)]
            assert outages == (["ce-unreachable", "ce-back"] if backend is there else [])
            await backend.purge(jobs)
        nursery.cancel_scope.cancel()


@pytest.mark.once
async def test_the_example_goes_on_after_an_interrupt(ce: CE, tmp_path: Path) -> None:
    """examples/poller.py, as a user runs it: Ctrl-C, and the same command again."""
    token_file, state = tmp_path / "token", tmp_path / "state.json"
    token_file.write_text(ce.token())
    options = {
        "--endpoint": ce.endpoint,
        "--ca-file": ce.ca_file,
        "--token-file": token_file,
        "--queue": ce.queue,
        "--policy": EXAMPLES / "policies" / "my-site.toml",
        "--state": state,
        "--seconds": 5,
    }
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, str(EXAMPLES / "poller.py"), *words]

    def heard_of_all() -> bool:
        return state.exists() and json.loads(state.read_bytes())["snapshot"]["sequence"] >= 5

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:  # noqa: ASYNC220
        try:
            await eventually(heard_of_all, within=60, every=0.1)
            first.send_signal(signal.SIGINT)
            said, _ = await trio.to_thread.run_sync(first.communicate)
        finally:
            first.kill()
    print(said)
    assert first.returncode == 130
    assert said.splitlines()[0] == "submitted 5 jobs"
    assert said.splitlines()[-1] == f"interrupted: start again to go on from {state}"
    second = await trio.run_process(command, capture_stdout=True, check=False)
    print(second.stdout.decode())
    assert second.returncode == 0
    lines = second.stdout.decode().splitlines()
    assert (lines[0], lines[-1]) == ("going on with 5 jobs", "5 done")
    assert not state.exists()


async def test_outputs_are_fetched_when_the_policy_says_so(ce: CE, tmp_path: Path) -> None:
    """Refused before the end, whole after it, and as far as there is any under another policy."""
    spec = SubmissionSpec(
        executable="/bin/sh", arguments=("-c", "echo begun; sleep 20; echo done"), stdout="o.txt"
    )
    async with ce.backend(polling=FAST) as backend, polled(backend) as (poller, heard):
        handles = (await backend.submit(spec, count=2)).handles
        one, other = handles
        poller.track(handles)
        await running(heard, handles, ce)
        progress: list[FetchProgress] = []
        tell = progress.append
        refused = (await poller.fetch_output([one], tmp_path, progress=tell))[one.id]
        assert refused.reason == "the job is not over (RUNNING): its outputs are not complete"
        assert (refused.directory, os.listdir(tmp_path)) == (None, [])
        assert progress == []

        poller.set_policy(Policy.from_dict({"output": {"needs": "batch"}}))
        fetched = 0
        said = ""
        with trio.fail_after(60):  # it runs, says the batch system, before its command does
            while not said:
                early = (await poller.fetch_output([one], tmp_path))[one.id]
                fetched += 1
                said = early.stdout.read_text() if early.stdout else ""
        assert (said, early.complete) == ("begun\n", False)

        await heard.until(lambda: heard.are(handles, "finished"))
        outputs = await poller.fetch_output([other, one], tmp_path, progress=tell)
        assert list(outputs) == [other.id, one.id]
        for output in outputs.values():
            assert output.stdout is not None
            assert (output.stdout.read_text(), output.complete) == ("begun\ndone\n", True)
        assert {now.job: now.output for now in progress if now.what == "done"} == outputs
        await heard.until(lambda: heard.of(one)[-1].outcome == OpOutcome(ok=True))
        told = [event for event in heard.of(one) if event.seen_by is SeenBy.FETCH]
        assert [event.outcome.ok for event in told if event.outcome] == [
            False,
            *[True] * fetched,
            True,
        ]
        assert {outcome.ok for outcome in (await poller.purge(handles)).values()} == {True}
        await gone(backend, [one])
        (gone_,) = (await poller.fetch_output([one], tmp_path / "later")).values()
        assert gone_.directory is None
        assert gone_.reason


async def test_a_purge_that_kills_first(ce: CE) -> None:
    policy = Policy.from_dict({"name": "thorough", "purge": {"active": "kill"}})
    async with ce.backend(polling=FAST) as backend, polled(backend, policy) as (poller, heard):
        handles = (await backend.submit(SLEEP, count=2)).handles
        poller.track(handles)
        await running(heard, handles, ce)
        assert {outcome.ok for outcome in (await poller.purge(handles)).values()} == {True}
        await heard.until(lambda: heard.are(handles, "purged"))
        for handle in handles:
            assert [event.dest for event in heard.of(handle)][-3:] == [
                "killing",
                "killed",
                "purged",
            ]
        ends(heard.events, policy)
        await gone(backend, handles)

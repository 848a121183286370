"""Submissions that go wrong midway leave nothing unexplained on the CE.

Each test is an identity of its own, so that "nothing on the CE" can be asked of the CE: its list of
that identity's jobs is empty.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import trio

from arcbackend import (
    ARCBackend,
    CopyVars,
    CredentialSet,
    FileRef,
    InterCEdeError,
    JobStatus,
    SubmissionSpec,
    TransportError,
)
from arcbackend.protocol.requests import RequestBuilder
from arcbackend.protocol.responses import parse_listing
from tests.integration.ce import CE, RealCE, eventually
from tests.integration.jobs import (
    SLEEP,
    TRUE,
    counted_requests,
    first_delegation,
    local,
    over,
    published,
)
from tests.integration.proxied import behind_proxy

pytestmark = pytest.mark.slurm

# The CE tries for long to fetch its input, so that no batch job has to be made and killed.
NEVER_STARTED = SubmissionSpec(
    executable="/bin/true", inputs=(FileRef(name="x", source="http://127.0.0.1:1/x"),)
)
NEW = "POST /arex/rest/1.1/jobs?action=new"
PUT = "PUT /arex/rest/1.1/jobs/"


@pytest.fixture
def credentials(ce: CE) -> CredentialSet:
    """Of an identity that has no jobs yet."""
    return ce.credentials(f"user-{uuid.uuid4().hex}")


async def listed(backend: ARCBackend) -> set[str]:
    """What the CE's list of the identity's jobs holds now, by the CE's own short ids."""
    response = await backend._session.call(RequestBuilder("1.1").list_jobs())
    return set(parse_listing(response, backend.config.endpoint))


async def on_the_ce(ce: CE, credentials: CredentialSet) -> set[str]:
    """The jobs that the CE has of the identity, by its own short ids.

    Looked at until a look finds nothing new: a job whose files A-REX is just moving is missing from
    its list for a moment (docs/explanation/arc-rest.md).
    """
    async with ce.backend(credentials) as backend:
        seen = await listed(backend)
        while True:
            await trio.sleep(0.5)
            now = await listed(backend)
            if now <= seen:
                return seen
            seen |= now


async def nothing_on_the_ce(ce: CE, credentials: CredentialSet, within: float = 180) -> None:
    """Wait until the CE has no job of the identity."""
    with trio.fail_after(within):
        while await on_the_ce(ce, credentials):
            await trio.sleep(1)


async def clean_up(ce: CE, credentials: CredentialSet) -> None:
    async with ce.backend(credentials) as backend:
        ids = sorted(await on_the_ce(ce, credentials))
        with trio.fail_after(180):
            while True:  # one mark can be lost: docs/explanation/arc-rest.md
                await backend.kill(ids)  # type: ignore[arg-type]
                states = await backend.status(ids)  # type: ignore[arg-type]
                if all(status.is_final for status in states.values()):
                    break
                await trio.sleep(3)
        await backend.purge(ids)  # type: ignore[arg-type]


async def test_jobs_whose_reply_was_lost_are_adopted(
    ce: CE, credentials: CredentialSet, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.write_text("x")
    spec = SubmissionSpec(executable="/bin/cat", inputs=(FileRef(name="data", source=data),))
    settings = {"timeouts": {"read": 4}}
    async with behind_proxy(ce, credentials, tmp_path, **settings) as (backend, proxy):
        proxy.lose_answer(NEW)
        submission = await backend.submit(spec, count=20)
        assert submission.failures == {}
        assert [handle.copy_index for handle in submission.handles] == list(range(20))
        assert {local(handle) for handle in submission.handles} == await on_the_ce(ce, credentials)
        assert sum(line.startswith(NEW) for line in proxy.requests) == 1  # never submitted twice
        assert set((await over(backend, submission.handles)).values()) == {JobStatus.DONE}
        await backend.purge(submission.handles)


async def test_copies_whose_reply_was_lost_keep_their_index(
    ce: CE, credentials: CredentialSet, tmp_path: Path
) -> None:
    spec = SubmissionSpec(executable="/usr/bin/env")
    copies = [CopyVars(environment={"INDEX": str(n)}) for n in range(10)]
    settings = {"timeouts": {"read": 4}}
    async with behind_proxy(ce, credentials, tmp_path, **settings) as (backend, proxy):
        proxy.lose_answer(NEW)
        submission = await backend.submit(spec, copies=copies)
        assert submission.failures == {}
        await over(backend, submission.handles)
        for handle in submission.handles:
            said = ce.run("cat", f"{ce.session_directory}/{local(handle)}/stdout").splitlines()
            assert f"INDEX={handle.copy_index}" in said
        await backend.purge(submission.handles)


async def test_a_request_that_never_arrived_created_nothing(
    ce: CE, credentials: CredentialSet, tmp_path: Path
) -> None:
    # Nothing found is believed only when the time for it is over.
    settings = {"timeouts": {"cleanup": 6}}
    async with behind_proxy(ce, credentials, tmp_path, **settings) as (backend, proxy):
        proxy.lose_request(NEW)
        submission = await backend.submit(TRUE, count=3)
        assert submission.handles == ()
        assert set(submission.failures) == {0, 1, 2}
        assert await on_the_ce(ce, credentials) == set()


async def test_one_copy_whose_upload_fails_is_removed_and_the_others_go_on(
    ce: CE, credentials: CredentialSet, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.write_text("x")
    spec = SubmissionSpec(executable="/bin/cat", inputs=(FileRef(name="data", source=data),))
    settings = {"concurrency": 1, "retries": {"attempts": 2, "backoff": 0.1}}
    async with behind_proxy(ce, credentials, tmp_path, **settings) as (backend, proxy):
        proxy.lose_request(PUT, times=2)
        submission = await backend.submit(spec, count=4)
        (failed,) = submission.failures
        assert "upload of data failed" in submission.failures[failed]
        assert {handle.copy_index for handle in submission.handles} | {failed} == {0, 1, 2, 3}
        assert set((await over(backend, submission.handles)).values()) == {JobStatus.DONE}
        await backend.purge(submission.handles)
        await nothing_on_the_ce(ce, credentials)


@pytest.mark.parametrize("when", [NEW, PUT], ids=["creating", "uploading"])
async def test_a_cancelled_submission_leaves_nothing(
    ce: CE, credentials: CredentialSet, tmp_path: Path, when: str
) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(8 * 2**20))
    spec = SubmissionSpec(executable="/bin/cat", inputs=(FileRef(name="big", source=big),))
    async with behind_proxy(ce, credentials, tmp_path) as (backend, proxy):
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.submit, spec, 50)
                while not any(line.startswith(when) for line in proxy.requests):
                    await trio.sleep(0.005)
                nursery.cancel_scope.cancel()
        assert any("action=clean" in line for line in proxy.requests)
    await nothing_on_the_ce(ce, credentials)


@pytest.mark.real
async def test_a_server_stopped_in_the_middle_leaves_no_unexplained_job(
    ce: RealCE, credentials: CredentialSet
) -> None:
    """Killed while it creates jobs, and back after some seconds."""
    async with ce.backend(credentials, batches={"instances": 2}) as backend:
        submission = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_outage, ce, credentials)
                submission = await backend.submit(NEVER_STARTED, count=400)
        except* InterCEdeError as group:
            (error,) = group.exceptions
            assert isinstance(error, InterCEdeError)
            assert error.jobs == ()
            assert error.submission is None
        if submission is None:
            await nothing_on_the_ce(ce, credentials, within=400)
        else:
            assert {local(job) for job in submission.handles} == await on_the_ce(ce, credentials)
            await clean_up(ce, credentials)


async def _outage(ce: RealCE, credentials: CredentialSet) -> None:
    async with ce.backend(credentials) as backend:
        while not await listed(backend):
            await trio.sleep(0.05)
    await trio.to_thread.run_sync(ce.kill_daemon, "arex-ws")
    await trio.sleep(5)
    await trio.to_thread.run_sync(ce.restart_daemon, "arex-ws")


async def test_a_server_that_stays_away_is_told_and_its_jobs_are_found_later(
    ce: CE, credentials: CredentialSet, tmp_path: Path
) -> None:
    settings = {"timeouts": {"read": 3, "cleanup": 4}}
    async with behind_proxy(ce, credentials, tmp_path, **settings) as (backend, proxy):
        proxy.lose_answer(NEW)
        async with trio.open_nursery() as nursery:

            async def submit() -> None:
                with pytest.raises(TransportError) as caught:
                    await backend.submit(SLEEP, count=5)
                names.append(caught.value.submission or "")

            names: list[str] = []
            nursery.start_soon(submit)
            while not any(line.startswith(NEW) for line in proxy.requests):
                await trio.sleep(0.01)
            await trio.sleep(1)  # the CE creates the jobs
            proxy.stall()
        proxy.heal()
        proxy.cut()
        (name,) = names
        assert name.startswith("arcbackend-")
        found = await backend.find(name)
        assert [handle.copy_index for handle in found] == list(range(5))
        assert {local(handle) for handle in found} == await on_the_ce(ce, credentials)
        await backend.kill(found)
        await over(backend, found)
        await backend.purge(found)


async def test_a_ce_at_its_limit_is_a_reason_per_copy_and_is_asked_no_more(
    ce: CE, credentials: CredentialSet
) -> None:
    """With instances= its limit shows as fewer jobs than asked, and no other word."""
    async with ce.backend(credentials, batches={"instances": 5}) as backend:
        with ce.limited_to(jobs=1), counted_requests() as requests:
            submission = await backend.submit(SLEEP, count=20)
        await backend.kill(submission.handles)
    assert requests == {"versions": 1, "jobs.new": 1, **first_delegation(ce)}
    assert [handle.copy_index for handle in submission.handles] == [0]
    assert set(submission.failures) == set(range(1, 20))
    assert set(submission.failures.values()) == {
        "the CE made only 1 of 5 copies: it is at its limit"
    }


async def test_rest_1_0_without_instances(ce: CE) -> None:
    async with ce.backend(rest_version="1.0") as backend:
        submission = await backend.submit(TRUE, count=5)
        assert [handle.copy_index for handle in submission.handles] == list(range(5))
        assert set((await over(backend, submission.handles)).values()) == {JobStatus.DONE}
        await backend.purge(submission.handles)


@pytest.mark.real
@pytest.mark.parametrize("daemon", ["arex", "slurmctld"])
async def test_daemons_that_die_and_come_back_lose_no_job(ce: RealCE, daemon: str) -> None:
    async with ce.backend() as backend:
        with ce.partition_down():
            submission = await backend.submit(TRUE, count=5)
            # A-REX itself can lose one that it is just moving (docs/explanation/arc-rest.md).
            for handle in submission.handles:
                await published(backend, handle, "QUEUING", ce)
            ids = {local(handle) for handle in submission.handles}
            await eventually(lambda: ids <= ce.batch.saved(), every=0.5)
            await trio.to_thread.run_sync(ce.kill_daemon, daemon)
            await trio.to_thread.run_sync(ce.restart_daemon, daemon)
        assert set((await over(backend, submission.handles)).values()) == {JobStatus.DONE}
        await backend.purge(submission.handles)

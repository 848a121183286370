"""The verb submit against a CE in memory, on a clock that does not wait."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock

from arcbackend import (
    AuthenticationError,
    CopyVars,
    FileRef,
    InterCEdeError,
    Submission,
    SubmissionRefused,
    SubmissionSpec,
    TransportError,
)
from arcbackend.delegations import Delegations
from arcbackend.jobids import job_id
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.protocol.requests import RequestBuilder
from arcbackend.submit import submit_jobs
from tests.pure.fake_session import (
    FakeSession,
    answering,
    away,
    config,
    created,
    for_each,
    ids_of,
    local_of,
    not_created,
    once,
    raising,
)
from tests.pure.replies import CE, FULL, NO_SCOPE, UNKNOWN_USER, reply

TRUE = SubmissionSpec(executable="/bin/true")
CLEANUP = 60.0
LOST = re.compile("reply was lost")


@pytest.fixture
def ce() -> FakeSession:
    return FakeSession()


@pytest.fixture
def staged(tmp_path: Path) -> SubmissionSpec:
    """A spec with one input to upload."""
    (tmp_path / "in").write_bytes(b"input")
    return SubmissionSpec(
        executable="/bin/cat", inputs=(FileRef(name="in", source=tmp_path / "in"),)
    )


def _secrets(count: int) -> list[CopyVars]:
    return [CopyVars(secrets={"s": f"secret{copy}".encode()}) for copy in range(count)]


async def _submit(
    ce: FakeSession,
    count: int = 1,
    *,
    spec: SubmissionSpec = TRUE,
    copies: Sequence[CopyVars] | None = None,
    **fields: Any,
) -> Submission:
    settings = config(**fields)
    return await submit_jobs(
        ce, settings, Delegations(ce, settings), spec, count=count, copies=copies
    )


def _local(job: str) -> str:
    return job.rsplit("/", 1)[1]


def _locals(submission: Submission) -> set[str]:
    return {_local(handle.id) for handle in submission.handles}


def _assert_right_jobs(ce: FakeSession, submission: Submission) -> None:
    """Each handle is of another job that is on the CE and bears the handle's name."""
    assert len(_locals(submission)) == len(submission.handles)
    for handle in submission.handles:
        assert ce.jobs[_local(handle.id)] == handle.name


def _assert_whole(submission: Submission, count: int) -> None:
    """Every copy is in exactly one of the two, and the handles are in order."""
    copies = [handle.copy_index for handle in submission.handles]
    assert copies == sorted(copies)
    assert sorted([*copies, *submission.failures]) == list(range(count))


def _assert_secrets_at_home(ce: FakeSession, submission: Submission) -> None:
    for handle in submission.handles:
        assert ce.uploads[_local(handle.id), "s"] == f"secret{handle.copy_index}".encode()
    for (local, _), data in ce.uploads.items():
        assert ce.ever[local].rsplit(".", 1)[1] == data.decode().removeprefix("secret")


def _assert_all_removed(ce: FakeSession) -> None:
    assert ce.ever
    assert ce.killed == ce.cleaned == set(ce.ever)
    assert ce.jobs == {}


def _reply_lost(ce: FakeSession, make: Callable[[Request], object] | None = None) -> None:
    """The CE makes the jobs (or what ``make`` makes), and its answer never comes."""

    async def new(request: Request) -> None:
        (make or ce.create)(request)
        raise away()

    ce.hooks[Operation.JOBS_NEW] = once(new)


def _making(ce: FakeSession, *missing: int) -> Callable[[Request], list[str]]:
    """What makes all jobs of a request but some, by their place in it."""

    def make(request: Request) -> list[str]:
        made = ce.create(request)
        for place in missing:
            ce.drop(made[place])
        return [local for local in made if local in ce.jobs]

    return make


# When nothing goes wrong.


async def test_alike_copies_are_one_request(autojump_clock: MockClock, ce: FakeSession) -> None:
    submission = await _submit(ce, 5)
    _assert_whole(submission, 5)
    _assert_right_jobs(ce, submission)
    assert submission.failures == {}
    assert ce.counted() == {Operation.JOBS_NEW: 1}


async def test_uploads_go_to_their_copies(
    autojump_clock: MockClock, ce: FakeSession, staged: SubmissionSpec
) -> None:
    submission = await _submit(ce, spec=staged, copies=_secrets(7), batches={"descriptions": 3})
    assert len(submission.handles) == 7
    _assert_right_jobs(ce, submission)
    assert {local for local, name in ce.uploads if name == "in"} == set(ce.jobs)
    for handle in submission.handles:
        assert ce.uploads[_local(handle.id), "in"] == b"input"
        assert ce.uploads[_local(handle.id), "s"] == f"secret{handle.copy_index}".encode()


async def test_two_submissions_bear_different_names(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    first, second = await _submit(ce, 2), await _submit(ce, 2)
    assert len({handle.name for handle in first.handles}) == 1
    assert first.handles[0].name != second.handles[0].name


async def test_jobs_of_another_submission_are_not_adopted(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    other = await _submit(ce, 3)
    _reply_lost(ce)
    submission = await _submit(ce, 3)
    assert len(submission.handles) == 3
    assert _locals(submission).isdisjoint(_locals(other))
    assert ce.killed == set()


# The reply is lost.


async def test_instances_whose_reply_was_lost_are_adopted(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    _reply_lost(ce)
    submission = await _submit(ce, 5)
    assert [handle.copy_index for handle in submission.handles] == list(range(5))
    _assert_right_jobs(ce, submission)
    assert ce.count(Operation.JOBS_NEW) == 1
    assert ce.killed == set()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_copies_whose_reply_was_lost_keep_their_index(
    autojump_clock: MockClock,
    version: Literal["1.0", "1.1"],
) -> None:
    ce = FakeSession(version)
    _reply_lost(ce)
    submission = await _submit(ce, copies=_secrets(12))
    assert [handle.copy_index for handle in submission.handles] == list(range(12))
    assert all(handle.name.endswith(f".{handle.copy_index}") for handle in submission.handles)
    _assert_right_jobs(ce, submission)
    _assert_secrets_at_home(ce, submission)


async def test_the_second_chunk_is_adopted_too(autojump_clock: MockClock, ce: FakeSession) -> None:
    _reply_lost(ce)
    ce.hooks[Operation.JOBS_NEW] = once(_new_lost(ce), after=1)
    submission = await _submit(ce, copies=_secrets(6), batches={"descriptions": 2})
    assert len(submission.handles) == 6
    _assert_right_jobs(ce, submission)
    _assert_secrets_at_home(ce, submission)


def _new_lost(ce: FakeSession) -> Callable[[Request], Any]:
    async def new(request: Request) -> None:
        ce.create(request)
        raise away()

    return new


async def test_an_unreadable_reply_is_a_lost_one(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    async def new(request: Request) -> Response:
        ce.create(request)
        return Response(201, "Created", body=b"<html>")

    ce.hooks[Operation.JOBS_NEW] = new
    assert len((await _submit(ce, 4)).handles) == 4


async def test_a_number_that_stands_still_is_final(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    _reply_lost(ce, _making(ce, 0, 3))
    began = trio.current_time()
    submission = await _submit(ce, copies=_secrets(5))
    assert [handle.copy_index for handle in submission.handles] == [1, 2, 4]
    assert set(submission.failures) == {0, 3}
    assert all(LOST.search(reason) for reason in submission.failures.values())
    _assert_secrets_at_home(ce, submission)
    assert 6 <= trio.current_time() - began < 15


async def test_jobs_still_being_made_are_waited_for(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    pending: list[Request] = []

    def note(request: Request) -> None:
        pending.append(request)

    async def look(_request: Request) -> None:
        if pending and trio.current_time() - began > 30:
            ce.create(pending.pop())

    _reply_lost(ce, note)
    ce.hooks[Operation.JOBS_LIST] = look
    began = trio.current_time()
    submission = await _submit(ce, 3)
    assert len(submission.handles) == 3


async def test_what_one_look_misses_another_has_seen(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    """A job whose files the CE is just moving is missing from its list; each time another one."""
    looks = 0

    async def look(_request: Request) -> Response:
        nonlocal looks
        looks += 1
        listed = sorted(ce.jobs)
        del listed[looks % len(listed)]
        return reply({"job": [{"id": local} for local in listed]}, 200)

    _reply_lost(ce)
    ce.hooks[Operation.JOBS_LIST] = look
    submission = await _submit(ce, 4)
    _assert_whole(submission, 4)
    assert submission.failures == {}
    assert looks == 2


async def test_none_found_is_believed_only_at_the_end(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    _reply_lost(ce, lambda _request: None)
    began = trio.current_time()
    submission = await _submit(ce, 3)
    assert submission.handles == ()
    assert set(submission.failures) == {0, 1, 2}
    assert all("find(" in reason for reason in submission.failures.values())
    # Two thirds of the time: the last is for removing.
    assert trio.current_time() - began == pytest.approx(CLEANUP * 2 / 3, abs=1)


async def test_a_request_that_certainly_did_not_arrive_is_not_searched_for(
    autojump_clock: MockClock,
    ce: FakeSession,
) -> None:
    ce.hooks[Operation.JOBS_NEW] = raising(
        lambda: TransportError("refused", ce=CE, maybe_done=False)
    )
    with pytest.raises(TransportError) as caught:
        await _submit(ce, 3)
    assert caught.value.submission is None
    assert ce.counted() == {Operation.JOBS_NEW: 1}


async def test_reply_lost_and_ce_away(autojump_clock: MockClock, ce: FakeSession) -> None:
    _reply_lost(ce)
    for operation in (Operation.JOBS_LIST, Operation.JOBS_KILL, Operation.JOBS_CLEAN):
        ce.hooks[operation] = raising(away, after=31)
    began = trio.current_time()
    with pytest.raises(TransportError) as caught:
        await _submit(ce, 3)
    assert trio.current_time() - began <= CLEANUP + 0.01
    assert caught.value.submission is not None
    assert set(ce.ever.values()) == {caught.value.submission}
    assert caught.value.jobs == ()


@pytest.mark.parametrize("cleanup", [3.0, 60.0, 300.0])
async def test_reply_lost_and_ce_away_after_a_first_chunk(
    autojump_clock: MockClock, ce: FakeSession, cleanup: float
) -> None:
    trouble: list[float] = []

    async def new(request: Request) -> None:
        await trio.sleep(100)
        ce.create(request)
        trouble.append(trio.current_time())
        raise away()

    ce.hooks[Operation.JOBS_NEW] = once(new, after=1)
    for operation in (Operation.JOBS_LIST, Operation.JOBS_KILL, Operation.JOBS_CLEAN):
        ce.hooks[operation] = raising(away, after=1)
    with pytest.raises(TransportError) as caught:
        await _submit(ce, 4, batches={"instances": 2}, timeouts={"cleanup": cleanup})
    assert trio.current_time() - trouble[0] <= cleanup + 0.01
    assert caught.value.submission in ce.ever.values()
    # The first chunk's jobs are known; of the second's only the name.
    assert caught.value.jobs == tuple(job_id(CE, local) for local in list(ce.ever)[:2])


async def test_jobs_found_before_the_ce_went_away_are_removed_when_it_is_back(
    autojump_clock: MockClock,
    ce: FakeSession,
) -> None:
    _reply_lost(ce, _making(ce, 3, 4))

    async def look(_request: Request) -> None:
        if trio.current_time() - began > 2:
            raise away()

    ce.hooks[Operation.JOBS_LIST] = look
    began = trio.current_time()
    with pytest.raises(TransportError) as caught:
        await _submit(ce, 5)
    assert len(ce.ever) == 3
    _assert_all_removed(ce)
    assert caught.value.jobs == ()
    assert caught.value.submission in ce.ever.values()  # there may be two more
    assert trio.current_time() - began <= CLEANUP + 0.01


async def test_a_search_is_not_given_up_for_one_odd_answer(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    _reply_lost(ce)
    ce.hooks[Operation.JOBS_LIST] = once(answering(Response(500, "Internal Server Error")))
    submission = await _submit(ce, 3)
    assert len(submission.handles) == 3
    assert submission.failures == {}
    _assert_right_jobs(ce, submission)


async def test_no_search_without_credentials(autojump_clock: MockClock, ce: FakeSession) -> None:
    _reply_lost(ce)
    ce.hooks[Operation.JOBS_LIST] = answering(UNKNOWN_USER)
    with pytest.raises(AuthenticationError) as caught:
        await _submit(ce, 3)
    assert caught.value.submission in ce.ever.values()


@pytest.mark.parametrize("extra", [1, 3])
async def test_more_jobs_than_copies(
    autojump_clock: MockClock, ce: FakeSession, extra: int
) -> None:
    def make(request: Request) -> None:
        for _ in range(extra):
            ce.add(ce.ever[ce.create(request)[0]])

    _reply_lost(ce, make)
    submission = await _submit(ce, 2)
    assert [handle.copy_index for handle in submission.handles] == [0, 1]
    _assert_right_jobs(ce, submission)
    assert ce.killed == ce.cleaned == set(ce.ever) - _locals(submission)
    assert set(ce.jobs) == _locals(submission)


async def test_copies_made_twice(autojump_clock: MockClock, ce: FakeSession) -> None:
    def make(request: Request) -> None:
        ce.create(request)
        ce.create(request)

    _reply_lost(ce, make)
    submission = await _submit(ce, copies=_secrets(3))
    assert [handle.copy_index for handle in submission.handles] == [0, 1, 2]
    _assert_right_jobs(ce, submission)
    assert set(ce.jobs) == _locals(submission)


# The CE makes fewer than asked.


@pytest.mark.parametrize("missing", [0, 1, 2])
async def test_a_short_answer_to_descriptions_crosses_no_copies(
    autojump_clock: MockClock, ce: FakeSession, missing: int
) -> None:
    async def new(request: Request) -> Response:
        return reply({"job": [created(local) for local in _making(ce, missing)(request)]})

    ce.hooks[Operation.JOBS_NEW] = new
    submission = await _submit(ce, copies=_secrets(3))
    assert set(submission.failures) == {missing}
    _assert_whole(submission, 3)
    _assert_right_jobs(ce, submission)
    _assert_secrets_at_home(ce, submission)


async def test_fewer_instances_end_the_submission(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    async def new(request: Request) -> Response:
        return reply({"job": [created(local) for local in _making(ce, 0, 1)(request)]})

    ce.hooks[Operation.JOBS_NEW] = once(new)
    submission = await _submit(ce, 12, batches={"instances": 5})
    assert [handle.copy_index for handle in submission.handles] == [0, 1, 2]
    _assert_whole(submission, 12)
    _assert_right_jobs(ce, submission)
    assert all("3 of 5" in reason for reason in submission.failures.values())
    assert ce.count(Operation.JOBS_NEW) == 1


async def test_per_job_failures(autojump_clock: MockClock, ce: FakeSession) -> None:
    async def new(request: Request) -> Response:
        items = [created(local) for local in ce.create(request)]
        ce.drop(items[1]["id"])
        items[1] = not_created("cannot parse this one")
        return reply({"job": items})

    ce.hooks[Operation.JOBS_NEW] = once(new)
    submission = await _submit(ce, copies=_secrets(5), batches={"descriptions": 3})
    assert submission.failures == {1: "cannot parse this one"}
    _assert_whole(submission, 5)
    _assert_secrets_at_home(ce, submission)
    assert ce.count(Operation.JOBS_NEW) == 2  # one bad description says nothing of the others


@pytest.mark.parametrize("after", [0, 1])
async def test_full_as_a_whole(autojump_clock: MockClock, ce: FakeSession, after: int) -> None:
    ce.hooks[Operation.JOBS_NEW] = once(answering(FULL), after=after)
    submission = await _submit(ce, 6, batches={"instances": 2})
    assert [handle.copy_index for handle in submission.handles] == list(range(2 * after))
    _assert_whole(submission, 6)
    assert all("No more jobs allowed" in reason for reason in submission.failures.values())
    assert ce.count(Operation.JOBS_NEW) == after + 1
    assert ce.killed == set()


async def test_full_from_one_job_on(autojump_clock: MockClock, ce: FakeSession) -> None:
    async def new(request: Request) -> Response:
        made = ce.create(request)
        for local in made[1:]:
            ce.drop(local)
        full = not_created("No more jobs allowed")
        return reply({"job": [created(made[0]), *[full for _ in made[1:]]]})

    ce.hooks[Operation.JOBS_NEW] = once(new)
    submission = await _submit(ce, copies=_secrets(6), batches={"descriptions": 3})
    assert [handle.copy_index for handle in submission.handles] == [0]
    _assert_whole(submission, 6)
    assert all("No more jobs allowed" in reason for reason in submission.failures.values())
    assert ce.count(Operation.JOBS_NEW) == 1


async def test_a_refusal_of_the_first_chunk_is_raised(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    ce.hooks[Operation.JOBS_NEW] = answering(Response(500, "no such queue"))
    with pytest.raises(SubmissionRefused, match="no such queue"):
        await _submit(ce, 6, batches={"instances": 2})
    assert ce.counted() == {Operation.JOBS_NEW: 1}


async def test_a_refusal_of_a_later_chunk_keeps_the_earlier(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    ce.hooks[Operation.JOBS_NEW] = once(answering(Response(500, "no such queue")), after=1)
    submission = await _submit(ce, copies=_secrets(6), batches={"descriptions": 2})
    assert [handle.copy_index for handle in submission.handles] == [0, 1]
    _assert_whole(submission, 6)
    assert all("no such queue" in reason for reason in submission.failures.values())
    _assert_secrets_at_home(ce, submission)
    assert ce.count(Operation.JOBS_NEW) == 2
    assert ce.killed == set()


# Uploads.


def _failing_for(ce: FakeSession, name_ends: str, failure: Response | InterCEdeError) -> None:
    async def put(request: Request) -> Response | None:
        if not ce.jobs[local_of(request)].endswith(name_ends):
            return None
        if isinstance(failure, Response):
            return failure
        raise failure

    ce.hooks[Operation.SESSION_PUT] = put


@pytest.mark.parametrize(
    "failure", [Response(500, "disk full"), Response(404, "Not Found"), away()], ids=repr
)
async def test_one_failed_upload(
    autojump_clock: MockClock, ce: FakeSession, failure: Response | InterCEdeError
) -> None:
    _failing_for(ce, ".2", failure)
    submission = await _submit(ce, copies=_secrets(5))
    assert [handle.copy_index for handle in submission.handles] == [0, 1, 3, 4]
    assert "upload of s failed" in submission.failures[2]
    _assert_secrets_at_home(ce, submission)
    (lost,) = (local for local, name in ce.ever.items() if name.endswith(".2"))
    assert ce.killed == ce.cleaned == {lost}
    assert set(ce.jobs) == _locals(submission)


async def test_an_upload_that_never_ends(autojump_clock: MockClock, ce: FakeSession) -> None:
    async def put(request: Request) -> None:
        if ce.jobs[local_of(request)].endswith(".1"):
            await trio.sleep_forever()

    ce.hooks[Operation.SESSION_PUT] = put
    began = trio.current_time()
    submission = await _submit(ce, copies=_secrets(3), limits={"transfer_timeout": 50})
    assert set(submission.failures) == {1}
    assert "50 s" in submission.failures[1]
    assert set(ce.jobs) == _locals(submission)
    assert trio.current_time() - began <= 50 + CLEANUP


async def test_scattered_failures_are_each_copys_own(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    seen = 0

    async def put(_request: Request) -> None:
        nonlocal seen
        seen += 1
        if seen % 3 == 0:
            raise away()

    ce.hooks[Operation.SESSION_PUT] = put
    submission = await _submit(ce, copies=_secrets(90), concurrency=2)
    assert len(submission.failures) == 30
    _assert_whole(submission, 90)
    assert set(ce.jobs) == _locals(submission)


@pytest.mark.parametrize("back", [True, False])
async def test_the_ce_dies_during_uploads(
    autojump_clock: MockClock, ce: FakeSession, staged: SubmissionSpec, back: bool
) -> None:
    good = 100

    async def put(_request: Request) -> None:
        if ce.count(Operation.SESSION_PUT) > good:
            await trio.sleep(31)
            raise away()

    ce.hooks[Operation.SESSION_PUT] = put
    if not back:
        for operation in (Operation.JOBS_LIST, Operation.JOBS_KILL, Operation.JOBS_CLEAN):
            ce.hooks[operation] = raising(away, after=31)
    began = trio.current_time()
    with pytest.raises(TransportError) as caught:
        await _submit(ce, 1000, spec=staged, concurrency=8)
    assert ce.count(Operation.SESSION_PUT) - good <= 2 * 8
    assert trio.current_time() - began <= 2 * 31 + CLEANUP + 1
    assert caught.value.submission is None
    assert len(ce.ever) == 1000
    if back:
        _assert_all_removed(ce)
        assert caught.value.jobs == ()
    else:
        assert set(caught.value.jobs) == {job_id(CE, local) for local in ce.ever}


async def test_credentials_refused_during_uploads(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    async def put(_request: Request) -> Response | None:
        return NO_SCOPE if ce.count(Operation.SESSION_PUT) > 20 else None

    ce.hooks[Operation.SESSION_PUT] = put
    # Eight uploads fail at one moment; bare, or this would be an ExceptionGroup.
    with pytest.raises(AuthenticationError) as caught:
        await _submit(ce, copies=_secrets(100), concurrency=8)
    _assert_all_removed(ce)
    assert caught.value.jobs == ()
    assert caught.value.submission is None
    assert ce.count(Operation.SESSION_PUT) <= 20 + 8


async def test_many_failures_at_one_moment_are_one_exception(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    refused = trio.Event()

    async def put(_request: Request) -> Response:
        if ce.count(Operation.SESSION_PUT) == 8:
            refused.set()
        await refused.wait()
        return UNKNOWN_USER

    async def new(request: Request) -> Response | None:
        if ce.count(Operation.JOBS_NEW) == 1:
            return None
        await refused.wait()
        ce.create(request)
        return UNKNOWN_USER

    ce.hooks |= {Operation.SESSION_PUT: put, Operation.JOBS_NEW: new}
    with pytest.raises(AuthenticationError):
        await _submit(ce, copies=_secrets(16), concurrency=8, batches={"descriptions": 8})
    assert len(ce.killed & ce.cleaned) >= 8


# Removal that does not succeed.


async def test_a_refused_kill_is_named(
    autojump_clock: MockClock, ce: FakeSession, staged: SubmissionSpec
) -> None:
    ce.hooks[Operation.SESSION_PUT] = answering(Response(500, "disk full"))
    ce.hooks[Operation.JOBS_KILL] = for_each("505")
    with pytest.raises(TransportError) as caught:
        await _submit(ce, spec=staged)
    assert caught.value.jobs == tuple(job_id(CE, local) for local in ce.ever)
    assert caught.value.submission is None


async def test_a_refused_kill_is_named_when_undoing(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    ce.hooks[Operation.SESSION_PUT] = answering(NO_SCOPE)

    async def kill(request: Request) -> Response | None:
        return await for_each("505", only=sorted(ce.ever)[:1])(request)

    ce.hooks[Operation.JOBS_KILL] = kill
    with pytest.raises(AuthenticationError) as caught:
        await _submit(ce, copies=_secrets(3))
    assert caught.value.jobs == (job_id(CE, min(ce.ever)),)
    assert ce.cleaned == set(ce.ever)


async def test_a_refused_kill_is_named_beside_good_copies(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    _failing_for(ce, ".1", Response(500, "disk full"))
    ce.hooks[Operation.JOBS_KILL] = for_each("505")
    submission = await _submit(ce, copies=_secrets(3))
    assert [handle.copy_index for handle in submission.handles] == [0, 2]
    (left,) = (local for local, name in ce.ever.items() if name.endswith(".1"))
    assert job_id(CE, left) in submission.failures[1]
    assert "could not be removed" in submission.failures[1]


async def test_removal_is_tried_again(autojump_clock: MockClock, ce: FakeSession) -> None:
    ce.hooks[Operation.SESSION_PUT] = answering(NO_SCOPE)
    ce.hooks[Operation.JOBS_CLEAN] = once(raising(away))
    with pytest.raises(AuthenticationError) as caught:
        await _submit(ce, copies=_secrets(3))
    _assert_all_removed(ce)
    assert caught.value.jobs == ()


async def test_marks_are_set_twice(autojump_clock: MockClock, ce: FakeSession) -> None:
    """A mark on a job that A-REX is just accepting can be lost."""
    ce.hooks[Operation.SESSION_PUT] = answering(NO_SCOPE)

    async def lose(request: Request) -> Response:
        return reply(
            {"job": [{"status-code": "202", "reason": "Queued", "id": i} for i in ids_of(request)]}
        )

    ce.hooks |= {Operation.JOBS_KILL: once(lose), Operation.JOBS_CLEAN: once(lose)}
    with pytest.raises(AuthenticationError):
        await _submit(ce, copies=_secrets(2))
    _assert_all_removed(ce)


# Cancellation.


async def test_cancelled_before_the_start(autojump_clock: MockClock, ce: FakeSession) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await _submit(ce, 3)
    assert scope.cancelled_caught
    assert ce.calls == []


async def test_cancelled_at_the_last_moment_before_the_request(
    autojump_clock: MockClock, ce: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.CancelScope() as scope:

        async def builder() -> RequestBuilder:
            scope.cancel()
            return RequestBuilder("1.1")

        monkeypatch.setattr(ce, "builder", builder)
        await _submit(ce, 3)
    assert scope.cancelled_caught
    assert ce.calls == []


async def test_cancelled_before_the_second_request(
    autojump_clock: MockClock, ce: FakeSession
) -> None:
    with trio.CancelScope() as scope:

        async def new(_request: Request) -> None:
            scope.cancel()

        ce.hooks[Operation.JOBS_NEW] = new
        await _submit(ce, 4, batches={"instances": 2})
    assert scope.cancelled_caught
    assert ce.count(Operation.JOBS_NEW) == 1
    assert len(ce.ever) == 2
    _assert_all_removed(ce)


@pytest.mark.parametrize("answer_after", [5.0, 10_000.0])
async def test_cancelled_during_the_request(
    autojump_clock: MockClock, ce: FakeSession, answer_after: float
) -> None:
    async def new(request: Request) -> Response:
        made = ce.create(request)
        await trio.sleep(answer_after)
        return reply({"job": [created(local) for local in made]})

    ce.hooks[Operation.JOBS_NEW] = new
    began = trio.current_time()
    with trio.move_on_after(1) as scope:
        await _submit(ce, 3)
    assert scope.cancelled_caught
    assert trio.current_time() - began <= 1 + CLEANUP + 0.01
    _assert_all_removed(ce)


async def test_cancelled_with_the_ce_away(autojump_clock: MockClock, ce: FakeSession) -> None:
    async def new(request: Request) -> None:
        ce.create(request)
        await trio.sleep_forever()

    ce.hooks[Operation.JOBS_NEW] = once(new, after=1)
    for operation in (Operation.JOBS_LIST, Operation.JOBS_KILL, Operation.JOBS_CLEAN):
        ce.hooks[operation] = raising(away, after=31)
    began = trio.current_time()
    with trio.move_on_after(1) as scope:
        await _submit(ce, 4, batches={"instances": 2})
    assert scope.cancelled_caught
    assert trio.current_time() - began <= 1 + CLEANUP + 0.01


@pytest.mark.parametrize("back", [True, False])
async def test_cancelled_during_uploads(
    autojump_clock: MockClock, ce: FakeSession, staged: SubmissionSpec, back: bool
) -> None:
    async def put(_request: Request) -> None:
        if ce.count(Operation.SESSION_PUT) > 5:
            if not began:
                began.append(trio.current_time())
                scope.cancel()
            await trio.sleep_forever()

    ce.hooks[Operation.SESSION_PUT] = put
    if not back:
        for operation in (Operation.JOBS_LIST, Operation.JOBS_KILL, Operation.JOBS_CLEAN):
            ce.hooks[operation] = raising(away, after=31)
    began: list[float] = []
    with trio.CancelScope() as scope:
        await _submit(ce, 20, spec=staged, concurrency=3)
    assert scope.cancelled_caught
    assert trio.current_time() - began[0] <= CLEANUP + 0.01
    assert len(ce.ever) == 20
    assert ce.uploads
    if back:
        _assert_all_removed(ce)

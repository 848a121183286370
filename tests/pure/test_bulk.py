"""Operations on id lists: complete, or an exception."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from arcbackend import AuthenticationError, ProtocolError, TransportError
from arcbackend.bulk import ask_all
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.protocol.responses import JobAnswer
from tests.pure.fake_session import FakeSession, answering, away, ids_of, raising
from tests.pure.replies import BUILDER, NO_SCOPE, job, reply

IDS = [f"j{number:03d}" for number in reversed(range(100))]


@pytest.fixture
def ce() -> FakeSession:
    session = FakeSession()
    session.documented |= dict.fromkeys(IDS, "RUNNING")
    return session


async def _ask(ce: FakeSession, ids: list[str] = IDS, batch: int = 40) -> dict[str, JobAnswer]:
    return await ask_all(ce, BUILDER.status, ids, batch=batch)


def _leaving_out(ce: FakeSession, out: set[str], *, times: int) -> None:
    """The CE says nothing of some ids, the first so many times they are asked."""
    left = dict.fromkeys(out, times)

    async def answer(request: Request) -> Response:
        items = []
        for local in ids_of(request):
            if left.get(local, 0):
                left[local] -= 1
            else:
                items.append(job(local, state="RUNNING"))
        return reply({"job": items})

    ce.hooks[Operation.JOBS_STATUS] = answer


async def test_every_id_has_its_answer_in_order(ce: FakeSession) -> None:
    answers = await _ask(ce)
    assert list(answers) == IDS
    assert {answer.state for answer in answers.values()} == {"RUNNING"}
    asked = ce.asked(Operation.JOBS_STATUS)
    assert max(map(len, asked)) <= 40
    assert sorted(local for part in asked for local in part) == sorted(IDS)


async def test_no_ids_ask_nothing(ce: FakeSession) -> None:
    assert await _ask(ce, []) == {}
    assert ce.calls == []


async def test_missing_ids_are_asked_again(ce: FakeSession) -> None:
    out = {IDS[0], IDS[50], IDS[51], IDS[99]}
    _leaving_out(ce, out, times=1)
    with capture_logs() as logs:
        answers = await _ask(ce)
    assert list(answers) == IDS
    asked = [local for part in ce.asked(Operation.JOBS_STATUS) for local in part]
    assert {local for local in asked if asked.count(local) == 2} == out
    assert len(asked) == len(IDS) + len(out)
    assert [log["count"] for log in logs if log["event"] == "jobs.not_answered"] == [len(out)]


async def test_left_out_twice(ce: FakeSession) -> None:
    out = {IDS[3], IDS[4]}
    _leaving_out(ce, out, times=2)
    with pytest.raises(ProtocolError):
        await _ask(ce)
    asked = [local for part in ce.asked(Operation.JOBS_STATUS) for local in part]
    assert max(asked.count(local) for local in out) == 2  # once more, and no oftener


async def test_what_was_left_out_twice_is_named(ce: FakeSession) -> None:
    async def answer(request: Request) -> Response:
        first = ce.count(Operation.JOBS_STATUS) == 1
        silent = {IDS[3], IDS[4]} if first else {IDS[3]}
        return reply({"job": [job(local) for local in ids_of(request) if local not in silent]})

    ce.hooks[Operation.JOBS_STATUS] = answer
    with pytest.raises(ProtocolError, match=f"1 of 100 jobs unanswered, twice.*{IDS[3]}"):
        await _ask(ce, batch=100)
    assert ce.count(Operation.JOBS_STATUS) == 2


async def test_unexpected_ids_are_logged_and_ignored(ce: FakeSession) -> None:
    async def answer(request: Request) -> Response:
        items = [job(local, state="RUNNING") for local in (*ids_of(request), "stranger")]
        return reply({"job": items})

    ce.hooks[Operation.JOBS_STATUS] = answer
    with capture_logs() as logs:
        answers = await _ask(ce, batch=100)
    assert list(answers) == IDS
    unasked = [log for log in logs if log["event"] == "jobs.answered_unasked"]
    assert [log["jobs"] for log in unasked] == [("stranger",)]


@pytest.mark.parametrize("error", [TransportError, AuthenticationError])
async def test_one_exception_of_many_requests(ce: FakeSession, error: type[Exception]) -> None:
    ce.hooks[Operation.JOBS_STATUS] = (
        raising(away) if error is TransportError else answering(NO_SCOPE)
    )
    with pytest.raises(error):
        await _ask(ce, batch=5)

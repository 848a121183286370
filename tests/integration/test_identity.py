"""Who we are to the CE: authentication failures, scopes, and two users in one process."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Self

import pytest

from arcbackend import (
    ARCBackend,
    AuthenticationError,
    BearerToken,
    CredentialRequirements,
    CredentialSet,
    JobID,
    JobStatus,
)
from tests.integration.ce import RealCE
from tests.integration.jobs import TRUE, counted_requests, over

pytestmark = pytest.mark.slurm


class Changing:
    """A provider whose token the test changes."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.asked: list[frozenset[str]] = []

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        self.asked.append(requirements.scopes)
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        return CredentialSet(token=BearerToken(value=token))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


def _bad(ce: RealCE, kind: str) -> str:
    if kind == "expired":
        return ce.token(lifetime=-3600)
    return "garbage" if kind == "garbage" else ce.token().rsplit(".", 1)[0] + ".c2lnbmF0dXJl"


@pytest.mark.parametrize("kind", ["garbage", "unsigned", "expired"])
async def test_a_bad_token_is_one_request_and_a_good_one_works_at_once(
    ce: RealCE, kind: str
) -> None:
    """The CE spoils the connection of a refused token: the good one must not meet it."""
    provider = Changing(_bad(ce, kind))
    async with ARCBackend(ce.config(concurrency=1), provider) as backend:
        unknown = JobID(f"{ce.endpoint}/arex/rest/1.0/jobs/nosuchjob")
        with counted_requests() as requests, pytest.raises(AuthenticationError) as caught:
            await backend.submit(TRUE)
        assert requests == Counter({"versions": 1, "jobs.new": 1})
        assert caught.value.ce == ce.endpoint
        assert caught.value.operation == "jobs.new"
        assert caught.value.missing_scope is False
        assert "garbage" not in str(caught.value)
        provider.tokens = [ce.token()]
        assert await backend.status([unknown]) == {unknown: JobStatus.UNKNOWN}


async def test_no_token_sends_nothing(ce: RealCE) -> None:
    async with ARCBackend(ce.config(rest_version="1.1"), Changing("")) as backend:
        with counted_requests() as requests, pytest.raises(AuthenticationError):
            await backend.submit(TRUE)
        assert requests == Counter()


async def test_a_token_that_is_refused_is_replaced_within_the_call(ce: RealCE) -> None:
    provider = Changing(ce.token(lifetime=-60).rsplit(".", 1)[0] + ".eA", ce.token())
    async with ARCBackend(ce.config(), provider) as backend:
        with counted_requests() as requests:
            submission = await backend.submit(TRUE)
        assert requests == Counter({"versions": 1, "jobs.new": 2})
        assert len(submission.handles) == 1
        await over(backend, submission.handles)
        await backend.purge(submission.handles)


async def test_each_operation_needs_its_scope_and_names_it(ce: RealCE) -> None:
    """Tokens with exactly the scopes of one operation; the error names the one that is lacking."""
    async with (
        ce.backend(ce.token(scopes=["compute.create"])) as creating,
        ce.backend(ce.token(scopes=["compute.read"])) as reading,
        ce.backend(ce.token(scopes=["compute.read", "compute.cancel"])) as cancelling,
    ):
        (handle,) = (await creating.submit(TRUE)).handles
        for call in (creating.status, creating.kill, creating.purge):
            with pytest.raises(AuthenticationError) as caught:
                await call([handle])
            assert (caught.value.scope, caught.value.missing_scope) == ("compute.read", True)
        with pytest.raises(AuthenticationError) as caught:
            await reading.submit(TRUE)
        assert (caught.value.scope, caught.value.missing_scope) == ("compute.create", True)
        await over(reading, [handle])
        with pytest.raises(AuthenticationError) as caught:
            await reading.purge([handle])
        assert (caught.value.scope, caught.value.missing_scope) == ("compute.cancel", True)
        assert (await cancelling.purge([handle]))[handle.id].ok


async def test_two_users_in_one_process_never_see_each_others_jobs(ce: RealCE) -> None:
    """A-REX gives all requests on a connection to whom its first one belonged."""
    async with (
        ce.backend(ce.token(subject="test-user")) as one,
        ce.backend(ce.token(subject="other-user")) as other,
    ):
        for _ in range(3):
            (mine,) = (await one.submit(TRUE)).handles
            (theirs,) = (await other.submit(TRUE)).handles
            assert (await one.status([theirs]))[theirs.id] is JobStatus.UNKNOWN
            assert (await other.status([mine]))[mine.id] is JobStatus.UNKNOWN
            assert (await other.kill([mine]))[mine.id].ok is False
            assert (await other.purge([mine]))[mine.id].ok is False
            assert (await over(one, [mine])) == {mine.id: JobStatus.DONE}
            assert (await over(other, [theirs])) == {theirs.id: JobStatus.DONE}
            await one.purge([mine])
            await other.purge([theirs])


async def test_one_backend_whose_token_changes_user_changes_connection(ce: RealCE) -> None:
    provider = Changing(ce.token(subject="test-user"))
    config = ce.config(concurrency=1, freshness_margin=80_000)  # so that each call asks anew
    async with ARCBackend(config, provider) as backend:
        (mine,) = (await backend.submit(TRUE)).handles
        await over(backend, [mine])
        provider.tokens = [ce.token(subject="other-user")]
        assert (await backend.status([mine]))[mine.id] is JobStatus.UNKNOWN
        provider.tokens = [ce.token(subject="test-user")]
        assert (await backend.status([mine]))[mine.id] is JobStatus.DONE
        await backend.purge([mine])

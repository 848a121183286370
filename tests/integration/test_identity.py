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
from tests.integration.ce import CE
from tests.integration.jobs import TRUE, counted_requests, over

pytestmark = pytest.mark.slurm


def token(value: str) -> CredentialSet:
    return CredentialSet(token=BearerToken(value=value))


class Changing:
    """A provider whose credentials the test changes; of several, it gives each once."""

    def __init__(self, *held: CredentialSet) -> None:
        self.held = list(held)
        self.asked: list[frozenset[str]] = []

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        self.asked.append(requirements.scopes)
        return self.held.pop(0) if len(self.held) > 1 else self.held[0]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


def _bad(ce: CE, kind: str) -> str:
    if kind == "expired":
        return ce.token(lifetime=-3600)
    return "garbage" if kind == "garbage" else ce.token().rsplit(".", 1)[0] + ".c2lnbmF0dXJl"


@pytest.mark.token
@pytest.mark.parametrize("kind", ["garbage", "unsigned", "expired"])
async def test_a_bad_token_is_one_request_and_a_good_one_works_at_once(ce: CE, kind: str) -> None:
    """The CE spoils the connection of a refused token: the good one must not meet it."""
    provider = Changing(token(_bad(ce, kind)))
    async with ARCBackend(ce.config(auth="token", concurrency=1), provider) as backend:
        unknown = JobID(f"{ce.endpoint}/arex/rest/1.0/jobs/nosuchjob")
        with counted_requests() as requests, pytest.raises(AuthenticationError) as caught:
            await backend.submit(TRUE)
        assert requests == Counter({"versions": 1, "jobs.new": 1})
        assert caught.value.ce == ce.endpoint
        assert caught.value.operation == "jobs.new"
        assert caught.value.missing_scope is False
        assert "garbage" not in str(caught.value)
        provider.held = [token(ce.token())]
        assert await backend.status([unknown]) == {unknown: JobStatus.UNKNOWN}


@pytest.mark.token
async def test_no_token_sends_nothing(ce: CE) -> None:
    config = ce.config(auth="token", rest_version="1.1")
    async with ARCBackend(config, Changing(token(""))) as backend:
        with counted_requests() as requests, pytest.raises(AuthenticationError):
            await backend.submit(TRUE)
        assert requests == Counter()


@pytest.mark.token
async def test_a_token_that_is_refused_is_replaced_within_the_call(ce: CE) -> None:
    bad = ce.token(lifetime=-60).rsplit(".", 1)[0] + ".eA"
    provider = Changing(token(bad), token(ce.token()))
    async with ARCBackend(ce.config(auth="token"), provider) as backend:
        with counted_requests() as requests:
            submission = await backend.submit(TRUE)
        assert requests == Counter({"versions": 1, "jobs.new": 2})
        assert len(submission.handles) == 1
        await over(backend, submission.handles)
        await backend.purge(submission.handles)


@pytest.mark.token
async def test_each_operation_needs_its_scope_and_names_it(ce: CE) -> None:
    """Tokens with exactly the scopes of one operation; the error names the one that is lacking."""
    async with (
        ce.backend(token(ce.token(scopes=["compute.create"])), auth="token") as creating,
        ce.backend(token(ce.token(scopes=["compute.read"])), auth="token") as reading,
        ce.backend(
            token(ce.token(scopes=["compute.read", "compute.cancel"])), auth="token"
        ) as cancelling,
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


async def test_two_users_in_one_process_never_see_each_others_jobs(ce: CE) -> None:
    """A-REX gives all requests on a connection to whom its first one belonged."""
    async with (
        ce.backend(ce.credentials("test-user")) as one,
        ce.backend(ce.credentials("other-user")) as other,
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


async def test_one_backend_whose_user_changes_changes_connection(ce: CE) -> None:
    provider = Changing(ce.credentials("test-user"))
    config = ce.config(concurrency=1, freshness_margin=80_000)  # so that each call asks anew
    async with ARCBackend(config, provider) as backend:
        (mine,) = (await backend.submit(TRUE)).handles
        await over(backend, [mine])
        provider.held = [ce.credentials("other-user")]
        assert (await backend.status([mine]))[mine.id] is JobStatus.UNKNOWN
        provider.held = [ce.credentials("test-user")]
        assert (await backend.status([mine]))[mine.id] is JobStatus.DONE
        await backend.purge([mine])
